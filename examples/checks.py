"""Does the probe read truth? Compare it with controls, and test it on denied facts."""

import numpy as np
import pandas as pd
from comparison import Folds
from numpy.typing import NDArray
from setting import make_linear_probe
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.pipeline import make_pipeline

from plug_sklearn import (
    ControlsDisplay,
    HFEmbeddingTransformer,
    LayerAggregator,
    probe_controls,
)


def check_controls(
    embedder: HFEmbeddingTransformer,
    texts: pd.Series,
    y: NDArray[np.integer],
    groups: NDArray[np.integer],
    folds: Folds,
) -> ControlsDisplay:
    """Score a linear probe of the embedder's layer, and all controls."""
    probe = make_pipeline(embedder, LayerAggregator(), make_linear_probe())
    table = probe_controls(
        probe,
        texts,
        y,
        cv=folds,
        groups=groups,
        scoring=["roc_auc", "accuracy"],
        random_state=0,
    )
    return ControlsDisplay(table).plot()


def report_controls(display: ControlsDisplay) -> str:
    """Format the scores as a table, and say what they show."""
    scores = display.table.groupby("control", sort=False)[["roc_auc", "accuracy"]]
    best = display.summary_.drop(index="probe")["mean"].idxmax()
    return "\n".join(
        [
            scores.mean().round(3).to_string(),
            f"Selectivity, the lead over shuffled labels: {display.selectivity_:.2f}.",
            f"The best control is {best}. The probe's lead over it comes from what the "
            "model",
            "has learnt, and not from the words or lengths of texts.",
        ]
    )


def compare_negations(
    stated: NDArray[np.float32],
    denied: NDArray[np.float32],
    y: NDArray[np.integer],
    folds: Folds,
) -> pd.DataFrame:
    """Score probes trained on stated facts, and on stated and denied facts.

    Both arrays hold the activations of the same facts; ``y`` are the labels of the
    stated ones.
    """
    rows = []
    for train, test in folds:
        for trained_on, X, labels in (
            ("stated", stated[train], y[train]),
            (
                "stated and denied",
                np.concatenate([stated[train], denied[train]]),
                np.concatenate([y[train], 1 - y[train]]),
            ),
        ):
            probe = make_linear_probe().fit(X, labels)
            for tested_on, facts, truth in (
                ("stated", stated, y),
                ("denied", denied, 1 - y),
            ):
                predicted = probe.predict_proba(facts[test])[:, 1]
                scores = {
                    "roc_auc": roc_auc_score(truth[test], predicted),
                    "log_loss": log_loss(truth[test], predicted),
                }
                rows.append({"trained on": trained_on, "tested on": tested_on} | scores)
    table = pd.DataFrame(rows).groupby(["trained on", "tested on"], sort=False)
    return table.mean()


def report_negations(scores: pd.DataFrame) -> str:
    """Format the scores as a table, and say what they show."""
    alone, both = (
        scores.loc[(trained_on, "denied"), "roc_auc"]
        for trained_on in ("stated", "stated and denied")
    )
    lines = [scores.round(3).to_string()]
    if alone < 0.5:
        lines += [
            "The probe that was not trained on denied facts takes true for false "
            f"there: its ROC-AUC is {alone:.2f},",
            "and chance is 0.5. It reads whether names belong together, not whether a "
            "statement is true.",
        ]
    lines.append(f"Trained on both, it scores {both:.2f} on facts that are denied.")
    return "\n".join(lines)
