"""Archives that would unpack to far more than they are."""

import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from plug_sklearn import load_npz_features, save_npz_features

ACTIVATIONS = np.arange(9, dtype=np.float32).reshape(3, 3, 1, 1)


def write_members(path: Path, members: dict[str, bytes], how: int) -> None:
    """Write a zip file of members that are compressed in some way."""
    with zipfile.ZipFile(path, "w", how) as changed:
        for name, content in members.items():
            changed.writestr(name, content)


def make_npy(shape: tuple[int, ...], dtype: str = "<f4", n_bytes: int = 0) -> bytes:
    """A header, and as many zeros as there are to be."""
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}}}"
    start = np.lib.format.magic(1, 0) + struct.pack("<H", len(header))
    return start + header.encode() + bytes(n_bytes)


@pytest.mark.parametrize("how", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
@pytest.mark.parametrize("key", ["data", "columns", "parts", "layers", "hidden_size"])
@pytest.mark.parametrize("lies", [False, True])
def test_features_that_unpack_to_far_more_are_not_unpacked(
    key: str, how: int, lies: bool, tmp_path: Path
) -> None:
    path = save_npz_features(
        tmp_path / "features", ACTIVATIONS, layers=[0, 1, 2], parts=["rs"]
    )
    with zipfile.ZipFile(path) as found:
        members = {name: found.read(name) for name in found.namelist()}
    n_bytes = 2**25
    shape = (n_bytes // 8,) if key != "data" else (3, 3)
    dtype = {"data": "<f4", "columns": "<U2", "parts": "<U2"}.get(key, "<i8")
    if lies:
        members[f"{key}.npy"] = members[f"{key}.npy"] + bytes(n_bytes)
    else:
        members[f"{key}.npy"] = make_npy(shape, dtype, n_bytes)
    write_members(path, members, how)
    del members
    assert path.stat().st_size < 2**19
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"features\.npz cannot be loaded"):
            load_npz_features(path)
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


def test_features_of_whole_headers_that_unpack_to_far_more_are_refused(
    tmp_path: Path,
) -> None:
    members = {
        "data.npy": make_npy((2**22, 8), "<f4", 2**27),
        "columns.npy": make_npy((8,), "<U1", 32),
        "parts.npy": make_npy((1,), "<U1", 4),
        "layers.npy": make_npy((1,), "<i8", 8),
        "hidden_size.npy": make_npy((1,), "<i8", 0) + struct.pack("<q", 2**22),
    }
    write_members(tmp_path / "features.npz", members, zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match=r"would unpack to 134\d+, where at most"):
        load_npz_features(tmp_path / "features.npz")


def test_features_that_compress_well_are_loaded(tmp_path: Path) -> None:
    activations = np.zeros((50, 3, 1, 2**15), dtype=np.float32)
    path = save_npz_features(
        tmp_path / "features", activations, layers=[0, 1, 2], parts=["rs"]
    )
    assert path.stat().st_size < activations.nbytes / 200
    assert np.array_equal(load_npz_features(path).activations, activations)
