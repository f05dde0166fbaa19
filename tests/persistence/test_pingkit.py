"""Files in pingkit's layout, written here from plain torch modules of its shape."""

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _plain import CNN, MLP, PlainCNN, PlainMLP, write
from torch import Tensor

from plug_sklearn import load_artifacts

CASES = {
    "MLP": (lambda: PlainMLP(25, 16, 16), MLP),
    "MLP of unknown rows": (lambda: PlainMLP(32, 16, 16), {**MLP, "n_examples": None}),
    "MLP with keys of its user": (lambda: PlainMLP(25, 16, 16), {**MLP, "note": "x"}),
    "CNN": (lambda: PlainCNN(8, 2), CNN),
    "CNN of unknown rows": (lambda: PlainCNN(16, 2), {**CNN, "n_examples": None}),
    "CNN of one part": (lambda: PlainCNN(8, 1), {**CNN, "parts": ["rs"]}),
    "CNN of three parts": (lambda: PlainCNN(8, 3), {**CNN, "parts": 3, "layers": 3}),
}


@pytest.mark.parametrize("name", CASES)
def test_probabilities_are_those_of_the_plain_network(
    name: str, tmp_path: Path
) -> None:
    build, description = CASES[name]
    module = build()
    write(tmp_path / "probe", module, description)
    probe = load_artifacts(tmp_path / "probe.pt")
    X = np.random.default_rng(0).normal(size=(20, *probe.input_shape_))
    with torch.no_grad():
        expected = module.eval()(torch.tensor(X, dtype=torch.float32)).softmax(1)
    np.testing.assert_allclose(probe.predict_proba(X), expected, atol=1e-6)
    assert probe.classes_.tolist() == list(range(description["num_classes"]))
    assert probe.set_params(max_epochs=1).fit(X, np.arange(20) % 2).n_iter_ == 1


@pytest.mark.parametrize("name", ["MLP", "CNN"])
def test_a_probe_is_fitted_anew_as_its_class_says_the_plain_network_is(
    name: str, tmp_path: Path
) -> None:
    build, description = CASES[name]
    write(tmp_path / "probe", build(), description)
    probe = load_artifacts(tmp_path / "probe.pt")
    documented = " ".join((type(probe).__doc__ or "").split())
    (call,) = re.findall(
        rf"``{type(probe).__name__}\((.*?)\)`` is the plain", documented
    )
    recipe = dict(re.findall(r"(\w+)=([^,]+)", call))
    found = {name: repr(value) for name, value in probe.get_params().items()}
    assert {name: value.replace('"', "'") for name, value in recipe.items()} == {
        name: found[name] for name in recipe
    }
    sizes = {"n_layers", "n_parts", "target_ratio", "width_cap", "proj_mult"}
    left = found.keys() - recipe.keys() - sizes - {"dropout", "device"}
    defaults = {name: repr(value) for name, value in type(probe)().get_params().items()}
    assert {name: found[name] for name in left} == {
        name: defaults[name] for name in left
    }


@pytest.mark.parametrize(
    "more",
    [
        {"model_type": "custom", "custom_model_class": "Mine"},
        {"factory_source": "import os\nos.mkdir('ran')", "factory_name": "make"},
        {"source": "import os\nos.mkdir('ran')"},
    ],
)
def test_source_code_is_refused_and_never_run(
    more: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "probe", PlainMLP(25, 16, 16), MLP | more)
    with pytest.raises(ValueError, match="custom model, whose source code is never"):
        load_artifacts("probe")
    assert not (tmp_path / "ran").exists()


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.mkdir, (Path(self.folder),)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_that_needs_more_than_tensors_is_refused(
    legacy: bool, tmp_path: Path
) -> None:
    write(tmp_path / "probe", PlainMLP(25, 16, 16), MLP)
    bomb = {"fc1.0.weight": Bomb(str(tmp_path / "ran"))}
    if legacy:
        (tmp_path / "probe.pt").write_bytes(pickle.dumps(bomb, protocol=2))
    else:
        torch.save(bomb, tmp_path / "probe.pt")
    with pytest.raises(
        ValueError, match=r"probe\.pt cannot be loaded: .*could run code"
    ):
        load_artifacts(tmp_path / "probe")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"n_examples": 10**9}, r"'fc1.0.weight' must be \(128, 6\)"),
        ({"input_dim": 2**40}, r"'fc1.0.weight' must be \(16, 1099511627776\)"),
        ({"num_classes": 2**41}, "num_classes"),
        ({"input_dim": "6"}, "mlp.input_dim: input should be a valid integer"),
        ({"p_drop": 1.5}, "p_drop"),
        ({"width_cap": 2}, "The 'width_cap' parameter of PlugMLPClassifier"),
        ({"model_type": "os.system"}, "does not match any of the expected"),
    ],
)
def test_json_that_does_not_suit_the_weights_is_refused(
    change: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    write(tmp_path / "probe", PlainMLP(25, 16, 16), MLP | change)
    with pytest.raises(ValueError, match=expected):
        load_artifacts(tmp_path / "probe")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("fc1.0.bias", torch.zeros(25, dtype=torch.float64), "must be"),
        ("fc1.0.bias", torch.full((25,), torch.nan), "must be finite"),
        ("fc1.0.bias", torch.zeros(1).expand(25), "not a state dict of plain tensors"),
        ("fc1.0.bias", torch.zeros(25, device="meta"), "not a state dict of plain"),
        ("more", torch.zeros(1), r"unknown tensors: \['more'\]"),
    ],
)
def test_tensors_that_are_not_what_they_must_be_are_refused(
    name: str, value: Tensor, expected: str, tmp_path: Path
) -> None:
    module = PlainMLP(25, 16, 16)
    write(tmp_path / "probe", module, MLP)
    torch.save({**module.state_dict(), name: value}, tmp_path / "probe.pt")
    with pytest.raises(ValueError, match=expected):
        load_artifacts(tmp_path / "probe")
