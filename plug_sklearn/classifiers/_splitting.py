"""Rows → training and validation rows."""

import numpy as np
from numpy.typing import NDArray

#: With fewer rows, holding some out costs the network more than early stopping gives.
MIN_ROWS = 20
#: Random draws of groups among which the one with the best balance is taken.
N_DRAWS = 32


def choose_validation_rows(
    codes: NDArray[np.intp],
    fraction: float,
    rng: np.random.Generator,
    groups: NDArray[np.intp] | None = None,
) -> NDArray[np.bool_] | None:
    """Choose the rows to validate on, class by class or group by group.

    Parameters
    ----------
    codes : ndarray of shape (n,)
        Class codes, from 0.
    fraction : float
        Part of the rows to choose, in (0, 1).
    rng : numpy.random.Generator
        What to draw from.
    groups : ndarray of shape (n,), default=None
        Group codes, from 0. No group is on both sides.

    Returns
    -------
    ndarray of bool, shape (n,), or None
        The rows chosen. Training keeps rows of every class. Without groups, every class
        of two rows or more is in both sides. None where that cannot be: fewer than 20
        rows, no class of two rows, or every choice of groups takes all rows of a class.
    """
    if len(codes) < MIN_ROWS:
        return None
    if groups is None:
        return _choose_by_class(codes, fraction, rng)
    return _choose_by_group(codes, fraction, rng, groups)


def _choose_by_class(
    codes: NDArray[np.intp], fraction: float, rng: np.random.Generator
) -> NDArray[np.bool_] | None:
    chosen = np.zeros(len(codes), dtype=bool)
    for code in np.unique(codes):
        members = np.flatnonzero(codes == code)
        if len(members) > 1:
            n_chosen = np.clip(round(fraction * len(members)), 1, len(members) - 1)
            chosen[rng.permutation(members)[:n_chosen]] = True
    return chosen if chosen.any() else None


def _choose_by_group(
    codes: NDArray[np.intp],
    fraction: float,
    rng: np.random.Generator,
    groups: NDArray[np.intp],
) -> NDArray[np.bool_] | None:
    counts = np.zeros((groups.max() + 1, codes.max() + 1))
    np.add.at(counts, (groups, codes), 1)
    totals = counts.sum(axis=0)
    best, least_deviation = None, np.inf
    for _ in range(N_DRAWS):
        order = rng.permutation(len(counts))
        taken = counts[order].cumsum(axis=0)
        deviation = np.abs(taken / totals - fraction).sum(axis=1)
        deviation[(taken == totals).any(axis=1)] = np.inf
        n_groups = int(deviation.argmin())
        if deviation[n_groups] < least_deviation:
            least_deviation = deviation[n_groups]
            best = order[: n_groups + 1]
    return None if best is None else np.isin(groups, best)
