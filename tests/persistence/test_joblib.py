"""A fitted pipeline as a pickle: its size, other processes, devices and models."""

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pytest
from _fitted import QUICK
from _in_process import forget_files
from sklearn.pipeline import Pipeline, make_pipeline

from plug_sklearn import (
    HFEmbeddingTransformer,
    LayerAggregator,
    PlugMLPClassifier,
    load_artifacts,
    save_artifacts,
)
from plug_sklearn.embedding import release_models
from plug_sklearn.embedding.models import ModelSource
from plug_sklearn.persistence import ProvenanceWarning

TEXTS = ["Paris is in France.", "Lima is in Peru.", "Gold is Fe.", "1 2 3", "Iron"] * 4


def fit_on_texts(model: str | Path, **parameters: object) -> Pipeline:
    """Fit an embedder, an aggregator and a probe."""
    pipe = make_pipeline(
        HFEmbeddingTransformer(model, device="cpu", **parameters),
        LayerAggregator([0, -1]),
        PlugMLPClassifier(**QUICK),
    )
    return pipe.fit(TEXTS, np.arange(20) % 2)


def test_a_fresh_process_predicts_the_same_from_each_format(
    llama: str, tmp_path: Path
) -> None:
    fitted = fit_on_texts(llama)
    joblib.dump(fitted, tmp_path / "probe.joblib")
    save_artifacts(fitted, tmp_path / "probe")
    script = (
        "import joblib, numpy, plug_sklearn\n"
        "pickled = joblib.load('probe.joblib')\n"
        "artifact = plug_sklearn.load_artifacts('probe')\n"
        f"found = [probe.predict_proba({TEXTS!r}) for probe in (pickled, artifact)]\n"
        "numpy.save('found.npy', found)\n"
    )
    hint = "ignore:HFEmbeddingTransformer has read most of these texts"
    subprocess.run(
        [sys.executable, "-W", "error", "-W", hint, "-c", script],
        cwd=tmp_path,
        check=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    expected = fitted.predict_proba(TEXTS)
    for found in np.load(tmp_path / "found.npy"):
        # Where arrays begin in memory decides how activations are rounded.
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_a_pipeline_s_pickle_is_of_the_probe_s_size(llama: str) -> None:
    fitted = fit_on_texts(llama)
    weights = fitted[-1].net_.module_.state_dict().values()
    n_bytes = sum(value.nbytes for value in weights)
    assert n_bytes < len(pickle.dumps(fitted)) < n_bytes + 15_000


def test_a_model_that_changed_warns_when_its_weights_are_needed(
    llama: str, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(llama, folder)
    fitted = fit_on_texts(folder)
    pickled = pickle.dumps(fitted)
    same = pickle.loads(pickled)
    assert np.array_equal(same.predict_proba(TEXTS), fitted.predict_proba(TEXTS))

    release_models()
    (folder / "notes.txt").write_text("Another model.")
    loaded = pickle.loads(pickled)
    with pytest.warns(ProvenanceWarning, match="has changed since HFEmb"):
        loaded.predict_proba(TEXTS)
    # Once in a process is enough, and a new fit knows the model of now.
    loaded.predict_proba(TEXTS)
    again = pickle.loads(pickle.dumps(loaded.fit(TEXTS, np.arange(20) % 2)))
    again.predict_proba(TEXTS)


def test_a_model_of_another_shape_is_refused_by_name(llama: str, bert: str) -> None:
    fitted = fit_on_texts(llama)
    fitted[0].set_params(model_name=bert)
    shapes = r"were \(3, 16\)\. Got .*, with \(2, 16\)\. Fit again"
    with pytest.raises(ValueError, match=f"^The 'model_name' parameter .* {shapes}"):
        fitted.predict_proba(TEXTS)


def test_a_model_in_another_folder_is_the_same(llama: str, tmp_path: Path) -> None:
    loaded = pickle.loads(pickle.dumps(fit_on_texts(llama)))
    shutil.copytree(llama, tmp_path / "elsewhere")
    loaded.set_params(hfembeddingtransformer__model_name=tmp_path / "elsewhere")
    assert loaded.predict_proba(TEXTS).shape == (20, 2)


def test_what_is_stored_needs_no_weights(llama: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(llama, folder)
    fitted = fit_on_texts(folder, store=tmp_path / "store")
    expected = fitted.predict_proba(TEXTS)
    pickled = pickle.dumps(fitted)
    release_models()
    (folder / "model.safetensors").unlink()
    loaded = pickle.loads(pickled)
    loaded[0].set_params(store=tmp_path / "store")
    assert np.array_equal(loaded.predict_proba(TEXTS), expected)


def test_what_is_stored_of_a_model_of_the_hub_needs_nothing_of_the_hub(
    llama: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123abcd" * 5
    with monkeypatch.context() as online:
        online.setattr(
            "plug_sklearn.embedding.models._sources.cached_file",
            lambda *_, **__: f"/snapshots/{commit}/config.json",
        )
        online.setattr(ModelSource, "loading_arguments", lambda self: (llama, {}))
        fitted = fit_on_texts("nobody/llama", store=tmp_path / "store")
        expected = fitted.predict_proba(TEXTS)
        pickled = pickle.dumps(fitted)
        save_artifacts(fitted, tmp_path / "probe")
    release_models()
    forget_files()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    artifact = load_artifacts(tmp_path / "probe")
    for loaded in (pickle.loads(pickled), artifact):
        loaded[0].set_params(store=tmp_path / "store")
        assert loaded[0].model_revision_ == commit
        assert np.array_equal(loaded.predict_proba(TEXTS), expected)
        with pytest.raises(OSError, match=f"nobody/llama --revision {commit}"):
            loaded.predict_proba(["Another text."])


def test_offline_only_what_needs_the_model_fails_and_says_how_to_get_it(
    llama: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted = fit_on_texts(llama)
    fitted[0].set_params(model_name="nobody/no-model", revision="v1")
    fitted[0].model_revision_ = "0123abcd" * 5
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    loaded = pickle.loads(pickle.dumps(fitted))
    features = np.zeros((2, 3, 1, 16), dtype=np.float32)
    assert loaded[1:].predict_proba(features).shape == (2, 2)
    with pytest.raises(OSError) as raised:
        loaded.predict_proba(TEXTS)
    message = str(raised.value)
    assert "'nobody/no-model' (revision 'v1', commit 0123abcd" in message
    assert f"hf download nobody/no-model --revision {'0123abcd' * 5}" in message
