"""Model cards, and uploads and downloads with the client of the hub, on loopback."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import numpy as np
import pandas as pd
import pytest
from _fitted import X, Y, fit_mlp, fit_pipeline
from _hub_server import Hub, serving
from huggingface_hub import ModelCard, constants
from numpy.testing import assert_array_equal
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline

from plug_sklearn import (
    HFEmbeddingTransformer,
    LayerAggregator,
    cross_validation_report,
    load_artifacts,
    probe_controls,
    push_to_hub,
    save_artifacts,
    threshold_at_fpr,
)

TEXTS = [f"{city} is in {country}." for city in "abcdef" for country in "uvwxyz"]
LABELS = np.arange(36) % 2
FLAT = X.reshape(60, -1)


def test_card_tells_what_was_read_and_every_score(llama: str, tmp_path: Path) -> None:
    pipeline = make_pipeline(
        HFEmbeddingTransformer(
            llama, layers=[1, 2], pooling=("last", "mean"), device="cpu"
        ),
        LayerAggregator(),
        LogisticRegression(C=0.01),
    )
    setting = {"cv": 3, "scoring": ["roc_auc", "accuracy"]}
    controls = probe_controls(pipeline, TEXTS, LABELS, random_state=0, **setting)
    activations = pipeline[0].fit_transform(TEXTS)
    report = cross_validation_report(
        pipeline[1:], activations, LABELS, controls=controls, **setting
    )
    pipeline.fit(TEXTS, LABELS)
    monitor = threshold_at_fpr(pipeline, TEXTS, LABELS, 0.3, confidence=0.8)
    save_artifacts(monitor, tmp_path / "probe", card=report)
    text = (tmp_path / "README.md").read_text()
    for line in (
        f"- Model: `{Path(llama).name}`",
        "- Layers (0 to 2): 1, 2",
        "- Parts: rs_last, rs_mean",
        "- Poolings: last, mean",
        "- Classes: `0`, `1`",
        'probe = load_artifacts("probe")',
    ):
        assert line in text.splitlines()
    for score, row in report.overall.iterrows():
        cells = " | ".join(f"{value:.3f}" for value in row)
        assert f"| {score} | {cells} |" in text
    means = controls.groupby("control")[["roc_auc", "accuracy"]].mean()
    for control, row in means.iterrows():
        cells = " | ".join(f"{value:.3f}" for value in row)
        assert f"| {control} | {cells} |" in text
    data = ModelCard(text).data.to_dict()
    assert data["library_name"] == "plug_sklearn"
    assert data["pipeline_tag"] == "text-classification"
    # A folder on this machine is no model of the hub.
    assert "base_model" not in data
    assert len(list(tmp_path.iterdir())) == 3
    assert load_artifacts(tmp_path / "probe").threshold == monitor.threshold


def test_model_of_the_hub_is_the_base_model(hub: Hub, llama: str) -> None:
    embedder = HFEmbeddingTransformer(llama).fit(TEXTS)
    # As if the model came from the hub.
    embedder.set_params(model_name="some/model").model_revision_ = "abc"
    push_to_hub(embedder, "me/probe")
    text = hub.commits["me/probe"][-1][1]["README.md"].decode()
    assert ModelCard(text).data.base_model == "some/model"
    assert "- Commit: `abc`" in text
    assert "No scores were reported." in text


def test_groups_are_counted(tmp_path: Path) -> None:
    probe = LogisticRegression().fit(X.reshape(60, -1), Y)
    report = cross_validation_report(
        probe, X.reshape(60, -1), Y, cv=GroupKFold(2), groups=np.arange(60) // 5
    )
    save_artifacts(probe, tmp_path / "probe", card=report)
    text = (tmp_path / "README.md").read_text()
    assert "Cross-validation on 60 samples, of 12 groups, in 2 folds." in text
    assert "Activations or features" in text


def test_card_shows_controls_that_have_the_default_score(tmp_path: Path) -> None:
    probe = make_pipeline(LayerAggregator(), LogisticRegression()).fit(X, Y)
    setting = {"cv": 2, "controls": ["shuffled_labels"], "random_state": 0}
    controls = probe_controls(probe, X, Y, **setting)
    report = cross_validation_report(probe, X, Y, cv=2, controls=controls)
    save_artifacts(probe, tmp_path / "probe", card=report)
    mean = controls.loc[controls["control"] == "shuffled_labels", "score"].mean()
    assert f"| shuffled_labels | {mean:.3f} |" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize("card", ["A probe.", pd.DataFrame(), True])
def test_other_cards_are_refused_before_anything_is_written(
    card: object, tmp_path: Path
) -> None:
    probe = LogisticRegression().fit(X.reshape(60, -1), Y)
    with pytest.raises(TypeError, match="'card' parameter of save_artifacts must be N"):
        save_artifacts(probe, tmp_path / "probe", card=card)  # type: ignore[arg-type]  # what is tested
    assert not list(tmp_path.iterdir())


def judge_labels(labels: object) -> tuple[LogisticRegression, object]:
    features = X.reshape(60, -1)
    report = cross_validation_report(LogisticRegression(), features, labels, cv=2)
    return LogisticRegression().fit(features, labels), report


def test_a_page_that_is_no_card_is_kept(tmp_path: Path) -> None:
    probe, report = judge_labels(Y)
    (tmp_path / "README.md").write_text("# My project\n")
    with pytest.raises(FileExistsError, match="Save into a folder of its own"):
        save_artifacts(probe, tmp_path / "probe", card=report)
    assert [file.name for file in tmp_path.iterdir()] == ["README.md"]
    assert (tmp_path / "README.md").read_text() == "# My project\n"


def test_a_card_is_replaced_by_the_next(tmp_path: Path) -> None:
    probe, report = judge_labels(Y)
    for name in ("first", "second"):
        save_artifacts(probe, tmp_path / name, card=report)
    assert 'load_artifacts("second")' in (tmp_path / "README.md").read_text()


def test_labels_cannot_leave_their_code(tmp_path: Path) -> None:
    names = np.array(["a`<b>", "c\n## Judged by me"])
    probe, report = judge_labels(names[(Y == Y[0]).astype(int)])
    save_artifacts(probe, tmp_path / "probe", card=report)
    lines = (tmp_path / "README.md").read_text().splitlines()
    assert "- Classes: `` a`<b> ``, `c ## Judged by me`" in lines
    assert "## Judged by me" not in lines


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that the client takes for the real one, and an empty cache."""
    with serving() as hub:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(
            constants.ENDPOINT
        )
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + template
        )
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
        monkeypatch.setenv("HF_TOKEN", "hf_test")
        yield hub


def test_what_is_pushed_is_what_is_loaded(hub: Hub) -> None:
    fitted = fit_pipeline()
    address = push_to_hub(fitted, "me/truth-probe", private=True)
    commit, files = hub.commits["me/truth-probe"][-1]
    assert address == f"hf://me/truth-probe@{commit}"
    assert set(files) == {"probe.json", "probe.safetensors", "README.md"}
    assert hub.private == {"me/truth-probe": True}
    for source in ("hf://me/truth-probe", "hf://me/truth-probe@main", address):
        loaded = load_artifacts(source)
        assert_array_equal(loaded.predict_proba(X), fitted.predict_proba(X))


def test_only_the_two_files_are_fetched(hub: Hub) -> None:
    push_to_hub(fit_mlp(), "me/probe")
    hub.commit("me/probe", {"model.bin": b"code", "probe.pt": b"x", "setup.py": b""})
    load_artifacts("hf://me/probe")
    assert sorted(hub.sent) == ["probe.json", "probe.safetensors"]


def test_revisions_and_names_are_told_apart(hub: Hub) -> None:
    first, second = (
        LogisticRegression(C=strength).fit(FLAT, Y) for strength in (1, 1e-3)
    )
    old = push_to_hub(first, "me/probe", name="probes/truth.v1")
    new = push_to_hub(second, "me/probe", name="probes/truth.v1", commit_message="Less")
    assert old != new
    for address, fitted in (
        (old, first),
        (new, second),
        ("hf://me/probe/probes/truth.v1", second),
        ("hf://me/probe/probes/truth.v1.json", second),
    ):
        loaded = load_artifacts(address)
        assert_array_equal(loaded.coef_, fitted.coef_)


def test_card_shows_the_report_and_is_kept_without_one(hub: Hub) -> None:
    probe = LogisticRegression().fit(FLAT, Y)
    report = cross_validation_report(probe, FLAT, Y, cv=3, scoring="roc_auc")
    push_to_hub(probe, "me/probe", card=report)
    card = hub.commits["me/probe"][-1][1]["README.md"].decode()
    assert f"| roc_auc | {report.overall.loc['roc_auc', 'mean']:.3f} |" in card
    assert 'load_artifacts("hf://me/probe")' in card
    push_to_hub(probe, "me/probe")
    assert hub.commits["me/probe"][-1][1]["README.md"].decode() == card
    loaded = huggingface_hub.ModelCard(card)
    assert loaded.data.library_name == "plug_sklearn"


def test_both_files_are_of_one_commit(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (LogisticRegression(C=c).fit(FLAT, Y) for c in (1, 1e-3))
    push_to_hub(first, "me/probe")
    download = huggingface_hub.hf_hub_download

    def push_between(*arguments: str, **options: str) -> str:
        path = download(*arguments, **options)
        if str(path).endswith(".json"):
            push_to_hub(second, "me/probe")
        return path

    monkeypatch.setattr("plug_sklearn.persistence._hub.hf_hub_download", push_between)
    assert_array_equal(load_artifacts("hf://me/probe").coef_, first.coef_)


def test_changed_bytes_are_refused(hub: Hub) -> None:
    push_to_hub(LogisticRegression().fit(FLAT, Y), "me/probe")
    data = bytearray(hub.commits["me/probe"][-1][1]["probe.safetensors"])
    data[-2] ^= 1
    hub.commit("me/probe", {"probe.safetensors": bytes(data)})
    with pytest.raises(
        ValueError, match=r"it or probe.safetensors is not what was sav"
    ):
        load_artifacts("hf://me/probe")


def test_what_is_missing_is_named(hub: Hub) -> None:
    hub.commit("me/probe", {"probe.json": b"{}"})
    with pytest.raises(FileNotFoundError, match=r"no probe.safetensors in 'hf://me/pr"):
        load_artifacts("hf://me/probe")
    with pytest.raises(FileNotFoundError, match=r"no other.json in 'hf://me/probe/oth"):
        load_artifacts("hf://me/probe/other")
    with pytest.raises(FileNotFoundError, match="no repository or revision"):
        load_artifacts("hf://me/nothing")
    with pytest.raises(FileNotFoundError, match="no repository or revision"):
        load_artifacts("hf://me/probe@v2")


def test_offline_the_cache_serves(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    probe = LogisticRegression().fit(FLAT, Y)
    address = push_to_hub(probe, "me/probe")
    load_artifacts("hf://me/probe")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for source in ("hf://me/probe", address):
        assert_array_equal(load_artifacts(source).coef_, probe.coef_)
    with pytest.raises(FileNotFoundError, match="not in the cache on this machine"):
        load_artifacts("hf://me/other")


@pytest.mark.parametrize(
    "name",
    [
        "/..",
        "/../../x",
        "/a/../b",
        "//etc/passwd",
        r"/x\..\y",
        "/.",
        "@..%2F..%2Fx",
        "@..",
    ],
)
def test_addresses_that_lead_out_of_a_repository_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="'path' parameter of load_artifacts must be"):
        load_artifacts(f"hf://me/probe{name}")


@pytest.mark.parametrize(
    "address", ["hf://probe", "hf://me/", "hf://me/probe@", "hf://me/../x/@a", "hf://"]
)
def test_addresses_of_other_forms_are_refused(address: str) -> None:
    with pytest.raises(ValueError, match="'path' parameter of load_artifacts"):
        load_artifacts(address)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"repo_id": "probe"}, "'repo_id' parameter of push_to_hub must be 'owner/na"),
        ({"name": "../probe"}, "'name' parameter of push_to_hub"),
        ({"estimator": GaussianNB().fit(FLAT, Y)}, "Got GaussianNB"),
    ],
)
def test_bad_input_is_refused_before_a_repository_is_made(
    arguments: dict[str, object], message: str, hub: Hub
) -> None:
    given = {"estimator": LogisticRegression().fit(FLAT, Y), "repo_id": "me/probe"}
    with pytest.raises(ValueError, match=message):
        push_to_hub(**{**given, **arguments})  # type: ignore[arg-type]  # what is tested
    assert not hub.commits


def test_addresses_are_no_paths_to_save_to(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="push_to_hub uploads an estimator"):
        save_artifacts(LogisticRegression().fit(FLAT, Y), "hf://me/probe")


SCRIPT = """
import json, sys
from plug_sklearn import load_artifacts
probe = load_artifacts(sys.argv[1])
print(json.dumps(probe.coef_.tolist()))
"""


def test_the_endpoint_of_the_environment_is_used(hub: Hub, tmp_path: Path) -> None:
    probe = LogisticRegression().fit(FLAT, Y)
    push_to_hub(probe, "me/probe")
    found = subprocess.run(
        [sys.executable, "-c", SCRIPT, "hf://me/probe"],
        env={
            **os.environ,
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        },
        stdout=subprocess.PIPE,
        check=True,
    )
    assert np.array_equal(json.loads(found.stdout), probe.coef_)
