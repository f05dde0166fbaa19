"""Layers and parts of activations: their names, and positions along the axes."""

from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

#: The parts of a layer, in the order in which activations hold all three.
Part = Literal["rs", "attn", "mlp"]
PART_NAMES: tuple[Part, ...] = get_args(Part)
#: How the states of a text's tokens become one vector.
Pooling = Literal["last", "first", "mean", "max"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)

#: Functions whose result may have the layers in another order, in the same shape.
_MOVING = (np.roll, np.sort, np.partition, np.take_along_axis)


class Activations(np.ndarray):
    """An array of activations with the names of what axes 1 and 2 hold.

    It is an array like any other. Rows that are taken out of it, copies, and results of
    the same shape keep the names; whatever may have other layers or parts has none.

    Attributes
    ----------
    layers : tuple of int or None
        Numbers of the layers along axis 1, as the model counts them.
    parts : tuple of str or None
        Names of the parts along axis 2.
    """

    layers: tuple[int, ...] | None
    parts: tuple[str, ...] | None

    def __array_finalize__(self, source: object) -> None:
        """Take the names of the array that this one is made of, if they fit."""
        fits = isinstance(source, Activations) and self.shape[1:] == source.shape[1:]
        self.layers = source.layers if fits else None  # type: ignore[attr-defined]  # it fits
        self.parts = source.parts if fits else None  # type: ignore[attr-defined]  # it fits

    def __getitem__(self, key: Any) -> Any:  # noqa: ANN401 - as numpy's
        found = super().__getitem__(key)
        if isinstance(found, Activations):
            takes_rows = _takes_rows(key) and found.ndim == self.ndim
            found.layers = self.layers if takes_rows else None
            found.parts = self.parts if takes_rows else None
        return found

    def __array_wrap__(
        self,
        array: NDArray[Any],
        context: Any = None,  # noqa: ANN401 - as numpy's
        return_scalar: bool = False,
    ) -> Any:  # noqa: ANN401 - as numpy's
        """Return a plain number where numpy's own arrays do, such as from ``mean``."""
        if return_scalar or array.ndim == 0:
            return np.asarray(array)[()]
        return super().__array_wrap__(array, context, return_scalar)

    def __array_function__(
        self,
        func: Any,  # noqa: ANN401 - as numpy's
        types: Any,  # noqa: ANN401 - as numpy's
        args: Any,  # noqa: ANN401 - as numpy's
        kwargs: Any,  # noqa: ANN401 - as numpy's
    ) -> Any:  # noqa: ANN401 - as numpy's
        """Return a plain array where layers may have moved."""
        found = super().__array_function__(func, types, args, kwargs)
        return np.asarray(found) if func in _MOVING else found

    @property
    def T(self) -> Any:  # noqa: ANN401 - as numpy's
        """The array with its axes reversed, which have no names then."""
        return np.asarray(self).T

    def transpose(self, *axes: Any) -> Any:  # noqa: ANN401 - as numpy's
        """Permute the axes, which have no names then."""
        return np.asarray(self).transpose(*axes)

    def swapaxes(self, axis1: Any, axis2: Any, /) -> Any:  # noqa: ANN401 - as numpy's
        """Swap two axes, which have no names then."""
        return np.asarray(self).swapaxes(axis1, axis2)

    def take(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as numpy's
        """Take elements along an axis, which has no names then."""
        return np.asarray(self).take(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        # The array goes by itself, so that joblib can share its memory with workers.
        return name_axes, (np.asarray(self), self.layers, self.parts)

    def __deepcopy__(self, memo: dict[int, Any] | None, /) -> "Activations":
        copied = np.asarray(self).__deepcopy__(memo)
        return name_axes(copied, self.layers, self.parts)


def name_axes(
    activations: NDArray[Any],
    layers: Sequence[int] | None,
    parts: Sequence[str] | None,
) -> Activations:
    """Name what axes 1 and 2 hold; of token activations, axes 1 and 2 of each item."""
    named = activations.view(Activations)
    named.layers = None if layers is None else tuple(layers)
    named.parts = None if parts is None else tuple(parts)
    return named


def map_ragged(
    function: Callable[..., Any], *ragged: NDArray[np.object_]
) -> NDArray[np.object_]:
    """Apply a function to the arrays of each text; those of equal texts stay one."""
    found: dict[tuple[int, ...], Any] = {}
    mapped = np.empty(len(ragged[0]), dtype=object)
    for row, items in enumerate(zip(*ragged, strict=True)):
        key = tuple(map(id, items))
        if key not in found:
            found[key] = function(*items)
        mapped[row] = found[key]
    return mapped


def _takes_rows(key: object) -> bool:
    """Return whether an index takes rows, and leaves all other axes as they are."""
    if not isinstance(key, tuple):
        return key is not None
    return len(key) > 0 and all(
        one is Ellipsis or (isinstance(one, slice) and one == slice(None))
        for one in key[1:]
    )


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
