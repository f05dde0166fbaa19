"""Texts that cannot be read, and where in X they are."""

import unicodedata
from collections.abc import Callable, Sequence

#: Positions that an error lists.
MOST_LISTED = 5


class RefusedTextError(ValueError):
    """An error about one text.

    Parameters
    ----------
    text : str
        The text.
    message : str
        What is wrong with it, without a full stop.
    """

    def __init__(self, text: str, message: str) -> None:
        super().__init__(f"{message}.")
        self.text = text
        self.message = message

    def at(self, position: int) -> ValueError:
        """Give the same error with the text's position, for whoever knows X."""
        return ValueError(f"{self.message}, at position {position}.")


def refuse_empty_texts(
    texts: Sequence[str], list_empty: Callable[[list[str]], list[str]]
) -> None:
    """Refuse texts without a token, before any text is computed.

    Parameters
    ----------
    texts : sequence of str
        All rows of X.
    list_empty : callable
        Gives those of some distinct texts that have no token. It is called only if
        there are texts without a visible character.

    Raises
    ------
    ValueError
        If there are such texts; says how many, and where the first ones are.
    """
    invisible = list(dict.fromkeys(text for text in texts if _is_invisible(text)))
    empty = set(list_empty(invisible)) if invisible else set()
    positions = [row for row, text in enumerate(texts) if text in empty]
    if not positions:
        return
    listed = ", ".join(map(str, positions[:MOST_LISTED]))
    more = ", ..." if len(positions) > MOST_LISTED else ""
    raise ValueError(
        "X given to HFEmbeddingTransformer must hold texts of at least one token. Got "
        f"{len(positions)} of {len(texts)} texts without one, at positions "
        f"[{listed}{more}]; the first is {texts[positions[0]]!r}."
    )


def _is_invisible(text: str) -> bool:
    """Tell whether a text has nothing but separators and control characters."""
    return all(unicodedata.category(character)[0] in "ZC" for character in text)
