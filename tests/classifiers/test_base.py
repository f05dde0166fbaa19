"""Both estimators: predictions, pickles, scikit-learn and messages."""

import pickle
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from _activations import X, Y
from sklearn.base import ClassifierMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    cross_val_predict,
    cross_val_score,
)


def test_probabilities_of_a_row_do_not_depend_on_its_neighbours(
    probe: ClassifierMixin,
) -> None:
    probe.fit(X, Y)
    together = probe.predict_proba(X)
    alone = np.concatenate([probe.predict_proba(X[i : i + 1]) for i in range(80)])
    np.testing.assert_allclose(together, alone, rtol=1e-12)
    np.testing.assert_allclose(together.sum(axis=1), 1, rtol=1e-12)
    assert together.dtype == np.float64


def test_log_probabilities_are_the_logarithms(probe: ClassifierMixin) -> None:
    probe.fit(X, Y)
    found = probe.predict_log_proba(X)
    np.testing.assert_allclose(np.exp(found), probe.predict_proba(X), rtol=1e-12)
    assert found.dtype == np.float64
    assert found.shape == (len(X), 2)


def test_the_logarithm_of_no_probability_is_minus_infinity(
    probe: ClassifierMixin, monkeypatch: pytest.MonkeyPatch
) -> None:
    certain = np.array([[0.0, 1.0]])
    monkeypatch.setattr(type(probe), "predict_proba", lambda *_: certain)
    assert probe.predict_log_proba(X).tolist() == [[-np.inf, 0.0]]


def test_probabilities_of_many_rows_sum_to_one_in_double_precision(
    probe: ClassifierMixin,
) -> None:
    many = np.tile(X, (20, 1, 1, 1))
    probabilities = probe.fit(X, Y).predict_proba(many)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-12)
    # Does not warn that they do not sum to 1.
    assert log_loss(np.tile(Y, 20), probabilities) > 0


@pytest.mark.parametrize("labels", [["no", "yes"], [False, True], [3, -1], [0.0, 1.0]])
def test_labels_of_any_kind_are_predicted_as_their_codes_are(
    probe: ClassifierMixin, labels: list[object]
) -> None:
    y = np.array(labels)[Y]
    named = clone(probe).fit(X, y)
    assert named.classes_.tolist() == sorted(labels)
    assert named.predict(X).dtype == y.dtype
    coded = clone(probe).fit(X, np.searchsorted(sorted(labels), y))
    assert np.array_equal(named.predict_proba(X), coded.predict_proba(X))
    assert np.array_equal(named.predict(X), named.classes_[coded.predict(X)])


def test_threads_can_predict_together(probe: ClassifierMixin) -> None:
    probe.fit(X, Y)
    expected = probe.predict_proba(X)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: probe.predict_proba(X), range(16)))
    assert all(np.array_equal(result, expected) for result in results)


def test_three_classes_are_learnt(probe: ClassifierMixin) -> None:
    y = np.arange(90) % 3
    X_three = np.random.default_rng(0).normal(size=(90, 2, 1, 6))
    X_three[np.arange(90), 0, 0, y] += 4
    probe.set_params(max_epochs=60).fit(X_three, y)
    assert probe.score(X_three, y) > 0.9
    assert probe.monitor_ == "roc_auc"


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (1e-3, 0.0), (1.0, 1000.0)])
def test_large_and_small_units_are_learnt_from(
    probe: ClassifierMixin, scale: float, offset: float
) -> None:
    X_raw = scale * X
    X_raw[:, 0, 1, 2] += offset
    probe.set_params(max_epochs=60, early_stopping=False).fit(X_raw, Y)
    assert roc_auc_score(Y, probe.predict_proba(X_raw)[:, 1]) > 0.95
    loaded = pickle.loads(pickle.dumps(probe))
    assert np.array_equal(loaded.predict_proba(X_raw), probe.predict_proba(X_raw))


def test_names_of_columns_are_kept(probe: ClassifierMixin) -> None:
    frame = pd.DataFrame(X.reshape(80, -1)).add_prefix("unit_")
    probe.fit(frame[:60], Y[:60], X_val=frame[60:], y_val=Y[60:])
    assert probe.feature_names_in_.tolist() == frame.columns.tolist()
    assert probe.predict(frame).shape == (80,)


def test_integers_and_lists_are_read(probe: ClassifierMixin) -> None:
    flat = (10 * X.reshape(80, -1)).astype(int)
    one = clone(probe).fit(flat, Y).predict_proba(flat)
    other = clone(probe).fit(flat.tolist(), Y.tolist()).predict_proba(flat.tolist())
    assert np.array_equal(one, other)


def test_a_fresh_process_loads_the_same_probabilities(
    probe: ClassifierMixin, tmp_path: Path
) -> None:
    probe.fit(X, Y)
    joblib.dump(probe, tmp_path / "probe.joblib")
    np.save(tmp_path / "X.npy", X)
    script = (
        "import joblib, numpy as np\n"
        "probe = joblib.load('probe.joblib')\n"
        "np.save('found.npy', probe.predict_proba(np.load('X.npy')))\n"
    )
    subprocess.run(
        [sys.executable, "-W", "error", "-c", script], cwd=tmp_path, check=True
    )
    found = np.load(tmp_path / "found.npy")
    assert np.array_equal(found, probe.predict_proba(X))


def test_a_pickle_holds_the_weights_once(probe: ClassifierMixin) -> None:
    probe.set_params(target_ratio=1000.0, width_cap=120).fit(X, Y)
    state = probe.net_.module_.state_dict()
    n_bytes = sum(value.nbytes for value in state.values())
    # Settings, history and torch's framing of each tensor take some kilobytes.
    assert n_bytes < len(pickle.dumps(probe)) < n_bytes + 30_000


def test_grid_search_in_processes_cross_validation_and_calibration(
    probe: ClassifierMixin,
) -> None:
    probe.set_params(max_epochs=10)
    search = GridSearchCV(probe, {"dropout": [0.0, 0.2]}, cv=2, n_jobs=2).fit(X, Y)
    alone = GridSearchCV(probe, {"dropout": [0.0, 0.2]}, cv=2).fit(X, Y)
    np.testing.assert_array_equal(
        search.cv_results_["mean_test_score"], alone.cv_results_["mean_test_score"]
    )
    assert cross_val_score(probe, X, Y, cv=2, scoring="roc_auc").shape == (2,)
    out_of_fold = cross_val_predict(probe, X, Y, cv=2, method="predict_proba")
    assert out_of_fold.shape == (80, 2)
    calibrated = CalibratedClassifierCV(probe, cv=2).fit(X, Y)
    assert calibrated.predict_proba(X).shape == (80, 2)


@pytest.mark.parametrize(
    ("parameter", "value", "expected"),
    [
        ("target_ratio", 0.0, "a float in the range"),
        ("width_cap", 4, "an int in the range"),
        ("sizing", "huge", "a str among {"),
        ("n_members", 0, "an int in the range"),
        ("linear_path", "no", "an instance of 'bool'"),
        ("input_dropout", 1.0, "a float in the range"),
        ("linear_lr", 0.0, "a float in the range"),
        ("linear_decay", 1.0, "a float in the range"),
        ("calibrate", "no", "an instance of 'bool'"),
        ("dropout", 1.0, "a float in the range"),
        ("max_epochs", 0, "an int in the range"),
        ("lr", -1.0, "a float in the range"),
        ("weight_decay", -0.1, "a float in the range"),
        ("batch_size", 1, "an int in the range"),
        ("early_stopping", "yes", "an instance of 'bool'"),
        ("validation_fraction", 1.0, "a float in the range"),
        ("patience", 0, "an int in the range"),
        ("min_delta", -0.1, "a float in the range"),
        ("monitor", "rox", "a str among"),
        ("class_weight", "even", "an instance of 'dict', a str among {'balanced'}"),
        ("callbacks", "all", "an instance of 'list'"),
        ("device", 3, "an instance of 'str'"),
        ("device", "abacus", "'auto' or a torch device"),
        ("random_state", "x", "an int in the range"),
        ("verbose", "x", "an int in the range"),
    ],
)
def test_bad_parameter_is_named_with_what_it_must_be(
    probe: ClassifierMixin, parameter: str, value: object, expected: str
) -> None:
    name = type(probe).__name__
    with pytest.raises(ValueError) as raised:
        probe.set_params(**{parameter: value}).fit(X, Y)
    message = str(raised.value)
    assert message.startswith(f"The {parameter!r} parameter of {name} must be")
    assert expected in message
    assert message.endswith(f"Got {value!r} instead.")


@pytest.mark.parametrize("early_stopping", [False, True])
def test_training_that_diverges_is_an_error(
    probe: ClassifierMixin, early_stopping: bool
) -> None:
    probe.set_params(lr=1e30, early_stopping=early_stopping)
    with pytest.raises(ValueError, match=r"must be low enough .* Got 1e\+30 instead"):
        probe.fit(X, Y)


def test_label_of_a_validation_row_must_be_known(probe: ClassifierMixin) -> None:
    with pytest.raises(ValueError, match="'y_val' given to Plug"):
        probe.fit(X, Y, X_val=X, y_val=Y + 1)


def test_absent_device_warns_and_becomes_the_cpu(
    probe: ClassifierMixin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.warns(UserWarning, match="The CPU is used instead"):
        probe.set_params(device="cuda").fit(X, Y)
    assert probe.net_.device == "cpu"


def test_nothing_is_printed_unless_asked_for(
    probe: ClassifierMixin, capsys: pytest.CaptureFixture[str]
) -> None:
    probe.fit(X, Y)
    assert capsys.readouterr().out == ""
    probe.set_params(verbose=True).fit(X, Y)
    assert "valid_score" in capsys.readouterr().out


@pytest.mark.parametrize("random_state", [0, 1])
@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"n_members": 1, "linear_path": False},
        {"sizing": "budget", "target_ratio": 2000},
    ],
    ids=["default", "plain", "budget"],
)
def test_features_that_never_vary_give_the_shares_of_the_classes(
    probe: ClassifierMixin, parameters: dict[str, object], random_state: int
) -> None:
    probe.set_params(max_epochs=20, random_state=random_state, **parameters)
    probe.fit(np.full((100, 8), 3.7), np.repeat([0, 1, 2], [25, 65, 10]))
    found = probe.predict_proba([[3.7] * 8, [0.0] * 8])
    np.testing.assert_allclose(found, [[0.25, 0.65, 0.1]] * 2, rtol=1e-5)


def test_shares_of_the_classes_are_those_of_the_training_weights(
    probe: ClassifierMixin,
) -> None:
    same, weight = np.ones((40, 2, 1, 4)), np.where(Y[:40], 3.0, 1.0)
    # Validation rows of other shares would ask for another temperature.
    probe.fit(same, Y[:40], sample_weight=weight, X_val=X[:8, :2, :1, :4], y_val=Y[:8])
    assert probe.monitor_ is not None
    found = probe.predict_proba(same[:1])
    np.testing.assert_allclose(found, [[0.25, 0.75]], rtol=1e-5)


NUMPY_NUMBERS = {
    "target_ratio": [np.float16(40), np.uint8(40), np.float32(40.3)],
    "width_cap": [np.uint8(200), np.int8(100)],
    "n_members": [np.uint8(3), np.int8(2)],
    "max_epochs": [np.uint8(4), np.int8(4)],
    "batch_size": [np.uint16(16), np.uint8(255), np.int8(100), np.int64(16)],
    "patience": [np.uint8(1), np.int8(1)],
    "min_delta": [np.float16(0.01), np.float32(0.01)],
    "validation_fraction": [np.float16(0.3), np.float32(0.3)],
    "lr": [np.float16(0.01), np.float32(0.01)],
    "weight_decay": [np.float16(0.1), np.float32(0.1), np.uint8(0)],
    "linear_lr": [np.float16(0.1), np.float32(0.1), np.uint8(1)],
    "linear_decay": [np.float16(6e-5), np.float32(1e-4)],
    "dropout": [np.float16(0.3), np.float32(0.3), np.uint8(0)],
    "input_dropout": [np.float16(0.3), np.float32(0.3)],
    "linear_path": [np.bool_(False)],
    "early_stopping": [np.bool_(False)],
    "calibrate": [np.bool_(False)],
    "random_state": [np.uint8(200), np.int16(7)],
    "verbose": [np.uint8(0)],
}


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, values in NUMPY_NUMBERS.items() for value in values],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
@pytest.mark.parametrize("sizing", ["heuristic", "budget"])
def test_numpy_numbers_fit_as_python_numbers(
    probe: ClassifierMixin,
    sizing: str,
    name: str,
    value: np.generic,
) -> None:
    probe.set_params(max_epochs=2, sizing=sizing, target_ratio=40)
    python = value.item()
    expected = clone(probe).set_params(**{name: python}).fit(X, Y)
    found = clone(probe).set_params(**{name: value}).fit(X, Y)
    assert found.history_ == expected.history_
    np.testing.assert_array_equal(found.predict_proba(X), expected.predict_proba(X))
    # The parameter itself stays as it was given, as scikit-learn asks.
    assert found.get_params()[name] is value


def test_a_pickle_holds_no_class_of_torch_or_skorch(
    probe: ClassifierMixin,
) -> None:
    probe.fit(X, Y)
    pickled = pickle.dumps(probe)
    assert b"torch._utils" not in pickled
    assert b"skorch" not in pickled
    loaded = pickle.loads(pickled)
    assert np.array_equal(loaded.predict_proba(X), probe.predict_proba(X))
    assert loaded.history_ == probe.history_
    assert loaded.n_parameters_ == probe.n_parameters_


def test_pickling_leaves_the_probe_as_it_is(probe: ClassifierMixin) -> None:
    probe.fit(X, Y)
    net, expected = probe.net_, probe.predict_proba(X)
    state = probe.__getstate__()
    for weights in state["net_"]["weights"].values():
        weights.fill(0)
    assert probe.net_ is net
    assert np.array_equal(probe.predict_proba(X), expected)


def test_a_probe_loads_onto_the_device_it_names_or_the_cpu(
    probe: ClassifierMixin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    expected = probe.fit(X, Y).predict_proba(X)
    pickled = pickle.dumps(probe.set_params(device="cuda"))
    with pytest.warns(UserWarning, match="The CPU is used instead"):
        loaded = pickle.loads(pickled)
    assert (loaded.device, loaded.net_.device) == ("cuda", "cpu")
    assert np.array_equal(loaded.predict_proba(X), expected)


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"target_ratio": 0.1}, "fewest"),
        ({"target_ratio": 1e4}, "most"),
    ],
)
def test_a_ratio_that_does_not_decide_the_size_is_told(
    probe: ClassifierMixin, parameters: dict[str, float], says: str
) -> None:
    probe.set_params(**parameters)
    with pytest.warns(UserWarning, match=rf"'target_ratio' .* {says} units"):
        probe.fit(X, Y)


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"target_ratio": 0.1, "sizing": "budget"},
        {"target_ratio": 1e4, "width_cap": 17},
    ],
)
def test_nothing_is_told_of_the_default_ratio_a_budget_or_a_chosen_cap(
    probe: ClassifierMixin, parameters: dict[str, object]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", ".* is closer to that")
        probe.set_params(**parameters).fit(X, Y)


def test_texts_are_told_where_they_belong(probe: ClassifierMixin) -> None:
    with pytest.raises(ValueError, match=r"must hold numbers.*HFEmbeddingTransformer"):
        probe.fit(["Gold is a metal."] * len(Y), Y)


@pytest.mark.parametrize(
    ("label", "says"),
    [
        (None, r"None for 1 of \d+ samples, at positions \[3\]"),
        (3, r"\['int', 'str'\]"),
    ],
)
def test_labels_that_are_missing_or_mixed_are_refused(
    probe: ClassifierMixin, label: object, says: str
) -> None:
    labels = np.array([f"class {code}" for code in Y], dtype=object)
    labels[3] = label
    with pytest.raises(ValueError, match=f"The labels given to Plug.* {says}"):
        probe.fit(X, labels)


def test_a_weight_of_an_unknown_class_is_named(probe: ClassifierMixin) -> None:
    probe.set_params(class_weight={0: 1.0, "cat": 2.0})
    with pytest.raises(ValueError, match=r"Got weights of \['cat'\] too, which y"):
        probe.fit(X, Y)


def test_routed_groups_reach_the_fits_of_a_search(probe: ClassifierMixin) -> None:
    heard = []

    class Listening(type(probe)):  # type: ignore[misc]  # a class made here
        def fit(self, X: object, y: object, groups: object = None) -> ClassifierMixin:
            heard.append(groups)
            return super().fit(X, y, groups=groups)

    groups = np.arange(len(Y)) // 4
    listening = Listening(**probe.get_params())
    with sklearn.config_context(enable_metadata_routing=True):
        GridSearchCV(listening, {}, cv=GroupKFold(2), refit=False).fit(
            X, Y, groups=groups
        )
    assert [set(own) & set(other) for own, other in [heard]] == [set()]
    assert set(heard[0]) | set(heard[1]) == set(groups)
