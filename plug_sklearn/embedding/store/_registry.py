"""The stores that this process has open: each once, and none across a fork.

LMDB forbids that a process opens a file twice, and that an open environment crosses a
fork.
"""

import os
import threading
from pathlib import Path

from plug_sklearn.embedding.store._environments import Environment

_environments: dict[str, Environment] = {}
_lock = threading.RLock()


def open_environment(
    folder: Path, user: object, *, readonly: bool, dtype: str | None
) -> Environment:
    """Give the one environment that this process has of a store.

    Parameters
    ----------
    folder : Path
        Where the store is.
    user : object
        Who wants it; what has no more users is closed.
    readonly : bool
        Whether the user will only read.
    dtype : str or None
        What a new store keeps.

    Returns
    -------
    Environment
        Open for writing, unless all of its users only read.

    Raises
    ------
    StoreError
        If it cannot be opened.
    """
    name = os.path.realpath(folder)
    with _lock:
        environment = _environments.get(name)
        if environment is None:
            environment = Environment(Path(name), readonly=readonly, dtype=dtype)
            _environments[name] = environment
        elif environment.readonly and not readonly:
            environment.allow_writing()
        environment.users.add(user)
        return environment


def leave_environment(folder: Path, user: object) -> None:
    """Close a store's environment if this was its last user."""
    name = os.path.realpath(folder)
    with _lock:
        environment = _environments.get(name)
        if environment is not None:
            environment.users.discard(user)
            if not environment.users:
                environment.close()
                del _environments[name]


def _prepare_fork() -> None:
    _lock.acquire()
    for environment in _environments.values():
        environment.lock.acquire()
        environment.shut()


def _resume() -> None:
    for environment in _environments.values():
        environment.lock.release()
    _lock.release()


def _resume_in_child() -> None:
    for environment in _environments.values():
        environment.forget_presence()
    _resume()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_prepare_fork,
        after_in_parent=_resume,
        after_in_child=_resume_in_child,
    )
