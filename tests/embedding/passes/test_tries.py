from time import perf_counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from plug_sklearn.embedding.passes._tries import build_trie, fill_packs, sort_prompts
from plug_sklearn.embedding.prompts._tokenized import TokenizedPrompts

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


def test_a_hundred_thousand_texts_are_planned_in_seconds() -> None:
    generator = np.random.default_rng(0)
    stems = generator.integers(1, 500, size=(50, 4))
    prompts = join(
        [
            np.concatenate([stems[n % 50], generator.integers(1, 30_000, size=8)])
            for n in range(100_000)
        ]
    )
    start = perf_counter()
    order, shared = sort_prompts(prompts)
    packs = fill_packs(prompts.lengths[order], shared, 128)
    for pack in packs:
        members = [prompts.ids_of(number) for number in order[pack.start : pack.stop]]
        build_trie(members, [0, *shared[pack.start + 1 : pack.stop]])
    # It takes about two seconds; a loop over tokens would take minutes.
    assert perf_counter() - start < 30
