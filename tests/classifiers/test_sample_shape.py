from typing import Any

import numpy as np
import pytest

from plug_sklearn import PlugCNNClassifier, PlugMLPClassifier, PlugStackClassifier


def fit_stack(
    shape: tuple[int, ...], n_layers: int | None, n_parts: int | None
) -> PlugStackClassifier:
    X = np.random.default_rng(0).normal(size=(30, *shape))
    stack = PlugStackClassifier(n_layers=n_layers, n_parts=n_parts, random_state=0)
    return stack.fit(X, np.arange(30) % 2)


@pytest.mark.parametrize(
    ("shape", "n_layers", "n_parts", "expected"),
    [
        ((4, 3, 6), None, None, (4, 3)),
        ((4, 3, 6), 4, 3, (4, 3)),
        ((4, 6), None, None, (4, 1)),
        ((72,), None, None, (1, 1)),
        ((72,), 4, None, (4, 1)),
        ((72,), 4, 3, (4, 3)),
    ],
)
def test_axes_are_layers_parts_and_units(
    shape: tuple[int, ...],
    n_layers: int | None,
    n_parts: int | None,
    expected: tuple[int, int],
) -> None:
    assert fit_stack(shape, n_layers, n_parts).weights_.shape == expected


@pytest.mark.parametrize(
    ("shape", "n_layers", "n_parts", "message"),
    [
        ((72,), 5, None, r"must divide the 72 features of X. Got 5 and 1"),
        ((4, 18), 3, None, r"'n_layers' .* None or 4, as in X. Got 3 instead"),
        ((4, 18), None, 2, r"'n_parts' .* None or 1, as in X. Got 2 instead"),
        ((2, 2, 3, 6), None, None, r"X given to Plug\w+ must be \(n, layers, parts, h"),
    ],
)
def test_what_does_not_fit_is_an_error(
    shape: tuple[int, ...], n_layers: int | None, n_parts: int | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        fit_stack(shape, n_layers, n_parts)


@pytest.mark.parametrize(
    "classifier", [PlugCNNClassifier, PlugMLPClassifier, PlugStackClassifier]
)
def test_activations_of_tokens_are_refused_with_what_reads_them(
    classifier: type,
) -> None:
    y = np.arange(40) % 2
    X = np.random.default_rng(0).normal(size=(40, 2, 1, 4))
    tokens = np.empty(40, dtype=object)
    for row in range(40):
        tokens[row] = np.zeros((2 + row % 2, 2, 1, 4))
    message = f"X given to {classifier.__name__} .* PlugTokenClassifier reads .*pooling"
    for wrong in (tokens, list(tokens)):
        with pytest.raises(ValueError, match=message):
            classifier().fit(wrong, y)
    probe = classifier(random_state=0)
    if classifier is not PlugStackClassifier:
        probe.set_params(max_epochs=1)
    with pytest.raises(ValueError, match=message):
        probe.fit(list(X), y).predict(tokens)


@pytest.mark.parametrize(
    "kind", [PlugMLPClassifier, PlugCNNClassifier, PlugStackClassifier]
)
@pytest.mark.parametrize("is_array", [True, False])
def test_labels_of_tokens_are_refused(kind: type[Any], is_array: bool) -> None:
    X = np.random.default_rng(0).normal(size=(4, 3, 6))
    y: Any = [[0], [1, 0], [1], [0, 0, 1]]
    if is_array:
        y = np.array(y, dtype=object)
    with pytest.raises(ValueError, match="PlugTokenClassifier takes labels of tokens"):
        kind().fit(X, y)
