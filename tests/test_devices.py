import pytest
import torch

from plug_sklearn._devices import resolve_device


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


@pytest.mark.parametrize("device", ["gpu", "meta"])
def test_device_that_computes_nothing_is_refused_by_name(device: str) -> None:
    message = f"'device' parameter of Estimator.*Got '{device}'"
    with pytest.raises(ValueError, match=message):
        resolve_device(device, "Estimator")
