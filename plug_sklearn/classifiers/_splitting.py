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
    n_members: int = 1,
) -> NDArray[np.bool_] | None:
    """Choose the rows that each member validates on, class by class or group by group.

    Members choose rows that others have not, as long as there are any.

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
    n_members : int, default=1
        Networks to choose for.

    Returns
    -------
    ndarray of bool, shape (n_members, n), or None
        The rows chosen. Training keeps rows of every class. Without groups, every class
        of two rows or more is in both sides. None where that cannot be: fewer than 20
        rows, no class of two rows, or every choice of groups takes all rows of a class.
    """
    if len(codes) < MIN_ROWS:
        return None
    if groups is None:
        return _choose_by_class(codes, fraction, rng, n_members)
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


def _choose_by_class(
    codes: NDArray[np.intp],
    fraction: float,
    rng: np.random.Generator,
    n_members: int,
) -> NDArray[np.bool_] | None:
    chosen = np.zeros((n_members, len(codes)), dtype=bool)
    for code in np.unique(codes):
        rows = rng.permutation(np.flatnonzero(codes == code))
        if len(rows) < 2:
            continue
        n_chosen = int(np.clip(round(fraction * len(rows)), 1, len(rows) - 1))
        # Arcs of a circle, which leave no row out as long as they reach around it.
        arc = np.arange(n_chosen)
        for member, start in enumerate(np.arange(n_members) * len(rows) // n_members):
            chosen[member, rows.take(start + arc, mode="wrap")] = True
    return chosen if chosen.any() else None


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
