"""The quickstart's two pictures."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# From the palette of Okabe and Ito, which colour-blind readers can tell apart.
BLUE, VERMILION, GREY = "#0072B2", "#D55E00", "#595959"


def draw_layer_curve(sweep: pd.DataFrame, path: Path) -> None:
    """Draw the area under the ROC curve against the layer.

    Parameters
    ----------
    sweep : DataFrame
        Columns ``layer``, ``fold`` and ``roc_auc``.
    path : Path
        PNG file to write.
    """
    by_layer = sweep.groupby("layer")["roc_auc"]
    mean, deviation = by_layer.mean().to_numpy(), by_layer.std().to_numpy()
    layers, best = range(len(mean)), mean.argmax()
    figure = Figure(figsize=(6, 4), dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.axhline(0.5, color=GREY, linestyle="--", label="chance")
    axes.fill_between(
        layers,
        mean - deviation,
        mean + deviation,
        color=BLUE,
        alpha=0.2,
        linewidth=0,
        label=f"± 1 sd, {sweep['fold'].nunique()} folds",
    )
    axes.plot(layers, mean, color=BLUE, label="mean over folds")
    axes.plot(best, mean[best], "o", markersize=9, color=VERMILION)
    axes.annotate(
        f"layer {best}: {mean[best]:.2f}",
        (best, mean[best]),
        xytext=(0, 24),
        textcoords="offset points",
        ha="center",
        color=VERMILION,
    )
    axes.set(xlabel="Layer", ylabel="ROC-AUC on held-out facts", ylim=(0.4, 1))
    axes.set_title("Where truth can be read by a linear probe")
    axes.legend(loc="upper left", frameon=False)
    _finish(figure, path)


def draw_training_curves(histories: Sequence[pd.DataFrame], path: Path) -> None:
    """Draw loss and score by epoch, a line a fit.

    Parameters
    ----------
    histories : sequence of DataFrame
        One a fit, with columns ``epoch``, ``train_loss``, ``valid_loss``,
        ``valid_score`` and ``kept``, which is true in the epoch whose weights stay.
    path : Path
        PNG file to write.
    """
    figure = Figure(figsize=(6, 6), dpi=150, layout="constrained")
    upper, lower = figure.subplots(2, sharex=True)
    _draw_lines(upper, histories, "train_loss", BLUE, "training")
    _draw_lines(upper, histories, "valid_loss", VERMILION, "validation")
    _draw_lines(lower, histories, "valid_score", VERMILION, "validation")
    upper.set(ylabel="Loss", title="PlugMLPClassifier in training, one line a fold")
    lower.set(ylabel="ROC-AUC", xlabel="Epoch")
    lower.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    for axes in (upper, lower):
        axes.plot([], [], "ko", markersize=6, label="epoch kept")
        axes.legend(frameon=False)
    _finish(figure, path)


def _draw_lines(
    axes: Axes,
    histories: Sequence[pd.DataFrame],
    column: str,
    color: str,
    label: str,
) -> None:
    for number, history in enumerate(histories):
        axes.plot(
            history["epoch"],
            history[column],
            color=color,
            alpha=0.7,
            linewidth=1.2,
            label=label if number == 0 else None,
        )
        if column.startswith("valid"):
            kept = history[history["kept"]]
            axes.plot(kept["epoch"], kept[column], "ko", markersize=6, zorder=3)


def _finish(figure: Figure, path: Path) -> None:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)
