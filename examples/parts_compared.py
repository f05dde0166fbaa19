"""Probe the residual stream, and what attention and the MLP add to it.

Run ``python examples/parts_compared.py``.
"""

from pathlib import Path

from setting import load_statements, make_embedder, make_folds, make_linear_probe, run

from plug_sklearn import LayerSweepDisplay


def main(out: Path, model: str | None = None, n_pairs: int | None = None) -> None:
    """Sweep layers and parts, and draw a curve for each part."""
    statements = load_statements(n_pairs)
    display = LayerSweepDisplay.from_estimator(
        make_linear_probe(),
        statements["statement"],
        statements["label"],
        embedder=make_embedder(out, model, parts=("rs", "attn", "mlp")),
        cv=make_folds(),
        groups=statements["group"],
        scoring="roc_auc",
    )
    best = display.summary_.sort_values("mean").groupby("part").tail(1)
    print("The best layer of each part, over five folds:")
    print(best.round(3).to_string(index=False))
    print("rs is the residual stream after a block: all that was added up to there.")

    display.ax_.set(title="Where in a block is truth written?")
    display.figure_.savefig(out / "parts_compared.png")


if __name__ == "__main__":
    run(main, __doc__)
