import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from plug_sklearn import PlugMLPClassifier
from plug_sklearn.classifiers import (
    MLPNetwork,
    can_fit_jointly,
    count_joint_probes,
    fit_jointly,
)

PROBE = PlugMLPClassifier(
    width_cap=16, max_epochs=6, patience=2, random_state=0, device="cpu"
)


def draw_layers(
    n_layers: int, n_rows: int, n_features: int = 16, n_classes: int = 2
) -> tuple[list[np.ndarray], np.ndarray]:
    """Features of layers in which the label can be read better and better."""
    rng = np.random.default_rng(n_rows)
    y = np.arange(n_rows) % n_classes
    layers = rng.normal(size=(n_layers, n_rows, n_features)).astype(np.float32)
    layers[:, :, 0] += np.arange(n_layers)[:, None] * y
    return list(layers), y


def fit_both_ways(
    probe: PlugMLPClassifier,
    layers: list[np.ndarray],
    y: np.ndarray,
    **fit_params: np.ndarray | None,
) -> list[tuple[PlugMLPClassifier, PlugMLPClassifier]]:
    together = [clone(probe) for _ in layers]
    fit_jointly(together, [{"X": X, "y": y, **fit_params} for X in layers])
    alone = [clone(probe).fit(X, y, **fit_params) for X in layers]
    return list(zip(alone, together, strict=True))


@given(
    n_layers=st.integers(1, 4),
    n_rows=st.integers(8, 150),
    n_features=st.sampled_from([16, 48, 7]),
    n_classes=st.integers(2, 4),
    has_groups=st.booleans(),
    has_weights=st.booleans(),
    parameters=st.fixed_dictionaries(
        {
            "n_members": st.integers(1, 5),
            "width_cap": st.sampled_from([16, 16, 32]),
            "linear_path": st.booleans(),
            "batch_size": st.sampled_from([16, 64]),
            "monitor": st.sampled_from(["loss", "roc_auc", "neg_brier_score"]),
            "class_weight": st.sampled_from([None, "balanced"]),
            "early_stopping": st.booleans(),
            "random_state": st.integers(0, 9),
        }
    ),
)
@settings(max_examples=25)
def test_each_probe_is_what_it_would_be_alone(
    n_layers: int,
    n_rows: int,
    n_features: int,
    n_classes: int,
    has_groups: bool,
    has_weights: bool,
    parameters: dict[str, object],
) -> None:
    layers, y = draw_layers(n_layers, n_rows, n_features, n_classes)
    rng = np.random.default_rng(1)
    probe = clone(PROBE).set_params(**parameters)
    if n_classes > 2 and parameters["monitor"] == "neg_brier_score":
        probe.set_params(monitor="accuracy")
    pairs = fit_both_ways(
        probe,
        layers,
        y,
        groups=np.arange(n_rows) // 3 if has_groups else None,
        sample_weight=rng.uniform(0.1, 2, n_rows) if has_weights else None,
    )
    for (alone, together), X in zip(pairs, layers, strict=True):
        assert together.n_iter_ == alone.n_iter_
        assert together.best_epoch_ == alone.best_epoch_
        assert together.net_.n_steps_ == alone.net_.n_steps_
        np.testing.assert_allclose(
            together.predict_proba(X), alone.predict_proba(X), atol=1e-6
        )


def test_probes_that_stop_early_leave_the_others_as_they_would_be() -> None:
    layers, y = draw_layers(5, 200)
    pairs = fit_both_ways(clone(PROBE).set_params(max_epochs=40), layers, y)
    assert len({alone.n_iter_ for alone, _ in pairs}) > 1
    for alone, together in pairs:
        expected = alone.net_.module_.state_dict()
        for name, value in together.net_.module_.state_dict().items():
            torch.testing.assert_close(value, expected[name], atol=1e-6, rtol=1e-5)
        for one, other in zip(alone.history_, together.history_, strict=True):
            assert other == pytest.approx(one, rel=1e-5)


def test_probes_of_several_folds_are_what_they_would_be_alone() -> None:
    # Two folds have a row more than the third; and one holds out no rows, since its
    # groups allow no choice.
    layers, y = draw_layers(2, 97)
    folds = [np.delete(np.arange(97), np.arange(k, 97, 3)) for k in range(3)]
    groups = [np.arange(len(rows)) // 3 for rows in folds[:2]]
    groups.append(y[folds[2]])
    arguments = [
        {"X": X[rows], "y": y[rows], "groups": of_rows}
        for X in layers
        for rows, of_rows in zip(folds, groups, strict=True)
    ]
    together = [clone(PROBE) for _ in arguments]
    fit_jointly(together, arguments)
    for probe, own in zip(together, arguments, strict=True):
        alone = clone(PROBE).fit(**own)
        np.testing.assert_allclose(
            probe.predict_proba(own["X"]), alone.predict_proba(own["X"]), atol=1e-6
        )


def test_losses_are_to_the_last_bit_those_of_a_probe_alone() -> None:
    # Otherwise the smallest ``min_delta`` could choose another epoch.
    layers, y = draw_layers(5, 150)
    for n_members in (1, 3):
        probe = clone(PROBE).set_params(n_members=n_members, batch_size=50)
        for alone, together in fit_both_ways(probe, layers, y):
            assert together.history_ == alone.history_


def test_weights_are_a_probes_own() -> None:
    layers, y = draw_layers(3, 60)
    for _, together in fit_both_ways(PROBE, layers, y):
        for value in together.net_.module_.state_dict().values():
            assert value.untyped_storage().nbytes() == value.nbytes


def test_rows_that_are_the_same_on_one_layer_alone_change_nothing() -> None:
    layers, y = draw_layers(3, 90)
    layers[0][40:80] = layers[0][:40]
    for (alone, together), X in zip(
        fit_both_ways(PROBE, layers, y), layers, strict=True
    ):
        np.testing.assert_allclose(
            together.predict_proba(X), alone.predict_proba(X), atol=1e-6
        )


def test_probes_without_a_seed_share_one() -> None:
    layers, y = draw_layers(2, 60)
    layers[1] = layers[0]
    one, other = (clone(PROBE).set_params(random_state=None) for _ in range(2))
    fit_jointly([one, other], [{"X": X, "y": y} for X in layers])
    np.testing.assert_array_equal(
        one.predict_proba(layers[0]), other.predict_proba(layers[0])
    )


def count_networks_of_steps(
    monkeypatch: pytest.MonkeyPatch, layers: list[np.ndarray], y: np.ndarray
) -> set[int]:
    """Fit probes jointly; return the numbers of their networks that take a step."""
    counts: set[int] = set()
    compute = MLPNetwork.compute_logits

    def count(network: MLPNetwork, x: torch.Tensor) -> torch.Tensor:
        logits = compute(network, x)
        if network.training:
            counts.add(logits.shape[1])
        return logits

    monkeypatch.setattr(MLPNetwork, "compute_logits", count)
    probe = clone(PROBE).set_params(n_members=1, early_stopping=False)
    fit_jointly([clone(probe) for _ in layers], [{"X": X, "y": y} for X in layers])
    return counts


@pytest.mark.parametrize("n_features", [16, 48])
def test_probes_of_the_same_shape_take_their_steps_together(
    monkeypatch: pytest.MonkeyPatch, n_features: int
) -> None:
    layers, y = draw_layers(4, 60, n_features)
    assert count_networks_of_steps(monkeypatch, layers, y) == {4}


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, True),
        ({"monitor": "accuracy"}, True),
        ({"callbacks": [("own", object)]}, False),
        ({"verbose": True}, False),
        ({"sizing": "budget"}, False),
        ({"device": "meta"}, False),
    ],
)
def test_probes_with_extras_are_fitted_alone(
    parameters: dict[str, object], expected: bool
) -> None:
    assert can_fit_jointly(clone(PROBE).set_params(**parameters)) == expected


def test_probes_on_an_accelerator_are_fitted_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert not can_fit_jointly(clone(PROBE).set_params(device="auto"))
    assert can_fit_jointly(PROBE)


def test_a_subclass_is_fitted_alone() -> None:
    class Own(PlugMLPClassifier):
        pass

    assert not can_fit_jointly(Own())


def test_what_takes_more_memory_leaves_fewer_at_once() -> None:
    n_at_once = count_joint_probes(PROBE, 4000, 576)
    assert n_at_once < count_joint_probes(PROBE, 400, 576)
    assert n_at_once > count_joint_probes(PROBE, 4000, 4096)
    for parameters in ({"n_members": 20}, {"batch_size": 2000}, {"width_cap": 512}):
        larger = clone(PROBE).set_params(target_ratio=99, **parameters)
        assert count_joint_probes(larger, 4000, 576) < n_at_once
    assert count_joint_probes(PROBE, 10**6, 4096) == 1


def test_at_most_256_mb_of_samples_are_read_at_once() -> None:
    """Each probe has its samples in double precision, and standardised in single."""
    few_extras = clone(PROBE).set_params(validation_fraction=0.01, batch_size=16)
    n_bytes = 20_000 * 64 * (8 + 4)
    n_at_once = count_joint_probes(few_extras, 20_000, 64)
    assert n_at_once * n_bytes <= 256 * 2**20 < (n_at_once + 2) * n_bytes


def test_more_validation_rows_leave_fewer_at_once() -> None:
    few, many = (
        clone(PROBE).set_params(validation_fraction=part, batch_size=16)
        for part in (0.01, 0.9)
    )
    assert count_joint_probes(many, 4000, 576) < count_joint_probes(few, 4000, 576)


def test_a_batch_of_all_rows_takes_no_more_than_they_do() -> None:
    whole, larger = (clone(PROBE).set_params(batch_size=n) for n in (400, 10**6))
    n_at_once = count_joint_probes(whole, 400, 576)
    assert count_joint_probes(larger, 400, 576) == n_at_once > 1


def test_features_that_cannot_be_fitted_are_an_error() -> None:
    layers, y = draw_layers(3, 60)
    layers[1][0, 0] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        fit_both_ways(PROBE, layers, y)


@pytest.mark.parametrize("n_votes", [1, 4])
def test_probes_of_constant_features_are_what_they_would_be_alone(n_votes: int) -> None:
    # Constant features leave two rows, one a class, as many as the last layer has.
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(2, 60, 16)).repeat(n_votes, axis=1)
    y = (rng.random(60 * n_votes) < 0.3).astype(int)
    constant, two = np.ones((60 * n_votes, 16)), np.zeros((60 * n_votes, 16))
    two[:] = np.where(y[:, None], 1.0, -1.0)
    layers = [*samples, constant, constant * 2, two]
    pairs = fit_both_ways(clone(PROBE), layers, y)
    for (alone, together), X in zip(pairs, layers, strict=True):
        np.testing.assert_allclose(
            together.predict_proba(X), alone.predict_proba(X), atol=1e-6
        )
    for _, together in pairs[2:4]:
        found = together.predict_proba(constant[:1])[0, 1]
        assert found == pytest.approx(y.mean(), rel=1e-5)


def test_numpy_numbers_fit_as_many_at_once_as_python_numbers() -> None:
    numbers = {"n_members": 5, "batch_size": 200, "width_cap": 100}
    narrow = {name: np.uint8(value) for name, value in numbers.items()}
    expected, found = (
        count_joint_probes(clone(PROBE).set_params(**values), 4000, 576)
        for values in (numbers, narrow)
    )
    assert found == expected


@pytest.mark.parametrize(("n_features", "is_joint"), [(16, True), (7, False)])
def test_networks_that_would_be_rounded_otherwise_are_trained_one_by_one(
    monkeypatch: pytest.MonkeyPatch, n_features: int, is_joint: bool
) -> None:
    found = count_networks_of_steps(monkeypatch, *draw_layers(3, 40, n_features))
    assert found == {3 if is_joint else 1}
