"""Write tables, verdicts and a picture of scores and timings of the classifiers."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

LINEAR, OURS, PINGKIT = "logistic regression", "MLP", "pingkit"
#: Colours that colour-blind eyes tell apart.
COLOURS = {OURS: "#0072B2", LINEAR: "#D55E00", PINGKIT: "#009E73"}
SETTING = ["data", "layer", "rows"]


Goals = list[tuple[str, str, bool]]


def report_goals(goals: Goals) -> list[str]:
    """Tabulate the goals and their verdicts."""
    rows = [[goal, found, "met" if met else "MISSED"] for goal, found, met in goals]
    return ["### Goals", format_table(["goal", "found", "verdict"], rows)]


def report_quality(scores: pd.DataFrame, goals: Goals) -> list[str]:
    """Tabulate every setting, and judge the goals of quality."""
    scores = scores.assign(rows=scores["n_rows"].fillna(10**9).astype(int))
    names = [name for name in (PINGKIT, LINEAR, OURS) if name in set(scores.classifier)]
    one_layer = scores[scores.classifier.isin(names)]
    means = one_layer.pivot_table(
        index=SETTING, columns="classifier", values=["roc_auc", "log_loss"]
    ).dropna()
    area, loss = means["roc_auc"], means["log_loss"]
    lead, gain = area[OURS] - area[LINEAR], loss[OURS] - loss[LINEAR]
    worst = " ".join(format_setting(lead.idxmin()))
    goals += [
        (
            "mean ROC-AUC over linear >= 0.005",
            f"{lead.mean():+.4f}",
            lead.mean() >= 0.005,
        ),
        ("mean log loss <= -0.01", f"{gain.mean():+.4f}", gain.mean() <= -0.01),
        (
            "least ROC-AUC over linear >= -0.005",
            f"{lead.min():+.4f} ({worst}); {(lead < -0.005).sum()} of {len(lead)}",
            lead.min() >= -0.005,
        ),
    ]
    if PINGKIT in names:
        over = area[OURS] - area[PINGKIT]
        goals.append(
            (
                "ROC-AUC above pingkit's on all",
                f"least {over.min():+.4f}",
                over.min() > 0,
            )
        )
    rows = []
    for setting, row in means.iterrows():
        found = [f"{row['roc_auc', n]:.3f} / {row['log_loss', n]:.3f}" for n in names]
        rows.append([*format_setting(setting), *found])
    overall = [f"{area[n].mean():.3f} / {loss[n].mean():.3f}" for n in names]
    return [
        "### The MLP against a linear probe and pingkit",
        f"Means over {describe_repeats(one_layer)}: ROC-AUC / log loss.",
        format_table(
            ["data", "layer", "rows", *names], [*rows, ["all", "", "", *overall]]
        ),
        "![ROC-AUC against the number of rows](classifiers.png)",
    ]


def report_ablations(scores: pd.DataFrame, goals: Goals) -> list[str]:
    """Tabulate what changes where a default is set otherwise."""
    scores = scores.assign(rows=scores["n_rows"].fillna(10**9).astype(int))
    rows = []
    for name in scores.classifier.unique():
        if not name.startswith(f"{OURS}, "):
            continue
        keys = [*SETTING, "seed", "fold"]
        both = scores[scores.classifier == name].merge(
            scores[scores.classifier == OURS], on=keys, suffixes=("", "_default")
        )
        area = (both.roc_auc - both.roc_auc_default).mean()
        loss = (both.log_loss - both.log_loss_default).mean()
        rows.append(
            [f"`{name.removeprefix(f'{OURS}, ')}`", f"{area:+.4f}", f"{loss:+.4f}"]
        )
    return [
        "### What each default is worth",
        "Changes in the mean scores when one default of the MLP is replaced, with "
        f"{describe_repeats(scores)} of 400 rows of one layer. If the ROC-AUC falls or "
        "the loss rises, the default is better.",
        format_table(["replaced by", "ROC-AUC", "log loss"], rows),
    ]


def report_cnn(scores: pd.DataFrame, goals: Goals) -> list[str]:
    """Tabulate the CNN's variants by data set, and judge its goal."""
    on_all = scores[
        scores.classifier.eq("best layer") | scores.classifier.str.startswith("CNN")
    ]
    means = on_all.pivot_table(
        index="data", columns="classifier", values=["roc_auc", "log_loss"]
    )
    area, loss = means["roc_auc"], means["log_loss"]
    columns = list(on_all.classifier.unique())
    of_units = on_all[on_all.classifier.str.contains("units")]
    by_seed = on_all.pivot_table(
        index="seed", columns=["classifier", "data"], values="roc_auc"
    )
    lead = (by_seed["CNN"] - by_seed["best layer"]).agg(["mean", "sem"]).T
    leads = [
        f"{data} {row['mean']:+.4f} ± {row['sem']:.4f}" for data, row in lead.iterrows()
    ]
    goals.append(
        (
            "CNN's ROC-AUC >= best layer's on each data set (± standard error over "
            "seeds)",
            ", ".join(leads),
            lead["mean"].min() >= 0,
        )
    )
    rows = [
        [
            data,
            *(f"{area[name][data]:.3f} / {loss[name][data]:.3f}" for name in columns),
        ]
        for data in area.index
    ]
    return [
        "### The CNN on all layers against the best single layer",
        f"Means over {describe_repeats(on_all)}: ROC-AUC / log loss. "
        "The best layer and its `C` are chosen by cross-validation within the training "
        "rows. Convolutions over hidden units were run with the first "
        f"{of_units.seed.nunique()} seeds only.",
        format_table(["data", *columns], rows),
    ]


def report_speed(speed: dict[str, dict[str, float]], goals: Goals) -> list[str]:
    """Tabulate seconds and sizes, and judge their ratios."""
    s, n_bytes = speed["seconds"], speed["bytes"]
    bare = min(s["bare module, at once"], s["bare module, in batches"])
    ratios = {
        "fit / loop by hand, plain network, <= 1.3": s["plain, ours"]
        / s["plain, by hand"],
        "fit / loop by hand, default, <= 1.3": s["default, ours"]
        / s["default, by hand"],
        "predict / bare module <= 1.2": s["predict"] / bare,
    }
    goals += [(name, f"{x:.2f}", x <= float(name[-3:])) for name, x in ratios.items()]
    faster = {
        "skorch's default loader / fit >= 3": s["plain, skorch"] / s["plain, ours"]
    }
    if "plain, pingkit" in s:
        faster["pingkit's fit / fit >= 5"] = s["plain, pingkit"] / s["plain, ours"]
    goals += [(name, f"{x:.2f}", x >= float(name[-1])) for name, x in faster.items()]
    beyond = s["import plug_sklearn"] - s["import sklearn"]
    most = 1.05 * n_bytes["weights"] + 20_000
    memory = speed["memory"]
    held = memory["data"] + memory["added by fit"]
    times = held / (memory["data"] + memory["network"])
    goals += [
        ("import beyond scikit-learn's < 0.3 s", f"{beyond:.2f} s", beyond < 0.3),
        (
            "pickle <= 1.05 weights + 20 kB",
            f"{n_bytes['pickle']:,.0f} of {most:,.0f} bytes",
            n_bytes["pickle"] <= most,
        ),
        ("memory of a fit / data and network <= 1.2", f"{times:.2f}", times <= 1.2),
    ]
    rows = [[name, f"{value:.3f}"] for name, value in s.items()]
    if "plain, pingkit" in s:
        by_hand = s["plain, pingkit"] / s["plain, by hand"]
        limit = f"The loop by hand is {by_hand:.2f} times as fast as pingkit's."
    else:
        limit = "pingkit was not timed."
    return ["### Speed and size", format_table(["task", "seconds"], rows), limit]


def report_sweep(found: dict[str, float], goals: Goals) -> list[str]:
    """Tabulate the seconds of a layer sweep, and judge their ratio."""
    ratio = found["layer after layer"] / found["at once"]
    goals.append(("layer after layer / at once >= 4", f"{ratio:.2f}", ratio >= 4))
    rows = [
        [name, f"{found[name]:.1f}", f"{found[name] / found['fits']:.2f}"]
        for name in ("layer after layer", "at once")
    ]
    return [
        "### A layer sweep",
        f"{found['fits']} fits of the default MLP, to 640 rows each. The scores of the "
        f"two ways differ by at most {found['difference of scores']:.1g}. Seconds are "
        "medians of three, measured in alternation.",
        format_table(["sweep", "seconds", "a fit"], rows),
    ]


def draw_learning_curves(scores: pd.DataFrame, path: Path) -> None:
    """Draw the ROC-AUC against the number of rows, a panel for each data set."""
    shown = scores[scores.classifier.isin(COLOURS) & scores.layer.notna()]
    names = list(shown.data.unique())
    figure = Figure(figsize=(2.4 * len(names), 2.8), dpi=150, layout="constrained")
    panels = figure.subplots(1, len(names), sharey=True)
    for panel, data in zip(panels, names, strict=True):
        of_data = shown[shown.data == data]
        ticks = sorted(of_data.n_rows.dropna().unique())
        for name, colour in COLOURS.items():
            means = of_data[of_data.classifier == name].groupby("n_rows", dropna=False)
            area = means.roc_auc.mean()
            places = range(len(area))
            panel.plot(places, area.to_numpy(), "o-", color=colour, label=name, ms=4)
        labels = [*(f"{int(n):,}" for n in ticks), "all"]
        panel.set_xticks(range(len(labels)), labels)
        panel.set(title=data, xlabel="Rows")
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("Area under the ROC curve")
    panels[-1].legend(frameon=False, fontsize="small")
    figure.savefig(path)


def describe_repeats(scores: pd.DataFrame) -> str:
    """Say what the scores of a setting are repeated over."""
    return f"{scores.seed.nunique()} seeds and {scores.fold.nunique()} folds"


def format_setting(setting: tuple[object, ...]) -> list[str]:
    """Write a setting's cells."""
    data, layer, rows = setting
    return [str(data), f"{layer:.0f}", "all" if rows == 10**9 else f"{rows:,}"]


def format_table(header: list[str], rows: list[list[str]]) -> str:
    """Write a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


REPORTS = {
    "quality": report_quality,
    "ablations": report_ablations,
    "cnn": report_cnn,
}
