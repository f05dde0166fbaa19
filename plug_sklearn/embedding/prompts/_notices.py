"""Count texts that were truncated or lost all tokens, and warn of them once."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from plug_sklearn._warnings import warn_user
from plug_sklearn.embedding.prompts._errors import list_positions


@dataclass
class Notices:
    """Counts of texts that were changed in reading.

    Attributes
    ----------
    n_read : int
        Texts read.
    n_cut : int
        Those that were longer than the limit.
    n_roles_cut : int
        Those of them that lost tokens of the roles that are pooled.
    n_emptied : int
        Those that had no token left to pool.
    dropped : list
        Conversations with messages to pool that the chat template left out.
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
