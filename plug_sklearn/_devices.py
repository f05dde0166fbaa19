"""Where tensors live: names of devices → torch devices."""

import re

import torch

from plug_sklearn._warnings import warn_user

#: Accelerators that torch knows only once a package of their vendor is installed.
ADD_ON_ACCELERATORS = ("gcu", "mlu", "musa", "neuron", "npu", "sdaa")


def resolve_device(device: str, owner: str) -> torch.device:
    """Turn the ``device`` parameter of an estimator into a torch device.

    Parameters
    ----------
    device : str
        ``"auto"`` for CUDA, then MPS, then the CPU; or a torch device such as
        ``"cpu"`` or ``"cuda:1"``.
    owner : str
        Name of the estimator, for messages.

    Returns
    -------
    torch.device
        A device that exists here: an absent accelerator warns and becomes the CPU.

    Raises
    ------
    ValueError
        If torch knows no such device, or nothing can be computed on it.
    """
    check_device(device, owner)
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        has_mps = torch.backends.mps.is_available()
        return torch.device("mps" if has_mps else "cpu")
    if not _is_present(device):
        warn_user(
            f"{owner} was given device={device!r}, which is not available here; "
            "it runs on the CPU instead."
        )
        return torch.device("cpu")
    return torch.device(device)


def check_device(device: str, owner: str) -> None:
    """Check that a name is of a device that torch computes on, here or elsewhere.

    Parameters
    ----------
    device : str
        ``"auto"``, or a torch device, which need not be present.
    owner : str
        Name of the estimator, for messages.

    Raises
    ------
    ValueError
        If it is not.
    """
    is_known = isinstance(device, str) and (
        device == "auto" or _is_add_on(device) or _parse(device) is not None
    )
    # Tensors of the device "meta" have shapes and no values.
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


def _is_add_on(device: str) -> bool:
    return (
        re.fullmatch(rf"({'|'.join(ADD_ON_ACCELERATORS)})(:\d+)?", device) is not None
    )


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
        # What torch raises differs by accelerator.
        return False
    return True
