from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline

from plug_sklearn import HFEmbeddingTransformer, LayerAggregator, transfer_matrix

RNG = np.random.default_rng(0)
Y = np.arange(60) % 2
GROUPS = np.arange(60) // 6


def make_rows(shift: float) -> np.ndarray:
    rows: np.ndarray = RNG.normal(size=(60, 2, 1, 4))
    rows[:, 1, 0, 0] += shift * Y
    return rows


X = make_rows(1)
DATASETS: dict[Any, Any] = {"same": (X, Y), "other": (make_rows(2), Y), 3: (-X, Y)}
PROBE = make_pipeline(LayerAggregator(layers=[1]), LogisticRegression())


def test_scores_are_those_of_fits_by_hand() -> None:
    cv = GroupKFold(3)
    groups = dict.fromkeys(DATASETS, GROUPS)
    matrix = transfer_matrix(PROBE, DATASETS, cv=cv, groups=groups, scoring="roc_auc")
    assert list(matrix.index) == list(matrix.columns) == list(DATASETS)
    assert (matrix.index.name, matrix.columns.name) == ("trained_on", "tested_on")
    for trained_on, (X, y) in DATASETS.items():
        fitted = PROBE.fit(X, y)
        for tested_on, (other, truth) in DATASETS.items():
            if tested_on == trained_on:
                by_fold = cross_val_score(
                    PROBE, X, y, cv=cv, groups=GROUPS, scoring="roc_auc"
                )
                expected = by_fold.mean()
            else:
                expected = roc_auc_score(truth, fitted.predict_proba(other)[:, 1])
            assert matrix.loc[trained_on, tested_on] == pytest.approx(expected)


def test_each_distinct_text_is_read_once(
    llama: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"{word} is here." for word in "abcdefgh"]
    y = np.array([0, 1] * 4)
    read: list[int] = []
    transform = HFEmbeddingTransformer.transform

    def count(self: HFEmbeddingTransformer, X: Sequence[str]) -> np.ndarray:
        read.append(len(X))
        return transform(self, X)

    monkeypatch.setattr(HFEmbeddingTransformer, "transform", count)
    embedder = HFEmbeddingTransformer(llama, layers=[1], device="cpu")
    probe = make_pipeline(embedder, *(step for _, step in PROBE.steps))
    probe.set_params(layeraggregator__layers="all")
    series = pd.Series(texts, index=range(5, 13))
    found = transfer_matrix(probe, {"a": (texts, y), "b": (series, 1 - y)}, cv=2)
    assert read == [16]
    activations = embedder.fit_transform(texts)
    expected = transfer_matrix(
        probe[1:], {"a": (activations, y), "b": (activations, 1 - y)}, cv=2
    )
    assert found.equals(expected)


def test_groups_reach_folds_and_fits() -> None:
    seen = []

    class Grouped(LogisticRegression):
        def fit(
            self, X: np.ndarray, y: np.ndarray, groups: Sequence[int] | None = None
        ) -> "Grouped":
            seen.append(None if groups is None else len(groups))
            return super().fit(X, y)

    flat = {name: (X.reshape(60, -1), y) for name, (X, y) in list(DATASETS.items())[:2]}
    transfer_matrix(
        Grouped(), flat, cv=GroupKFold(2), groups=dict.fromkeys(flat, GROUPS)
    )
    assert seen == [60, 30, 30] * 2


def test_regressors_and_workers_are_taken() -> None:
    flat = {name: (X.reshape(60, -1), Y * 0.5) for name, (X, _) in DATASETS.items()}
    one, two = (transfer_matrix(Ridge(), flat, cv=3, n_jobs=n) for n in (None, 2))
    assert one.equals(two)
    fitted = Ridge().fit(*flat["same"])
    assert one.loc["same", "other"] == pytest.approx(fitted.score(*flat["other"]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"datasets": [(X, Y)]}, "'datasets' parameter of transfer_matrix .* Got list"),
        ({"datasets": {"a": (X, Y)}}, "Got a dict of length 1"),
        (
            {"datasets": {"a": (X, Y), "b": X}},
            r"Got ndarray of shape .* for 'b'",
        ),
        ({"datasets": {"a": (X, Y), "b": (X, Y, Y)}}, "Got 3 items for 'b' instead"),
        ({"datasets": {"a": (X, Y), "b": (X, Y + 1)}}, r"\[0, 1\] in 'a' and \[1, 2\]"),
        (
            {"datasets": {"a": (X, Y), "b": (X, Y[1:])}},
            "'y' parameter.* each of the 60",
        ),
        ({"groups": GROUPS}, "'groups' parameter of transfer_matrix .* Got ndarray"),
        ({"groups": {"sane": GROUPS}}, r"Got \['sane'\] instead"),
        ({"scoring": ["roc_auc", "accuracy"]}, "must be one score"),
        ({"scoring": "roc_acu"}, "roc_acu"),
    ],
)
def test_bad_input_is_refused(arguments: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"estimator": PROBE, "datasets": DATASETS, **arguments}
    with pytest.raises(ValueError, match=message):
        transfer_matrix(**given)
