"""What a report refuses before the first fit."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from _readable import GROUPS, X, Y
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, make_scorer, roc_auc_score

from plug_sklearn import cross_validation_report

FEATURES = X[:, 1, 0].astype(np.float64)
NAMES = np.array(["ant", "bee", "cat"])


class Unfit(LogisticRegression):
    """Must not be fitted."""

    def fit(self, X: object, y: object) -> "Unfit":
        raise AssertionError


MISSING = np.where(np.arange(len(Y)) == 7, None, NAMES[Y])


@pytest.mark.parametrize(
    ("y", "groups", "scoring", "message"),
    [
        (
            MISSING,
            None,
            None,
            r"'y' parameter .* each row. Got 1 missing, at rows \[7\]",
        ),
        (pd.Series(MISSING), None, None, "'y' parameter"),
        (pd.Series(MISSING, dtype="string"), None, None, "'y' parameter"),
        (pd.Series(MISSING, dtype="category"), None, None, "'y' parameter"),
        (np.where(np.arange(120) == 7, np.nan, Y), None, None, "'y' parameter"),
        (pd.Series(np.where(np.arange(120) == 7, None, Y)), None, None, "Got 1 miss"),
        (Y + 0.5 * (np.arange(120) % 3), None, None, "Got continuous values"),
        (np.array([1, "one"] * 60, dtype=object), None, None, "of one type. Got"),
        (np.zeros(120), None, None, "two classes or more"),
        (Y[:-1], None, None, "inconsistent numbers of samples"),
        (Y, GROUPS[:-1], None, "inconsistent numbers of samples"),
        (Y, np.where(GROUPS == 1, np.nan, GROUPS), None, "'groups' parameter"),
        (Y, None, "acuracy", "'acuracy' is not a valid scoring value"),
        (Y, None, ["accuracy", "acuracy"], "acuracy"),
        (Y, None, {"a": "acuracy"}, "acuracy"),
        (Y, None, roc_auc_score, "make_scorer"),
        (Y, None, [make_scorer(accuracy_score)], "strings"),
        (Y, None, [], "(?i)empty"),
    ],
)
def test_bad_input_is_refused_before_the_first_fit(
    y: Any,  # noqa: ANN401
    groups: Any,  # noqa: ANN401
    scoring: Any,  # noqa: ANN401
    message: str,
    tmp_path: Path,
) -> None:
    with pytest.raises(ValueError, match=message):
        cross_validation_report(
            Unfit(),
            FEATURES,
            y,
            groups=groups,
            scoring=scoring,
            cv=[(np.arange(60), np.arange(60, 120))],
            out_dir=tmp_path / "run",
        )
    assert not (tmp_path / "run").exists()
