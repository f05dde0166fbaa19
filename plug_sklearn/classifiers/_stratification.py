"""Samples with one label or several: which are alike, so that each split gets some."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class LabelledSamples:
    """Distinct samples, of which some may have rows of several classes.

    Attributes
    ----------
    sample_of_row : ndarray of int, shape (n_rows,)
        Sample of each row, ascending from 0. No two rows have the same sample and
        class.
    codes : ndarray of int, shape (n_rows,)
        Class code of each row.
    strata : ndarray of int, shape (n_samples,)
        For each sample, the rarest of its classes. A split that divides every stratum
        has samples of every class on both sides, as far as that is possible.
    ranks : ndarray of int, shape (n_samples,)
        Position of each sample when they are sorted by the class of most weight and its
        share of the sample's weight; equal for equal samples.
    """

    sample_of_row: NDArray[np.intp]
    codes: NDArray[np.intp]
    strata: NDArray[np.intp]
    ranks: NDArray[np.intp]

    @property
    def have_one_class(self) -> bool:
        """Whether no sample has rows of several classes."""
        return len(self.strata) == len(self.codes)

    def list_codes(self, sample: int) -> NDArray[np.intp]:
        """List the class codes of a sample."""
        start, stop = np.searchsorted(self.sample_of_row, [sample, sample + 1])
        return self.codes[start:stop]


def gather_samples(
    codes: NDArray[np.intp],
    sample_of_row: NDArray[np.intp] | None = None,
    weight: NDArray[np.float64] | None = None,
) -> LabelledSamples:
    """Gather rows to samples.

    Parameters
    ----------
    codes : ndarray of shape (n_rows,)
        Class codes, from 0.
    sample_of_row : ndarray of shape (n_rows,), default=None
        Sample of each row, ascending from 0; None: each row is a sample of its own.
    weight : ndarray of shape (n_rows,), default=None
        Weights of the rows; None: all 1.

    Returns
    -------
    LabelledSamples
    """
    rows = np.arange(len(codes))
    if sample_of_row is None or sample_of_row[-1] == rows[-1]:
        return LabelledSamples(rows, codes, codes, np.zeros_like(rows))
    weight = np.ones(len(codes)) if weight is None else weight
    counts = np.bincount(codes)
    # The last row of each sample, in an order that ends with the row looked for.
    last = np.bincount(sample_of_row).cumsum() - 1
    rarest = np.lexsort((-codes, -counts[codes], sample_of_row))[last]
    heaviest = np.lexsort((-codes, weight, sample_of_row))[last]
    share = weight[heaviest] / np.bincount(sample_of_row, weight)
    # Rounded, so that samples of equal shares tie whatever the order of the sums.
    keys = 2 * codes[heaviest] + np.round(share, 6)
    _, ranks = np.unique(keys, return_inverse=True)
    return LabelledSamples(sample_of_row, codes, codes[rarest], ranks)


def spread_ranks(ranks: NDArray[np.intp], n_at_once: int) -> NDArray[np.intp]:
    """Order samples so that any few in succession have low, middle and high ranks.

    Parameters
    ----------
    ranks : ndarray of shape (n,)
        Ranks of the samples, which are in random order.
    n_at_once : int
        How many are taken in succession, at most n.

    Returns
    -------
    ndarray of shape (n,)
        Positions: one sample of each of ``n_at_once`` ranges of ranks, then another of
        each, and so on. Where all ranks are equal, the order stays as it is.
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
