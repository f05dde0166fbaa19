import numpy as np
import pytest
import torch
from _texts import make_texts
from numpy.testing import assert_allclose

from plug_sklearn import PlugTokenClassifier
from plug_sklearn.classifiers._token_aggregation import Rule, TokenScores, pool_tokens
from plug_sklearn.classifiers._token_stream import POOLS

AGGREGATIONS = ["attention", "max", "mean", "rolling", "softmax"]
X, Y = make_texts(40, longest=20)


@pytest.mark.parametrize("linear_path", [True, False])
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_stream_gives_what_the_tokens_so_far_give(
    aggregation: str, linear_path: bool
) -> None:
    probe = PlugTokenClassifier(
        aggregation=aggregation,
        linear_path=linear_path,
        window=3,
        max_epochs=5,
        n_members=2,
        random_state=0,
        device="cpu",
    ).fit(X, Y)
    texts = [text for text in X if len(text) > 12][:3]
    stream = probe.start_stream(len(texts))
    for place in range(12):
        found = stream.update(np.stack([text[place] for text in texts]))
        expected = probe.predict_proba([text[: place + 1] for text in texts])
        assert_allclose(found, expected, atol=1e-10)


def test_some_texts_can_get_a_token_while_others_wait() -> None:
    probe = PlugTokenClassifier(max_epochs=3, n_members=2, device="cpu").fit(X, Y)
    first, second = [text for text in X if len(text) > 3][:2]
    stream = probe.start_stream(2)
    stream.update([first[0], second[0]])
    for place in range(1, len(second)):
        found = stream.update(second[place : place + 1], texts=[1])
    assert_allclose(found, probe.predict_proba([second, second])[:1], atol=1e-10)


def test_tokens_may_have_further_axes() -> None:
    probe = PlugTokenClassifier(max_epochs=3, n_members=2, device="cpu").fit(X, Y)
    token = X[0][:1]
    flat, shaped = probe.start_stream(), probe.start_stream()
    assert_allclose(flat.update(token), shaped.update(token.reshape(1, 2, 1, 4)))


def test_wrong_tokens_are_refused() -> None:
    probe = PlugTokenClassifier(max_epochs=3, n_members=2, device="cpu").fit(X, Y)
    stream = probe.start_stream(2)
    with pytest.raises(ValueError, match="'token_features' given to update"):
        stream.update(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="'token_features' given to update"):
        stream.update(np.zeros((3, 8)))
    with pytest.raises(ValueError, match="'token_features' given to update"):
        stream.update(3.0)
    with pytest.raises(ValueError, match="must not hold NaN or infinity"):
        stream.update(np.full((2, 8), np.nan))


@pytest.mark.parametrize("texts", [[2], [-1], [0, 0], [0.0], [True, False], [[0]], 1])
def test_wrong_positions_of_texts_are_refused(texts: object) -> None:
    probe = PlugTokenClassifier(max_epochs=3, n_members=2, device="cpu").fit(X, Y)
    stream = probe.start_stream(2)
    with pytest.raises(ValueError, match=r"'texts' given to update .* in \[0, 2\)"):
        stream.update(np.zeros((np.size(texts), 8)), texts)


@pytest.mark.parametrize("spread", [1.0, 300.0])
@pytest.mark.parametrize("aggregation", sorted(POOLS))
def test_running_aggregates_are_those_of_the_tokens_so_far(
    aggregation: str, spread: float
) -> None:
    # With scores of hundreds, exponentials would overflow.
    generator = torch.Generator().manual_seed(0)
    values = spread * torch.randn(2, 12, 2, 3, 1, generator=generator).double()
    queries = spread * torch.randn(2, 12, 2, 3, generator=generator).double()
    recency = torch.randn(2, 3, 4, generator=generator).double()
    rule = Rule(aggregation, 3, recency)
    pool = POOLS[aggregation](values.new_zeros(2, 2, 3, 1), rule)
    rows = torch.arange(2)
    for place in range(12):
        added = TokenScores(values[:, place], queries[:, place])
        found = pool.add(rows, added)
        so_far = TokenScores(values[:, : place + 1], queries[:, : place + 1])
        kept = torch.ones(2, place + 1, dtype=torch.bool)
        assert_allclose(found, pool_tokens(so_far, kept, rule, is_soft=False))
