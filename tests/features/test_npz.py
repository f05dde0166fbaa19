import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_array_equal

from plug_sklearn import LayerAggregator, load_npz_features, save_npz_features

IDS = ["a", "b", "c"]
ACTIVATIONS = np.arange(3 * 2 * 2 * 4, dtype=np.float32).reshape(3, 2, 2, 4)


def write_as_pingkit(path: Path) -> None:
    """Write the activations as it does: a column a sample, parts first, ids pickled."""
    rows = [
        [ACTIVATIONS[sample, layer, part, unit] for sample in range(3)]
        for part in range(2)
        for layer in range(2)
        for unit in range(4)
    ]
    np.savez_compressed(
        path,
        data=np.array(rows, dtype=np.float32),
        columns=np.array(IDS, dtype=object),
        parts=np.array(["rs", "attn"]),
        layers=np.array([3, 7], dtype=np.int16),
        hidden_size=np.array([4], dtype=np.int16),
    )


def test_part_major_columns_become_layer_major_rows(tmp_path: Path) -> None:
    write_as_pingkit(tmp_path / "features.npz")
    loaded = load_npz_features(tmp_path / "features.npz", allow_pickle=True)
    assert_array_equal(loaded.activations, ACTIVATIONS)
    assert loaded.ids.tolist() == IDS
    assert (loaded.layers, loaded.parts) == ((3, 7), ("rs", "attn"))


def test_pickled_ids_need_the_user_s_word(tmp_path: Path) -> None:
    path = tmp_path / "features.npz"
    write_as_pingkit(path)
    with pytest.raises(ValueError, match="pass allow_pickle=True") as raised:
        load_npz_features(path)
    assert str(raised.value).startswith(str(path))


@given(
    activations=hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=4, max_dims=4, max_side=4),
        elements=st.floats(width=32),
    )
)
def test_what_is_saved_is_loaded_without_pickle(
    activations: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> None:
    layers, parts = range(activations.shape[1]), "abcd"[: activations.shape[2]]
    path = tmp_path_factory.mktemp("npz") / "features"
    written = save_npz_features(path, activations, layers=layers, parts=parts)
    loaded = load_npz_features(written)
    assert_array_equal(loaded.activations, activations)
    assert loaded.ids.tolist() == [str(row) for row in range(len(activations))]
    assert loaded.layers == tuple(layers)
    assert loaded.parts == tuple(parts)


def test_keys_and_layout_are_pingkit_s(tmp_path: Path) -> None:
    write_as_pingkit(tmp_path / "theirs.npz")
    ours = save_npz_features(
        tmp_path / "ours", ACTIVATIONS, layers=[3, 7], parts=["rs", "attn"], ids=IDS
    )
    with (
        np.load(ours) as found,
        np.load(tmp_path / "theirs.npz", allow_pickle=True) as expected,
    ):
        assert set(found) == set(expected)
        for key in expected:
            assert_array_equal(found[key], expected[key])
    assert [file.name for file in sorted(tmp_path.iterdir())] == [
        "ours.npz",
        "theirs.npz",
    ]


def test_a_frame_of_features_goes_to_csv_and_back(tmp_path: Path) -> None:
    aggregator = LayerAggregator().set_output(transform="pandas")
    frame = aggregator.fit_transform(ACTIVATIONS).set_axis(IDS)
    frame.to_csv(tmp_path / "features.csv")
    back = pd.read_csv(tmp_path / "features.csv", index_col=0)
    assert back.columns[0] == "L0_P0_0"
    assert_array_equal(back.to_numpy(dtype=np.float32).reshape(3, 2, 2, 4), ACTIVATIONS)


@pytest.mark.parametrize(
    "more", [{"ids": ["a"]}, {"layers": [1]}, {"parts": ["rs"] * 3}]
)
def test_axes_of_other_lengths_are_refused(
    more: dict[str, list[object]], tmp_path: Path
) -> None:
    given_ = {"layers": [3, 7], "parts": ["rs", "attn"], **more}
    with pytest.raises(ValueError, match=r"'activations' given to save_npz_features"):
        save_npz_features(tmp_path / "features", ACTIVATIONS, **given_)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"\x80\x04N.", b"\x93NUMPY"])
@pytest.mark.parametrize("allow_pickle", [False, True])
def test_a_file_of_another_kind_is_told_as_such(
    content: bytes, allow_pickle: bool, tmp_path: Path
) -> None:
    path = tmp_path / "features.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"features.csv cannot .* is not an npz file"):
        load_npz_features(path, allow_pickle)


def test_missing_file_is_a_file_not_found_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_npz_features(tmp_path / "features.npz")


@pytest.mark.parametrize("layers", [[3.7, 7], [3.0, 7], ["3", 7], [2**70, 7], [None]])
def test_layers_that_are_no_integers_are_refused(
    layers: list[object], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"'layers' parameter .* integers\. Got \["):
        save_npz_features(
            tmp_path / "features", ACTIVATIONS, layers=layers, parts=["rs", "attn"]
        )
    assert not list(tmp_path.iterdir())


def test_layers_of_numpy_are_taken(tmp_path: Path) -> None:
    for layers in (np.array([3, 7]), [np.int8(3), np.uint16(7)]):
        path = save_npz_features(
            tmp_path / "features", ACTIVATIONS, layers=layers, parts=("rs", "attn")
        )
        assert load_npz_features(path).layers == (3, 7)


SMALL = np.arange(9, dtype=np.float32).reshape(3, 3, 1, 1)


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
        tmp_path / "features", SMALL, layers=[0, 1, 2], parts=["rs"]
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
    with pytest.raises(ValueError, match=r"would unpack to 134\d+, and at most"):
        load_npz_features(tmp_path / "features.npz")


def test_features_that_compress_well_are_loaded(tmp_path: Path) -> None:
    activations = np.zeros((50, 3, 1, 2**15), dtype=np.float32)
    path = save_npz_features(
        tmp_path / "features", activations, layers=[0, 1, 2], parts=["rs"]
    )
    assert path.stat().st_size < activations.nbytes / 200
    assert np.array_equal(load_npz_features(path).activations, activations)
