"""Names of parts and poolings, and positions that users select along an axis."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any, Literal, get_args

import numpy as np

#: The parts of a layer, in the order in which activations hold all three.
Part = Literal["rs", "attn", "mlp"]
PART_NAMES: tuple[Part, ...] = get_args(Part)
#: How the states of a text's tokens become one vector.
Pooling = Literal["last", "first", "mean", "max"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)


def resolve_positions(
    positions: Any,  # noqa: ANN401 - validated below
    n_positions: int,
    *,
    parameter: str,
    owner: str,
) -> tuple[int, ...]:
    """Return positions in ``[0, n_positions)``, in the order given.

    ``positions`` is ``"all"``, an int, or a sequence of ints; negative ones count from
    the end. Raises a ValueError, which names the ``parameter`` of the estimator
    ``owner``, for anything else, and for positions that are repeated or out of range.

    Examples
    --------
    >>> resolve_positions([0, -1], 12, parameter="layers", owner="LayerAggregator")
    (0, 11)
    """
    if isinstance(positions, str) and positions == "all":
        return tuple(range(n_positions))
    given = [positions] if _is_integer(positions) else positions
    is_sequence = isinstance(given, Sequence | np.ndarray) and not isinstance(
        given, str
    )
    expected = None
    if not is_sequence or not all(_is_integer(position) for position in given):
        expected = "'all', an int, or a sequence of ints"
    elif not all(-n_positions <= position < n_positions for position in given):
        expected = f"positions in [0, {n_positions})"
    elif not len({position % n_positions for position in given}) == len(given) > 0:
        expected = "distinct positions, at least one"
    if expected is not None:
        shown = given if is_sequence else positions
        shown = shown.tolist() if isinstance(shown, np.ndarray) else shown
        raise ValueError(
            f"The {parameter!r} parameter of {owner} must be {expected}. "
            f"Got {shown!r} instead."
        )
    return tuple(int(position) % n_positions for position in given)


def _is_integer(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
