import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from plug_sklearn.classifiers._token_batches import (
    TRAINING_BYTES,
    TokenBatches,
    TokenRows,
    cut_batches,
    find_largest_norm,
    join_tokens,
)

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=80)


def make_rows(lengths: list[int]) -> TokenRows:
    """Make texts whose tokens hold the number of the text."""
    texts = [np.full((n, 2), number) for number, n in enumerate(lengths)]
    ones = torch.ones(len(texts))
    y = torch.arange(len(texts))
    return TokenRows(texts, y, ones, texts, ones, per_token=False)


@given(LENGTHS, st.integers(1, 9), st.integers(1, 200))
def test_batches_hold_all_texts_in_order_and_keep_their_limits(
    lengths: list[int], most_texts: int, most_tokens: int
) -> None:
    cuts = cut_batches(np.array(lengths), 3, most_texts, 4 * 3 * most_tokens)
    positions = np.concatenate([np.arange(len(lengths))[cut] for cut in cuts])
    assert positions.tolist() == list(range(len(lengths)))
    for cut in cuts:
        own = lengths[cut]
        assert 1 <= len(own) <= most_texts
        assert sum(own) <= most_tokens or len(own) == 1


@given(LENGTHS, st.integers(2, 9), st.booleans())
def test_an_epoch_reads_each_text_once_with_its_own_label(
    lengths: list[int], batch_size: int, is_shuffled: bool
) -> None:
    rows = make_rows(lengths)
    generator = torch.Generator().manual_seed(0) if is_shuffled else None
    batches = TokenBatches(rows, batch_size, generator)
    seen = []
    for batch, (codes, _) in batches:
        for text, code in zip(batch.split(batch.features), codes, strict=True):
            assert text.shape == (lengths[code], 2)
            assert (text == code).all()
            seen.append(int(code))
    assert sorted(seen) == list(range(len(lengths)))


def test_scores_of_shuffled_batches_are_padded_by_less_than_a_tenth() -> None:
    lengths = np.random.default_rng(0).integers(1, 400, size=2000).tolist()
    rows = make_rows(lengths)
    generator = torch.Generator().manual_seed(0)
    kept = [batch.kept for batch, _ in TokenBatches(rows, 32, generator)]
    n_places = sum(mask.numel() for mask in kept)
    assert n_places < 1.1 * sum(lengths)
    assert 4 * 2 * max(mask.sum() for mask in kept) <= TRAINING_BYTES


@given(LENGTHS)
def test_padded_values_are_those_of_the_texts(lengths: list[int]) -> None:
    rng = np.random.default_rng(0)
    texts = [rng.normal(size=(n, 2)).astype(np.float32) for n in lengths]
    batch = join_tokens(texts, torch.device("cpu"))
    padded = batch.pad(batch.features)
    numbers = batch.number_texts().numpy()
    for number, text in enumerate(texts):
        assert_allclose(padded[number, : len(text)], text)
        assert not padded[number, len(text) :].any()
        assert_allclose(batch.features[numbers == number], text)


def test_norms_are_limited_to_twice_their_median_over_texts_of_equal_weight() -> None:
    # The tokens of the long text count as much as the one token of the short text.
    short, long = np.array([[6.0, 8.0]]), np.array([[3.0, 4.0]] * 99)
    texts = [short, long]
    assert find_largest_norm(texts, np.array([0.6, 0.4])) == 20
    assert find_largest_norm(texts, np.array([0.4, 0.6])) == 10


def test_norms_are_not_limited_where_all_tokens_are_zero_or_squares_overflow() -> None:
    for value in (0.0, 1e30):
        largest = find_largest_norm([np.full((3, 2), value)], np.ones(1))
        assert largest > 1e38
