"""What users pass as callbacks → callbacks that skorch can call, and what they see."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, cast

from skorch.callbacks import Callback

from plug_sklearn.classifiers._rows import NO_CLASS, Batch

#: Names of the callbacks that come with training.
OWN_CALLBACKS = frozenset(
    ["train_loss", "valid_loss", "print_log", "valid_score", "keep_best_epoch"]
)


def read_callbacks(callbacks: Sequence[Any] | None, owner: str) -> list[Any]:
    """Check callbacks.

    Parameters
    ----------
    callbacks : sequence or None
        Callbacks, or (name, callback); a callback is an object or a class.
    owner : str
        Name of the estimator, for messages.

    Returns
    -------
    list
        The same.

    Raises
    ------
    ValueError
        If one is no callback, or a name is there twice or that of a callback of ours.
    """
    items = list(callbacks or [])
    for item in items:
        named = isinstance(item, tuple | list) and len(item) == 2
        callback = item[1] if named else item
        kind = callback if isinstance(callback, type) else type(callback)
        if not issubclass(kind, Callback) or (named and not isinstance(item[0], str)):
            raise ValueError(
                f"The 'callbacks' parameter of {owner} must hold callbacks of skorch, "
                f"or (name, callback). Got {item!r} instead."
            )
    names = Counter(item[0] for item in items if isinstance(item, tuple | list))
    taken = [name for name, n in names.items() if n > 1 or name in OWN_CALLBACKS]
    if taken:
        raise ValueError(
            f"The 'callbacks' parameter of {owner} must have names that differ, and "
            f"none of {sorted(OWN_CALLBACKS)}. Got {taken} instead."
        )
    return items


def hide_members(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Make what skorch's callbacks are called with of what ours are.

    Parameters
    ----------
    kwargs : dict
        What a callback is called with. A ``batch`` has rows of each member, some
        without a class, and their weights; ``y_pred`` is what the network gives of it.

    Returns
    -------
    dict
        The same, but of rows with a class alone, those of all members in one, and
        without weights.
    """
    if "batch" not in kwargs:
        return kwargs
    x, (codes, _) = cast(Batch, kwargs["batch"])
    counts = codes != NO_CLASS
    shown = kwargs | {"batch": (x[counts], codes[counts])}
    if "y_pred" in kwargs:
        outputs = kwargs["y_pred"]
        shown["y_pred"] = (
            tuple(output.reshape(*codes.shape, -1)[counts] for output in outputs)
            if isinstance(outputs, tuple)
            else outputs.reshape(*codes.shape, -1)[counts]
        )
    return shown
