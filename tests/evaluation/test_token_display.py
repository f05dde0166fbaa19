"""Tokens on coloured grounds, as HTML and as a picture."""

from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from plug_sklearn import HFEmbeddingTransformer, LayerAggregator, TokenScoresDisplay


def tabulate(*texts: dict[str, float]) -> pd.DataFrame:
    """Make a table of scores: of each text, tokens and their probability of "yes"."""
    rows = [
        (number, position, token, 1 - probability, probability)
        for number, text in enumerate(texts)
        for position, (token, probability) in enumerate(text.items())
    ]
    columns = ["text", "position", "token", "proba_no", "proba_yes"]
    return pd.DataFrame(rows, columns=columns)


class Page(HTMLParser):
    """What a browser would show, and which elements it would find."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.grounds: list[str] = []
        self.shown = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep elements, and the grounds of tokens."""
        self.elements.append(tag)
        self.grounds += [str(value) for name, value in attrs if name == "style"]

    def handle_data(self, data: str) -> None:
        """Keep what is shown."""
        self.shown += data


@given(st.text(min_size=1, max_size=30))
def test_html_shows_a_token_as_letters_whatever_it_holds(token: str) -> None:
    hostile = f"<script>alert('{token}')</script>&amp;\"'"
    page = Page(TokenScoresDisplay(tabulate({hostile: 0.5})).to_html())
    assert set(page.elements) == {"div", "p", "span"}
    assert "<script>alert('" in page.shown
    assert "</script>&amp;\"'" in page.shown


def test_html_escapes_the_name_of_the_class() -> None:
    scores = tabulate({"a": 0.5}).rename(columns={"proba_yes": "proba_<b>"})
    assert "b" not in Page(TokenScoresDisplay(scores, label="<b>").to_html()).elements


def test_control_characters_and_marks_of_direction_are_replaced() -> None:
    scores = tabulate({"a\x00b\u202ec": 0.5})
    shown = Page(TokenScoresDisplay(scores).to_html()).shown
    assert shown.endswith("a\ufffdb\ufffdc")


def test_a_notebook_shows_the_html() -> None:
    display = TokenScoresDisplay(tabulate({"Gold": 0.9}))
    assert display._repr_html_() == display.to_html()


def test_grounds_grow_stronger_away_from_chance_on_either_side() -> None:
    values = [0.0, 0.3, 0.5, 0.7, 1.0]
    page = TokenScoresDisplay(tabulate({f"t{v}": v for v in values})).to_html()
    found = [
        tuple(float(n) for n in style.split("rgba(")[1].split(")")[0].split(","))
        for style in Page(page).grounds[-5:]
    ]
    colors = [color[:3] for color in found]
    assert colors[0] == colors[1] != colors[3] == colors[4]
    strengths = [color[3] for color in found]
    assert strengths[0] > strengths[1] > strengths[2] == 0
    assert strengths[4] > strengths[3] > 0


def test_of_several_classes_chance_is_their_share() -> None:
    scores = pd.DataFrame(
        {"text": [0], "position": [0], "token": ["a"]}
        | {f"proba_{name}": [0.25] for name in "wxyz"}
    )
    page = Page(TokenScoresDisplay(scores, label="y").to_html())
    assert ",0.00)" in page.grounds[-1]


def list_tokens(figure: Figure) -> list[tuple[str, tuple[float, float]]]:
    """List the tokens that a picture shows, with the brightness of their grounds."""
    axes = figure.axes[0]
    grounds = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    return [
        (text.get_text(), patch.get_facecolor()[:3])
        for text, patch in zip(axes.texts, grounds, strict=True)
    ]


def test_the_picture_shows_each_token_on_its_colour() -> None:
    display = TokenScoresDisplay(tabulate({"Gold": 0.0, " is": 0.5, " blue": 1.0}))
    shown = dict(list_tokens(display.plot().figure_))
    assert list(shown) == ["Gold", " is", " blue"]
    blue, white, red = shown.values()
    assert min(white) > 0.99
    assert blue[2] > blue[0]
    assert red[0] > red[2]


@pytest.mark.parametrize("width", [3.0, 6.0])
def test_tokens_of_the_picture_stay_within_its_width_and_apart(width: float) -> None:
    rng = np.random.default_rng(0)
    tokens = {" " + "x" * rng.integers(1, 12) + str(n): rng.random() for n in range(60)}
    figure = Figure(figsize=(width, 6), layout="constrained")
    axes = figure.add_subplot()
    TokenScoresDisplay(tabulate(tokens, {"long" * 60: 0.3})).plot(ax=axes)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axes.texts]
    assert all(box.x0 >= 0 and box.x1 <= width * 100 + 1 for box in boxes)
    for one, other in pairwise(boxes):
        # Letters may touch the next token, as they do in a text.
        assert one.x1 <= other.x0 + 2 or other.y1 <= one.y0 + 2


@given(st.text(max_size=40))
def test_the_picture_draws_any_text_without_a_warning(token: str) -> None:
    figure = Figure(figsize=(6, 4), layout="constrained")
    TokenScoresDisplay(tabulate({token: 0.2, "$x_1$ \\frac": 0.4})).plot(
        ax=figure.add_subplot()
    )
    figure.draw_without_rendering()


def test_line_breaks_begin_a_new_line() -> None:
    display = TokenScoresDisplay(tabulate({"one\n": 0.1, "two": 0.2})).plot()
    one, two = display.ax_.texts
    assert two.get_position()[1] > one.get_position()[1]
    assert one.get_text() == "one↵"


def test_texts_of_the_picture_do_not_overlap_the_scale() -> None:
    display = TokenScoresDisplay(tabulate({"Gold": 0.1}, {"is blue": 0.2})).plot()
    display.figure_.draw_without_rendering()
    lowest = min(t.get_window_extent().y0 for t in display.ax_.texts)
    scale = display.figure_.axes[1]
    assert scale.get_window_extent().y1 <= lowest
    assert scale.get_xlabel() == "Probability of yes"
    assert all(isinstance(text, Text) for text in display.ax_.texts)


def test_from_estimator_shows_the_scores_of_a_pipeline(llama: str) -> None:
    texts = ["Gold is a metal.", "Gold is blue."]
    pipeline = make_pipeline(
        HFEmbeddingTransformer(llama, pooling="mean"),
        LayerAggregator(),
        LogisticRegression(),
    ).fit(texts, ["yes", "no"])
    display = TokenScoresDisplay.from_estimator(pipeline, texts, label="no")
    assert "".join(display.scores["token"]) == "".join(texts)
    assert display.label == "no"


@pytest.mark.parametrize("label", [None, "maybe", 3])
def test_of_three_classes_one_must_be_named(label: object) -> None:
    scores = tabulate({"a": 0.5})
    scores["proba_none"] = 0.0
    with pytest.raises(
        ValueError, match=r"'label' parameter of TokenScoresDisplay must be one of \["
    ):
        TokenScoresDisplay(scores, label=label)  # type: ignore[arg-type]  # refused


def test_what_is_no_table_of_scores_is_refused() -> None:
    with pytest.raises(ValueError, match="'scores' parameter of TokenScoresDisplay"):
        TokenScoresDisplay(pd.DataFrame({"text": [0]}))


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (tabulate(), "at least one token"),
        (
            tabulate({"a": np.nan}),
            r"in \[0, 1\]\. Got .*nan.* in the column 'proba_yes'",
        ),
        (tabulate({"a": 0.5, "b": 1.5}), r"in \[0, 1\]\. Got .*1\.5"),
        (tabulate({"a": 0.5}).assign(token=[None]), r"are strings\. Got"),
        (
            tabulate({"a": 0.5})[["text", "position", "token"]],
            "a column for each class",
        ),
    ],
)
def test_what_cannot_be_shown_is_refused(scores: pd.DataFrame, message: str) -> None:
    with pytest.raises(ValueError, match=f"'scores' parameter .* {message}"):
        TokenScoresDisplay(scores)


@pytest.mark.usefixtures("no_matplotlib")
def test_without_matplotlib_the_extra_is_named() -> None:
    with pytest.raises(ImportError, match="plots"):
        TokenScoresDisplay(tabulate({"a": 0.5})).plot()
