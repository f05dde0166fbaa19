"""Merge equal rows, and choose validation rows, stratified by class or by group."""

from collections import Counter
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: With fewer samples, holding some out costs more than early stopping gains.
MIN_ROWS = 20
Merged = tuple[
    NDArray[np.intp], NDArray[np.float64], NDArray[np.intp], NDArray[np.intp] | None
]
#: Random orders of the groups that are compared.
N_DRAWS = 32


def merge_equal_rows(
    X: NDArray[np.float32],
    codes: NDArray[np.intp],
    weight: NDArray[np.float64],
    groups: NDArray[np.intp] | None = None,
) -> Merged:
    """Merge rows that have the same sample, class and group, and sum their weights.

    A row given twice is therefore exactly a row of weight 2, and the order of the rows
    has no effect. Rows of weight 0 are dropped.

    Returns arrays (n,): positions of the rows that are kept, in an order that depends
    on their values only; their weights; a number for each that is equal for equal
    samples, ascending from 0; and their groups, numbered from 0, if these are given.
    """
    kept = np.flatnonzero(weight)
    # Sorting 16 bytes a row is faster than sorting the rows.
    digests = b"".join(_hash_values(X[row]) for row in kept)
    return merge_rows(np.frombuffer(digests, dtype="V16"), codes, weight, groups)


def merge_rows(
    digests: NDArray[np.void],
    codes: NDArray[np.intp],
    weight: NDArray[np.float64],
    groups: NDArray[np.intp] | None = None,
) -> Merged:
    """Merge rows as above, by the ``digests`` of the samples that have weight."""
    kept = np.flatnonzero(weight)
    _, value_ids = np.unique(digests, return_inverse=True)
    # Numbered again, since a group may have lost all its rows.
    given = np.zeros_like(codes) if groups is None else groups
    _, numbers = np.unique(given[kept], return_inverse=True)
    keys = np.stack([value_ids, codes[kept], numbers])
    _, first, inverse = np.unique(keys, axis=1, return_index=True, return_inverse=True)
    summed = np.bincount(inverse.ravel(), weight[kept])
    merged_groups = None if groups is None else numbers[first]
    return kept[first], summed.astype(np.float64), keys[0, first], merged_groups


def rank_samples(
    codes: NDArray[np.intp],
    sample_of_row: NDArray[np.intp],
    weight: NDArray[np.float64] | None = None,
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Compute strata and ranks (n_samples,) of samples, from the codes of their rows.

    The stratum of a sample is its rarest class: a split of every stratum has every
    class on both sides, where that is possible. Ranks sort samples by their class of
    most weight and its share of the sample's weight. All weights are 1 if it is None.
    """
    if sample_of_row[-1] == len(codes) - 1:
        return codes, np.zeros_like(sample_of_row)
    weight = np.ones(len(codes)) if weight is None else weight
    counts = np.bincount(codes)
    # Each sorts the rows of a sample such that the wanted one is last.
    last = np.bincount(sample_of_row).cumsum() - 1
    rarest = np.lexsort((-codes, -counts[codes], sample_of_row))[last]
    heaviest = np.lexsort((-codes, weight, sample_of_row))[last]
    share = weight[heaviest] / np.bincount(sample_of_row, weight)
    # Rounded, so that samples of equal shares tie whatever the order of the sums.
    keys = 2 * codes[heaviest] + np.round(share, 6)
    _, ranks = np.unique(keys, return_inverse=True)
    return codes[rarest], ranks


def spread_ranks(ranks: NDArray[np.intp], n_at_once: int) -> NDArray[np.intp]:
    """Order samples such that ``n_at_once`` successive ones have low and high ranks.

    The positions (n,) hold one sample of each of ``n_at_once`` ranges of ranks, then
    another of each, and so on. If all ranks are equal, the order does not change.
    """
    n = len(ranks)
    if (ranks == ranks[0]).all():
        return np.arange(n)
    in_order = np.argsort(ranks, kind="stable")
    of_range = np.arange(n) * n_at_once // n
    starts = np.searchsorted(of_range, np.arange(n_at_once))
    # Within a range, back in random order.
    in_order = in_order[np.lexsort((in_order, of_range))]
    place_in_range = np.arange(n) - starts[of_range]
    return in_order[np.lexsort((of_range, place_in_range))]


def choose_validation_rows(
    codes: NDArray[np.intp],
    fraction: float,
    rng: np.random.Generator,
    groups: NDArray[np.intp] | None = None,
    n_members: int = 1,
    *,
    sample_of_row: NDArray[np.intp] | None = None,
    weight: NDArray[np.float64] | None = None,
) -> NDArray[np.bool_] | None:
    """Choose the rows that each member is validated on: a mask (n_members, n).

    ``codes``, ``groups`` and ``sample_of_row`` (n,) number classes, groups and samples
    from 0. Rows of one sample have the same features and differ in their class;
    ``sample_of_row`` ascends, and None means that each row is a sample of its own.

    The ``fraction`` of the samples is chosen, stratified by class; members choose
    different samples where possible. No sample, or with ``groups`` no group, is on both
    sides. Training keeps rows of every class. Without groups, every class of at least
    two samples is on both sides, unless samples with several classes make that
    impossible; these are chosen such that both sides have similar shares of each class.

    The result is None if there are fewer than 20 samples, no class has two samples, or
    every choice of groups takes all rows of a class.
    """
    n_samples = len(codes) if sample_of_row is None else sample_of_row[-1] + 1
    if n_samples < MIN_ROWS:
        return None
    if groups is None:
        if sample_of_row is None:
            sample_of_row = np.arange(len(codes))
        ranked = rank_samples(codes, sample_of_row, weight)
        return _choose_samples(codes, sample_of_row, *ranked, fraction, rng, n_members)
    counts = np.zeros((groups.max() + 1, codes.max() + 1))
    np.add.at(counts, (groups, codes), 1)
    times_chosen = np.zeros(len(counts))
    chosen = []
    for _ in range(n_members):
        groups_chosen = _choose_groups(counts, fraction, rng, times_chosen)
        if groups_chosen is None:
            # Training may need all the groups that no member has chosen.
            groups_chosen = _choose_groups(counts, fraction, rng, 0 * times_chosen)
        if groups_chosen is None:
            return None
        times_chosen[groups_chosen] += 1
        chosen.append(np.isin(groups, groups_chosen))
    return np.stack(chosen)


def _choose_samples(
    codes: NDArray[np.intp],
    sample_of_row: NDArray[np.intp],
    strata: NDArray[np.intp],
    ranks: NDArray[np.intp],
    fraction: float,
    rng: np.random.Generator,
    n_members: int,
) -> NDArray[np.bool_] | None:
    chosen = np.zeros((n_members, len(strata)), dtype=bool)
    for stratum in np.unique(strata):
        alike = rng.permutation(np.flatnonzero(strata == stratum))
        if len(alike) < 2:
            continue
        n_chosen = int(np.clip(round(fraction * len(alike)), 1, len(alike) - 1))
        alike = alike[spread_ranks(ranks[alike], n_chosen)]
        # Arcs of a circle: no sample is left out if they reach around it.
        arc = np.arange(n_chosen)
        for member, start in enumerate(np.arange(n_members) * len(alike) // n_members):
            chosen[member, alike.take(start + arc, mode="wrap")] = True
    if len(strata) < len(codes):
        for own in chosen:
            _put_classes_on_both_sides(own, codes, sample_of_row)
    rows = chosen[:, sample_of_row]
    return rows if rows.any(axis=1).all() else None


def _put_classes_on_both_sides(
    chosen: NDArray[np.bool_],
    codes: NDArray[np.intp],
    sample_of_row: NDArray[np.intp],
) -> None:
    def list_codes(sample: int) -> NDArray[np.intp]:
        start, stop = np.searchsorted(sample_of_row, [sample, sample + 1])
        return codes[start:stop]

    n_rows = np.bincount(codes)
    n_chosen = np.bincount(codes[chosen[sample_of_row]], minlength=len(n_rows))
    for code in np.flatnonzero((n_chosen == 0) & (n_rows > 1)):
        if n_chosen[code]:
            continue
        for sample in sample_of_row[codes == code]:
            own = list_codes(sample)
            if (n_chosen[own] + 1 < n_rows[own]).all():
                chosen[sample] = True
                n_chosen[own] += 1
                break
    # Training must have every class, even where validation then lacks one.
    for code in np.flatnonzero((n_chosen == n_rows) & (n_rows > 0)):
        if n_chosen[code] == n_rows[code]:
            sample = sample_of_row[codes == code][0]
            chosen[sample] = False
            n_chosen[list_codes(sample)] -= 1


def _choose_groups(
    counts: NDArray[np.float64],
    fraction: float,
    rng: np.random.Generator,
    times_chosen: NDArray[np.float64],
) -> NDArray[np.intp] | None:
    totals = counts.sum(axis=0)
    best, least_deviation = None, np.inf
    for _ in range(N_DRAWS):
        order = rng.permutation(len(counts))
        order = order[times_chosen[order].argsort(kind="stable")]
        taken = counts[order].cumsum(axis=0)
        deviation = np.abs(taken / totals - fraction).sum(axis=1)
        deviation[(taken == totals).any(axis=1)] = np.inf
        n_groups = int(deviation.argmin())
        if deviation[n_groups] < least_deviation:
            least_deviation = deviation[n_groups]
            best = order[: n_groups + 1]
    return best


def arrange_members(
    chosen: NDArray[np.bool_],
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Arrange the rows of several members in columns.

    Member k has the rows ``chosen[k]``, at least one. The result is their positions, of
    shape (n_most, n_members), and whether they only fill a column: a member with fewer
    rows than another starts again from its first.
    """
    n_rows = chosen.sum(axis=1)
    columns = [np.resize(np.flatnonzero(own), n_rows.max()) for own in chosen]
    return np.stack(columns, axis=1), np.arange(n_rows.max())[:, None] >= n_rows


def hash_arrays(arrays: Any) -> NDArray[np.void]:  # noqa: ANN401 - a sequence of arrays
    """Hash arrays by their values, so that longer arrays have larger hashes.

    Arrays that differ in length, or at their beginning or end, are not read completely.
    """
    lengths = [len(array).to_bytes(8, "big") for array in arrays]
    ends = [_hash_values(array[[0, -1]]) for array in arrays]
    begins = [length + end for length, end in zip(lengths, ends, strict=True)]
    n_alike = Counter(begins)
    whole: dict[int, bytes] = {}
    digests = np.empty(len(begins), dtype="V40")
    for position, (array, begin) in enumerate(zip(arrays, begins, strict=True)):
        if n_alike[begin] > 1 and id(array) not in whole:
            whole[id(array)] = _hash_values(array)
        digests[position] = np.void(begin + whole.get(id(array), bytes(16)))
    return digests


def _hash_values(array: NDArray[Any]) -> bytes:
    # Adding 0 turns -0.0 into 0.0, which is equal but has other bytes.
    values = np.ascontiguousarray(array, dtype=np.float32) + np.float32(0)
    return blake2b(values.data, digest_size=16).digest()
