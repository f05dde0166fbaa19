"""A scikit-learn transformer that turns activations into features."""

import re
from collections.abc import Sequence
from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from plug_sklearn._activations import (
    PART_NAMES,
    Activations,
    map_ragged,
    resolve_positions,
)
from plug_sklearn._packages import RecordsVersions
from plug_sklearn._sklearn import StrOptions, check_feature_names_in, get_output_config
from plug_sklearn.features._arrays import read_activations

OWNER = "LayerAggregator"


class LayerAggregator(TransformerMixin, RecordsVersions, BaseEstimator):
    """Select layers and parts of activations, and concatenate or pool them.

    Parameters
    ----------
    layers : "all", int or sequence of int, default="all"
        Layers to select. If the activations come from an
        :class:`HFEmbeddingTransformer`, these are the model's layer numbers: if the
        embedder has ``layers=[10, 20]``, then 20 selects layer 20. For other arrays,
        they are positions along axis 1. Negative numbers count from the end of axis 1.
    parts : "all", int, str or sequence of int or str, default="all"
        Parts to select: positions along axis 2, or names from the embedder's ``parts_``
        or from ``part_names``.
    method : {"concat", "mean", "max", "stack"}, default="concat"
        ``"concat"``: concatenate all selected hidden units, ordered by layer, then
        part, then hidden unit. ``"mean"`` and ``"max"``: pool over layers. ``"stack"``:
        keep all axes.
    part_names : sequence of str, default=None
        Names of the positions along axis 2, such as ``("rs_last", "rs_mean")``. None:
        for activations of an embedder, its ``parts_``; for other arrays,
        ``("rs", "attn", "mlp")`` if there are three parts, and no names otherwise.

    Attributes
    ----------
    layers_, parts_ : tuple of int
        Selected positions along axes 1 and 2, counted from 0.
    model_layers_ : tuple of int or None
        Numbers of all layers along axis 1 in the language model, if they are known.
    part_names_ : tuple of str or None
        Names of all parts along axis 2, if they are known.
    input_shape_ : tuple of int
        Shape of one sample: (n_layers, n_parts, hidden_size).
    n_features_in_ : int
        Length of axis 1 of the ``X`` seen in ``fit``.
    feature_names_in_ : ndarray of str
        Names of the columns of ``X``, if it is a data frame.

    See Also
    --------
    HFEmbeddingTransformer : Computes activations.

    Examples
    --------
    >>> import numpy as np
    >>> from plug_sklearn import LayerAggregator
    >>> activations = np.arange(24.0).reshape(1, 4, 3, 2)
    >>> LayerAggregator(layers=[-1], parts=["rs"]).fit_transform(activations)
    array([[18., 19.]])
    >>> LayerAggregator(parts=["rs"], method="mean").fit_transform(activations)
    array([[ 9., 10.]])
    >>> poolings = LayerAggregator(
    ...     parts=["rs_mean"], part_names=("rs_last", "rs_mean")
    ... )
    >>> poolings.fit_transform(activations[:, :2, :2])
    array([[2., 3., 8., 9.]])
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "method": [StrOptions({"concat", "mean", "max", "stack"})],
    }

    def __init__(
        self,
        layers: str | int | Sequence[int] = "all",
        parts: str | int | Sequence[int | str] = "all",
        method: str = "concat",
        part_names: Sequence[str] | None = None,
    ) -> None:
        self.layers = layers
        self.parts = parts
        self.method = method
        self.part_names = part_names

    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Find the selected layers and parts in activations of this shape.

        Parameters
        ----------
        X : array or tensor of shape (n_samples, n_layers, n_parts, hidden_size)
            Activations. Three axes are read as (n_samples, n_layers, hidden_size), and
            two axes as (n_samples, hidden_size). Token activations are an array of
            dtype object, or a list, with an array of shape
            (n_tokens, n_layers, n_parts, hidden_size) for each text.
        y : None
            Ignored.

        Returns
        -------
        LayerAggregator
            This estimator.

        Raises
        ------
        ValueError
            If a parameter is invalid for the shape of ``X``, or if ``X`` is not
            numeric, is not finite, or does not have two to four axes.
        """
        self._validate_params()
        activations = read_activations(self, X, reset=True)
        one = activations[0] if activations.dtype == object else activations
        self.input_shape_ = one.shape[1:]
        n_layers, n_parts, _ = self.input_shape_
        self.model_layers_ = _find_names(X, "layers", n_layers)
        self.layers_ = resolve_positions(
            self._number_layers(n_layers), n_layers, parameter="layers", owner=OWNER
        )
        self.part_names_ = self._list_part_names(n_parts, X)
        self.parts_ = resolve_positions(
            self._number_parts(n_parts), n_parts, parameter="parts", owner=OWNER
        )
        return self

    def transform(self, X: ArrayLike) -> NDArray[Any]:
        """Turn activations into features.

        Parameters
        ----------
        X : array of shape (n_samples, n_layers, n_parts, hidden_size)
            Activations. All axes except the first must have the lengths seen in
            ``fit``.

        Returns
        -------
        ndarray of float32 or float64
            Features of shape (n_samples, n_layers * n_parts * hidden_size) with
            ``"concat"``, (n_samples, n_parts * hidden_size) with ``"mean"`` and
            ``"max"``, and (n_samples, n_layers, n_parts, hidden_size) with ``"stack"``.
            Half precision is converted to float32, and integers to float64. For token
            activations, an array of dtype object with such an array for each text, in
            which the tokens are the first axis.

        Raises
        ------
        ValueError
            If the shape differs from that in ``fit``, or if the output is set to data
            frames and ``method`` is ``"stack"``.
        """
        check_is_fitted(self)
        self._validate_params()
        activations = read_activations(self, X, reset=False)
        one = activations[0] if activations.dtype == object else activations
        if one.shape[1:] != self.input_shape_:
            raise ValueError(
                f"X given to {OWNER} must have samples of shape {self.input_shape_}, "
                f"as in fit. Got {one.shape[1:]} instead."
            )
        self._check_names(X)
        if activations.dtype == object:
            self._refuse_frames("token activations", "X must be pooled")
            return map_ragged(self._aggregate, activations)
        if self.method == "stack":
            self._refuse_frames(
                "'stack', which keeps four axes",
                f"The 'method' parameter of {OWNER} must be 'concat', 'mean' or 'max'",
            )
        return self._aggregate(activations)

    def _check_names(self, X: object) -> None:
        """Check that X holds the layers and parts of ``fit``, where both are known."""
        if self.model_layers_ is None:
            return
        expected = {"layers": self.model_layers_}
        if self.part_names is None and self.part_names_ is not None:
            expected["parts"] = self.part_names_
        for axis, names in expected.items():
            found = _find_names(X, axis, len(names))
            if found not in (None, names):
                raise ValueError(
                    f"X given to {OWNER} must hold the {axis} {names}, as in fit. Got "
                    f"the {axis} {found} instead."
                )

    def _aggregate(self, activations: NDArray[np.floating]) -> NDArray[np.floating]:
        layers, parts = np.array(self.layers_), np.array(self.parts_)
        chosen = activations[:, layers[:, None], parts]
        if self.method == "stack":
            return chosen
        if self.method in ("mean", "max"):
            chosen = getattr(chosen, self.method)(axis=1)
        return chosen.reshape(len(chosen), -1)

    def get_feature_names_out(
        self, input_features: ArrayLike | None = None
    ) -> NDArray[np.object_]:
        """Return the names of the features.

        Parameters
        ----------
        input_features : sequence of str, default=None
            Names of the hidden units of the flattened activations, as the previous step
            of a pipeline returns them. None: names made of the layers and parts of an
            embedder's activations, or of positions.

        Returns
        -------
        ndarray of shape (n_features_out,), object
            Names such as ``"L20_rs_17"`` or ``"mean_rs_17"``. With ``"stack"``, the
            names of the flattened hidden units.

        Raises
        ------
        ValueError
            If the number of ``input_features`` is not the number of hidden units.
        """
        check_is_fitted(self)
        units = self._name_units(input_features).reshape(self.input_shape_)
        names = units[np.array(self.layers_)[:, None], np.array(self.parts_)]
        if self.method in ("mean", "max"):
            pooled = [
                f"{self.method}_{re.sub(r'^L[0-9]+_', '', str(name))}"
                for name in names[0].ravel()
            ]
            return np.array(pooled, dtype=object)
        flat: NDArray[np.object_] = names.ravel()
        return flat

    def __sklearn_tags__(self) -> Tags:
        tags: Tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _number_layers(self, n_layers: int) -> Any:  # noqa: ANN401 - validated by caller
        """Turn numbers of the model's layers into positions, if they are known."""
        known = self.model_layers_
        if known is None or isinstance(self.layers, str):
            return self.layers
        given = np.atleast_1d(np.asarray(self.layers, dtype=object)).tolist()
        if not all(isinstance(layer, Integral) for layer in given):
            return self.layers
        unknown = [n for n in given if n not in known and not -n_layers <= n < 0]
        if unknown:
            raise ValueError(
                f"The 'layers' parameter of {OWNER} must be layers that X holds, "
                f"{known}, as the model numbers them. Got {unknown} instead."
            )
        positions = [known.index(n) if n >= 0 else n % n_layers for n in given]
        if len(set(positions)) < len(positions):
            raise ValueError(
                f"The 'layers' parameter of {OWNER} must be distinct layers of X, "
                f"which holds {known}. Got {given} instead."
            )
        return positions

    def _number_parts(self, n_parts: int) -> Any:  # noqa: ANN401 - validated by caller
        """Turn the names in ``parts`` into positions."""
        parts = self.parts
        if isinstance(parts, str) and parts != "all":
            parts = [parts]
        if not isinstance(parts, Sequence | np.ndarray) or isinstance(parts, str):
            return parts
        names = [part for part in parts if isinstance(part, str)]
        known = self.part_names_
        if names and known is None:
            raise ValueError(
                f"The 'parts' parameter of {OWNER} must be positions in [0, "
                f"{n_parts}): parts only have names if X holds all of {PART_NAMES}, or "
                f"if 'part_names' is given. Got {self.parts!r} instead."
            )
        unknown = [name for name in names if name not in (known or ())]
        if unknown:
            raise ValueError(
                f"The 'parts' parameter of {OWNER} must be positions in "
                f"[0, {n_parts}) or names among {known}. Got {unknown} instead."
            )
        return [known.index(p) if known and isinstance(p, str) else p for p in parts]

    def _list_part_names(self, n_parts: int, X: object) -> tuple[str, ...] | None:
        """Return the names of the positions along axis 2, if they have names."""
        names = self.part_names
        if names is None:
            by_number = PART_NAMES if n_parts == len(PART_NAMES) else None
            return _find_names(X, "parts", n_parts) or by_number
        is_listed = isinstance(names, Sequence | np.ndarray)
        is_named = is_listed and all(isinstance(name, str) for name in names)
        if isinstance(names, str) or not is_named or len(set(names)) != n_parts:
            raise ValueError(
                f"The 'part_names' parameter of {OWNER} must be None or a sequence of "
                f"{n_parts} distinct names, one for each position along axis 2 of X. "
                f"Got {names!r} instead."
            )
        return tuple(map(str, names))

    def _name_units(self, input_features: ArrayLike | None) -> NDArray[np.object_]:
        n_layers, n_parts, hidden_size = self.input_shape_
        is_2d = n_layers == n_parts == 1 and self.n_features_in_ == hidden_size
        if is_2d:
            names: NDArray[np.object_] = check_feature_names_in(self, input_features)
            return names
        if input_features is not None:
            given = np.asarray(input_features, dtype=object)
            if given.shape != (np.prod(self.input_shape_),):
                raise ValueError(
                    "input_features should have length equal to the number of hidden "
                    f"units, {np.prod(self.input_shape_)}. Got {len(given)} instead."
                )
            return given
        parts = self.part_names_ or tuple(f"P{part}" for part in range(n_parts))
        layers = self.model_layers_ or range(n_layers)
        return np.array(
            [
                f"L{layer}_{part}_{unit}"
                for layer in layers
                for part in parts
                for unit in range(hidden_size)
            ],
            dtype=object,
        )

    def _refuse_frames(self, found: str, expected: str) -> None:
        container = get_output_config("transform", self)["dense"]
        if container != "default":
            raise ValueError(
                f"{expected} if the output is a {container} frame. Got {found} instead."
            )


def _find_names(X: object, axis: str, n_names: int) -> Any:  # noqa: ANN401 - a tuple of numbers or of strings, or None
    """Find the layers or parts that X holds as an attribute, or None."""
    names = getattr(X, axis) if isinstance(X, Activations) else None
    return names if names is not None and len(names) == n_names else None
