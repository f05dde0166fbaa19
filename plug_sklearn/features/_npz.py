"""Activations and what their axes hold ⇄ ``.npz`` files, pingkit's among them."""

import os
from collections.abc import Sequence
from math import prod
from operator import index
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4
from zipfile import ZipFile

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plug_sklearn.features._npz_members import open_archive, read_header, read_member

_KEYS = ("data", "columns", "parts", "layers", "hidden_size")


class NpzFeatures(NamedTuple):
    """Activations, and what their axes hold.

    Parameters
    ----------
    activations : ndarray of shape (n, n_layers, n_parts, hidden_size), float32
        What :class:`LayerAggregator` reads.
    ids : ndarray of shape (n,)
        Name of each sample.
    layers : tuple of int
        Layers along axis 1.
    parts : tuple of str
        Parts along axis 2.
    """

    activations: NDArray[np.float32]
    ids: NDArray[np.object_] | NDArray[np.str_]
    layers: tuple[int, ...]
    parts: tuple[str, ...]


def load_npz_features(
    path: str | os.PathLike[str], allow_pickle: bool = False
) -> NpzFeatures:
    """Load activations that :func:`save_npz_features` or pingkit wrote.

    Parameters
    ----------
    path : str or Path
        Of the ``.npz`` file.
    allow_pickle : bool, default=False
        Read the ids as a pickle, which can run code: pingkit writes them so. For files
        whose origin you trust.

    Returns
    -------
    NpzFeatures
        Activations, ids, layers and parts. In the file a sample is a column, part by
        part, then layer, then unit; here it is layer by layer, then part, then unit.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is of another kind or damaged; has pickled ids, and
        ``allow_pickle`` is False; or would unpack to more than 64 MiB and 200 times its
        own size.

    See Also
    --------
    save_npz_features : Writes them.
    LayerAggregator : With ``set_output(transform="pandas")``, turns activations into
        a frame, which writes CSV files.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from plug_sklearn import load_npz_features, save_npz_features
    >>> activations = np.arange(24.0).reshape(2, 3, 1, 4)  # samples, layers, parts
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = save_npz_features(
    ...         f"{folder}/features", activations, layers=[0, 5, 9], parts=["rs"]
    ...     )
    ...     loaded = load_npz_features(path)
    >>> loaded.activations.shape, loaded.layers, loaded.parts
    ((2, 3, 1, 4), (0, 5, 9), ('rs',))
    """
    path = Path(path)
    try:
        with path.open("rb") as stream, open_archive(stream, _KEYS) as archive:
            return _read(archive, allow_pickle)
    except FileNotFoundError:
        raise
    except Exception as error:  # damaged bytes raise what zipfile, zlib and numpy do
        why = str(error).removesuffix(".")
        raise ValueError(f"{path} cannot be loaded as features: {why}.") from error


def save_npz_features(
    path: str | os.PathLike[str],
    activations: ArrayLike,
    *,
    layers: Sequence[int],
    parts: Sequence[str],
    ids: ArrayLike | None = None,
) -> Path:
    """Save activations in the layout of pingkit's files, without any pickle.

    Parameters
    ----------
    path : str or Path
        Of the file; ``.npz`` is added where it is missing. Folders are made.
    activations : array-like of shape (n, n_layers, n_parts, hidden_size)
        Become float32.
    layers : sequence of int
        Layers along axis 1.
    parts : sequence of str
        Parts along axis 2.
    ids : array-like of shape (n,), default=None
        Names of the samples, as strings; None: their positions.

    Returns
    -------
    Path
        Of the file.

    Raises
    ------
    ValueError
        If there are not as many ids, layers and parts as the axes are long, or layers
        are no integers.

    See Also
    --------
    load_npz_features : Reads them, and has an example.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from plug_sklearn import save_npz_features
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = save_npz_features(
    ...         f"{folder}/features", np.ones((2, 1, 1, 4)), layers=[7], parts=["rs"]
    ...     )
    >>> path.name
    'features.npz'
    """
    path = Path(path)
    numbers = _read_layers(layers)
    if path.suffix != ".npz":
        path = path.with_name(f"{path.name}.npz")
    values = np.asarray(activations, dtype=np.float32)
    names = np.arange(len(values)) if ids is None else np.asarray(ids)
    lengths = (len(names), len(layers), len(parts))
    if values.ndim != 4 or values.shape[:3] != lengths or names.ndim != 1:
        raise ValueError(
            "The 'activations' given to save_npz_features must be (ids, layers, parts, "
            f"units), {lengths} and units. Got {values.shape} instead."
        )
    by_part = values.transpose(0, 2, 1, 3).reshape(len(values), -1)
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_name(f"{path.name}.{uuid4().hex}")
    try:
        with written.open("xb") as stream:
            np.savez_compressed(
                stream,
                data=by_part.T,
                columns=names.astype(str),
                parts=np.array([str(part) for part in parts]),
                layers=numbers,
                hidden_size=np.array([values.shape[3]], dtype=np.int64),
            )
        written.replace(path)
    except BaseException:
        written.unlink(missing_ok=True)
        raise
    return path


def _read_layers(layers: Sequence[int]) -> NDArray[np.int64]:
    try:
        return np.array([index(layer) for layer in layers], dtype=np.int64)
    except (TypeError, OverflowError):
        raise ValueError(
            "The 'layers' parameter of save_npz_features must be a sequence of "
            f"integers. Got {layers!r} instead."
        ) from None


def _read(archive: ZipFile, allow_pickle: bool) -> NpzFeatures:
    axes, (n_rows, n_ids) = _check_headers(archive, allow_pickle)
    shape = (*axes, int(read_member(archive, "hidden_size")[0]))
    if shape[2] < 0 or n_rows != prod(shape):
        raise ValueError(
            f"its data must have a row for each of {shape} parts, layers and units. "
            f"Got {n_rows} rows instead"
        )
    layers, parts = read_member(archive, "layers"), read_member(archive, "parts")
    ids = read_member(archive, "columns", allow_pickle=allow_pickle)
    if ids.shape != (n_ids,):
        raise ValueError(f"its columns must be {n_ids} ids. Got {ids.shape} instead")
    by_part = read_member(archive, "data").T.reshape(n_ids, *shape)
    return NpzFeatures(
        np.ascontiguousarray(by_part.transpose(0, 2, 1, 3)),
        ids,
        tuple(int(layer) for layer in layers),
        tuple(str(part) for part in parts),
    )


def _check_headers(
    archive: ZipFile, allow_pickle: bool
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Check what all arrays are before any is read.

    Gives the numbers of parts and layers, and the shape of the data.
    """
    headers = {key: read_header(archive, key) for key in _KEYS}
    names = [headers[key] for key in ("layers", "parts", "hidden_size")]
    kinds = "".join(header.dtype.kind for header in names)
    axes_named = all(len(header.shape) == 1 for header in names)
    if (
        not axes_named
        or kinds not in ("iUi", "uUu", "iUu", "uUi")
        or names[2].shape != (1,)
    ):
        raise ValueError("its layers, parts and hidden_size must be lists of names")
    data, ids = headers["data"], headers["columns"]
    if data.dtype != np.float32 or len(data.shape) != 2:
        raise ValueError(f"its data must be a matrix of float32, not {data.dtype}")
    if ids.shape != data.shape[1:]:
        raise ValueError(
            "its data must have a column for each id. Got data of the shape "
            f"{data.shape} and ids of the shape {ids.shape} instead"
        )
    if ids.dtype.hasobject and not allow_pickle:
        raise ValueError(
            "its ids are a pickle, which can run code. If you trust where the file "
            "comes from, say allow_pickle=True"
        )
    n_layers, n_parts = names[0].shape[0], names[1].shape[0]
    return (n_parts, n_layers), (data.shape[0], data.shape[1])
