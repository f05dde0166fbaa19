"""Read what a probe and its controls need: activations, first layer, and words."""

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from plug_sklearn.evaluation._text_baselines import join_contents


class ControlInputs(NamedTuple):
    """The arrays on which a probe and its controls are fitted.

    ``activations`` and ``first_layer`` have the same shape; the latter is None if it
    was not asked for. ``contents`` are texts, or None. Rows with equal ``items`` are
    equal.
    """

    activations: NDArray[Any]
    first_layer: NDArray[Any] | None
    contents: NDArray[np.object_] | None
    items: Sequence[Hashable]


def read_inputs(
    embedder: Any,  # noqa: ANN401 - an HFEmbeddingTransformer or None
    X: Any,  # noqa: ANN401 - texts or activations
    owner: str,
    *,
    wants_first: bool,
) -> ControlInputs:
    """Run the texts through the model once, or take activations as they are."""
    if embedder is not None:
        return _embed(embedder, X, wants_first=wants_first)
    activations = np.asarray(X)
    is_numeric = activations.dtype.kind in "fiu"
    if not is_numeric or activations.ndim not in (3, 4) or not activations.size:
        raise ValueError(
            f"The 'X' parameter of {owner} must be activations of 3 or 4 axes, none of "
            "them empty, or texts, with a pipeline that begins with an "
            f"HFEmbeddingTransformer. Got {activations.dtype} of shape "
            f"{activations.shape} instead."
        )
    first = _fill_layers(activations, activations) if wants_first else None
    items = [row.tobytes() for row in activations]
    return ControlInputs(activations, first, None, items)


def _embed(embedder: Any, X: Any, *, wants_first: bool) -> ControlInputs:  # noqa: ANN401 - as above
    from plug_sklearn.embedding import list_texts

    contents = np.array([join_contents(text) for text in list_texts(X)], dtype=object)
    reader = clone(embedder).fit(X)
    layers = reader.layers_
    if not wants_first or 0 in layers:
        activations = reader.transform(X)
        n_extra, place = 0, layers.index(0) if wants_first else 0
    else:
        # Layer 0 is read in the same pass, before the layers of the pipeline.
        reader.set_params(layers=(0, *layers)).fit(X)
        activations = reader.transform(X)
        n_extra, place = 1, 0
    own = _select_layers(activations, slice(n_extra, None))
    first = None
    if wants_first:
        first = _fill_layers(_select_layers(activations, slice(place, place + 1)), own)
    return ControlInputs(own, first, contents, contents.tolist())


def _select_layers(activations: NDArray[Any], layers: slice) -> NDArray[Any]:
    if activations.dtype != object:
        return activations[:, layers]
    return _collect([item[:, layers] for item in activations])


def _fill_layers(source: NDArray[Any], like: NDArray[Any]) -> NDArray[Any]:
    """Replace each layer of ``like`` by the first layer of ``source``."""
    if source.dtype != object:
        return np.broadcast_to(source[:, :1], like.shape)
    return _collect(
        [
            np.broadcast_to(item[:, :1], own.shape)
            for item, own in zip(source, like, strict=True)
        ]
    )


def _collect(items: Sequence[NDArray[Any]]) -> NDArray[np.object_]:
    """Make an array of dtype object from arrays of different lengths."""
    collected = np.empty(len(items), dtype=object)
    for row, item in enumerate(items):
        collected[row] = item
    return collected
