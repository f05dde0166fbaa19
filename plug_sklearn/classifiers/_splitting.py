"""Rows → training and validation rows."""

import numpy as np
from numpy.typing import NDArray

from plug_sklearn.classifiers._stratification import (
    LabelledSamples,
    gather_samples,
    spread_ranks,
)

#: With fewer rows, holding some out costs the network more than early stopping gives.
#: Rows of one sample count as one.
MIN_ROWS = 20
#: Random draws of groups among which the one with the best balance is taken.
N_DRAWS = 32


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
    """Choose the rows that each member validates on, class by class or group by group.

    Members choose rows that others have not, as long as there are any.

    Parameters
    ----------
    codes : ndarray of shape (n,)
        Class codes, from 0.
    fraction : float
        Part of the samples to choose, in (0, 1).
    rng : numpy.random.Generator
        What to draw from.
    groups : ndarray of shape (n,), default=None
        Group codes, from 0. No group is on both sides.
    n_members : int, default=1
        Networks to choose for.
    sample_of_row : ndarray of shape (n,), default=None
        Sample of each row, ascending from 0; None: each row is a sample of its own.
        Rows of one sample have the same features and differ in their class. Without
        groups, no sample is on both sides.
    weight : ndarray of shape (n,), default=None
        Weights of the rows; None: all 1. Samples with several classes are chosen such
        that both sides have similar shares of each class.

    Returns
    -------
    ndarray of bool, shape (n_members, n), or None
        The rows chosen. Training keeps rows of every class. Without groups, every class
        of two samples or more is on both sides, unless samples with several classes
        make that impossible. None where nothing can be chosen: fewer than 20 samples,
        no class of two samples, or every choice of groups takes all rows of a class.
    """
    n_samples = len(codes) if sample_of_row is None else sample_of_row[-1] + 1
    if n_samples < MIN_ROWS:
        return None
    if groups is None:
        samples = gather_samples(codes, sample_of_row, weight)
        return _choose_samples(samples, fraction, rng, n_members)
    counts = np.zeros((groups.max() + 1, codes.max() + 1))
    np.add.at(counts, (groups, codes), 1)
    times_chosen = np.zeros(len(counts))
    chosen = []
    for _ in range(n_members):
        groups_chosen = _choose_groups(counts, fraction, rng, times_chosen)
        if groups_chosen is None:
            # Those that none has chosen may all be ones that training needs.
            groups_chosen = _choose_groups(counts, fraction, rng, 0 * times_chosen)
        if groups_chosen is None:
            return None
        times_chosen[groups_chosen] += 1
        chosen.append(np.isin(groups, groups_chosen))
    return np.stack(chosen)


def _choose_samples(
    samples: LabelledSamples,
    fraction: float,
    rng: np.random.Generator,
    n_members: int,
) -> NDArray[np.bool_] | None:
    chosen = np.zeros((n_members, len(samples.strata)), dtype=bool)
    for stratum in np.unique(samples.strata):
        alike = rng.permutation(np.flatnonzero(samples.strata == stratum))
        if len(alike) < 2:
            continue
        n_chosen = int(np.clip(round(fraction * len(alike)), 1, len(alike) - 1))
        alike = alike[spread_ranks(samples.ranks[alike], n_chosen)]
        # Arcs of a circle, which leave no sample out as long as they reach around it.
        arc = np.arange(n_chosen)
        for member, start in enumerate(np.arange(n_members) * len(alike) // n_members):
            chosen[member, alike.take(start + arc, mode="wrap")] = True
    if not samples.have_one_class:
        for own in chosen:
            _put_classes_on_both_sides(own, samples)
    rows = chosen[:, samples.sample_of_row]
    return rows if rows.any(axis=1).all() else None


def _put_classes_on_both_sides(
    chosen: NDArray[np.bool_], samples: LabelledSamples
) -> None:
    codes, sample_of_row = samples.codes, samples.sample_of_row
    n_rows = np.bincount(codes)
    n_chosen = np.bincount(codes[chosen[sample_of_row]], minlength=len(n_rows))
    for code in np.flatnonzero((n_chosen == 0) & (n_rows > 1)):
        if n_chosen[code]:
            continue
        for sample in sample_of_row[codes == code]:
            own = samples.list_codes(sample)
            if (n_chosen[own] + 1 < n_rows[own]).all():
                chosen[sample] = True
                n_chosen[own] += 1
                break
    # Training must have every class, even where validation then lacks one.
    for code in np.flatnonzero((n_chosen == n_rows) & (n_rows > 0)):
        if n_chosen[code] == n_rows[code]:
            sample = sample_of_row[codes == code][0]
            chosen[sample] = False
            n_chosen[samples.list_codes(sample)] -= 1


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
