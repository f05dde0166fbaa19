import numpy as np
import pandas as pd
import pytest

from plug_sklearn.evaluation._tables import check_score, check_table, find_score

COLUMNS = ["fold", "a", "a_chance", "b", "fit_time"]


def test_the_first_score_is_drawn_unless_another_is_named() -> None:
    table = pd.DataFrame([[0, 0.5, 0.5, 0.7, 1]], columns=COLUMNS)
    assert find_score(table, None, "table", "Display") == "a"
    assert find_score(table, "b", "table", "Display") == "b"
    for wrong in ("a_chance", "c"):
        with pytest.raises(
            ValueError, match=r"'score' parameter of Display .*'a', 'b'"
        ):
            find_score(table, wrong, "table", "Display")
    with pytest.raises(ValueError, match="'score' parameter"):
        find_score(pd.DataFrame(columns=["loss"]), None, "table", "Display")


def test_a_score_that_is_nowhere_a_number_is_refused() -> None:
    table = pd.DataFrame([[0, np.nan, 0.5, 0.7, 1]], columns=COLUMNS)
    with pytest.raises(
        ValueError, match=r"'table' parameter of Display .* none of 'a'"
    ):
        find_score(table, None, "table", "Display")
    assert find_score(table, "b", "table", "Display") == "b"


@pytest.mark.parametrize(
    ("scoring", "score"),
    [
        (None, "score"),
        ("roc_auc", "roc_auc"),
        (["roc_auc", "f1"], "f1"),
        ({"hits": "accuracy"}, "hits"),
    ],
)
def test_a_score_that_will_not_be_there_is_refused(scoring: object, score: str) -> None:
    check_score(scoring, score, "Display")
    check_score(scoring, None, "Display")
    check_score(max, "anything", "Display")
    with pytest.raises(ValueError, match=r"'score' parameter of Display .* Got 'other"):
        check_score(scoring, "other", "Display")


@pytest.mark.parametrize("table", [[1, 2], pd.DataFrame(columns=["fold"]), None])
def test_a_table_of_another_kind_is_refused(table: object) -> None:
    with pytest.raises(
        ValueError, match=r"'table' parameter of Display .* as make_table returns it"
    ):
        check_table(table, COLUMNS, "table", "Display", "make_table")
