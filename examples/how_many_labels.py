"""Plot the scores of two probes against the number of labels they are trained on.

Run ``python examples/how_many_labels.py``.
"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from setting import load_statements, make_embedder, make_folds, make_linear_probe, run
from sklearn.model_selection import LearningCurveDisplay

from plug_sklearn import PlugMLPClassifier

SHARES = np.array([0.1, 0.2, 0.4, 0.7, 1.0])


def main(out: Path, model: str | None = None, n_pairs: int | None = None) -> None:
    """Draw the scores of two probes against the number of labels."""
    statements = load_statements(n_pairs)
    activations = make_embedder(out, model).fit_transform(statements["statement"])
    # Two thirds up is a usual layer for such concepts. It is not chosen by its score.
    layer = 2 * activations.shape[1] // 3
    probes = {
        "logistic regression": make_linear_probe(),
        "PlugMLPClassifier": PlugMLPClassifier(random_state=0),
    }
    figure = Figure(figsize=(6, 4), dpi=100, layout="constrained")
    axes = figure.subplots()
    for (name, probe), color in zip(
        probes.items(), ("#0072B2", "#D55E00"), strict=True
    ):
        display = LearningCurveDisplay.from_estimator(
            probe,
            activations[:, layer, 0],
            statements["label"],
            groups=statements["group"],
            cv=make_folds(),
            train_sizes=SHARES,
            shuffle=True,
            random_state=0,
            scoring="roc_auc",
            score_type="test",
            line_kw={"color": color, "marker": "o"},
            fill_between_kw={"color": color, "alpha": 0.15, "linewidth": 0},
            ax=axes,
        )
        display.lines_[0].set_label(name)
        for size, scores in zip(display.train_sizes, display.test_scores, strict=True):
            print(f"{name}, {size} labels: ROC-AUC {scores.mean():.3f}")
    axes.axhline(0.5, color="#595959", linestyle="--", linewidth=1, label="chance")
    axes.set(
        title=f"How many labels are needed? Layer {layer}, 5 folds, ± 1 sd",
        xlabel="Statements labelled",
        ylabel="ROC AUC on held-out facts",
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(out / "how_many_labels.png")


if __name__ == "__main__":
    run(main, __doc__)
