"""Who computes what: each prompt once, over all threads and processes.

A claim is an entry in the store that names the process which computes a prompt. It ends
when the prompt is written, when it is released, or when the process ends.
"""

import time
from collections.abc import Callable, Iterable

from plug_sklearn.embedding.store._environments import Environment
from plug_sklearn.embedding.store._failures import StoreError
from plug_sklearn.embedding.store._mapping import Transaction
from plug_sklearn.embedding.store._presence import Presence

_PREFIX = b"claim:"
_SHORTEST_WAIT, _LONGEST_WAIT = 0.002, 0.25


def take_claims(
    environment: Environment,
    prompts: Iterable[bytes],
    is_held: Callable[[Transaction, bytes], bool],
    at_most: int | None = None,
) -> set[bytes]:
    """Claim prompts that are neither held nor claimed.

    Parameters
    ----------
    environment : Environment
        The store's data.
    prompts : iterable of bytes
        Keys of prompts, the wanted ones first.
    is_held : callable
        Tells whether a prompt needs no computing.
    at_most : int, default=None
        How many to claim; None is as many as there are.

    Returns
    -------
    set of bytes
        What this process is now to compute.
    """
    wanted = list(dict.fromkeys(prompts))

    def claim(transaction: Transaction) -> set[bytes]:
        claimant = environment.presence.name_claimant()
        is_taken = _remember_living(environment.presence)
        mine: set[bytes] = set()
        for prompt in wanted:
            if at_most is not None and len(mine) >= at_most:
                break
            owner = transaction.get(_PREFIX + prompt)
            if is_taken(owner) or is_held(transaction, prompt):
                continue
            transaction.put(_PREFIX + prompt, claimant.to_bytes(8, "little"))
            mine.add(prompt)
        return mine

    return environment.write(claim)


def drop_claims(environment: Environment, prompts: Iterable[bytes]) -> None:
    """Give up this process's claims on prompts, so that others may compute them."""
    claimed = list(prompts)
    try:
        environment.write(
            lambda transaction: delete_claims(
                transaction, environment.presence, claimed
            )
        )
    except StoreError:
        # A full disk takes no deletion either; the claims of no one count as none.
        environment.presence.resign()
        raise


def delete_claims(
    transaction: Transaction, presence: Presence, prompts: Iterable[bytes]
) -> None:
    """Delete this process's claims on prompts, as a part of a transaction."""
    if not presence.has_claimed:
        return
    mine = presence.name_claimant()
    for prompt in prompts:
        owner = transaction.get(_PREFIX + prompt)
        if owner is not None and int.from_bytes(owner, "little") == mine:
            transaction.delete(_PREFIX + prompt)


def wait_for_claims(environment: Environment, prompts: Iterable[bytes]) -> None:
    """Wait until no living process, this one included, has a claim on any prompt."""
    pending = list(dict.fromkeys(prompts))

    def skip_free(transaction: Transaction) -> None:
        is_taken = _remember_living(environment.presence)
        while pending and not is_taken(transaction.get(_PREFIX + pending[-1])):
            pending.pop()

    pause = _SHORTEST_WAIT
    environment.read(skip_free)
    while pending:
        time.sleep(pause)
        pause = min(1.5 * pause, _LONGEST_WAIT)
        environment.read(skip_free)


def _remember_living(presence: Presence) -> Callable[[memoryview | None], bool]:
    """Make a function that tells whether a claim counts, asking once a claimant."""
    living: dict[int, bool] = {}

    def is_taken(owner: memoryview | None) -> bool:
        if owner is None:
            return False
        claimant = int.from_bytes(owner, "little")
        if claimant not in living:
            living[claimant] = presence.is_alive(claimant)
        return living[claimant]

    return is_taken
