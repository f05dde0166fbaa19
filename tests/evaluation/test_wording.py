import pytest

from plug_sklearn.evaluation._wording import (
    name_part,
    name_score,
    write_folds,
    write_score,
)


@pytest.mark.parametrize(
    ("score", "label"),
    [
        ("roc_auc", "ROC AUC"),
        ("roc_auc_ovr", "ROC AUC OvR"),
        ("neg_brier_score", "Negative Brier score"),
        ("accuracy", "Accuracy"),
    ],
)
def test_scores_go_by_names_that_people_use(score: str, label: str) -> None:
    assert name_score(score) == label


@pytest.mark.parametrize(
    ("value", "written"),
    [(0.9, "0.90"), (-0.126, "-0.13"), (-1234567.8, "-1.23e+06"), (150.2, "150")],
)
def test_scores_are_written_in_few_figures(value: float, written: str) -> None:
    assert write_score(value) == written


def test_one_fold_is_one() -> None:
    assert [write_folds(n) for n in (1, 2)] == ["1 fold", "2 folds"]


def test_a_part_without_a_name_goes_by_its_position() -> None:
    assert [name_part(part) for part in ("mlp", 0)] == ["mlp", "part 0"]
