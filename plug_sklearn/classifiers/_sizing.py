"""Choose the widths of the networks from the number of samples and their shape."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product, starmap
from math import floor, inf, isqrt, log, sqrt
from typing import Any, TypeVar

#: Fewest units or channels of the first layer, whatever the number of samples.
LEAST_MLP_UNITS, LEAST_CNN_CHANNELS = 16, 8
#: Most principal components of tokens, which are computed from twice as many.
MOST_COMPONENTS = 2048
#: Fewest heads of a probe of tokens, as above.
LEAST_HEADS = 4
#: For a smaller budget of a member, CNNs of all proportions are compared.
SMALL_BUDGET = 2000


@dataclass(frozen=True)
class MLPWidths:
    """Units after the first block, in the residual block, and before the logits."""

    first: int
    second: int
    last: int


@dataclass(frozen=True)
class CNNWidths:
    """Channels after each convolution, and units of the head's last hidden layer.

    ``projection``, the channels after the third, is the length of the projection z.
    """

    first: int
    second: int
    projection: int
    head: int


Widths = TypeVar("Widths", MLPWidths, CNNWidths, int)


def size_mlp(
    n_samples: int | None,
    n_features: int,
    *,
    target_ratio: float = 5.0,
    width_cap: int = 128,
    out_floor: int = 16,
) -> MLPWidths:
    """Choose the widths of an MLP by pingkit's formula.

    Its first layer has ``target_ratio`` parameters per sample, but at least 16 and at
    most ``width_cap`` units. The last layer has at least ``out_floor`` units.
    ``n_samples`` is None where it is unknown.

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
    """Choose the widths of a CNN by pingkit's formula.

    There are at least 8 and at most ``width_cap`` channels at first. The projection has
    ``proj_mult`` times as many, but at least 32. ``n_samples`` is None where it is
    unknown.

    Examples
    --------
    >>> size_cnn(n_samples=1000)
    CNNWidths(first=22, second=44, projection=44, head=32)
    """
    first = 16
    if n_samples is not None:
        # Rounding down before the root gives the same integer as rounding down only
        # after.
        wanted = isqrt(floor(target_ratio * n_samples / 10))
        first = _clip(wanted, LEAST_CNN_CHANNELS, width_cap)
    projection = max(32, proj_mult * first)
    return CNNWidths(first, 2 * first, projection, max(32, projection // 4))


def _clip(width: int, lowest: int, highest: int) -> int:
    return min(max(width, lowest), highest)


def count_mlp_parameters(
    n_features: int, n_classes: int, widths: MLPWidths, *, linear_path: bool
) -> int:
    """Count the trainable parameters of one MLP."""
    first, second, last = widths.first, widths.second, widths.last
    blocks = ((n_features, first), (first, second), (second, second), (second, last))
    n_blocks = sum((n_in + 3) * n_out for n_in, n_out in blocks)
    n_path = (n_features + 1) * n_classes if linear_path else 0
    return n_blocks + (second + 1) * second + (last + 1) * n_classes + n_path


def count_cnn_parameters(
    n_channels: int,
    n_classes: int,
    widths: CNNWidths,
    *,
    kernels: tuple[int, int],
    n_positions: int = 0,
) -> int:
    """Count the trainable parameters of one CNN, without those of a LayerNorm.

    ``kernels`` are the numbers of weights in the first two kernels for each pair of
    channels. ``n_positions``, if there are linear probes, is the number of places along
    which the convolutions run.
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


def size_mlp_by_budget(
    n_samples: int,
    n_features: int,
    n_classes: int,
    *,
    target_ratio: float = 5.0,
    n_members: int = 1,
    linear_path: bool = False,
) -> tuple[MLPWidths, int]:
    """Choose widths, and a number of principal components, for a parameter budget.

    All members together have ``target_ratio`` trainable parameters per sample. Among
    the widths within 5% of that, or the closest ones, those are chosen whose first
    block is nearest to a quarter of the square root of a member's budget. This leaves
    most of the budget to the features. There are at most ``n_features`` components, and
    fewer than ``n_samples``.

    Examples
    --------
    >>> size_mlp_by_budget(1000, 576, 2)
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


def size_cnn_by_budget(
    n_samples: int,
    n_channels: int,
    n_classes: int,
    *,
    kernels: tuple[int, int],
    n_positions: int = 0,
    target_ratio: float = 5.0,
    n_members: int = 1,
) -> tuple[CNNWidths, int]:
    """Choose widths, and a number of principal components, for a parameter budget.

    Like ``size_mlp_by_budget``, but the first number of channels is near a twelfth of
    the square root of a member's budget. ``kernels`` and ``n_positions`` are those of
    ``count_cnn_parameters``.
    The result is within 10% of the budget, unless the smallest network exceeds it. The
    smallest network has one channel everywhere. For two classes and kernels of 3, it
    has 22 parameters; linear probes add 2 for each position, and 2 more.

    Examples
    --------
    >>> size_cnn_by_budget(1000, 576, 2, kernels=(3, 3))
    (CNNWidths(first=6, second=12, projection=12, head=3), 243)
    """
    budget = target_ratio * n_samples / n_members
    candidates = [
        CNNWidths(first, 2 * first, 2 * first, -(-first // 2))
        for first in _list_first(budget)
    ]
    if budget < SMALL_BUDGET:
        # One channel more is a large share of it. Widths of other proportions fill it.
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


def count_token_parameters(
    n_features: int,
    n_outputs: int,
    n_heads: int,
    *,
    has_queries: bool,
    n_recent: int,
    linear_path: bool,
) -> int:
    """Count the trainable parameters of one probe of tokens.

    Each head has a value for each output and perhaps a query, and ``n_recent`` biases.
    """
    n_paths = 2 * linear_path
    n_columns = n_heads * (n_outputs + has_queries) + n_outputs * n_paths
    return n_features * n_columns + n_heads * n_recent + n_outputs * (1 + n_paths)


def size_tokens(
    n_samples: int, n_features: int, *, target_ratio: float = 5.0, head_cap: int = 8
) -> int:
    """Choose the number of heads: ``target_ratio`` values a sample, at least four.

    Examples
    --------
    >>> size_tokens(n_samples=600, n_features=576)
    5
    """
    wanted = floor(target_ratio * n_samples / n_features)
    return _clip(wanted, min(LEAST_HEADS, head_cap), head_cap)


def size_tokens_by_budget(
    n_samples: int,
    n_features: int,
    n_outputs: int,
    *,
    has_queries: bool,
    n_recent: int,
    linear_path: bool,
    target_ratio: float = 5.0,
    head_cap: int = 8,
    n_members: int = 1,
) -> tuple[int, int]:
    """Choose heads, and a number of principal components, for a parameter budget.

    As ``size_mlp_by_budget``; there are at least four heads if that is possible.

    Examples
    --------
    >>> size_tokens_by_budget(
    ...     1000, 576, 1, has_queries=True, n_recent=8, linear_path=False
    ... )
    (5, 496)
    """
    return _search(
        target_ratio * n_samples / n_members,
        min(LEAST_HEADS, head_cap),
        max(1, min(n_features, n_samples - 1, MOST_COMPONENTS)),
        range(1, head_cap + 1),
        lambda n_kept, n_heads: count_token_parameters(
            n_kept,
            n_outputs,
            n_heads,
            has_queries=has_queries,
            n_recent=n_recent,
            linear_path=linear_path,
        ),
    )


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
        first = widths if isinstance(widths, int) else widths.first
        rank = max(error, 0.05), abs(log(first / max(1.0, preferred)))
        if rank < least:
            best, least = (widths, n_kept), rank
    return best


def find_width_limit(
    probe: Any,  # noqa: ANN401 - estimators of any kind
) -> str:
    """Find the limit that keeps a fitted network from following ``target_ratio``.

    With ``sizing="heuristic"``, this is ``"least"`` if its first layer has the fewest
    possible units or channels, and ``"most"`` if it has ``width_cap``. In all other
    cases, it is ``"none"``.
    """
    if getattr(probe, "sizing", None) != "heuristic":
        return "none"
    sizes = probe.net_.get_params_for("module")
    is_cnn = "n_layers" in sizes
    if sizes["first"] <= (LEAST_CNN_CHANNELS if is_cnn else LEAST_MLP_UNITS):
        return "least"
    return "most" if sizes["first"] >= probe.width_cap else "none"
