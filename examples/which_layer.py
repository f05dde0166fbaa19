"""Plot the score of a linear probe of each layer, for true and false statements.

Run ``python examples/which_layer.py``.
"""

from pathlib import Path

from setting import load_statements, make_embedder, make_folds, make_linear_probe, run

from plug_sklearn import LayerSweepDisplay


def main(out: Path, model: str | None = None, n_pairs: int | None = None) -> None:
    """Sweep the layers of the residual stream, and draw the curve."""
    statements = load_statements(n_pairs)
    display = LayerSweepDisplay.from_estimator(
        make_linear_probe(),
        statements["statement"],
        statements["label"],
        embedder=make_embedder(out, model),
        cv=make_folds(),
        groups=statements["group"],
        scoring=["roc_auc", "accuracy"],
    )
    print(display.sweep.groupby("layer")[["roc_auc", "accuracy"]].mean().round(3))
    print(f"Layer {display.best_['layer']} has the best ROC-AUC. Its lead over its")
    print(
        "neighbours is small, and its score is too high: it was chosen on these folds."
    )

    display.ax_.set(title="Which layer knows what is true?")
    display.figure_.savefig(out / "which_layer.png")


if __name__ == "__main__":
    run(main, __doc__)
