from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from _written import fit_probe
from matplotlib.colors import to_rgb
from numpy.testing import assert_allclose

from plug_sklearn import GenerationDisplay, ProbedText


@pytest.fixture(autouse=True)
def close_figures() -> Iterator[None]:
    yield
    plt.close("all")


def make_answer(n_tokens: int = 5, names: tuple[str, ...] = ("probe",)) -> ProbedText:
    seen = np.linspace(0.1, 0.9, n_tokens)
    found = {name: np.stack([1 - seen, seen], axis=1) for name in names}
    return ProbedText(
        text="x" * n_tokens,
        token_ids=list(range(n_tokens)),
        tokens=[" a", "\n", "", "$\x19", "b" * 30, *["c"] * n_tokens][:n_tokens],
        probabilities=found,
        prompt_probabilities=dict.fromkeys(names, np.array([0.8, 0.2])),
        stopped_by="length",
        classes={name: ["true", "false"] for name in names},
    )


def test_the_line_is_the_probability_of_the_last_class_from_the_prompt_on() -> None:
    answer = make_answer()
    display = GenerationDisplay(answer, stop={"probe": 0.7}).plot()
    places, seen = display.lines_["probe"].get_data()
    assert_allclose(places, np.arange(-1, 5))
    assert_allclose(seen, [0.2, *answer.probabilities["probe"][:, 1]])
    assert display.ax_.get_ylabel() == "Probability of 'false'"
    levels = [line.get_ydata()[0] for line in display.ax_.lines[1:]]
    assert 0.7 in levels


def test_tokens_stand_on_ground_that_darkens_with_the_probability() -> None:
    display = GenerationDisplay(make_answer()).plot()
    labels = display.ax_.get_xticklabels()
    assert [label.get_text() for label in labels] == [
        "prompt",
        " a",
        "↵",
        "·",
        "\\$\ufffd",
        "bbbbbbbbbbbbb…",
    ]
    colors = [to_rgb(label.get_bbox_patch().get_facecolor()) for label in labels[1:]]
    blues = [color[2] for color in colors]
    assert blues == sorted(blues, reverse=True)
    assert blues[0] > blues[-1] + 0.5
    display.figure_.canvas.draw()


def test_several_probes_have_lines_that_differ_and_a_legend() -> None:
    display = GenerationDisplay(make_answer(names=("a", "b"))).plot()
    styles = {(one.get_color(), one.get_linestyle()) for one in display.lines_.values()}
    assert len(styles) == 2
    texts = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert texts == ["a: false", "b: false"]


def test_names_that_mean_something_to_matplotlib_are_shown_as_they_are() -> None:
    names = (r"$\frac{", "_hidden")
    display = GenerationDisplay(make_answer(names=names)).plot()
    display.figure_.canvas.draw()
    texts = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert texts == [rf"{names[0]}: false", "_hidden: false"]


def test_labels_of_a_long_answer_do_not_overlap() -> None:
    _, ax = plt.subplots(figsize=(4, 3))
    display = GenerationDisplay(make_answer(n_tokens=300)).plot(ax=ax)
    assert display.ax_ is ax
    display.figure_.canvas.draw()
    boxes = [label.get_window_extent() for label in ax.get_xticklabels()]
    for one, other in pairwise(boxes):
        assert one.x1 <= other.x0 + 1


def test_an_answer_is_written_and_drawn_at_once(writer: str) -> None:
    display = GenerationDisplay.from_estimator(
        fit_probe(writer), "The city", max_new_tokens=4, stop={"probe": 1.0}
    )
    assert len(display.answer.tokens) == 4
    assert len(display.lines_["probe"].get_xdata()) == 5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: GenerationDisplay([make_answer()]),
            "a list with one for each prompt. Got list instead",
        ),
        (lambda: GenerationDisplay(make_answer(), stop={"x": 0.5}), "'stop' parameter"),
        (
            lambda: GenerationDisplay(make_answer(), stop=0.5),
            "None or a dict of thresh",
        ),
        (lambda: GenerationDisplay(make_answer(), stop={"probe": 7}), "Got 7 instead"),
    ],
)
def test_bad_input_is_refused_by_name(make: Any, message: str) -> None:  # noqa: ANN401 - a lambda
    with pytest.raises((TypeError, ValueError), match=message):
        make().plot()
    with pytest.raises(TypeError, match="'ax' parameter of GenerationDisplay"):
        GenerationDisplay(make_answer()).plot(ax=3)
