"""A scikit-learn transformer that turns activations into features."""

import re
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils._param_validation import StrOptions
from sklearn.utils._set_output import _get_output_config
from sklearn.utils.validation import (
    _check_feature_names_in,
    check_is_fitted,
    validate_data,
)

from plug_sklearn._positions import PART_NAMES, resolve_positions
from plug_sklearn._provenance import RecordsVersions
from plug_sklearn.features._arrays import holds_single, to_array

OWNER = "LayerAggregator"


class LayerAggregator(TransformerMixin, RecordsVersions, BaseEstimator):
    """Select layers and parts of activations, and concatenate or pool them.

    Parameters
    ----------
    layers : "all", int or sequence of int, default="all"
        Positions along axis 1 of the activations; negative ones count from the end.
        They are positions among the layers that were read: with
        ``HFEmbeddingTransformer(layers=[10, 20])``, position 1 is layer 20.
    parts : "all", int, str or sequence of int or str, default="all"
        Positions along axis 2; or names, where the activations hold three parts, in
        the order ``"rs"``, ``"attn"``, ``"mlp"``.
    method : {"concat", "mean", "max", "stack"}, default="concat"
        ``"concat"`` joins all that is chosen, layer by layer, then part, then unit;
        ``"mean"`` and ``"max"`` pool over layers; ``"stack"`` keeps four axes.

    Attributes
    ----------
    layers_, parts_ : tuple of int
        Selected positions, counted from 0.
    input_shape_ : tuple of int
        Shape of one sample: (n_layers, n_parts, hidden_size).
    n_features_in_ : int
        Length of axis 1 of the ``X`` seen in ``fit``.
    feature_names_in_ : ndarray of str
        Names of the columns of ``X``, where it is a frame.

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
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "method": [StrOptions({"concat", "mean", "max", "stack"})],
    }

    def __init__(
        self,
        layers: str | int | Sequence[int] = "all",
        parts: str | int | Sequence[int | str] = "all",
        method: str = "concat",
    ) -> None:
        self.layers = layers
        self.parts = parts
        self.method = method

    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Resolve layers and parts against the shape of the activations.

        Parameters
        ----------
        X : array or tensor of shape (n_samples, n_layers, n_parts, hidden_size)
            Activations. Three axes are read as (n_samples, n_layers, hidden_size), two
            as (n_samples, hidden_size).
        y : None
            Ignored.

        Returns
        -------
        LayerAggregator
            This estimator.

        Raises
        ------
        ValueError
            If a parameter does not suit the shape of ``X``, or ``X`` is not numeric,
            not finite or has other numbers of axes.
        """
        self._validate_params()
        activations = self._read_activations(X, reset=True)
        self.input_shape_ = activations.shape[1:]
        n_layers, n_parts, _ = self.input_shape_
        self.layers_ = resolve_positions(
            self.layers, n_layers, parameter="layers", owner=OWNER
        )
        self.parts_ = resolve_positions(
            self._number_parts(n_parts), n_parts, parameter="parts", owner=OWNER
        )
        return self

    def transform(self, X: ArrayLike) -> NDArray[np.floating]:
        """Turn activations into features.

        Parameters
        ----------
        X : array of shape (n_samples, n_layers, n_parts, hidden_size)
            Activations of the shape seen in ``fit``, save the number of samples.

        Returns
        -------
        ndarray of float32 or float64
            As ``X``; half precision becomes float32, and integers float64.
            (n_samples, n_layers * n_parts * hidden_size) with ``"concat"``,
            (n_samples, n_parts * hidden_size) with ``"mean"`` and ``"max"``,
            (n_samples, n_layers, n_parts, hidden_size) with ``"stack"``.

        Raises
        ------
        ValueError
            If the shape differs from ``fit``'s, or frames are asked of ``"stack"``.
        """
        check_is_fitted(self)
        self._validate_params()
        activations = self._read_activations(X, reset=False)
        if activations.shape[1:] != self.input_shape_:
            raise ValueError(
                f"X given to {OWNER} must have samples of shape {self.input_shape_}, "
                f"as in fit. Got {activations.shape[1:]} instead."
            )
        if self.method == "stack":
            self._refuse_frames()
        layers, parts = np.array(self.layers_), np.array(self.parts_)
        chosen = activations[:, layers[:, None], parts]
        if self.method == "stack":
            return chosen
        if self.method == "mean":
            chosen = chosen.mean(axis=1)
        elif self.method == "max":
            chosen = chosen.max(axis=1)
        return chosen.reshape(len(chosen), -1)

    def get_feature_names_out(
        self, input_features: ArrayLike | None = None
    ) -> NDArray[np.object_]:
        """Name the features.

        Parameters
        ----------
        input_features : sequence of str, default=None
            Names of the units of the activations, flattened; the step before in a
            pipeline gives them. None: numbered by position.

        Returns
        -------
        ndarray of shape (n_features_out,), object
            Such as ``"L20_rs_17"`` or ``"mean_rs_17"``. With ``"stack"``, the names of
            its units, flattened.

        Raises
        ------
        ValueError
            If there are more or fewer ``input_features`` than units.
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

    def _read_activations(self, X: ArrayLike, *, reset: bool) -> NDArray[np.floating]:
        X = to_array(X)
        dtypes: list[type] = [np.float64, np.float32]
        if holds_single(X):
            # This keeps float32 of any byte order, and turns float16 into float32.
            dtypes.reverse()
        activations: NDArray[np.floating] = validate_data(
            self, X, reset=reset, allow_nd=True, dtype=dtypes
        )
        if activations.ndim == 2:
            return activations[:, None, None]
        if activations.ndim == 3:
            return activations[:, :, None]
        if activations.ndim > 4:
            raise ValueError(
                f"X given to {OWNER} must have 2 to 4 axes: samples, layers, parts, "
                f"units. Found array of shape {activations.shape}."
            )
        return activations

    def _number_parts(self, n_parts: int) -> Any:  # noqa: ANN401 - validated by caller
        """Turn the names in ``parts`` into positions."""
        parts = self.parts
        if isinstance(parts, str) and parts != "all":
            parts = [parts]
        if not isinstance(parts, Sequence | np.ndarray) or isinstance(parts, str):
            return parts
        names = [part for part in parts if isinstance(part, str)]
        if names and n_parts != len(PART_NAMES):
            raise ValueError(
                f"The 'parts' parameter of {OWNER} must be positions in "
                f"[0, {n_parts}): parts have names only where all of {PART_NAMES} are "
                f"there. Got {self.parts!r} instead."
            )
        unknown = [name for name in names if name not in PART_NAMES]
        if unknown:
            raise ValueError(
                f"The 'parts' parameter of {OWNER} must be positions in "
                f"[0, {n_parts}) or names among {PART_NAMES}. Got {unknown} instead."
            )
        return [PART_NAMES.index(p) if isinstance(p, str) else p for p in parts]

    def _name_units(self, input_features: ArrayLike | None) -> NDArray[np.object_]:
        n_layers, n_parts, hidden_size = self.input_shape_
        is_2d = n_layers == n_parts == 1 and self.n_features_in_ == hidden_size
        if is_2d:
            names: NDArray[np.object_] = _check_feature_names_in(self, input_features)
            return names
        if input_features is not None:
            given = np.asarray(input_features, dtype=object)
            if given.shape != (np.prod(self.input_shape_),):
                raise ValueError(
                    "input_features should have length equal to the number of units, "
                    f"{np.prod(self.input_shape_)}. Got {len(given)} instead."
                )
            return given
        parts = PART_NAMES if n_parts == 3 else [f"P{part}" for part in range(n_parts)]
        return np.array(
            [
                f"L{layer}_{part}_{unit}"
                for layer in range(n_layers)
                for part in parts
                for unit in range(hidden_size)
            ],
            dtype=object,
        )

    def _refuse_frames(self) -> None:
        container = _get_output_config("transform", self)["dense"]
        if container != "default":
            raise ValueError(
                f"The 'method' parameter of {OWNER} must be 'concat', 'mean' or 'max' "
                f"where output is a {container} frame. Got 'stack' instead, which "
                "keeps four axes."
            )
