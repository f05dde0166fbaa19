from typing import Any

import numpy as np
from _texts import make_texts
from numpy.testing import assert_allclose, assert_array_equal

from plug_sklearn import PlugTokenClassifier

QUICK: dict[str, Any] = {
    "max_epochs": 5,
    "n_members": 2,
    "random_state": 0,
    "device": "cpu",
}
X, Y = make_texts(60)


def test_size_of_tokens_that_are_far_larger_than_others_has_no_effect() -> None:
    probe = PlugTokenClassifier(**QUICK).fit(X, Y)
    (direction,) = np.random.default_rng(0).normal(size=(1, 8))
    direction *= 100 / np.linalg.norm(direction)
    large, larger = (
        [np.vstack([factor * direction, text]) for text in X] for factor in (1, 1000)
    )
    assert_allclose(probe.predict_proba(large), probe.predict_proba(larger), atol=1e-9)
    small = [np.vstack([0.02 * direction, text]) for text in X]
    assert (abs(probe.predict_proba(small) - probe.predict_proba(large)) > 1e-3).any()


def test_fit_is_the_same_whatever_the_size_of_the_largest_tokens() -> None:
    sink = np.full((1, 8), 1000.0)
    texts = [[np.vstack([size * sink, text]) for text in X] for size in (1, 64)]
    fitted = [PlugTokenClassifier(**QUICK).fit(own, Y) for own in texts]
    found = [probe.predict_proba(own) for probe, own in zip(fitted, texts, strict=True)]
    assert_allclose(found[0], found[1], atol=1e-6)


def test_fit_does_not_depend_on_the_unit_of_the_features() -> None:
    scaled = [text * 2.0**20 for text in X]
    probe = PlugTokenClassifier(**QUICK).fit(X, Y)
    other = PlugTokenClassifier(**QUICK).fit(scaled, Y)
    assert_array_equal(probe.predict(X), other.predict(scaled))
    assert_allclose(probe.predict_proba(X), other.predict_proba(scaled), atol=1e-6)
