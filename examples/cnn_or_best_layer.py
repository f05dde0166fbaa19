"""Compare a CNN over all layers with a linear probe of the best layer.

Run ``python examples/cnn_or_best_layer.py``.
"""

from pathlib import Path

from matplotlib.figure import Figure
from setting import load_statements, make_embedder, make_folds, make_linear_probe, run
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from plug_sklearn import LayerAggregator, PlugCNNClassifier, compare_probes

MEASURES = {
    "accuracy": "Accuracy",
    "roc_auc": "ROC AUC",
    "neg_brier_score": "Negative Brier score",
}


def main(out: Path, model: str | None = None, n_pairs: int | None = None) -> None:
    """Compare the two on the same folds, and draw the differences."""
    statements = load_statements(n_pairs)
    y, groups = statements["label"], statements["group"]
    activations = make_embedder(out, model).fit_transform(statements["statement"])
    best_layer = GridSearchCV(
        # Each fold chooses the layer on its own training facts.
        make_pipeline(LayerAggregator(), make_linear_probe()),
        {"layeraggregator__layers": [[n] for n in range(activations.shape[1])]},
        scoring="roc_auc",
        cv=make_folds(3),
    )
    cnn = PlugCNNClassifier(target_ratio=1.0, lr=5e-3, max_epochs=30, random_state=0)
    table = compare_probes(
        cnn,
        best_layer,
        activations,
        y,
        cv=make_folds(),
        groups=groups,
        second_params={"groups": groups},
        scoring=list(MEASURES),
    )
    print("First the CNN over all layers, second the best layer's linear probe:")
    print(table.drop(columns=["degrees_of_freedom", "level"]).round(3).to_string())

    figure = Figure(figsize=(6, 3), dpi=100, layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color="#595959", linestyle="--", linewidth=1)
    middle = table["difference"]
    half = table["upper"] - middle
    axes.errorbar(
        middle, range(len(table)), xerr=half, fmt="o", capsize=4, color="#0072B2"
    )
    for row, (name, found) in enumerate(table.iterrows()):
        text = f"{found['difference']:+.3f}, p = {found['pvalue']:.2g}"
        axes.annotate(
            text,
            (middle[name], row),
            xytext=(0, 9),
            textcoords="offset points",
            ha="center",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )
    axes.set_yticks(range(len(table)), [MEASURES[name] for name in table.index])
    axes.set(
        ylim=(len(table) - 0.5, -0.6), title="CNN over all layers or the best layer?"
    )
    axes.set_xlabel("← best layer better     difference, 95% interval     CNN better →")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(out / "cnn_or_best_layer.png")


if __name__ == "__main__":
    run(main, __doc__)
