"""Errors about texts, with the positions of the texts in X."""

from collections.abc import Collection, Hashable, Sequence

#: Positions that an error lists.
MOST_LISTED = 5


class RefusedTextError(ValueError):
    """An error about one text.

    Parameters
    ----------
    text : hashable
        The row of X that it is about.
    message : str
        What is wrong with it, without a full stop.
    """

    def __init__(self, text: Hashable, message: str) -> None:
        super().__init__(f"{message}.")
        self.text = text
        self.message = message

    def at(self, position: int) -> ValueError:
        """Give the same error with the text's position, for whoever knows X."""
        return ValueError(f"{self.message}, at position {position}.")


def refuse_empty_texts(
    texts: Sequence[Hashable],
    empty: Collection[Hashable],
    roles: Sequence[str] | None = None,
) -> None:
    """Refuse texts without a token, before any text is computed.

    Parameters
    ----------
    texts : sequence
        All rows of X.
    empty : collection
        Those without a token to pool.
    roles : sequence of str, default=None
        Whose tokens are pooled; None is all roles.

    Raises
    ------
    ValueError
        If there are such texts; says how many, and where the first ones are.
    """
    n_empty, listed = list_positions(texts, empty)
    if not n_empty:
        return
    first = next(text for text in texts if text in empty)
    said = "" if roles is None else f" of roles={roles!r}"
    raise ValueError(
        "X given to HFEmbeddingTransformer must hold texts of at least one token"
        f"{said}. Got {n_empty} of {len(texts)} texts without one, at positions "
        f"{listed}; the first is {first!r}."
    )


def list_positions(
    texts: Sequence[Hashable], chosen: Collection[Hashable]
) -> tuple[int, str]:
    """Count the rows that hold some texts, and list the first of them for a message."""
    positions = [row for row, text in enumerate(texts) if text in chosen]
    more = ["..."] * (len(positions) > MOST_LISTED)
    return len(positions), f"[{', '.join([*map(str, positions[:MOST_LISTED]), *more])}]"
