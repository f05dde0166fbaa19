import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DynamicCache

from plug_sklearn.embedding.passes import SharedPrefix, sort_prompts
from plug_sklearn.embedding.passes._prefixes import (
    LEAST_SAVED,
    PrefixGroup,
    build_trie,
    fill_packs,
    group_by_prefix,
)
from plug_sklearn.embedding.prompts import TokenizedPrompts

# Few ids, so that prefixes are shared; large ones, so that bytes and numbers could
# sort differently.
PROMPTS = st.lists(
    st.lists(st.sampled_from([1, 2, 255, 256, 70_000]), min_size=1, max_size=6),
    min_size=1,
    max_size=12,
)


def join(prompts: list[list[int]]) -> TokenizedPrompts:
    return TokenizedPrompts.join([np.array(ids) for ids in prompts])


def count_shared(one: list[int], other: list[int]) -> int:
    """Plain-Python reference."""
    n = 0
    while n < min(len(one), len(other)) and one[n] == other[n]:
        n += 1
    return n


@given(PROMPTS)
def test_prompts_are_sorted_as_python_sorts_lists(prompts: list[list[int]]) -> None:
    order, shared = sort_prompts(join(prompts))
    in_order = [prompts[number] for number in order]
    assert in_order == sorted(prompts)
    assert shared[0] == 0
    for place in range(1, len(prompts)):
        assert shared[place] == count_shared(in_order[place - 1], in_order[place])


@given(PROMPTS, st.integers(1, 20))
def test_packs_hold_their_distinct_prefixes_up_to_the_capacity(
    prompts: list[list[int]], capacity: int
) -> None:
    tokenized = join(prompts)
    order, shared = sort_prompts(tokenized)
    packs = fill_packs(tokenized.lengths[order], shared, capacity)
    assert [pack.start for pack in packs] == [0, *(pack.stop for pack in packs[:-1])]
    assert packs[-1].stop == len(prompts)
    for pack in packs:
        members = [prompts[number] for number in order[pack.start : pack.stop]]
        prefixes = {tuple(ids[: n + 1]) for ids in members for n in range(len(ids))}
        assert pack.n_nodes == len(prefixes)
        assert pack.n_nodes <= capacity or len(members) == 1


@given(PROMPTS)
def test_trie_has_a_node_for_each_distinct_prefix(prompts: list[list[int]]) -> None:
    order, shared = sort_prompts(join(prompts))
    in_order = [prompts[number] for number in order]
    trie = build_trie([np.array(ids) for ids in in_order], shared.tolist())
    prefix_of_node = {}
    for ids, path in zip(in_order, trie.paths, strict=True):
        assert trie.ids[path].tolist() == ids
        assert trie.depths[path].tolist() == list(range(len(ids)))
        for n, node in enumerate(path.tolist()):
            assert prefix_of_node.setdefault(node, tuple(ids[: n + 1])) == tuple(
                ids[: n + 1]
            )
    assert len(set(prefix_of_node.values())) == len(prefix_of_node) == len(trie.ids)
    for one, one_prefix in prefix_of_node.items():
        for other, prefix in prefix_of_node.items():
            is_ancestor = prefix == one_prefix[: len(prefix)]
            assert (other <= one < trie.ends[other]) == is_ancestor


PACK_NODES = 8
LEAST = 16
BUDGET = int(LEAST / LEAST_SAVED)
LONG = list(range(100, 140))


def groups_of(
    texts: list[list[int]], kept: list[np.ndarray] | None = None
) -> list[PrefixGroup]:
    prompts = TokenizedPrompts.join([np.array(ids) for ids in texts], kept)
    order, shared = sort_prompts(prompts)
    return group_by_prefix(prompts, order, shared, PACK_NODES, BUDGET)


def endings(n: int, start: int = 1) -> list[list[int]]:
    """Endings of two tokens that share nothing."""
    return [[start + 2 * k, start + 2 * k + 1] for k in range(n)]


def test_long_shared_beginning_is_a_shared_prefix() -> None:
    texts = [LONG + ending for ending in endings(5)]
    assert groups_of(texts) == [PrefixGroup(slice(0, 5), len(LONG))]


def test_short_beginning_of_many_texts_is_a_shared_prefix() -> None:
    texts = [[7, 8, *ending] for ending in endings(40)]
    assert groups_of(texts) == [PrefixGroup(slice(0, 40), 2)]


def test_each_beginning_has_a_group_and_the_others_one_between_them() -> None:
    texts = [
        *([1, *LONG, *ending] for ending in endings(5)),
        *endings(5, start=300),
        *([900, *LONG, *ending] for ending in endings(5)),
    ]
    n_shared = len(LONG) + 1
    assert groups_of(texts) == [
        PrefixGroup(slice(0, 5), n_shared),
        PrefixGroup(slice(5, 10), 0),
        PrefixGroup(slice(10, 15), n_shared),
    ]


def test_long_beginning_of_some_is_not_lost_to_a_short_one_of_all() -> None:
    some = [[1, *LONG, *ending] for ending in endings(5)]
    others = [[1, 200, *ending] for ending in endings(40)]
    assert groups_of(some + others) == [
        PrefixGroup(slice(0, 5), len(LONG) + 1),
        PrefixGroup(slice(5, 45), 2),
    ]


def test_prefix_that_saves_fewer_tokens_than_a_pass_costs_is_none() -> None:
    # The first pack computes the beginning in any case, each further one again.
    n_packs_before, prompts_a_pack = LEAST // 2, 3
    texts = [[7, 8, *e] for e in endings(prompts_a_pack * n_packs_before)]
    assert groups_of(texts) == [PrefixGroup(slice(0, len(texts)), 0)]


@settings(max_examples=50)
@given(
    texts=st.lists(
        st.lists(st.integers(1, 3), min_size=1, max_size=30),
        min_size=1,
        max_size=40,
        unique_by=tuple,
    )
)
def test_groups_never_compute_more_than_packs_without_shared_prefixes(
    texts: list[list[int]],
) -> None:
    prompts = TokenizedPrompts.join([np.array(ids) for ids in texts])
    order, shared = sort_prompts(prompts)
    lengths = prompts.lengths[order]

    def count(first: int, end: int, before: int, pack_nodes: int) -> int:
        common = np.concatenate([[before], shared[first + 1 : end]]) - before
        packs = fill_packs(lengths[first:end] - before, common, pack_nodes)
        return before + sum(pack.n_nodes for pack in packs)

    groups = group_by_prefix(prompts, order, shared, PACK_NODES, BUDGET)
    assert [group.places.start for group in groups] == [
        0,
        *(group.places.stop for group in groups[:-1]),
    ]
    assert groups[-1].places.stop == len(texts)
    for group in groups:
        first, end, n_shared = group.places.start, group.places.stop, group.n_shared
        heads = {tuple(texts[number][:n_shared]) for number in order[first:end]}
        assert len(heads) == 1
        if n_shared:
            assert count(first, end, n_shared, 2 * PACK_NODES) + LEAST <= count(
                first, end, 0, PACK_NODES
            )


def test_text_that_is_the_beginning_itself_keeps_a_token_of_its_own() -> None:
    texts = [[*LONG, 7], *([*LONG, 7, *end] for end in endings(5))]
    assert groups_of(texts)[0].n_shared == len(LONG)


def test_texts_that_pool_the_beginning_differently_share_no_prefix() -> None:
    texts = [LONG + ending for ending in endings(5)]
    kept = [np.arange(len(ids)) >= (row % 2) for row, ids in enumerate(texts)]
    assert groups_of(texts, kept)[0].n_shared == 0


def test_memory_of_a_cache_is_counted_in_tokens_of_full_attention() -> None:
    cache = DynamicCache()
    cache.update(torch.zeros(1, 2, 40, 8), torch.zeros(1, 2, 40, 8), 0)
    cache.update(torch.zeros(1, 2, 10, 8), torch.zeros(1, 2, 10, 8), 1)
    # Two layers, of 40 and of 10 tokens, with heads half as wide as the hidden size.
    assert SharedPrefix(40, cache, None, 0).count_cached_tokens(hidden_size=32) == 13


def test_each_row_has_a_copy_of_the_cache() -> None:
    cache = DynamicCache()
    cache.update(torch.ones(1, 2, 4, 8), torch.ones(1, 2, 4, 8), 0)
    prefix = SharedPrefix(4, cache, None, 0)
    copied = prefix.repeat_cache(3)
    copied.update(torch.zeros(3, 2, 1, 8), torch.zeros(3, 2, 1, 8), 0)
    assert copied.layers[0].keys.shape == (3, 2, 5, 8)
    assert copied.layers[0].keys[:, :, :4].eq(1).all()
    assert cache.layers[0].keys.shape == (1, 2, 4, 8)
