"""Samples and shapes → widths of a network."""

from dataclasses import dataclass
from math import floor, isqrt

#: Of the first layer, or convolution, whatever the number of samples.
LEAST_MLP_UNITS, LEAST_CNN_CHANNELS = 16, 8


@dataclass(frozen=True)
class MLPWidths:
    """Units of each layer of an MLP probe.

    Attributes
    ----------
    first, second, last : int
        Units after the first block, within the residual block, and before the logits.
    """

    first: int
    second: int
    last: int


@dataclass(frozen=True)
class CNNWidths:
    """Channels of a CNN probe.

    Attributes
    ----------
    first, second : int
        Channels after the first and second convolutions.
    projection : int
        Channels after the third, and so the length of the projection z.
    head : int
        Units of the head's hidden layer.
    """

    first: int
    second: int
    projection: int
    head: int


def size_mlp(
    n_samples: int | None,
    n_features: int,
    *,
    target_ratio: float = 5.0,
    width_cap: int = 128,
    out_floor: int = 16,
) -> MLPWidths:
    """Choose the widths of an MLP probe.

    Parameters
    ----------
    n_samples : int or None
        Training samples; None where unknown.
    n_features : int
        Features of a sample.
    target_ratio : float, default=5.0
        Parameters of the first layer to aim at, per sample.
    width_cap : int, default=128
        Most units of the first layer; at least 16.
    out_floor : int, default=16
        Fewest units before the logits.

    Returns
    -------
    MLPWidths
        With at least 16 units in the first two layers.

    Examples
    --------
    >>> size_mlp(n_samples=5000, n_features=576)
    MLPWidths(first=43, second=21, last=16)
    """
    first = 32
    if n_samples is not None:
        wanted = floor(target_ratio * n_samples / n_features)
        first = _clip(wanted, LEAST_MLP_UNITS, width_cap)
    second = max(LEAST_MLP_UNITS, first // 2)
    return MLPWidths(first, second, max(out_floor, second // 4))


def size_cnn(
    n_samples: int | None,
    *,
    target_ratio: float = 5.0,
    width_cap: int = 64,
    proj_mult: int = 2,
) -> CNNWidths:
    """Choose the widths of a CNN probe.

    Parameters
    ----------
    n_samples : int or None
        Training samples; None where unknown.
    target_ratio : float, default=5.0
        Trainable parameters to aim at, per sample.
    width_cap : int, default=64
        Most channels after the first convolution; at least 8.
    proj_mult : int, default=2
        Length of the projection, in channels of the first convolution.

    Returns
    -------
    CNNWidths
        With a projection of length 32 at least.

    Examples
    --------
    >>> size_cnn(n_samples=1000)
    CNNWidths(first=22, second=44, projection=44, head=32)
    """
    first = 16
    if n_samples is not None:
        # The root of the whole part floors to the same integer as the root itself.
        wanted = isqrt(floor(target_ratio * n_samples / 10))
        first = _clip(wanted, LEAST_CNN_CHANNELS, width_cap)
    projection = max(32, proj_mult * first)
    return CNNWidths(first, 2 * first, projection, max(32, projection // 4))


def _clip(width: int, lowest: int, highest: int) -> int:
    return min(max(width, lowest), highest)
