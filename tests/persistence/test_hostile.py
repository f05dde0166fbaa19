"""Files that someone changed: refused with their name, or a valid other one."""

import copy
import json
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _fitted import X, fit_cnn, fit_linear, fit_mlp, fit_pipeline
from _plain import MLP, PlainMLP, write
from hypothesis import given, settings
from hypothesis import strategies as st

from plug_sklearn import (
    load_artifacts,
    load_npz_features,
    save_artifacts,
    save_npz_features,
)

FITTED = {
    "mlp": fit_mlp,
    "cnn": fit_cnn,
    "pipeline": fit_pipeline,
    "linear": fit_linear,
}
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(["os.system", "__import__('os')", "\ud800", "PlugMLPClassifier"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)


@pytest.fixture(scope="module", params=FITTED)
def artifact(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Any]:
    """The path of an artifact, and what was saved in it."""
    fitted = FITTED[request.param]()
    path = tmp_path_factory.mktemp("artifact") / "probe"
    save_artifacts(fitted, path)
    return path, fitted


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all examples of a test write to."""
    return tmp_path_factory.mktemp("changed")


def list_places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:  # noqa: ANN401 - any JSON
    """Every place within a JSON value, as the keys that lead to it."""
    if place:
        yield place
    keys = (
        value
        if isinstance(value, dict)
        else range(len(value))
        if isinstance(value, list)
        else ()
    )
    for key in keys:
        yield from list_places(value[key], (*place, key))


def load_or_refuse(path: Path) -> Any:  # noqa: ANN401 - any of several estimators
    """Load; None where it is refused by an error that names one of the files."""
    try:
        return load_artifacts(path)
    except ValueError as error:
        assert str(path) in str(error)
        return None


@settings(max_examples=60)
@given(data=st.data())
def test_json_with_a_key_dropped_replaced_or_added(
    artifact: tuple[Path, Any], data: st.DataObject
) -> None:
    path, fitted = artifact
    original = json.loads(path.with_suffix(".json").read_text())
    changed = copy.deepcopy(original)
    place = data.draw(st.sampled_from(list(list_places(original))))
    parent = changed
    for key in place[:-1]:
        parent = parent[key]
    change = data.draw(st.sampled_from(["drop", "replace", "add"]))
    if change == "drop":
        del parent[place[-1]]
    elif change == "replace" or isinstance(parent, list):
        parent[place[-1]] = data.draw(JSON)
    else:
        parent[data.draw(st.text(max_size=6))] = data.draw(JSON)
    new = path.with_name("changed")
    new.with_suffix(".safetensors").write_bytes(
        path.with_suffix(".safetensors").read_bytes()
    )
    new.with_suffix(".json").write_text(json.dumps(changed))
    loaded = load_or_refuse(new)
    if loaded is None:
        return
    # No key of the schema may be left out, and none but versions can be added.
    assert change == "replace" or "versions" in place or isinstance(parent, list)
    # What is not the network's is not what probabilities are computed from.
    try:
        probabilities = loaded.predict_proba(X)
    except ValueError:
        return
    assert np.isfinite(probabilities).all()
    if "parameters" in place or "versions" in place:
        assert np.array_equal(probabilities, fitted.predict_proba(X))


@settings(max_examples=60)
@given(data=st.data())
def test_tensors_with_bytes_cut_flipped_or_added(
    artifact: tuple[Path, Any], data: st.DataObject
) -> None:
    path, _ = artifact
    whole = path.with_suffix(".safetensors").read_bytes()
    (length,) = struct.unpack("<Q", whole[:8])
    # Headers are small beside the rest, and where most can go wrong.
    position = data.draw(st.integers(0, 8 + length) | st.integers(0, len(whole) - 1))
    changed = data.draw(
        st.sampled_from(
            [
                whole[:position],
                whole[:position] + whole[position + 1 :],
                whole + whole[position:],
                whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :],
                struct.pack("<Q", 2**62) + whole[8:],
                whole[:8] + b"{" * length + whole[8 + length :],
            ]
        )
    )
    new = path.with_name("changed")
    new.with_suffix(".safetensors").write_bytes(changed)
    new.with_suffix(".json").write_bytes(path.with_suffix(".json").read_bytes())
    assert load_or_refuse(new) is None


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[..., object], tuple[Path]]:
        return Path.mkdir, (self.folder,)


ACTIVATIONS = np.ones((2, 3, 1, 4), dtype=np.float32)


@pytest.mark.parametrize("key", ["data", "columns", "parts", "layers", "hidden_size"])
def test_a_pickle_in_features_is_not_read(key: str, tmp_path: Path) -> None:
    path = save_npz_features(
        tmp_path / "features", ACTIVATIONS, layers=[0, 1, 2], parts=["rs"]
    )
    with np.load(path) as found:
        arrays = dict(found)
    arrays[key] = np.array([Bomb(tmp_path / "ran")] * 2, dtype=object)
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=r"features.npz cannot be loaded"):
        load_npz_features(path)
    path.write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    with pytest.raises(ValueError, match=r"features.npz cannot be loaded"):
        load_npz_features(path)
    assert not (tmp_path / "ran").exists()


@settings(max_examples=80)
@given(data=st.data())
def test_features_with_bytes_cut_or_flipped(folder: Path, data: st.DataObject) -> None:
    path = save_npz_features(
        folder / "features",
        ACTIVATIONS,
        layers=[0, 1, 2],
        parts=["rs"],
    )
    whole = path.read_bytes()
    position = data.draw(st.integers(0, len(whole) - 1))
    flipped = whole[position] ^ data.draw(st.integers(1, 255))
    path.write_bytes(
        data.draw(
            st.sampled_from(
                [
                    whole[:position],
                    whole[:position] + bytes([flipped]) + whole[position + 1 :],
                ]
            )
        )
    )
    try:
        loaded = load_npz_features(path)
    except ValueError as error:
        assert str(path) in str(error)
        return
    # A byte that says nothing of what is in the file, such as a time.
    assert np.array_equal(loaded.activations, ACTIVATIONS)
    assert loaded[2:] == ((0, 1, 2), ("rs",))


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (10000000000000, 9)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 2)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': " + "(" * 5000 + "}",
        "{'descr': '|V999999999', 'fortran_order': False, 'shape': (9,)}",
        "__import__('os').mkdir('ran')",
        " " * 60_000,
    ],
)
def test_features_with_a_header_that_lies(
    header: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = save_npz_features("features", ACTIVATIONS, layers=[0, 1, 2], parts=["rs"])
    with zipfile.ZipFile(path) as found:
        members = {name: found.read(name) for name in found.namelist()}
    start = np.lib.format.magic(1, 0) + struct.pack("<H", len(header))
    members["data.npy"] = start + header.encode() + bytes(96)
    with zipfile.ZipFile(path, "w") as changed:
        for name, content in members.items():
            changed.writestr(name, content)
    with pytest.raises(ValueError, match=r"features.npz cannot be loaded"):
        load_npz_features(path)
    assert not Path("ran").exists()


@settings(max_examples=40)
@given(data=st.data())
def test_pingkit_s_weights_with_bytes_cut_or_flipped(
    folder: Path, data: st.DataObject
) -> None:
    path = folder / "probe"
    write(path, PlainMLP(25, 16, 16), MLP)
    samples = X.reshape(-1, 6)
    expected = load_artifacts(path).predict_proba(samples)
    whole = path.with_suffix(".pt").read_bytes()
    position = data.draw(st.integers(0, len(whole) - 1))
    flipped = whole[position] ^ data.draw(st.integers(1, 255))
    path.with_suffix(".pt").write_bytes(
        data.draw(
            st.sampled_from(
                [
                    whole[:position],
                    whole[:position] + bytes([flipped]) + whole[position + 1 :],
                ]
            )
        )
    )
    loaded = load_or_refuse(path)
    if loaded is not None:
        # A byte that says nothing of what is in the file, such as a time.
        assert np.array_equal(loaded.predict_proba(samples), expected)


def test_pingkit_s_weights_that_unpack_to_more_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "probe"
    write(path, PlainMLP(25, 16, 16), MLP)
    weights = path.with_suffix(".pt")
    with zipfile.ZipFile(weights) as found:
        members = {name: found.read(name) for name in found.namelist()}
    members["archive/more"] = bytes(2**24)
    with zipfile.ZipFile(weights, "w", zipfile.ZIP_DEFLATED) as changed:
        for name, content in members.items():
            changed.writestr(name, content)
    with pytest.raises(ValueError, match=r"probe\.pt cannot .* unpack to \d+ bytes"):
        load_artifacts(path)
