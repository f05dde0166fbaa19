import numpy as np

from plug_sklearn import PlugMLPClassifier
from plug_sklearn.classifiers._networks import MLPNetwork

RNG = np.random.default_rng(0)
X = RNG.normal(size=(100, 10))
Y = (X[:, 0] > 0).astype(int)


def test_network_is_sized_by_all_distinct_rows() -> None:
    # 5 x 100 / 10 = 50, 25, 16 units; by hand in test_sizing.
    probe = PlugMLPClassifier(max_epochs=1).fit(X, Y)
    assert isinstance(probe.net_.module_, MLPNetwork)
    assert probe.n_parameters_ == 3807
    repeated = PlugMLPClassifier(max_epochs=1).fit([*X, *X], [*Y, *Y])
    assert repeated.n_parameters_ == 3807


def test_parameters_reach_the_network() -> None:
    probe = PlugMLPClassifier(
        target_ratio=2.0, width_cap=18, out_floor=20, dropout=0.4, max_epochs=1
    ).fit(X, Y)
    net = probe.net_
    assert (net.module__first, net.module__second, net.module__last) == (18, 16, 20)
    assert net.module_.entry[0][3].p == 0.4


def test_samples_of_more_axes_are_read_as_their_flattened_features() -> None:
    probe = PlugMLPClassifier(max_epochs=2, random_state=0)
    flat = probe.fit(X, Y).predict_proba(X)
    shaped = X.reshape(100, 5, 1, 2)
    assert np.array_equal(probe.fit(shaped, Y).predict_proba(shaped), flat)
    assert probe.input_shape_ == (5, 1, 2)
    assert probe.n_features_in_ == 5
