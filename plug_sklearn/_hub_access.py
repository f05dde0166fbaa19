"""Find out at once that the Hugging Face hub cannot be reached.

For each file that is not in the cache, the hub's client tries for 23 seconds.
"""

import errno
import socket
from time import monotonic

from huggingface_hub import constants, get_session

#: Seconds for which an answer holds, so that a model's files share one question.
_HOLDS = 10.0
#: Seconds to wait for a connection.
_PATIENCE = 3.0
#: Numbers of errors that say that there is no way to an address.
_NO_ROUTE = {
    errno.EADDRNOTAVAIL,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.ENETUNREACH,
}

# When each address was last asked for, and whether it was reached.
_asked: dict[str, tuple[float, bool]] = {}


def is_hub_reachable() -> bool:
    """Return whether anything listens at the hub's address, or at the proxy's.

    Any answer counts, an error's too, and so does a connection that is slow or breaks:
    there the client's retries help, or its own error says what is wrong.
    """
    if constants.is_offline_mode():
        return False
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
        cause: BaseException | None = error
        # Sockets raise an OSError, which leads to the client's own error.
        while cause is not None:
            if _says_unreachable(cause):
                return False
            cause = cause.__cause__ or cause.__context__
    return True


def _says_unreachable(error: BaseException) -> bool:
    """Return whether an error means that no connection can be made."""
    return isinstance(error, ConnectionRefusedError | socket.gaierror) or (
        isinstance(error, OSError) and error.errno in _NO_ROUTE
    )
