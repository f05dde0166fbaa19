"""Probe the words of the user and of the assistant in conversations about statements.

The user asks whether a statement is true, and the assistant asks for time. Neither
gives the answer, but the assistant's words come after the statement, so that the model
can attend to it.

Run ``python examples/conversations.py``.
"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from setting import load_statements, make_embedder, make_folds, make_linear_probe, run

from plug_sklearn import layer_sweep

ROLES = {"the user's words": "user", "the assistant's words": "assistant"}
COLORS = ("#0072B2", "#D55E00")


def converse(statement: str) -> list[dict[str, str]]:
    """Make a conversation about a statement."""
    return [
        {"role": "user", "content": f"Is it true? {statement}"},
        {"role": "assistant", "content": "Let me think."},
    ]


def main(out: Path, model: str | None = None, n_pairs: int | None = None) -> None:
    """Sweep the layers for each role, and draw a curve for each."""
    statements = load_statements(n_pairs)
    conversations = [converse(statement) for statement in statements["statement"]]
    figure = Figure(figsize=(6, 4), dpi=100, layout="constrained")
    axes = figure.subplots()
    axes.axhline(0.5, color="#595959", linestyle="--", linewidth=1)
    for (whose, role), color in zip(ROLES.items(), COLORS, strict=True):
        scores = layer_sweep(
            make_linear_probe(),
            conversations,
            statements["label"],
            embedder=make_embedder(out, model).set_params(roles=[role], pooling="mean"),
            cv=make_folds(),
            groups=statements["group"],
            scoring="roc_auc",
        )
        means = scores.groupby("layer")["roc_auc"].mean()
        print(f"{whose}: best in layer {means.idxmax()}, ROC-AUC {means.max():.3f}")
        axes.plot(means.index, means, color=color, marker="o", ms=3, label=whose)
    axes.legend(frameon=False)
    axes.set(xlabel="Layer", ylabel="ROC AUC", ylim=(0.4, 1.0))
    axes.set(title="Whose words know whether the statement is true?")
    axes.set_xticks(np.arange(0, int(means.index[-1]) + 1, 5))
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(out / "conversations.png")


if __name__ == "__main__":
    run(main, __doc__)
