"""Both estimators: weights of samples and of classes."""

import numpy as np
import pytest
from _activations import X, Y
from sklearn.base import ClassifierMixin, clone

RNG = np.random.default_rng(1)


def test_a_row_twice_is_a_row_of_weight_two(probe: ClassifierMixin) -> None:
    weight = np.ones(80)
    weight[:30] = 2
    weighted = clone(probe).fit(X, Y, sample_weight=weight).predict_proba(X)
    repeated = clone(probe).fit([*X, *X[:30]], [*Y, *Y[:30]]).predict_proba(X)
    assert np.array_equal(weighted, repeated)


def test_order_of_the_rows_does_not_matter(probe: ClassifierMixin) -> None:
    order = RNG.permutation(80)
    one = clone(probe).fit(X, Y).predict_proba(X)
    assert np.array_equal(one, clone(probe).fit(X[order], Y[order]).predict_proba(X))


def test_rows_without_weight_are_not_there(probe: ClassifierMixin) -> None:
    junk = 100 * RNG.normal(size=(500, 3, 2, 8))
    weight = np.repeat([1, 0], [80, 500])
    without = clone(probe).fit(X, Y)
    dropped = clone(probe).fit(
        [*X, *junk], [*Y, *np.full(500, 7)], sample_weight=weight
    )
    assert dropped.classes_.tolist() == [0, 1]
    assert dropped.n_parameters_ == without.n_parameters_
    assert np.array_equal(dropped.predict_proba(X), without.predict_proba(X))


def test_groups_without_weight_are_not_there(probe: ClassifierMixin) -> None:
    groups, weight = np.arange(80) // 8, np.ones(80)
    weight[groups < 8] = 0
    weight[groups == 3] = 1
    kept = weight > 0
    one = clone(probe).fit(X, Y, sample_weight=weight, groups=groups)
    other = clone(probe).fit(X[kept], Y[kept], groups=groups[kept])
    assert np.array_equal(one.predict_proba(X), other.predict_proba(X))


def test_scale_of_sample_weights_does_not_matter(probe: ClassifierMixin) -> None:
    weight = RNG.integers(1, 5, size=80)
    one = clone(probe).fit(X, Y, sample_weight=weight).predict_proba(X)
    # A power of two, so that the scaling itself rounds nothing.
    for power in (3, -1060, 1020):
        scaled = np.ldexp(weight.astype(float), power)
        other = clone(probe).fit(X, Y, sample_weight=scaled).predict_proba(X)
        assert np.array_equal(one, other)


def test_scale_of_class_weights_does_not_matter(probe: ClassifierMixin) -> None:
    one, other = (
        clone(probe)
        .set_params(class_weight={0: factor, 1: factor / 2})
        .fit(X, Y, X_val=X, y_val=Y)
        .predict_proba(X)
        for factor in (1.0, 2.0**1023)
    )
    assert np.array_equal(one, other)


def test_balanced_classes_are_those_of_their_factors(
    probe: ClassifierMixin,
) -> None:
    kept = Y + np.arange(80) % 3 > 0
    X_uneven, y_uneven = X[kept], Y[kept]
    share = np.bincount(y_uneven) / len(y_uneven)
    factors = dict(enumerate(0.5 / share))
    balanced = clone(probe).set_params(class_weight="balanced").fit(X_uneven, y_uneven)
    explicit = clone(probe).set_params(class_weight=factors).fit(X_uneven, y_uneven)
    np.testing.assert_allclose(
        balanced.predict_proba(X), explicit.predict_proba(X), rtol=1e-4
    )


def test_a_heavy_class_is_predicted_more(probe: ClassifierMixin) -> None:
    noise = RNG.normal(size=X.shape)
    means = [
        clone(probe)
        .set_params(class_weight={1: factor})
        .fit(noise, Y)
        .predict_proba(noise)[:, 1]
        .mean()
        for factor in (0.05, 1.0, 20.0)
    ]
    assert means[0] < 0.2 < means[1] < 0.8 < means[2]


def test_validation_loss_counts_class_weights(probe: ClassifierMixin) -> None:
    probe.set_params(class_weight={0: 1.0, 1: 5.0}, max_epochs=1, calibrate=False)
    # More rows of class 1, so that weights and none differ.
    kept = Y[60:] + np.arange(20) % 3 > 0
    X_valid, y_valid = X[60:][kept], Y[60:][kept]
    probe.fit(X[:60], Y[:60], X_val=X_valid, y_val=y_valid)
    losses = -np.log(probe.predict_proba(X_valid)[np.arange(len(y_valid)), y_valid])
    expected = np.average(losses, weights=np.where(y_valid == 1, 5, 1))
    assert probe.history_[0]["valid_loss"] == pytest.approx(expected, rel=1e-4)


def test_validation_rows_of_no_weight_are_an_error(probe: ClassifierMixin) -> None:
    probe.set_params(class_weight={0: 0.0})
    with pytest.raises(ValueError) as raised:
        probe.fit(X, Y, X_val=X[Y == 0], y_val=Y[Y == 0])
    assert str(raised.value) == (
        f"The 'class_weight' parameter of {type(probe).__name__} must give a weight "
        "above zero to a class that the validation samples contain. "
        "Got {0: 0.0} instead."
    )
