"""Find out at once that the Hugging Face hub cannot be reached.

For each file that is not in the cache, the hub's client tries for 23 seconds.
"""

from collections.abc import Iterator
from time import monotonic

from huggingface_hub import constants, get_session

#: Seconds for which an answer holds, so that a model's files share one question.
_HOLDS = 10.0
#: Seconds to wait for a connection.
_PATIENCE = 3.0

# When each address was last asked for, and whether it was reached.
_asked: dict[str, tuple[float, bool]] = {}


def is_hub_reachable() -> bool:
    """Tell whether anything answers at the hub's address.

    A connection that is only slow counts as an answer: the client's retries help there.
    """
    address = constants.ENDPOINT
    asked, reached = _asked.get(address, (-_HOLDS, True))
    if monotonic() - asked >= _HOLDS:
        reached = _ask(address)
        _asked[address] = (monotonic(), reached)
    return reached


def _ask(address: str) -> bool:
    try:
        get_session().head(address, timeout=_PATIENCE)
    # Clients of other releases raise errors of their own.
    except Exception as error:
        causes = list(_list_causes(error))
        is_slow = any("Timeout" in type(cause).__name__ for cause in causes)
        return is_slow or not any(isinstance(cause, OSError) for cause in causes)
    return True


def _list_causes(error: BaseException) -> Iterator[BaseException]:
    """List an error and those that led to it: sockets raise an OSError."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__
