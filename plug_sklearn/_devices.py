"""Where tensors live: names of devices → torch devices."""

import torch

from plug_sklearn._warnings import warn_user


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
    resolved = torch.device(device)
    if not _is_present(resolved):
        warn_user(
            f"{owner} was given device={device!r}, which is not available here; "
            "it runs on the CPU instead."
        )
        return torch.device("cpu")
    return resolved


def check_device(device: str, owner: str) -> None:
    """Raise a ValueError unless a name is of a device that torch can compute on."""
    try:
        # torch takes numbers too.
        known = torch.device("cpu" if device == "auto" else str(device))
    except RuntimeError:
        known = None
    # Tensors of the device "meta" have shapes and no values.
    if not isinstance(device, str) or known is None or known.type == "meta":
        raise ValueError(
            f"The 'device' parameter of {owner} must be 'auto' or a torch device such "
            f"as 'cpu', 'cuda' or 'cuda:1'. Got {device!r} instead."
        )


def _is_present(device: torch.device) -> bool:
    if device.type == "cuda":
        return (device.index or 0) < torch.cuda.device_count()
    if device.type == "mps":
        return torch.backends.mps.is_available()
    return True
