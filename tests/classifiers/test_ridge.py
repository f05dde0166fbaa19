import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from plug_sklearn.classifiers._ridge import (
    RidgeRegressions,
    compute_losses,
    make_targets,
    predict,
)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(80, 12))


def draw_codes(n_classes: int) -> np.ndarray:
    scores = X[:, :n_classes] + RNG.normal(size=(80, n_classes))
    return scores.argmax(axis=1)


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("C", [0.01, 1.0, 100.0])
def test_each_regression_is_that_of_scikit_learn(n_classes: int, C: float) -> None:
    codes = draw_codes(n_classes)
    weights = RNG.uniform(0.2, 2, size=(80, 3))
    weights[:20, 0] = 0
    regressions = RidgeRegressions(X, codes, n_classes, weights)
    coefficients = regressions.fit(1 / C, tolerance=1e-8)
    for number, own in enumerate(weights.T):
        expected = LogisticRegression(C=C, tol=1e-9, max_iter=10_000)
        expected.fit(X, codes, sample_weight=own)
        found = coefficients[:, number].T
        np.testing.assert_allclose(found[:, :-1], expected.coef_, atol=2e-3)
        np.testing.assert_allclose(found[:, -1], expected.intercept_, atol=2e-3)


def test_a_regression_is_the_same_alone_and_among_others() -> None:
    codes, weights = draw_codes(3), RNG.uniform(size=(80, 4))
    together = RidgeRegressions(X, codes, 3, weights).fit(0.5, tolerance=1e-7)
    alone = RidgeRegressions(X, codes, 3, weights[:, 2:3]).fit(0.5, tolerance=1e-7)
    np.testing.assert_allclose(together[:, 2], alone[:, 0], atol=1e-5)


def test_where_it_starts_does_not_matter() -> None:
    codes = draw_codes(2)
    regressions = RidgeRegressions(X, codes, 2, np.ones((80, 1)))
    there = regressions.fit(1.0, tolerance=1e-9)
    far = regressions.fit(1.0, 50 * RNG.normal(size=there.shape), tolerance=1e-9)
    np.testing.assert_allclose(there, far, atol=1e-6)


def test_separable_classes_and_weight_on_one_class_stay_finite() -> None:
    codes = (X[:, 0] > 0).astype(int)
    weights = np.stack([np.ones(80), codes], axis=1)
    coefficients = RidgeRegressions(X, codes, 2, weights).fit(1e-6)
    assert np.isfinite(coefficients).all()


def test_one_logit_means_the_same_as_two() -> None:
    logits = RNG.normal(size=(9, 1))
    codes = RNG.integers(2, size=9)
    both = np.hstack([-logits / 2, logits / 2])
    np.testing.assert_allclose(predict(logits)[:, 0], predict(both)[:, 1])
    np.testing.assert_allclose(
        compute_losses(logits, make_targets(codes, 2)),
        compute_losses(both, np.eye(2)[codes]),
    )
