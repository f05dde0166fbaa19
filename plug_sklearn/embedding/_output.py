"""Names, output containers and tags of estimators that return activations."""

from typing import Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from plug_sklearn.embedding._parameters import OWNER


class ActivationOutput(  # type: ignore[call-arg]  # TransformerMixin is untyped
    TransformerMixin, auto_wrap_output_keys=None
):
    """A transformer from texts to arrays of layers, parts and units."""

    layers_: tuple[int, ...]
    parts_: tuple[str, ...]
    hidden_size_: int

    def get_feature_names_out(
        self, input_features: object = None
    ) -> NDArray[np.object_]:
        """Return a name for each unit of the flattened activations.

        Parameters
        ----------
        input_features : None
            Ignored, since texts have no names.

        Returns
        -------
        ndarray of shape (n_layers * n_parts * hidden_size,), object
            Such as ``"L20_rs_17"``, or ``"L20_rs_mean_17"`` with several poolings.
        """
        check_is_fitted(self)
        names = [
            f"L{layer}_{part}_{unit}"
            for layer in self.layers_
            for part in self.parts_
            for unit in range(self.hidden_size_)
        ]
        return np.array(names, dtype=object)

    def set_output(self, *, transform: str | None = None) -> Self:
        """Accept a container for the output of a pipeline, and keep returning arrays.

        Activations have four axes, and cannot be a data frame. The other steps of a
        pipeline follow its ``set_output``.

        Parameters
        ----------
        transform : {"default", "pandas", "polars"}, default=None
            Container that the other steps of the pipeline return.

        Returns
        -------
        HFEmbeddingTransformer
            This estimator, unchanged.

        Raises
        ------
        ValueError
            If ``transform`` has another value.
        """
        if transform not in ("default", "pandas", "polars", None):
            raise ValueError(
                f"The 'transform' parameter of {OWNER}.set_output must be 'default', "
                f"'pandas', 'polars' or None. Got {transform!r} instead."
            )
        return self

    def __sklearn_tags__(self) -> Tags:
        tags: Tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        tags.transformer_tags.preserves_dtype = []
        return tags
