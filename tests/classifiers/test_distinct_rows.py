import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from plug_sklearn.classifiers._distinct_rows import find_distinct_rows


def tally_in_plain_python(
    X: np.ndarray, codes: np.ndarray, weight: np.ndarray, groups: np.ndarray
) -> dict[tuple[float, ...], float]:
    tally: dict[tuple[float, ...], float] = {}
    for x, code, w, group in zip(X.tolist(), codes, weight, groups, strict=True):
        if w > 0:
            key = (*x, code, group)
            tally[key] = tally.get(key, 0) + w
    return tally


@given(st.data(), st.integers(1, 30))
def test_distinct_rows_are_a_tally(data: st.DataObject, n: int) -> None:
    small = st.sampled_from([-1.0, -0.0, 0.0, 2.5])
    X = data.draw(arrays(np.float32, (n, 2), elements=small))
    codes, groups = data.draw(arrays(np.intp, (2, n), elements=st.integers(0, 1)))
    weight = data.draw(arrays(float, n, elements=st.sampled_from([0.0, 1.0, 2.5])))
    assume(weight.any())
    distinct = find_distinct_rows(X, codes, weight, groups)
    i = distinct.index
    found = tally_in_plain_python(X[i], codes[i], distinct.weight, groups[i])
    assert found == tally_in_plain_python(X, codes, weight, groups)
    assert len(found) == len(i)


@given(st.permutations(range(12)))
def test_order_of_the_rows_does_not_change_the_distinct_rows(order: list[int]) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(12, 2, 3)).astype(np.float32)
    X[4] = X[7]
    codes, weight = np.arange(12) % 2, np.arange(12.0)
    codes[4] = codes[7]
    one = find_distinct_rows(X, codes, weight)
    other = find_distinct_rows(X[order], codes[order], weight[order])
    assert np.array_equal(X[one.index], X[order][other.index])
    assert np.array_equal(one.weight, other.weight)
