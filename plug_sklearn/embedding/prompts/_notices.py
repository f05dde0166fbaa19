"""Errors and warnings about texts, with the positions of the texts in X."""

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, field

from plug_sklearn._warnings import warn_user

#: Positions that an error lists.
MOST_LISTED = 5


class RefusedTextError(ValueError):
    """An error about one text, the row ``text`` of X.

    ``message`` says what is wrong with it, without a full stop.
    """

    def __init__(self, text: Hashable, message: str) -> None:
        super().__init__(f"{message}.")
        self.text = text
        self.message = message

    def at(self, position: int) -> ValueError:
        """Return the same error with the text's position, for whoever knows X."""
        return ValueError(f"{self.message}, at position {position}.")


def refuse_empty_texts(
    texts: Sequence[Hashable],
    empty: Collection[Hashable],
    roles: Sequence[str] | None = None,
) -> None:
    """Raise a ValueError if texts of X are ``empty``, before any text is computed.

    ``empty`` are those without a token to pool, of ``roles`` if these are given. The
    message says how many there are, and where the first ones are.
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


@dataclass
class Notices:
    """Counts of texts that were changed in reading.

    Of ``n_read`` texts, ``n_cut`` were longer than the limit; ``n_roles_cut`` of these
    lost tokens of the roles that are pooled. ``n_emptied`` had no token left to pool.
    ``dropped`` are conversations with messages to pool that the chat template left out.
    """

    n_read: int = 0
    n_cut: int = 0
    n_roles_cut: int = 0
    n_emptied: int = 0
    dropped: list[Hashable] = field(default_factory=list)

    def tell(
        self,
        X: Sequence[Hashable],
        *,
        limit: int | None,
        side: str,
        roles: Sequence[str] | None,
        token_filter: str | None,
        eos_token: str | None,
    ) -> None:
        """Warn of what was noted of the rows of X, and begin anew."""
        if self.n_cut:
            if roles is None:
                also = ""
            elif self.n_roles_cut:
                also = (
                    f" In {self.n_roles_cut} of them, text of roles={roles!r} was cut "
                    "too."
                )
            else:
                also = f" All text of roles={roles!r} was kept."
            warn_user(
                f"{self.n_cut} of {self.n_read} distinct texts are longer than {limit} "
                f"tokens and were cut on the {side} side.{also}"
            )
        if self.n_emptied:
            warn_user(
                f"{self.n_emptied} of {self.n_read} distinct texts have no token left "
                f"after token_filter={token_filter!r} and eos_token={eos_token!r}; all "
                "their tokens are pooled."
            )
        if self.dropped:
            n_dropped, listed = list_positions(X, set(self.dropped))
            said = "" if roles is None else f" of roles={roles!r}"
            warn_user(
                f"In {n_dropped} of {len(X)} rows of X, at positions {listed}, messages"
                f"{said} are left out by the model's chat template: no token of theirs "
                "is in the prompt or pooled."
            )
        self.dropped = []
        self.n_read = self.n_cut = self.n_roles_cut = self.n_emptied = 0
