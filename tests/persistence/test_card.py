"""Model cards say what a probe reads, its scores, and how to load it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from _fitted import X, Y
from huggingface_hub import ModelCard
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline

from plug_sklearn import (
    HFEmbeddingTransformer,
    LayerAggregator,
    cross_validation_report,
    load_artifacts,
    probe_controls,
    save_artifacts,
    threshold_at_fpr,
)

TEXTS = [f"{city} is in {country}." for city in "abcdef" for country in "uvwxyz"]
LABELS = np.arange(36) % 2


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


def test_model_of_the_hub_is_the_base_model() -> None:
    from plug_sklearn.persistence._card import write_card

    embedder = HFEmbeddingTransformer("some/model")
    embedder.layers_, embedder.parts_, embedder.n_model_layers_ = (3,), ("rs",), 12
    embedder.model_revision_ = "abc"
    text = write_card(embedder, None, "hf://me/probe")
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
    assert "Cross-validation on 60 rows, of 12 groups, in 2 folds." in text
    assert "Activations or features" in text


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
