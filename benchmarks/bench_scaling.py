"""Measure how time and memory grow with the number of texts, on a tiny model.

Run ``python benchmarks/bench_scaling.py``: 100 to 100,000 short texts, each number in a
process of its own. It draws ``benchmarks/scaling.png``, writes its table to
``benchmarks/README.md``, and exits with 1 where time does not stay in proportion or
peak memory exceeds the result by more than a few batches.
"""

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np
from matplotlib.figure import Figure
from random_llama import N_WORDS, TINY, save_random_llama

from plug_sklearn import HFEmbeddingTransformer

HERE = Path(__file__).parent
NUMBERS = (100, 1_000, 10_000, 100_000)
#: What the largest may hold beyond its result and what the smallest run takes.
MOST_MEGABYTES = 150
#: Texts a second at 100,000, as a fraction of those at 10,000.
LEAST_RATE = 0.7


def make_texts(n_texts: int) -> list[str]:
    """Draw texts of 12 words, of which the first 4 are one of 50 beginnings."""
    generator = np.random.default_rng(0)
    beginnings = generator.integers(1, N_WORDS, size=(50, 4))
    endings = generator.integers(1, N_WORDS, size=(n_texts, 8))
    return [
        " ".join(f"w{word}" for word in (*beginnings[n % 50], *ending))
        for n, ending in enumerate(endings)
    ]


def measure(folder: str, n_texts: int) -> dict[str, float]:
    """Embed texts in this process; give seconds, and megabytes beyond the result."""
    texts = make_texts(n_texts)
    embedder = HFEmbeddingTransformer(folder, device="cpu").fit(texts)
    embedder.transform(make_texts(2))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = perf_counter()
    activations = embedder.transform(texts)
    seconds = perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    beyond = (peak - before) * 1024 - activations.nbytes
    return {"texts": n_texts, "seconds": seconds, "megabytes": beyond / 2**20}


def main() -> int:
    """Measure each number of texts in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        save_random_llama(folder, TINY)
        rows = []
        for n_texts in NUMBERS:
            command = [sys.executable, __file__, folder, str(n_texts)]
            answer = subprocess.run(
                command, check=True, stdout=subprocess.PIPE, text=True
            )
            rows.append(json.loads(answer.stdout.splitlines()[-1]))
    figure = Figure(figsize=(6, 4), dpi=150, layout="constrained")
    axes = figure.subplots()
    numbers = [row["texts"] for row in rows]
    axes.loglog(numbers, [row["seconds"] for row in rows], "o-", color="#0072B2")
    rates = [row["texts"] / row["seconds"] for row in rows]
    ideal = [n / rates[-1] for n in numbers]
    axes.loglog(numbers, ideal, "--", color="#595959", label="in proportion")
    axes.set(xlabel="Texts of 12 tokens", ylabel="Seconds, 2 layers of 64 units")
    axes.set_title("Time to embed")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(HERE / "scaling.png")
    lines = [
        "| texts | seconds | texts/s | MB beyond the result |",
        "|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {row['texts']:,} | {row['seconds']:.2f} | {rate:,.0f} | "
        f"{row['megabytes']:.0f} |"
        for row, rate in zip(rows, rates, strict=True)
    ]
    steady = rates[-1] >= LEAST_RATE * rates[-2]
    flat = rows[-1]["megabytes"] - rows[0]["megabytes"] <= MOST_MEGABYTES
    verdict = (
        "Time is proportional to the number of texts: "
        f"{'met' if steady else 'MISSED'}. "
        f"Memory stays constant: {'met' if flat else 'MISSED'}."
    )
    table = "\n".join([*lines, "", verdict])
    print(table)
    readme = HERE / "README.md"
    before, rest = readme.read_text().split("<!-- scaling -->\n")
    _, after = rest.split("<!-- /scaling -->")
    readme.write_text(f"{before}<!-- scaling -->\n{table}\n<!-- /scaling -->{after}")
    return int(not (steady and flat))


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
    else:
        sys.exit(main())
