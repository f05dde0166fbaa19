import numpy as np
import pandas as pd
import pytest
from _drawn import find_overlapping_texts
from matplotlib.figure import Figure
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from plug_sklearn import ControlsDisplay, LayerAggregator

NAMES = (
    "probe",
    "majority",
    "text_length",
    "bag_of_words",
    "tf_idf",
    "shuffled_labels",
    "first_layer",
    "random_weights",
)
TABLE = pd.DataFrame(
    [
        (control, fold, 0.9 - 0.05 * number + 0.02 * fold, -0.5 - 0.1 * number, 0.1)
        for number, control in enumerate(NAMES)
        for fold in range(3)
    ],
    columns=["control", "fold", "roc_auc", "neg_log_loss", "fit_time"],
)


def test_bars_are_means_and_points_are_folds() -> None:
    display = ControlsDisplay(TABLE).plot()
    widths = [bar.get_width() for bar in display.bars_]
    expected = [0.92 - 0.05 * number for number in range(8)]
    assert widths == pytest.approx(expected)
    assert display.points_.get_xdata().tolist() == TABLE["roc_auc"].tolist()
    labels = [label.get_text() for label in display.ax_.get_yticklabels()]
    assert labels[:5] == [
        "Probe",
        "Majority",
        "Text length",
        "Bag of words",
        "TF-IDF",
    ]
    assert display.ax_.get_xlabel() == "ROC AUC (bar: mean; points: 3 folds)"
    assert find_overlapping_texts(display.figure_) == []


def test_summary_tells_the_lead_of_the_probe_and_selectivity() -> None:
    display = ControlsDisplay(TABLE, score="neg_log_loss")
    means = TABLE.groupby("control")["neg_log_loss"].mean()
    for control, row in display.summary_.iterrows():
        assert row["mean"] == pytest.approx(means[control])
        assert row["lead"] == pytest.approx(means["probe"] - means[control])
    assert display.selectivity_ == pytest.approx(0.5)
    without = TABLE[TABLE["control"] != "shuffled_labels"]
    assert ControlsDisplay(without).selectivity_ is None


def test_from_estimator_draws_where_it_is_told(figure: Figure) -> None:
    X = np.random.default_rng(0).normal(size=(40, 2, 1, 4))
    probe = make_pipeline(LayerAggregator(layers=[1]), LogisticRegression())
    axes = figure.subplots()
    display = ControlsDisplay.from_estimator(
        probe, X, np.arange(40) % 2, controls=["majority"], ax=axes
    )
    assert display.ax_ is axes
    assert len(display.bars_) == 2


def test_other_tables_are_refused() -> None:
    with pytest.raises(ValueError, match="as probe_controls returns it"):
        ControlsDisplay(TABLE.drop(columns="control"))
    with pytest.raises(ValueError, match="must have rows of the control 'probe'"):
        ControlsDisplay(TABLE[TABLE["control"] != "probe"])
    with pytest.raises(ValueError, match="'score' parameter of ControlsDisplay"):
        ControlsDisplay(TABLE, score="f1")


@pytest.mark.usefixtures("no_matplotlib")
def test_missing_matplotlib_is_told_before_anything_is_computed() -> None:
    with pytest.raises(ImportError, match=r"its extra \[plots\]"):
        ControlsDisplay.from_estimator(LogisticRegression(), [[[1.0]]], [0])
