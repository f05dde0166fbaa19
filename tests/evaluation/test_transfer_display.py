import numpy as np
import pandas as pd
import pytest
from _drawn import find_overlapping_texts
from matplotlib.figure import Figure
from sklearn.linear_model import LogisticRegression

from plug_sklearn import TransferDisplay, transfer_matrix

NAMES = ["cities", "cities, negated", "chemical elements", "books"]
MATRIX = pd.DataFrame(
    np.array(
        [
            [0.95, 0.05, 0.8, np.nan],
            [0.1, 0.9, 0.5, 0.6],
            [0.7, 0.4, 0.85, 0.5],
            [0.6, 0.5, 0.5, 0.75],
        ]
    ),
    index=NAMES,
    columns=NAMES,
)


def test_cells_hold_the_numbers_and_rows_are_what_was_trained_on() -> None:
    display = TransferDisplay(MATRIX, score="roc_auc", chance=0.5).plot()
    texts = [[text.get_text() for text in row] for row in display.texts_]
    assert texts[0] == ["0.95", "0.05", "0.80", "-"]
    labels = [label.get_text() for label in display.ax_.get_yticklabels()]
    assert labels == NAMES
    assert display.ax_.get_ylabel() == "Trained on"
    assert np.array_equal(display.image_.get_array().filled(np.nan), MATRIX, True)


def test_names_and_numbers_do_not_overlap() -> None:
    short = {name: f"table {n}" for n, name in enumerate(NAMES)}
    matrix = MATRIX.rename(index=short, columns=short)
    display = TransferDisplay(matrix, score="roc_auc", chance=0.5).plot()
    assert find_overlapping_texts(display.figure_) == []


def test_chance_is_white_and_what_is_inverted_is_red() -> None:
    display = TransferDisplay(MATRIX, chance=0.5).plot()
    shade = {
        score: display.image_.cmap(display.image_.norm(score))
        for score in (0.05, 0.5, 0.95)
    }
    assert min(shade[0.5][:3]) > 0.95
    red, _, blue, _ = shade[0.05]
    assert red > blue
    red, _, blue, _ = shade[0.95]
    assert blue > red


def test_numbers_can_be_read_on_their_ground() -> None:
    display = TransferDisplay(MATRIX, chance=0.5).plot()
    assert display.texts_[0][0].get_color() == "white"
    assert display.texts_[1][2].get_color() == "black"


def test_from_estimator_finds_chance_and_draws_where_it_is_told(
    figure: Figure,
) -> None:
    rng = np.random.default_rng(0)
    y = np.arange(40) % 4 == 0
    datasets = {name: (rng.normal(size=(40, 3)), y) for name in "ab"}
    axes = figure.subplots()
    display = TransferDisplay.from_estimator(
        LogisticRegression(), datasets, scoring="accuracy", cv=2, ax=axes
    )
    assert display.ax_ is axes
    assert display.chance == 0.75
    expected = transfer_matrix(LogisticRegression(), datasets, scoring="accuracy", cv=2)
    assert display.matrix.equals(expected)


@pytest.mark.parametrize("matrix", [[[1.0]], MATRIX.iloc[:2], MATRIX.iloc[:0, :0]])
def test_other_tables_are_refused(matrix: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="'matrix' parameter of TransferDisplay must"):
        TransferDisplay(matrix)


@pytest.mark.usefixtures("no_matplotlib")
def test_missing_matplotlib_is_told_before_anything_is_computed() -> None:
    with pytest.raises(ImportError, match=r"its extra \[plots\]"):
        TransferDisplay.from_estimator(LogisticRegression(), {})
