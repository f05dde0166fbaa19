import numpy as np
import pytest
from _drawn import find_overlapping_texts
from matplotlib.figure import Figure
from numpy.testing import assert_allclose
from sklearn.calibration import CalibrationDisplay
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from plug_sklearn import (
    ReliabilityDisplay,
    calibration_bins,
    expected_calibration_error,
)

RNG = np.random.default_rng(0)
Y = RNG.integers(2, size=300)
P = np.clip(0.6 * Y + RNG.normal(0.2, 0.2, size=300), 0, 1)
Y3 = RNG.integers(3, size=300)
P3 = RNG.dirichlet(np.ones(3), size=300)


def test_two_classes_are_drawn_as_by_scikit_learn(figure: Figure) -> None:
    one, other = figure.subplots(2)
    found = ReliabilityDisplay.from_predictions(Y, P, n_bins=7, ax=one)
    expected = CalibrationDisplay.from_predictions(Y, P, n_bins=7, ax=other)
    assert_allclose(found.line_.get_xydata(), expected.line_.get_xydata())


def test_more_classes_are_drawn_by_confidence(figure: Figure) -> None:
    display = ReliabilityDisplay.from_predictions(Y3, P3, ax=figure.subplots())
    bins = calibration_bins(Y3, P3)
    assert_allclose(display.line_.get_xdata(), bins["probability"])
    assert_allclose(display.line_.get_ydata(), bins["frequency"])
    assert display.ax_.get_ylabel() == "Fraction of predictions that are right"


def test_it_holds_the_probabilities_in_its_bins(figure: Figure) -> None:
    display = ReliabilityDisplay.from_predictions(Y3, P3, ax=figure.subplots())
    assert_allclose(display.y_prob, P3.max(axis=1))


@pytest.mark.parametrize("method", ["confidence", "positive"])
def test_the_legend_gives_the_error_of_the_bins_that_are_drawn(
    method: str, figure: Figure
) -> None:
    display = ReliabilityDisplay.from_predictions(
        Y, P, method=method, name="probe", ax=figure.subplots()
    )
    ece = expected_calibration_error(Y, P, method=method)
    assert display.ece == ece
    texts = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert texts == ["Perfectly calibrated", f"probe (ECE = {ece:.3f})"]


def test_a_classifier_goes_by_its_name_and_its_classes(figure: Figure) -> None:
    names = np.array(["no", "yes"])[Y]
    probe = LogisticRegression().fit(P[:, None], names)
    display = ReliabilityDisplay.from_estimator(
        probe, P[:, None], names, ax=figure.subplots()
    )
    expected = calibration_bins(
        Y, probe.predict_proba(P[:, None])[:, 1], method="positive"
    )
    assert_allclose(display.line_.get_ydata(), expected["frequency"])
    assert display.line_.get_label().startswith("LogisticRegression (ECE = ")


def test_two_probes_share_axes(figure: Figure) -> None:
    axes = figure.subplots()
    ReliabilityDisplay.from_predictions(Y, P, name="one", ax=axes)
    display = ReliabilityDisplay.from_predictions(Y, P**2, name="other", ax=axes)
    assert display.ax_ is axes
    assert display.figure_ is figure
    assert len(axes.get_legend().get_texts()) == 3


def test_curves_on_the_same_axes_can_be_told_apart(figure: Figure) -> None:
    axes = figure.subplots()
    looks = {
        (line.get_color(), line.get_linestyle(), line.get_marker())
        for power in range(1, 8)
        for line in [ReliabilityDisplay.from_predictions(Y, P**power, ax=axes).line_]
    }
    assert len(looks) == 7


def test_a_curve_looks_as_it_is_told_to(figure: Figure) -> None:
    line = ReliabilityDisplay.from_predictions(
        Y, P, ax=figure.subplots(), c="red", ls="--"
    ).line_
    assert (line.get_color(), line.get_linestyle()) == ("red", "--")


def test_a_legend_of_long_names_leaves_the_curves_free() -> None:
    axes = None
    for power in range(1, 6):
        display = ReliabilityDisplay.from_predictions(
            Y, P**power, name=f"a classifier with a long name, number {power}", ax=axes
        )
        axes = display.ax_
    assert find_overlapping_texts(display.figure_) == []
    legend = display.ax_.get_legend().get_window_extent()
    assert legend.y1 < display.ax_.get_window_extent().y0


def test_no_texts_overlap() -> None:
    display = ReliabilityDisplay.from_predictions(Y3, P3, name="a probe")
    assert find_overlapping_texts(display.figure_) == []
    assert display.figure_.get_figwidth() * 100 == 600


@pytest.mark.parametrize("wrong", [{"n_bins": 0}, {"method": "none"}, {"y_proba": 2}])
def test_bad_input_is_named(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"of ReliabilityDisplay\.from_predictions"):
        ReliabilityDisplay.from_predictions(**{"y_true": [1], "y_proba": [2], **wrong})


def test_a_classifier_without_probabilities_is_refused() -> None:
    probe = LinearSVC().fit(P[:, None], Y)
    with pytest.raises(ValueError, match=r"from_estimator must predict .* LinearSVC"):
        ReliabilityDisplay.from_estimator(probe, P[:, None], Y)


def test_what_are_no_bins_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'bins' parameter of ReliabilityDisplay"):
        ReliabilityDisplay([0.5], 0.1)


@pytest.mark.usefixtures("no_matplotlib")
def test_without_matplotlib_the_extra_is_named() -> None:
    for call in (
        ReliabilityDisplay.from_predictions,
        lambda y, p: ReliabilityDisplay.from_estimator(LogisticRegression(), p, y),
    ):
        with pytest.raises(ImportError, match=r"its extra \[plots\]"):
            call(Y, P)
