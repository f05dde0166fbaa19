"""Compare layers and classifiers at telling true statements from false ones."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from setting import make_folds, make_linear_probe
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm.auto import tqdm

from plug_sklearn import PlugMLPClassifier, PlugStackClassifier, layer_sweep

#: For each measure, 1 if higher values are better, and -1 if lower values are.
MEASURES = {"accuracy": 1, "roc_auc": 1, "log_loss": -1}

Folds = Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]]


def split_facts(
    y: NDArray[np.integer], groups: NDArray[np.integer], n_splits: int
) -> Folds:
    """Split rows into (training, test) folds; no group is on both sides of a fold."""
    return list(make_folds(n_splits).split(np.zeros(len(y)), y, groups))


def sweep_layers(
    activations: NDArray[np.float32], y: NDArray[np.integer], folds: Folds
) -> pd.DataFrame:
    """Score a linear probe on each layer and fold, by each measure."""
    return layer_sweep(
        make_linear_probe(), activations, y, cv=folds, scoring=score_probe
    )


def find_best_layer(sweep: pd.DataFrame) -> int:
    """Find the layer with the highest mean ROC-AUC."""
    return int(sweep.groupby("layer")["roc_auc"].mean().to_numpy().argmax())


def compare_classifiers(
    activations: NDArray[np.float32],
    y: NDArray[np.integer],
    groups: NDArray[np.integer],
    folds: Folds,
) -> tuple[pd.DataFrame, list[PlugMLPClassifier]]:
    """Score three classifiers on the same folds; also return the MLPs.

    The stack reads all layers and poolings. The others read one layer. In each fold,
    this layer and the ``C`` of logistic regression are chosen by cross-validation on
    the training rows.
    """
    rows, mlps = [], []
    for fold, (train, test) in enumerate(
        tqdm(folds, desc="Comparing", unit="fold", disable=None)
    ):
        inner = split_facts(y[train], groups[train], n_splits=3)
        last_token = activations[:, :, 0]
        sweep = sweep_layers(last_token[train], y[train], inner)
        layer = find_best_layer(sweep)
        one_layer = last_token[:, layer]
        for name, classifier in make_classifiers(inner).items():
            X = activations if name == "PlugStackClassifier" else one_layer
            classifier.fit(X[train], y[train], groups=groups[train])
            scores = score_probe(classifier, X[test], y[test])
            rows.append({"classifier": name, "fold": fold, "layer": layer, **scores})
            if name == "PlugMLPClassifier":
                mlps.append(classifier)
    return pd.DataFrame(rows), mlps


def make_classifiers(inner: Folds) -> dict[str, Any]:
    """Make the classifiers to compare; ``inner`` splits the rows they are fitted on."""
    return {
        "LogisticRegression": GridSearchCV(
            make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
            {"logisticregression__C": [1e-4, 1e-3, 1e-2, 1e-1, 1]},
            scoring="roc_auc",
            cv=inner,
        ),
        "PlugMLPClassifier": PlugMLPClassifier(random_state=0),
        "PlugStackClassifier": PlugStackClassifier(random_state=0),
    }


def score_probe(
    probe: Any,  # noqa: ANN401 - a classifier of any kind
    X: NDArray[np.floating],
    y: NDArray[np.integer],
) -> dict[str, float]:
    """Score a fitted probe by each measure."""
    probabilities = probe.predict_proba(X)[:, 1]
    return {
        "accuracy": accuracy_score(y, probabilities > 0.5),
        "roc_auc": roc_auc_score(y, probabilities),
        "log_loss": log_loss(y, probabilities),
    }


def report_comparison(scores: pd.DataFrame) -> str:
    """Format the scores as a table, and name the best classifier by each measure."""
    by_classifier = scores.groupby("classifier")[list(MEASURES)].mean()
    layers = scores.groupby("fold")["layer"].first().tolist()
    return "\n".join(
        [
            by_classifier.round(3).to_string(),
            "The stack reads all layers, last token and mean. The others read the last "
            f"token of one layer, chosen in each fold on its training facts: {layers}.",
            "Leads, ± one standard error over the folds:",
            *(find_leader(scores, measure) for measure in MEASURES),
        ]
    )


def find_leader(scores: pd.DataFrame, measure: str) -> str:
    """Say which classifier leads by a measure, and whether the lead is clear."""
    by_fold = scores.pivot(index="fold", columns="classifier", values=measure)
    by_fold *= MEASURES[measure]
    first, second = by_fold.mean().sort_values(ascending=False).index[:2]
    leads = by_fold[first] - by_fold[second]
    lead, error = leads.mean(), leads.std() / np.sqrt(len(leads))
    verdict = "a clear lead" if lead > 2 * error else "too close to call"
    return f"  {measure}: {first} over {second} by {lead:.3f} ± {error:.3f}, {verdict}."
