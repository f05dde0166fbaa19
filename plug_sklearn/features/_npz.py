"""Activations in ``.npz`` files, including those of pingkit."""

import os
from collections.abc import Sequence
from math import prod
from operator import index
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from uuid import uuid4
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

import numpy as np
from numpy.lib import format as npy
from numpy.typing import ArrayLike, NDArray

#: Names of the arrays in a file.
_KEYS = ("data", "columns", "parts", "layers", "hidden_size")
_METHODS = {ZIP_STORED, ZIP_DEFLATED}
_MAGIC = b"PK\x03\x04"
#: Largest ratio of unpacked to packed size, except for small files: activations hardly
#: compress.
_MOST_UNPACKED = 200
_ALWAYS_UNPACKED = 2**26

_READ_HEADER = {
    (1, 0): npy.read_array_header_1_0,
    (2, 0): npy.read_array_header_2_0,
}


class NpzFeatures(NamedTuple):
    """Activations with the names of their samples, layers and parts.

    Parameters
    ----------
    activations : ndarray of shape (n, n_layers, n_parts, hidden_size), float32
        Activations, as :class:`LayerAggregator` takes them.
    ids : ndarray of shape (n,)
        Names of the samples.
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
        Path of the ``.npz`` file.
    allow_pickle : bool, default=False
        Whether to read ids that are stored as a pickle, as pingkit stores them. Loading
        a pickle can run code. Only use it for files that you trust.

    Returns
    -------
    NpzFeatures
        Activations, ids, layers and parts. In the file, each column is a sample, and
        the rows are ordered by part, layer and hidden unit. The axes of ``activations``
        are samples, layers, parts and hidden units.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If the file is not of this format, or is damaged; if its ids are pickled and
        ``allow_pickle`` is False; or if it would unpack to more than 64 MiB and more
        than 200 times its size.

    See Also
    --------
    save_npz_features : Writes such files.
    LayerAggregator : With ``set_output(transform="pandas")``, turns activations into
        a frame.

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
        with path.open("rb") as stream, _open_archive(stream) as archive:
            return _read(archive, allow_pickle)
    except FileNotFoundError:
        raise
    except Exception as error:  # damaged files raise errors of many kinds
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
    """Save activations in the layout of pingkit's files, without a pickle.

    Parameters
    ----------
    path : str or Path
        Path of the file. ``.npz`` is added if it is missing, and missing folders are
        created.
    activations : array-like of shape (n, n_layers, n_parts, hidden_size)
        Activations, which are saved as float32.
    layers : sequence of int
        Layers along axis 1.
    parts : sequence of str
        Parts along axis 2.
    ids : array-like of shape (n,), default=None
        Names of the samples, which are saved as strings; None: their positions.

    Returns
    -------
    Path
        Path of the file.

    Raises
    ------
    ValueError
        If the numbers of ids, layers and parts do not match the axes, or if layers are
        not integers.

    See Also
    --------
    load_npz_features : Reads such files.

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
            "The 'activations' given to save_npz_features must have the shape (n_ids, "
            f"n_layers, n_parts, hidden_size), which begins with {lengths}. Got "
            f"{values.shape} instead."
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
    shape = (*axes, int(_read_member(archive, "hidden_size")[0]))
    if shape[2] < 0 or n_rows != prod(shape):
        raise ValueError(
            f"its data must have a row for each of {shape} parts, layers and hidden "
            f"units. Got {n_rows} rows instead"
        )
    layers, parts = _read_member(archive, "layers"), _read_member(archive, "parts")
    ids = _read_member(archive, "columns", allow_pickle=allow_pickle)
    if ids.shape != (n_ids,):
        raise ValueError(f"its columns must be {n_ids} ids. Got {ids.shape} instead")
    by_part = _read_member(archive, "data").T.reshape(n_ids, *shape)
    return NpzFeatures(
        np.ascontiguousarray(by_part.transpose(0, 2, 1, 3)),
        ids,
        tuple(int(layer) for layer in layers),
        tuple(str(part) for part in parts),
    )


def _check_headers(
    archive: ZipFile, allow_pickle: bool
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Check the shapes and types of all arrays before any is read.

    Returns the numbers of parts and layers, and the shape of the data.
    """
    (data, data_type), (ids, ids_type), *names = (
        _read_header(archive, key) for key in _KEYS
    )
    (parts, _), (layers, _), (size, _) = names
    kinds = "".join(dtype.kind for _, dtype in names)
    if (
        len(layers) != 1
        or len(parts) != 1
        or kinds not in ("Uii", "Uuu", "Uiu", "Uui")
        or size != (1,)
    ):
        raise ValueError("its layers, parts and hidden_size must be lists of names")
    if data_type != np.float32 or len(data) != 2:
        raise ValueError(
            "its data must be float32, with two axes. Got data of dtype "
            f"{data_type} and shape {data} instead"
        )
    if ids != data[1:]:
        raise ValueError(
            "its data must have a column for each id. Got data of the shape "
            f"{data} and ids of the shape {ids} instead"
        )
    if ids_type.hasobject and not allow_pickle:
        raise ValueError(
            "its ids are a pickle, which can run code. If you trust the origin of the "
            "file, pass allow_pickle=True"
        )
    return (parts[0], layers[0]), (data[0], data[1])


def _open_archive(stream: BinaryIO) -> ZipFile:
    """Open a ``.npz`` file after a check of how large its arrays would be."""
    if stream.read(len(_MAGIC)) != _MAGIC:
        raise ValueError("it is not an npz file")
    n_bytes = stream.seek(0, 2)
    archive = ZipFile(stream)
    members = {info.filename: info.file_size for info in archive.infolist()}
    # zipfile reads other methods without a limit on memory. numpy writes none of them.
    if {info.compress_type for info in archive.infolist()} - _METHODS:
        raise ValueError("it is compressed by a method that numpy does not use")
    if {f"{key}.npy" for key in _KEYS} - set(members):
        raise ValueError(f"it must hold {', '.join(_KEYS)}")
    # zipfile reads no more of a member than the size that the archive states.
    unpacked = sum(members[f"{key}.npy"] for key in _KEYS)
    most = max(_ALWAYS_UNPACKED, _MOST_UNPACKED * n_bytes)
    if unpacked > most:
        raise ValueError(
            f"its {n_bytes} bytes would unpack to {unpacked}, and at most {most} are "
            "accepted"
        )
    return archive


def _read_header(archive: ZipFile, key: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Read the shape and dtype of an array, and check that its length fits."""
    with archive.open(f"{key}.npy") as member:
        version = npy.read_magic(member)
        if version not in _READ_HEADER:
            raise ValueError(f"its {key} has a header of the unknown version {version}")
        shape, _, dtype = _READ_HEADER[version](member)
        n_left = archive.getinfo(f"{key}.npy").file_size - member.tell()
    if any(length < 0 for length in shape):
        raise ValueError(f"its {key} has the shape {shape}")
    # The header does not state the length of a pickle.
    if not dtype.hasobject and n_left != dtype.itemsize * prod(shape):
        raise ValueError(
            f"its {key} does not have the length of {shape} values of {dtype}"
        )
    return shape, dtype


def _read_member(
    archive: ZipFile, key: str, *, allow_pickle: bool = False
) -> NDArray[Any]:
    """Read an array whose header has been checked."""
    with archive.open(f"{key}.npy") as member:
        array: NDArray[Any] = npy.read_array(member, allow_pickle=allow_pickle)
        # zipfile compares the checksum at the end.
        if member.read(1):
            raise ValueError(f"its {key} is longer than its header says")
    return array
