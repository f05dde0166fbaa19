import pickle
import tracemalloc

import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.preprocessing import StandardScaler

from plug_sklearn import PlugStackClassifier

RNG = np.random.default_rng(0)
Y = np.arange(120) % 2
X = RNG.normal(size=(120, 4, 2, 8)).astype(np.float32)
X[:, 2, 1] += 0.8 * Y[:, None]


def fit(
    X: np.ndarray = X, y: np.ndarray = Y, **parameters: object
) -> PlugStackClassifier:
    return PlugStackClassifier(**{"random_state": 0} | parameters).fit(X, y)


def test_the_layer_and_part_that_know_the_classes_get_the_weight() -> None:
    probe = fit()
    assert probe.weights_.shape == (4, 2)
    assert probe.weights_[2, 1] > 0.95
    assert probe.weights_.sum() == pytest.approx(1)
    losses = probe.held_out_log_loss_
    assert np.unravel_index(losses.argmin(), losses.shape) == (2, 1)
    assert losses[0, 0] == pytest.approx(np.log(2), abs=0.1)


def test_it_predicts_rows_that_it_has_not_seen() -> None:
    assert fit(X[:80], Y[:80]).score(X[80:], Y[80:]) > 0.8


def test_coefficients_of_raw_units_give_the_logits() -> None:
    probe = fit()
    flat = X.reshape(len(X), -1).astype(np.float64)
    assert probe.coef_.shape == (1, 64)
    logits = flat @ probe.coef_[0] + probe.intercept_[0]
    np.testing.assert_allclose(probe.decision_function(X), logits, rtol=1e-9)
    second = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(probe.predict_proba(X)[:, 1], second, rtol=1e-9)


def test_one_probe_is_tempered_logistic_regression() -> None:
    one = X[:, 2, 1]
    probe = fit(one, Cs=[4.0])
    units = StandardScaler().fit_transform(one)
    expected = LogisticRegression(C=4.0 / 8, tol=1e-9).fit(units, Y)
    ratio = probe.decision_function(one) / expected.decision_function(units)
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-2)
    assert 0.3 < ratio[0] < 3


def test_many_probes_that_know_nothing_are_not_confident() -> None:
    losses = []
    for seed in range(4):
        noise = np.random.default_rng(seed).normal(size=(160, 15, 2, 50))
        probabilities = fit(noise[:60], Y[:60]).predict_proba(noise[60:])
        losses.append(-np.log(probabilities[np.arange(100), Y[:100]]).mean())
    assert np.mean(losses) < 0.9


def test_several_classes_named_by_strings() -> None:
    names = np.array(["b", "a", "c"])[np.arange(120) % 3]
    activations = RNG.normal(size=(120, 3, 1, 8))
    activations[:, 1, 0, :3] += 3 * (names[:, None] == np.array(["a", "b", "c"]))
    probe = fit(activations, names)
    assert probe.classes_.tolist() == ["a", "b", "c"]
    assert probe.coef_.shape == (3, 24)
    assert probe.weights_.argmax() == 1
    assert probe.score(activations, names) > 0.9
    logits = activations.reshape(120, -1) @ probe.coef_.T + probe.intercept_
    np.testing.assert_allclose(probe.decision_function(activations), logits, atol=1e-5)


def test_three_axes_are_one_part_and_two_are_what_parameters_say() -> None:
    probabilities = fit().predict_proba(X)
    flat = X.reshape(120, -1)
    unfolded = fit(flat, n_layers=4, n_parts=2)
    assert np.array_equal(unfolded.predict_proba(flat), probabilities)
    assert fit(X[:, :, 0]).weights_.shape == (4, 1)
    assert fit(flat).weights_.shape == (1, 1)


def test_a_row_given_twice_is_a_row_of_weight_two_in_any_order() -> None:
    weight = np.where(np.arange(120) < 30, 2.0, 1.0)
    weighted = PlugStackClassifier(random_state=0).fit(X, Y, sample_weight=weight)
    order = RNG.permutation(150)
    doubled = fit(np.concatenate([X, X[:30]])[order], np.append(Y, Y[:30])[order])
    assert np.array_equal(doubled.predict_proba(X), weighted.predict_proba(X))


def test_only_ratios_of_weights_count() -> None:
    weight = RNG.uniform(0.5, 2, size=120)
    probes = [
        PlugStackClassifier(random_state=0).fit(X, Y, sample_weight=factor * weight)
        for factor in (1.0, 1e-12)
    ]
    one, other = (probe.predict_proba(X) for probe in probes)
    np.testing.assert_allclose(one, other, rtol=1e-6)


def test_balanced_weights_raise_the_rare_class() -> None:
    y = (np.arange(120) % 8 == 0).astype(int)
    plain, balanced = fit(y=y), fit(y=y, class_weight="balanced")
    rare = [probe.predict_proba(X)[:, 1].mean() for probe in (plain, balanced)]
    assert rare[0] == pytest.approx(y.mean(), abs=0.05)
    assert rare[1] > 2 * rare[0]


def test_a_class_of_fewer_rows_than_folds_is_learnt() -> None:
    y = np.where(np.arange(120) < 2, 2, Y)
    activations = X.copy()
    activations[:2, 2, 1] -= 6
    probe = fit(activations, y)
    assert np.isfinite(probe.predict_log_proba(activations)).all()
    assert probe.predict(activations[:2]).tolist() == [2, 2]


def test_few_rows_get_equal_weights() -> None:
    probe = fit(X[:12], Y[:12])
    assert np.array_equal(probe.weights_, np.full((4, 2), 1 / 8))
    assert np.isnan(probe.held_out_log_loss_).all()
    assert probe.temperature_ == 1
    assert np.isfinite(probe.predict_proba(X)).all()


def test_groups_tell_a_signal_from_an_echo_of_the_group() -> None:
    # Layer 0 knows the group, whose label is chance; layer 1 knows the label weakly.
    groups = np.repeat(np.arange(30), 4)
    y = np.repeat(np.arange(30) % 2, 4)
    activations = 0.1 * RNG.normal(size=(120, 2, 1, 30))
    activations[:, 0, 0] += 3 * np.eye(30)[groups]
    activations[:, 1, 0] += 0.1 * RNG.normal(size=(120, 30)) + 0.05 * y[:, None]
    alone = PlugStackClassifier(random_state=0).fit(activations, y)
    grouped = PlugStackClassifier(random_state=0).fit(activations, y, groups=groups)
    assert alone.weights_.argmax() == 0
    assert grouped.weights_.argmax() == 1


def test_groups_that_cannot_be_held_out_give_equal_weights_and_a_warning() -> None:
    # Each class is one group: whichever is held out, training lacks a class.
    with pytest.warns(UserWarning, match=r"can hold out no groups: .* C of 1\.6\."):
        probe = PlugStackClassifier(random_state=0).fit(X, Y, groups=Y)
    assert np.array_equal(probe.weights_, np.full((4, 2), 1 / 8))
    assert np.isnan(probe.held_out_log_loss_).all()


def test_routed_groups_reach_the_fits_of_a_search() -> None:
    groups = np.arange(len(Y)) // 4
    heard = []

    class Listening(PlugStackClassifier):
        def fit(self, X: object, y: object, groups: object = None) -> "Listening":
            heard.append(set(groups))
            return super().fit(X, y, groups=groups)

    listening = Listening(random_state=0, Cs=[1.0])
    with sklearn.config_context(enable_metadata_routing=True):
        cross_val_score(listening, X, Y, cv=GroupKFold(2), params={"groups": groups})
    one, other = heard
    assert one.isdisjoint(other)
    assert one | other == set(groups)


def test_equal_seeds_give_equal_bits_and_leave_the_global_generator() -> None:
    state = np.random.get_state()[1].copy()  # noqa: NPY002 - the global one is meant
    one, other = fit(), fit()
    assert np.array_equal(one.coef_, other.coef_)
    assert np.array_equal(state, np.random.get_state()[1])  # noqa: NPY002 - as above


def test_a_pickle_holds_the_chosen_probes_only() -> None:
    wide = RNG.normal(size=(60, 20, 2, 256)).astype(np.float32)
    wide[:, 7, 0, :128] += Y[:60, None]
    probe = fit(wide, Y[:60])
    n_chosen = np.count_nonzero(probe.weights_)
    assert n_chosen < 20
    data = pickle.dumps(probe)
    assert len(data) < n_chosen * 256 * 8 + 10_000
    assert np.array_equal(
        pickle.loads(data).predict_proba(wide), probe.predict_proba(wide)
    )


def test_a_fit_takes_little_memory_beside_its_samples() -> None:
    large = RNG.normal(size=(1200, 30, 2, 32)).astype(np.float32)
    y = np.arange(1200) % 2
    large[:, 3, 0, :9] += y[:, None]
    tracemalloc.start()
    fit(large, y, Cs=[1.0])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 0.3 * large.nbytes


@pytest.mark.parametrize(
    "Cs", [[], [0.0], [1.0, -1.0], [np.inf], ["1"], [[1.0]], [[1.0], [2, 3]]]
)
def test_values_of_c_that_are_none_are_refused(Cs: list[object]) -> None:
    with pytest.raises(ValueError, match=r"'Cs' parameter of PlugStackClassifier must"):
        fit(Cs=Cs)


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({"n_folds": 1}, "n_folds"),
        ({"n_repeats": 0}, "n_repeats"),
        ({"n_repeats": "many"}, "n_repeats"),
        ({"class_weight": "balance"}, "class_weight"),
        ({"n_layers": 0}, "n_layers"),
    ],
)
def test_parameters_that_do_not_suit_are_refused(
    parameters: dict[str, object], name: str
) -> None:
    with pytest.raises(ValueError, match=f"'{name}' parameter of PlugStackClassifier"):
        fit(**parameters)


def test_predictions_need_a_fit_and_samples_of_its_shape() -> None:
    probe = fit()
    with pytest.raises(NotFittedError):
        clone(probe).predict_proba(X)
    assert not hasattr(clone(probe), "coef_")
    with pytest.raises(ValueError, match=r"must have samples of shape \(4, 2, 8\)"):
        probe.predict_proba(X[:, :, :1])
