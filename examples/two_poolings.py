"""Compare two poolings in one pass: the last token, and the mean of all tokens.

Run ``python examples/two_poolings.py``.
"""

from pathlib import Path

from setting import load_statements, make_embedder, make_folds, make_linear_probe, run

from plug_sklearn import LayerSweepDisplay


def main(out: Path, model: str | None = None, n_pairs: int | None = None) -> None:
    """Sweep the layers, and draw a curve for each pooling."""
    statements = load_statements(n_pairs)
    embedder = make_embedder(out, model).set_params(pooling=("last", "mean"))
    display = LayerSweepDisplay.from_estimator(
        make_linear_probe(),
        statements["statement"],
        statements["label"],
        embedder=embedder,
        cv=make_folds(),
        groups=statements["group"],
        scoring="roc_auc",
    )
    best = display.summary_.sort_values("mean").groupby("part").tail(1)
    print("The best layer of each pooling, over five folds:")
    print(best.round(3).to_string(index=False))

    display.ax_.set(title="Is truth in the last token, or in the mean of all?")
    display.figure_.savefig(out / "two_poolings.png")


if __name__ == "__main__":
    run(main, __doc__)
