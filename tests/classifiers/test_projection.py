import numpy as np
import pytest
from sklearn.decomposition import PCA

from plug_sklearn.classifiers._projection import learn_basis

RNG = np.random.default_rng(0)
DEVIATIONS = np.geomspace(5, 0.1, 12)
X = (RNG.normal(size=(80, 12)) * DEVIATIONS).astype(np.float32)
X -= X.mean(axis=0)


def test_directions_are_the_principal_ones() -> None:
    basis = learn_basis(X, np.ones(80, np.float32), 3, seed=0)
    unit = basis / np.linalg.norm(basis, axis=0)
    principal = PCA(3).fit(X).components_
    np.testing.assert_allclose(np.abs(np.diag(principal @ unit)), 1, atol=1e-5)


def test_variances_along_them_average_one() -> None:
    basis = learn_basis(X, np.ones(80, np.float32), 4, seed=0)
    assert np.var(X @ basis, axis=0).mean() == pytest.approx(1, rel=1e-4)
    lengths = np.linalg.norm(basis, axis=0)
    np.testing.assert_allclose(lengths, lengths[0], rtol=1e-5)


def test_a_row_of_weight_two_is_a_row_twice() -> None:
    weight = np.ones(80, np.float32)
    weight[:5] = 2
    weighted = learn_basis(X, weight, 3, seed=0)
    repeated = np.concatenate([X, X[:5]])
    other = learn_basis(repeated, np.ones(85, np.float32), 3, seed=0)
    np.testing.assert_allclose(weighted @ weighted.T, other @ other.T, atol=1e-4)


def test_features_without_variance_have_a_finite_basis() -> None:
    basis = learn_basis(np.zeros((9, 4), np.float32), np.ones(9, np.float32), 2, seed=0)
    assert np.isfinite(basis).all()
