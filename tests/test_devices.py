from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from plug_sklearn import (
    HFEmbeddingTransformer,
    PlugMLPClassifier,
    load_artifacts,
    save_artifacts,
)
from plug_sklearn._devices import resolve_device

#: Of torch's own names, those that no machine of the tests has, and those of add-ons.
ABSENT = ["xpu", "xpu:3", "hpu", "mtia", "xla", "vulkan", "npu", "npu:1", "mlu", "musa"]


def pretend(monkeypatch: pytest.MonkeyPatch, *, cuda: int, mps: bool) -> None:
    """Stand in for a machine with so many CUDA devices, with or without MPS."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(1, True, "cuda"), (0, True, "mps"), (0, False, "cpu")],
)
def test_auto_is_cuda_then_mps_then_cpu(
    monkeypatch: pytest.MonkeyPatch, cuda: int, mps: bool, expected: str
) -> None:
    pretend(monkeypatch, cuda=cuda, mps=mps)
    assert resolve_device("auto", "Estimator").type == expected


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "mps"])
def test_absent_accelerator_warns_and_becomes_the_cpu(
    monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    pretend(monkeypatch, cuda=0, mps=False)
    with pytest.warns(UserWarning, match=f"Estimator was given device='{device}'"):
        assert resolve_device(device, "Estimator") == torch.device("cpu")


def test_absent_second_card_warns_too(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, cuda=1, mps=False)
    assert resolve_device("cuda:0", "Estimator") == torch.device("cuda:0")
    with pytest.warns(UserWarning, match="not available"):
        resolve_device("cuda:1", "Estimator")


@pytest.mark.parametrize("device", ABSENT)
def test_absent_accelerator_of_any_name_becomes_the_cpu(device: str) -> None:
    with pytest.warns(UserWarning, match=f"Estimator was given device='{device}'"):
        assert resolve_device(device, "Estimator") == torch.device("cpu")


@pytest.mark.parametrize("device", ["xpu", "npu"])
def test_probe_of_an_absent_accelerator_is_fitted_and_loaded_on_the_cpu(
    device: str, tmp_path: Path
) -> None:
    X = np.random.default_rng(0).normal(size=(30, 4))
    probe = PlugMLPClassifier(max_epochs=1, random_state=0, device="cpu")
    expected = probe.fit(X, np.arange(30) % 2).predict_proba(X)
    save_artifacts(probe, tmp_path / "probe")
    with pytest.warns(UserWarning, match="not available"):
        loaded = load_artifacts(tmp_path / "probe", device=device)
    assert np.array_equal(loaded.predict_proba(X), expected)
    state: dict[str, Any] = probe.set_params(device=device).__getstate__()
    restored = PlugMLPClassifier()
    with pytest.warns(UserWarning, match="not available"):
        restored.__setstate__(state)
    assert np.array_equal(restored.predict_proba(X), expected)
    with pytest.warns(UserWarning, match="not available"):
        probe.fit(X, np.arange(30) % 2)
    assert np.array_equal(probe.predict_proba(X), expected)


def test_embedder_of_an_absent_accelerator_reads_on_the_cpu(llama: str) -> None:
    expected = HFEmbeddingTransformer(llama, device="cpu").fit_transform(["Gold."])
    with pytest.warns(UserWarning, match="not available"):
        found = HFEmbeddingTransformer(llama, device="xpu").fit_transform(["Gold."])
    assert np.array_equal(found, expected)


@pytest.mark.parametrize(
    "device", ["gpu", "meta", "meta:0", "npus", "npu:", "cdua", "", None, 0]
)
def test_device_that_computes_nothing_is_refused_by_name(device: Any) -> None:  # noqa: ANN401 - what is no name is refused
    message = f"'device' parameter of Estimator.*Got {device!r}"
    with pytest.raises(ValueError, match=message):
        resolve_device(device, "Estimator")
