from typing import Any

import numpy as np
from _texts import make_texts
from numpy.testing import assert_allclose

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


def test_size_of_the_largest_tokens_has_no_effect_on_the_standardisation() -> None:
    sink = np.full((1, 8), 1000.0)
    found = []
    for size in (1, 64):
        texts = [np.vstack([size * sink, text, text]) for text in X]
        probe = PlugTokenClassifier(**QUICK | {"max_epochs": 1}).fit(texts, Y)
        found.append(probe.net_.module_.standardise.state_dict())
    for name in ("largest_norm", "mean", "scale"):
        assert_allclose(found[0][name], found[1][name], rtol=1e-6)


def test_norms_that_overflow_in_single_precision_are_not_limited() -> None:
    scaled = [text * np.float32(2.0**66) for text in X]
    settings = QUICK | {"max_epochs": 30, "early_stopping": False}
    probe = PlugTokenClassifier(**settings).fit(scaled, Y)
    assert probe.score(scaled, Y) > 0.9


def test_norms_are_limited_in_the_unit_of_the_features() -> None:
    scaled = [text * 2.0**20 for text in X]
    found = [
        PlugTokenClassifier(**QUICK | {"max_epochs": 1})
        .fit(texts, Y)
        .net_.module_.standardise
        for texts in (X, scaled)
    ]
    assert_allclose(found[1].largest_norm, 2.0**20 * found[0].largest_norm)
    assert_allclose(found[1].scale, 2.0**-20 * found[0].scale, rtol=1e-6)
