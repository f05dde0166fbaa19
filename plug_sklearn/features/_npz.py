"""Activations and what their axes hold ⇄ ``.npz`` files, pingkit's among them."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple
from uuid import uuid4

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import ArrayLike, NDArray

_KEYS = ("data", "columns", "parts", "layers", "hidden_size")
_MAGIC = b"PK\x03\x04"


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
        If the file is of another kind or damaged; or has pickled ids, and
        ``allow_pickle`` is False.

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
        # Of a damaged file, numpy leaves the one that it opens itself open.
        with path.open("rb") as stream, _open(stream) as found:
            return _read(found, path, allow_pickle)
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
        If there are not as many ids, layers and parts as the axes are long.

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
                layers=np.asarray(layers, dtype=np.int64),
                hidden_size=np.array([values.shape[3]], dtype=np.int64),
            )
        written.replace(path)
    except BaseException:
        written.unlink(missing_ok=True)
        raise
    return path


def _open(stream: BinaryIO) -> NpzFile:
    # What is no archive, numpy takes for a pickle, and says how to run it.
    if stream.read(len(_MAGIC)) != _MAGIC:
        raise ValueError("it is no npz file")
    stream.seek(0)
    found = np.load(stream, allow_pickle=False)
    assert isinstance(found, NpzFile)
    return found


def _read(found: NpzFile, path: Path, allow_pickle: bool) -> NpzFeatures:
    if set(_KEYS) - set(found.files):
        raise ValueError(f"it must hold {', '.join(_KEYS)}")
    layers, parts, size = found["layers"], found["parts"], found["hidden_size"]
    axes_named = layers.ndim == parts.ndim == size.ndim == 1 and len(size) == 1
    kinds = layers.dtype.kind + parts.dtype.kind + size.dtype.kind
    if not axes_named or kinds not in ("iUi", "uUu", "iUu", "uUi"):
        raise ValueError("its layers, parts and hidden_size must be lists of names")
    data = found["data"]
    if data.dtype != np.float32 or data.ndim != 2:
        raise ValueError(f"its data must be a matrix of float32, not {data.dtype}")
    ids = _read_ids(found, path, allow_pickle)
    shape = (len(parts), len(layers), int(size[0]))
    if data.shape != (shape[0] * shape[1] * shape[2], len(ids)) or ids.ndim != 1:
        raise ValueError(
            f"its data must have a row for each of {shape} parts, layers and units, "
            f"and a column for each of {len(ids)} ids. Got {data.shape} instead"
        )
    by_part = data.T.reshape(len(ids), *shape)
    return NpzFeatures(
        np.ascontiguousarray(by_part.transpose(0, 2, 1, 3)),
        ids,
        tuple(int(layer) for layer in layers),
        tuple(str(part) for part in parts),
    )


def _read_ids(
    found: NpzFile, path: Path, allow_pickle: bool
) -> NDArray[np.object_] | NDArray[np.str_]:
    try:
        return found["columns"]
    except ValueError as error:
        # numpy's own, where an array is a pickle and it may not read one.
        if "allow_pickle" not in str(error):
            raise
    if not allow_pickle:
        raise ValueError(
            "its ids are a pickle, which can run code. If you trust where the file "
            "comes from, say allow_pickle=True"
        )
    with np.load(path, allow_pickle=True) as trusted:
        ids: NDArray[np.object_] = trusted["columns"]
        return ids
