"""Samples and shapes → widths of a network that keeps to a budget of parameters."""

from collections.abc import Callable, Sequence
from itertools import product, starmap
from math import floor, inf, isqrt, log, sqrt
from typing import TypeVar

from plug_sklearn.classifiers._sizing import CNNWidths, MLPWidths

#: Parameters of a member below which CNNs of all proportions are weighed.
SMALL_BUDGET = 2000


def count_mlp_parameters(
    n_features: int, n_classes: int, widths: MLPWidths, *, linear_path: bool
) -> int:
    """Count the trainable parameters of one MLP probe.

    Parameters
    ----------
    n_features, n_classes : int
        Units before the first block, and logits.
    widths : MLPWidths
        Units of the blocks.
    linear_path : bool
        Whether there is a linear function of the features beside the blocks.

    Returns
    -------
    int
        Weights and biases of linear layers and of batch norms.
    """
    first, second, last = widths.first, widths.second, widths.last
    blocks = ((n_features, first), (first, second), (second, second), (second, last))
    n_blocks = sum((n_in + 3) * n_out for n_in, n_out in blocks)
    n_path = (n_features + 1) * n_classes if linear_path else 0
    return n_blocks + (second + 1) * second + (last + 1) * n_classes + n_path


def fit_mlp_to_budget(
    n_samples: int,
    n_features: int,
    n_classes: int,
    *,
    target_ratio: float = 5.0,
    n_members: int = 1,
    linear_path: bool = False,
) -> tuple[MLPWidths, int]:
    """Choose widths, and features to keep, for a number of trainable parameters.

    Parameters
    ----------
    n_samples : int
        Training samples.
    n_features, n_classes : int
        Features of a sample, and classes.
    target_ratio : float, default=5.0
        Trainable parameters of all members, per sample.
    n_members : int, default=1
        Networks.
    linear_path : bool, default=False
        Whether there is a linear function of the features beside the blocks.

    Returns
    -------
    widths : MLPWidths
        Of the networks whose parameters come closest to the budget within 5 %, or at
        all, one with a first block of a quarter of the root of a member's budget, which
        leaves most of it to the features.
    n_kept : int
        Features that the networks are to read: at most ``n_features``, and fewer than
        ``n_samples``.

    Examples
    --------
    >>> fit_mlp_to_budget(1000, 576, 2)
    (MLPWidths(first=18, second=9, last=5), 249)
    """
    budget = target_ratio * n_samples / n_members
    return _search(
        budget,
        sqrt(budget) / 4,
        max(1, min(n_features, n_samples - 1)),
        [
            MLPWidths(first, -(-first // 2), -(-first // 4))
            for first in _list_first(budget)
        ],
        lambda n_kept, widths: count_mlp_parameters(
            n_kept, n_classes, widths, linear_path=linear_path
        ),
    )


def count_cnn_parameters(
    n_channels: int,
    n_classes: int,
    widths: CNNWidths,
    *,
    kernels: tuple[int, int],
    n_positions: int = 0,
) -> int:
    """Count the trainable parameters of one CNN probe, without those of a LayerNorm.

    Parameters
    ----------
    n_channels, n_classes : int
        Channels before the first convolution, and logits.
    widths : CNNWidths
        Channels of the convolutions and units of the head.
    kernels : tuple of int
        Weights of the first two kernels, for each pair of channels.
    n_positions : int, default=0
        Places along which the convolutions run, where there is a linear function of all
        beside them.

    Returns
    -------
    int
        Weights and biases.
    """
    first, second = widths.first, widths.second
    projection, head = widths.projection, widths.head
    return (
        (kernels[0] * n_channels + 3) * first
        + (kernels[1] * first + 3) * second
        + (second + 1) * projection
        + (projection + 1) * (projection + head)
        + (head + 1) * n_classes
        + ((n_positions * n_channels + 1) * n_classes if n_positions else 0)
    )


def fit_cnn_to_budget(
    n_samples: int,
    n_channels: int,
    n_classes: int,
    *,
    kernels: tuple[int, int],
    n_positions: int = 0,
    target_ratio: float = 5.0,
    n_members: int = 1,
) -> tuple[CNNWidths, int]:
    """Choose widths, and channels to keep, for a number of trainable parameters.

    Parameters
    ----------
    n_samples : int
        Training samples.
    n_channels, n_classes, kernels, n_positions
        As ``count_cnn_parameters`` has them.
    target_ratio : float, default=5.0
        Trainable parameters of all members, per sample.
    n_members : int, default=1
        Networks.

    Returns
    -------
    widths : CNNWidths
        Chosen as ``fit_mlp_to_budget`` chooses its, with a first convolution of a
        twelfth of the root. Within 10 % of the budget, unless the smallest network of
        all, of one channel everywhere, exceeds it: of two classes, it has 22 parameters
        with kernels of 3, and 2 more a position and 2 with a linear function.
    n_kept : int
        Channels that the networks are to read, ``n_channels`` at most.

    Examples
    --------
    >>> fit_cnn_to_budget(1000, 576, 2, kernels=(3, 3))
    (CNNWidths(first=6, second=12, projection=12, head=3), 243)
    """
    budget = target_ratio * n_samples / n_members
    candidates = [
        CNNWidths(first, 2 * first, 2 * first, -(-first // 2))
        for first in _list_first(budget)
    ]
    if budget < SMALL_BUDGET:
        # A channel more is a large part of it. Widths of other proportions fill it.
        narrow = range(1, 5)
        candidates += starmap(CNNWidths, product(narrow, narrow, narrow, range(1, 17)))
    return _search(
        budget,
        sqrt(budget) / 12,
        n_channels,
        candidates,
        lambda n_kept, widths: count_cnn_parameters(
            n_kept, n_classes, widths, kernels=kernels, n_positions=n_positions
        ),
    )


Widths = TypeVar("Widths", MLPWidths, CNNWidths)


def _list_first(budget: float) -> range:
    return range(1, 2 + isqrt(floor(budget)))


def _search(
    budget: float,
    preferred: float,
    most_kept: int,
    candidates: Sequence[Widths],
    count: Callable[[int, Widths], int],
) -> tuple[Widths, int]:
    best, least = (candidates[0], 1), (inf, inf)
    for widths in candidates:
        slope = count(2, widths) - count(1, widths)
        wanted = round(1 + (budget - count(1, widths)) / slope)
        n_kept = min(max(wanted, 1), most_kept)
        error = abs(count(n_kept, widths) / budget - 1)
        rank = max(error, 0.05), abs(log(widths.first / max(1.0, preferred)))
        if rank < least:
            best, least = (widths, n_kept), rank
    return best
