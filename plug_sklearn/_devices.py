"""Devices of torch from the ``device`` parameter of estimators."""

import re

import torch

from plug_sklearn._warnings import warn_user

#: Accelerators that torch supports only through a package of their vendor.
ADD_ONS = re.compile(r"(gcu|mlu|musa|neuron|npu|sdaa)(:\d+)?")


def resolve_device(device: str, owner: str) -> torch.device:
    """Return a torch device that is available here.

    ``device`` is ``"auto"``, for CUDA, then MPS, then the CPU, or the name of a torch
    device, such as ``"cuda:1"``. If it is not available, a warning says so, and the CPU
    is returned. Raises a ValueError, which names the estimator ``owner``, if torch has
    no such device.
    """
    check_device(device, owner)
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        has_mps = torch.backends.mps.is_available()
        return torch.device("mps" if has_mps else "cpu")
    if not _is_present(device):
        warn_user(
            f"{owner} was given device={device!r}, which is not available here. The "
            "CPU is used instead."
        )
        return torch.device("cpu")
    return torch.device(device)


def check_device(device: str, owner: str) -> None:
    """Raise a ValueError if torch has no device of this name, available here or not."""
    is_known = isinstance(device, str) and (
        device == "auto"
        or ADD_ONS.fullmatch(device) is not None
        or _parse(device) is not None
    )
    # Tensors on the device "meta" have no values.
    if not is_known or device.startswith("meta"):
        raise ValueError(
            f"The 'device' parameter of {owner} must be 'auto' or a torch device such "
            f"as 'cpu', 'cuda' or 'cuda:1'. Got {device!r} instead."
        )


def _parse(device: str) -> torch.device | None:
    try:
        return torch.device(device)
    except RuntimeError:
        return None


def _is_present(device: str) -> bool:
    parsed = _parse(device)
    if parsed is None:
        return False
    if parsed.type == "cuda":
        return (parsed.index or 0) < torch.cuda.device_count()
    if parsed.type == "mps":
        return torch.backends.mps.is_available()
    try:
        torch.empty(1, device=parsed)
    except (RuntimeError, AssertionError, ImportError):
        # torch raises different errors for different accelerators.
        return False
    return True
