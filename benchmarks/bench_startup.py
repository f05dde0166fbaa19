"""Time what a process waits for before it can fit a probe, and write the table.

Each import runs in fresh processes, by turns, and medians count. The goal is set by
what a probe cannot do without: torch, scikit-learn's pipelines and skorch.
"""

import subprocess
import sys
from pathlib import Path
from statistics import median
from time import perf_counter

ROUNDS = 5
GOAL = 1.15
BASE = "import torch, sklearn.pipeline, skorch"
PROBE = "from plug_sklearn import PlugMLPClassifier"
TWO_WORKERS = (
    "{}; from joblib import Parallel, delayed; "
    "Parallel(2)(delayed(repr)({}) for _ in range(2))"
)
SKORCH_WORKERS = TWO_WORKERS.format(BASE, "skorch.NeuralNetClassifier")
#: Statement → what it is measured against, and whether that is a goal.
IMPORTS = {
    BASE: (BASE, False),
    PROBE: (BASE, True),
    SKORCH_WORKERS: (SKORCH_WORKERS, False),
    TWO_WORKERS.format(PROBE, "PlugMLPClassifier"): (SKORCH_WORKERS, True),
    "from plug_sklearn import LayerAggregator": (BASE, False),
    "from plug_sklearn import layer_sweep": (BASE, False),
    "from plug_sklearn import HFEmbeddingTransformer": (BASE, False),
}
README = Path(__file__).with_name("README.md")
MARKS = ("<!-- startup -->", "<!-- /startup -->")


def time_process(statement: str) -> float:
    """Time a fresh Python that runs a statement."""
    start = perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return perf_counter() - start


def main() -> None:
    """Measure by turns, write the table, and exit with 1 where the goal is missed."""
    times: dict[str, list[float]] = {statement: [] for statement in IMPORTS}
    for _ in range(ROUNDS):
        for statement, taken in times.items():
            taken.append(time_process(statement))
    seconds = {statement: median(taken) for statement, taken in times.items()}
    rows = [
        "| fresh process | seconds | ratio | goal | verdict |",
        "|---|--:|--:|--:|---|",
    ]
    missed = False
    for statement, (base, is_goal) in IMPORTS.items():
        ratio = seconds[statement] / seconds[base]
        missed |= is_goal and ratio > GOAL
        verdict = (
            f"{GOAL} | {'met' if ratio <= GOAL else 'MISSED'}" if is_goal else " | "
        )
        rows.append(
            f"| `{statement}` | {seconds[statement]:.2f} | {ratio:.2f} | {verdict} |"
        )
    text = README.read_text()
    before, rest = text.split(MARKS[0])
    _, after = rest.split(MARKS[1])
    table = "\n".join(rows)
    README.write_text(f"{before}{MARKS[0]}\n{table}\n{MARKS[1]}{after}")
    print(table)
    sys.exit(missed)


if __name__ == "__main__":
    main()
