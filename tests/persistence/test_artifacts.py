"""What is saved is what is loaded, and files that were changed are refused."""

import json
import re
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from _fitted import QUICK, X, Y, fit_cnn, fit_mlp, fit_pipeline, fit_stack, rewrite
from numpy.testing import assert_array_equal
from numpy.typing import ArrayLike
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import EpochTimer

from plug_sklearn import (
    BestLayerClassifier,
    HFEmbeddingTransformer,
    LayerAggregator,
    PlugCNNClassifier,
    PlugMLPClassifier,
    PlugStackClassifier,
    load_artifacts,
    save_artifacts,
)

FITTED: dict[str, Callable[[], Any]] = {
    "MLP": fit_mlp,
    "MLP within a budget": lambda: fit_mlp(sizing="budget"),
    "plain MLP": lambda: fit_mlp(linear_path=False, n_members=1, calibrate=False),
    "CNN": fit_cnn,
    "CNN over units": lambda: fit_cnn(conv_over="units"),
    "CNN over units within a budget": lambda: fit_cnn(
        conv_over="units", sizing="budget"
    ),
    "stack": fit_stack,
    "stack of few values of C": lambda: fit_stack(Cs=[0.5, 2.0]),
    "stack of few rows": lambda: PlugStackClassifier().fit(X[:10], Y[:10]),
    "pipeline": fit_pipeline,
}


@pytest.mark.parametrize("name", FITTED)
def test_probabilities_and_parameters_are_equal(name: str, tmp_path: Path) -> None:
    fitted = FITTED[name]()
    tensors, description = save_artifacts(fitted, tmp_path / "new" / "probe.v2")
    assert tensors == tmp_path / "new" / "probe.v2.safetensors"
    assert description == tmp_path / "new" / "probe.v2.json"
    assert len(list(description.parent.iterdir())) == 2
    loaded = load_artifacts(tmp_path / "new" / "probe.v2")
    assert np.array_equal(loaded.predict_proba(X), fitted.predict_proba(X))
    assert np.array_equal(loaded.predict(X), fitted.predict(X))
    assert loaded.score(X, Y) == fitted.score(X, Y)
    assert repr(loaded) == repr(fitted)


def test_a_stack_of_several_classes_keeps_what_it_has_learnt(tmp_path: Path) -> None:
    fitted = fit_stack(np.arange(60) % 3, class_weight={2: 3.0})
    save_artifacts(fitted, tmp_path / "probe")
    loaded = load_artifacts(tmp_path / "probe")
    assert np.array_equal(loaded.predict_proba(X), fitted.predict_proba(X))
    for name in ("weights_", "C_", "held_out_log_loss_", "coef_", "intercept_"):
        assert np.array_equal(getattr(loaded, name), getattr(fitted, name))
    assert loaded.temperature_ == fitted.temperature_
    assert loaded.get_params() == fitted.get_params()
    again = clone(loaded).fit(X, np.arange(60) % 3)
    assert np.array_equal(again.predict_proba(X), fitted.predict_proba(X))


def test_a_loaded_probe_is_cloned_and_fitted_again_alike(tmp_path: Path) -> None:
    fitted = fit_cnn()
    save_artifacts(fitted, tmp_path / "probe")
    loaded = load_artifacts(tmp_path / "probe")
    assert np.array_equal(loaded.transform(X), fitted.transform(X))
    assert loaded.get_params() == fitted.get_params()
    for name in ("input_shape_", "n_features_in_", "n_parameters_", "n_iter_"):
        assert getattr(loaded, name) == getattr(fitted, name)
    again = clone(loaded).fit(X, Y)
    assert np.array_equal(again.predict_proba(X), fitted.predict_proba(X))
    assert again.history_
    assert not hasattr(loaded, "history_")


@pytest.mark.parametrize(
    "labels",
    [
        ["no", "yes"],
        [False, True],
        np.array([-1, 3], dtype=np.int8),
        [0.0, 2.0],
        np.array([0, 1], dtype=np.float32),
        np.array(["a", "b"], dtype=object),
    ],
)
def test_labels_keep_kind_and_dtype(labels: ArrayLike, tmp_path: Path) -> None:
    y = np.asarray(labels)[np.arange(60) % 2]
    weights = dict.fromkeys(np.asarray(labels).tolist(), 2.0)
    save_artifacts(fit_mlp(y, class_weight=weights), tmp_path / "probe")
    loaded = load_artifacts(tmp_path / "probe")
    assert loaded.class_weight == weights
    assert loaded.classes_.dtype == y.dtype
    assert set(loaded.predict(X).tolist()) <= set(y.tolist())
    assert loaded.classes_.tolist() == sorted(set(y.tolist()))


def test_a_pipeline_that_hands_on_frames_does_so_again(tmp_path: Path) -> None:
    steps = (
        LayerAggregator(),
        StandardScaler(with_std=False),
        PlugMLPClassifier(**QUICK),
    )
    fitted = make_pipeline(*steps).set_output(transform="pandas").fit(X, Y)
    save_artifacts(fitted, tmp_path / "probe")
    loaded = load_artifacts(tmp_path / "probe")
    assert np.array_equal(loaded.predict_proba(X), fitted.predict_proba(X))
    assert loaded[:-1].transform(X).equals(fitted[:-1].transform(X))
    assert list(loaded[-1].feature_names_in_) == list(fitted[-1].feature_names_in_)


def test_a_whole_pipeline_reads_texts_again(llama: str, tmp_path: Path) -> None:
    texts = ["Paris is in France.", "Lima is in Peru.", "Gold is Fe.", "1 2 3"] * 5
    y = np.arange(20) % 2
    fitted = make_pipeline(
        HFEmbeddingTransformer(
            llama, layers=[0, -1], parts=("rs", "mlp"), device="cpu"
        ),
        LayerAggregator(layers=np.array([2]), method="stack"),
        PlugCNNClassifier(**QUICK),
    ).fit(texts, y)
    tensors, description = save_artifacts(fitted, tmp_path / "probe")
    loaded = load_artifacts(description)
    assert np.array_equal(loaded.predict_proba(texts), fitted.predict_proba(texts))
    assert loaded[0].layers_ == fitted[0].layers_ == (0, 2)
    clone(loaded).fit(texts, y)
    # The probe, not the language model.
    assert tensors.stat().st_size < 300_000


def test_saving_over_a_probe_leaves_a_whole_one(tmp_path: Path) -> None:
    save_artifacts(fit_mlp(), tmp_path / "probe")
    other = fit_cnn()
    save_artifacts(other, tmp_path / "probe.json")
    loaded = load_artifacts(tmp_path / "probe.safetensors")
    assert np.array_equal(loaded.predict_proba(X), other.predict_proba(X))
    assert len(list(tmp_path.iterdir())) == 2


def test_device_is_what_the_loader_says(tmp_path: Path) -> None:
    save_artifacts(fit_mlp(device="cpu"), tmp_path / "probe")
    assert load_artifacts(tmp_path / "probe", device="auto").device == "auto"
    with pytest.raises(ValueError, match="The 'device' parameter of load_artifacts"):
        load_artifacts(tmp_path / "probe", device="abacus")


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("callbacks", [EpochTimer()]),
        ("monitor", lambda estimator, X, y: 1.0),
        ("random_state", np.random.RandomState(0)),
    ],
)
def test_a_parameter_that_is_no_plain_value_is_named(
    parameter: str, value: object, tmp_path: Path
) -> None:
    fitted = fit_mlp(**{parameter: value})
    expected = rf"The '{parameter}' parameter of PlugMLPClassifier must be None, a"
    with pytest.raises(ValueError, match=expected):
        save_artifacts(fitted, tmp_path / "probe")
    assert not list(tmp_path.iterdir())
    plain = PlugMLPClassifier().get_params()[parameter]
    save_artifacts(fitted.set_params(**{parameter: plain}), tmp_path / "probe")
    loaded = load_artifacts(tmp_path / "probe")
    assert np.array_equal(loaded.predict_proba(X), fitted.predict_proba(X))


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("trust_remote_code", True),
        ("attn_implementation", "someone/kernels"),
        ("attn_implementation", "flash_attention_2"),
        ("model_kwargs", {"use_safetensors": False}),
        ("model_kwargs", {"trust_remote_code": True}),
    ],
)
def test_what_would_run_code_is_neither_saved_nor_loaded(
    parameter: str, value: object, llama: str, tmp_path: Path
) -> None:
    embedder = HFEmbeddingTransformer(llama).fit(["a"])
    _, description = save_artifacts(embedder, tmp_path / "embedder")
    expected = f"The '{parameter}' parameter of HFEmbeddingTransformer must be"
    with pytest.raises(ValueError, match=expected):
        save_artifacts(embedder.set_params(**{parameter: value}), tmp_path / "other")
    found = json.loads(description.read_text())
    found["estimator"]["parameters"][parameter] = value
    rewrite(tmp_path / "embedder", description=found)
    with pytest.raises(ValueError, match=expected):
        load_artifacts(tmp_path / "embedder")


def test_estimators_of_other_kinds_are_named(tmp_path: Path) -> None:
    for other in (
        GaussianNB(),
        make_pipeline(LayerAggregator(), GaussianNB()),
        CalibratedClassifierCV(GaussianNB(), cv=2),
        FixedThresholdClassifier(GaussianNB()),
    ):
        other.fit(X.reshape(60, -1), Y)
        with pytest.raises(ValueError, match=r"must be one of .* Got GaussianNB"):
            save_artifacts(other, tmp_path / "probe")
    with pytest.raises(NotFittedError):
        save_artifacts(PlugMLPClassifier(), tmp_path / "probe")


@pytest.mark.parametrize("device", ["gpu", "", "CPU", "meta", 0, None])
def test_an_unknown_device_is_not_blamed_on_the_files(
    device: object, tmp_path: Path
) -> None:
    fitted = LayerAggregator().fit(X)
    save_artifacts(fitted, tmp_path / "probe")
    with pytest.raises(ValueError, match=r"^The 'device' parameter of load_artifacts"):
        load_artifacts(tmp_path / "probe", device=device)  # type: ignore[arg-type]  # what is tested


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no probe.safetensors or probe.pt or"):
        load_artifacts(tmp_path / "probe")
    tensors, description = save_artifacts(fit_mlp(), tmp_path / "probe")
    description.unlink()
    with pytest.raises(FileNotFoundError, match=r"no probe.json in"):
        load_artifacts(tensors)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda a: a.update(format=2), "format 2, and this release"),
        (lambda a: a.update(format=True), "format True"),
        (lambda a: a.update(source="import os"), "source: extra inputs are not"),
        (lambda a: a["estimator"].update(kind="os.system"), "does not match any"),
        (lambda a: a["estimator"].update({"class": "x.Y"}), "PlugMLPClassifier.class"),
        (lambda a: a["estimator"]["parameters"].update(zz=1), r"unknown .*\['zz'\]"),
        (lambda a: a["estimator"]["parameters"].pop("lr"), r"lacks .*\['lr'\]"),
        (lambda a: a["estimator"]["parameters"].update(lr=-1), "The 'lr' parameter"),
        (lambda a: a["estimator"]["network"].update(first=2**40), "must be"),
        (
            lambda a: a["estimator"]["network"].update(n_members=2**40, first=2**40),
            "too large",
        ),
        (lambda a: a["estimator"]["network"].update(first=16.0), "valid integer"),
        (lambda a: a["estimator"].update(input_shape=[3, 2, 5]), "input_shape must be"),
        (lambda a: a["estimator"].update(input_shape=[2**40] * 3), "input_shape must"),
        (
            lambda a: a["estimator"]["classes"]["values"].append("z"),
            "classes must be 2",
        ),
        (lambda a: a["estimator"]["classes"]["values"].reverse(), "sorted"),
        (lambda a: a["estimator"]["classes"].update(dtype="O8"), "dtype 'O8'"),
        (lambda a: a["estimator"]["classes"].update(dtype="int64"), "dtype 'int64'"),
        (lambda a: a.update(sha256="0" * 64), "probe.safetensors is not what was"),
        (
            lambda a: a["estimator"]["classes"].update(values=["false", "trua"]),
            "is not what was saved",
        ),
    ],
)
def test_json_that_says_what_it_may_not_is_refused(
    change: Callable[[dict[str, Any]], object], expected: str, tmp_path: Path
) -> None:
    _, description = save_artifacts(fit_mlp(), tmp_path / "probe")
    found = json.loads(description.read_text())
    change(found)
    rewrite(tmp_path / "probe", description=found)
    with pytest.raises(ValueError, match=expected) as raised:
        load_artifacts(tmp_path / "probe")
    assert str(raised.value).startswith(str(tmp_path / "probe."))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "cannot be loaded"),
        ("[1]", "does not hold a JSON object"),
        ('{"format": NaN}', "NaN"),
        ('{"format": 1e999}', "too large"),
        ('{"a": 1, "a": 2}', "duplicate key"),
        ("[" * 100_000, "nested too deeply"),
        ("\xff", "cannot be loaded"),
    ],
)
def test_json_that_is_none_is_refused(text: str, expected: str, tmp_path: Path) -> None:
    _, description = save_artifacts(fit_mlp(), tmp_path / "probe")
    description.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=expected) as raised:
        load_artifacts(tmp_path / "probe")
    assert str(description) in str(raised.value)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda t: t.pop("output.bias"), r"lacks tensors: \['output.bias'\]"),
        (lambda t: t.update(more=t["output.bias"]), r"unknown tensors: \['more'\]"),
        (
            lambda t: t.update({"output.bias": t["output.bias"].ravel()}),
            r"'output.bias' must be \(2, 2\) of float32.*Got \(4,\) of F32",
        ),
        (
            lambda t: t.update({"output.bias": t["output.bias"].astype(np.float64)}),
            r"'output.bias' must be \(2, 2\) of float32.*Got \(2, 2\) of F64",
        ),
        (
            lambda t: t.update({"output.bias": t["output.bias"] * np.nan}),
            "'output.bias' must be finite",
        ),
        (
            lambda t: t.update({"head.1.running_var": -t["head.1.running_var"] - 1}),
            "'head.1.running_var' must be variances",
        ),
    ],
)
def test_tensors_that_the_json_does_not_describe_are_named(
    change: Callable[[dict[str, Any]], object], expected: str, tmp_path: Path
) -> None:
    path, _ = save_artifacts(fit_mlp(), tmp_path / "probe")
    tensors = safetensors.numpy.load_file(path)
    change(tensors)
    rewrite(tmp_path / "probe", tensors=tensors)
    with pytest.raises(ValueError, match=expected) as raised:
        load_artifacts(tmp_path / "probe")
    assert str(raised.value).startswith(str(path))


def test_steps_whose_tensors_would_have_the_same_names_are_refused(
    tmp_path: Path,
) -> None:
    # The MLP has a tensor "standardise.mean", and the scaler one named "mean".
    steps = [("p.standardise", StandardScaler()), ("p", PlugMLPClassifier(**QUICK))]
    pipeline = Pipeline(steps).fit(X.reshape(60, -1), Y)
    with pytest.raises(ValueError, match="steps have tensors of the same names"):
        save_artifacts(pipeline, tmp_path / "probe")
    assert not list(tmp_path.iterdir())


def test_scale_of_zero_is_refused(tmp_path: Path) -> None:
    scaler = StandardScaler().fit(X.reshape(60, -1))
    path, _ = save_artifacts(scaler, tmp_path / "scaler")
    tensors = safetensors.numpy.load_file(path)
    tensors["scale"][3] = 0
    rewrite(tmp_path / "scaler", tensors=tensors)
    with pytest.raises(ValueError, match="its tensor 'scale' must be above 0"):
        load_artifacts(tmp_path / "scaler")


def test_features_that_the_shape_of_activations_cannot_have_are_refused(
    tmp_path: Path,
) -> None:
    _, description = save_artifacts(LayerAggregator().fit(X), tmp_path / "aggregator")
    found = json.loads(description.read_text())
    found["estimator"]["n_features_in"] = 4
    rewrite(tmp_path / "aggregator", description=found)
    with pytest.raises(ValueError, match=r"n_features_in must be among \[3\]"):
        load_artifacts(tmp_path / "aggregator")


def test_versions_of_packages_are_recorded(tmp_path: Path) -> None:
    _, description = save_artifacts(fit_mlp(), tmp_path / "probe")
    versions = json.loads(description.read_text())["versions"]
    assert {"plug_sklearn", "scikit-learn", "torch", "transformers"} == set(versions)
    assert all(re.match(r"[0-9]+\.[0-9]+", version) for version in versions.values())


def test_loading_draws_from_no_global_generator(tmp_path: Path) -> None:
    save_artifacts(fit_mlp(), tmp_path / "probe")
    before = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002 - the global one is what is tested
    load_artifacts(tmp_path / "probe")
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002 - as above


def test_embedder_of_conversations_and_poolings_comes_back(
    llama: str, tmp_path: Path
) -> None:
    said = [[{"role": "user", "content": "Gold?"}, {"role": "a", "content": "Yes."}]]
    embedder = HFEmbeddingTransformer(
        llama,
        device="cpu",
        parts=("attn", "rs"),
        pooling=["mean", "last"],
        roles=["a"],
        activation_dtype="float16",
    )
    expected = embedder.fit_transform(said)
    save_artifacts(embedder, tmp_path / "embedder")
    again = load_artifacts(tmp_path / "embedder", device="cpu")
    assert again.parts_ == ("attn_mean", "attn_last", "rs_mean", "rs_last")
    assert_array_equal(again.transform(said), expected)


def test_file_of_an_earlier_release_pools_over_the_whole_prompt(
    llama: str, tmp_path: Path
) -> None:
    path = tmp_path / "embedder"
    embedder = HFEmbeddingTransformer(llama, prompt_template="Is it {text}?")
    save_artifacts(embedder.fit(["a"]), path)
    written = json.loads(path.with_suffix(".json").read_text())
    for name in ("activation_dtype", "generation_prompt", "pool_over", "roles"):
        del written["estimator"]["parameters"][name]
    tensors = path.with_suffix(".safetensors").read_bytes()
    table = json.dumps(written["estimator"], sort_keys=True).encode()
    written["sha256"] = sha256(tensors + table).hexdigest()
    rewrite(path, description=written)
    again = load_artifacts(path, device="cpu")
    assert again.get_params()["pool_over"] == "prompt"
    assert again.selected_tokens(["gold"]) == [["?"]]


def test_a_file_of_another_kind_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    pickled = tmp_path / "probe.joblib"
    pickled.write_bytes(b"anything")
    with pytest.raises(ValueError, match=r"file of another kind; joblib\.load"):
        load_artifacts(pickled)
    with pytest.raises(ValueError, match="a folder; it holds no artifact"):
        load_artifacts(tmp_path)
    save_artifacts(fit_mlp(), tmp_path / "probe")
    with pytest.raises(ValueError, match=r"the artifacts in it are \['probe'\]"):
        load_artifacts(tmp_path)


def test_the_probe_on_the_best_layer_is_saved_in_place_of_the_choice(
    tmp_path: Path,
) -> None:
    activations = np.random.default_rng(0).normal(size=(40, 3, 1, 4))
    labels = np.arange(40) % 2
    scaled = make_pipeline(LayerAggregator(method="stack"), BestLayerClassifier(cv=2))
    scaled.fit(activations, labels)
    with pytest.raises(ValueError, match=r"instead\. Save its estimator_, put in its"):
        save_artifacts(scaled, tmp_path / "probe")
    placed = make_pipeline(scaled[0], scaled[-1].estimator_)
    save_artifacts(placed, tmp_path / "probe")
    loaded = load_artifacts(tmp_path / "probe")
    assert_array_equal(
        loaded.predict_proba(activations), scaled.predict_proba(activations)
    )


def test_a_search_is_told_to_save_its_best_estimator(tmp_path: Path) -> None:
    search = GridSearchCV(PlugMLPClassifier(max_epochs=1), {}, cv=2).fit(X, Y)
    with pytest.raises(ValueError, match=r"instead\. Save its best_estimator_"):
        save_artifacts(search, tmp_path / "probe")
