"""Tokens in pictures are drawn without a warning, whatever letters they have."""

import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from plug_sklearn import GenerationDisplay, ProbedText, TokenScoresDisplay

# A letter of the font of tokens, one of matplotlib's default font only, one of neither.
LETTERS = {"a": "a", "\N{CYRILLIC CAPITAL LETTER KSI}": "Ѯ", "真": "\ufffd"}


@pytest.fixture
def answer() -> ProbedText:
    return ProbedText(
        text="".join(LETTERS),
        token_ids=[1, 2, 3],
        tokens=list(LETTERS),
        probabilities={"probe": np.full((3, 2), 0.5)},
        prompt_probabilities={"probe": np.full(2, 0.5)},
        stopped_by="length",
        classes={"probe": ["no", "yes"]},
    )


def test_letters_that_no_font_has_are_replaced_in_answers(answer: ProbedText) -> None:
    display = GenerationDisplay(answer).plot()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        display.figure_.canvas.draw()
    shown = [label.get_text() for label in display.ax_.get_xticklabels()]
    plt.close("all")
    assert shown == ["prompt", *LETTERS.values()]


def test_letters_that_no_font_has_are_replaced_in_texts() -> None:
    scores = pd.DataFrame({"text": 0, "position": range(3), "token": list(LETTERS)})
    scores["proba_yes"] = 0.5
    display = TokenScoresDisplay(scores, label="yes").plot()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        display.figure_.canvas.draw()
    shown = [text.get_text() for text in display.ax_.texts]
    plt.close("all")
    assert shown == list(LETTERS.values())
