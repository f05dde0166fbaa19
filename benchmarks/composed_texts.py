"""Compose texts of several sentences, of which one tells the class."""

from collections.abc import Sequence
from itertools import product

import numpy as np

WHO = (
    "The teacher",
    "My neighbour",
    "A young man",
    "The old gardener",
    "Her cousin",
    "The waiter",
    "Our landlord",
    "The bus driver",
    "A student",
    "The woman next door",
)
DOES = (
    "bought two loaves of bread",
    "waited for the train",
    "painted the fence",
    "read a long letter",
    "carried the boxes upstairs",
    "looked for the keys",
    "made a pot of tea",
    "closed the window",
    "wrote down the number",
    "talked about the weather",
    "fed the cat",
    "sat on the bench",
)
WHEN = (
    "in the morning",
    "after lunch",
    "before the meeting",
    "on Tuesday",
    "late in the evening",
    "while it was raining",
    "without saying much",
    "for about an hour",
)
OTHER = (
    "It had been quiet all week.",
    "Nobody asked why.",
    "There were a few chairs in the room.",
    "The door was left open.",
    "Some of the plates were still on the table.",
    "It was almost time to leave.",
    "The radio was playing softly.",
    "That was how the day went.",
)
NEUTRAL = tuple(
    [f"{who} {does} {when}." for who, does, when in product(WHO, DOES, WHEN)]
)


def compose_texts(
    telling: Sequence[str], n_sentences: int, random_state: int
) -> list[str]:
    """Put each telling sentence at a random place among neutral ones.

    The neutral sentences of a text differ, and one in eight is a short remark.
    """
    rng = np.random.default_rng(random_state)
    texts = []
    for sentence in telling:
        chosen = rng.choice(len(NEUTRAL), n_sentences - 1, replace=False)
        others = [
            OTHER[rng.integers(len(OTHER))] if rng.random() < 1 / 8 else NEUTRAL[number]
            for number in chosen
        ]
        place = rng.integers(n_sentences)
        texts.append(" ".join([*others[:place], sentence, *others[place:]]))
    return texts
