"""Compare generation with probes to ``generate`` and to pingkit.

Run it from a clone::

    python benchmarks/bench_generation.py --peers PYTHON

``PYTHON`` is the interpreter of an environment with pingkit, which
``benchmarks/README.md`` describes. ``--parts`` measures some parts only, and keeps the
other figures. Both sides of a ratio alternate on one thread, after a check that they
write the same tokens; a ratio is the median over the repetitions, in processor time.
The table goes to ``benchmarks/README.md``, and the figures go to
``benchmarks/bench_generation.json``. The exit code is 1 if a goal is missed.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import torch
import transformers
from generation_delay import make_bare_app, time_first_tokens
from packaged_models import save_smollm2
from sklearn.pipeline import Pipeline, make_pipeline

from plug_sklearn import (
    HFEmbeddingTransformer,
    LayerAggregator,
    PlugMLPClassifier,
    generate_with_probes,
)
from plug_sklearn.embedding import describe_model

HERE = Path(__file__).parent
FIGURES = HERE / "bench_generation.json"
PROMPTS = [
    "The city of Lima is in",
    "Water is",
    "Gold has the symbol",
    "Once upon a time there was a king who",
    "The largest planet is",
    "My name is",
    "One two three four",
    "Berlin is the capital of",
]
LAYER = 15
LONG_PROMPT = 24 * "The old harbour lies below the town, and many ships anchor there. "
#: Tokens of the answers whose peak memory is compared.
FEW, MANY = 200, 2000
PARTS = ("cost", "pingkit", "pingkit, long prompt", "memory", "service")


@dataclass
class Row:
    """One line of the table: a ratio, and what it must be."""

    work: str
    against: str
    ratio: float
    goal: float
    at_most: bool = True
    unit: str = ""
    part: str = ""

    @property
    def verdict(self) -> str:
        """Whether the goal is met."""
        met = self.ratio <= self.goal if self.at_most else self.ratio >= self.goal
        return "met" if met else "MISSED"

    def line(self) -> str:
        """Give a row of the table."""
        goal = f"{'≤' if self.at_most else '≥'} {self.goal:g}{self.unit}"
        shown = f"{self.ratio:.2f}{self.unit}"
        return f"| {self.work} | {self.against} | {shown} | {goal} | {self.verdict} |"


def fit_probe(folder: str, layer: int) -> Pipeline:
    """Fit the MLP to one layer, on statements of the examples."""
    sys.path.insert(0, str(HERE.parent / "examples"))
    from facts import make_statements

    statements = make_statements().iloc[:64]
    return make_pipeline(
        HFEmbeddingTransformer(folder, layers=[layer], device="cpu"),
        LayerAggregator(),
        PlugMLPClassifier(random_state=0, max_epochs=10, device="cpu"),
    ).fit(statements["statement"], statements["label"])


def compare(
    ours: Callable[[], object], theirs: Callable[[], object], repeats: int
) -> float:
    """Give the median ratio of processor time of two calls that run by turns."""
    ratios = []
    for _ in range(repeats):
        times = []
        for run in (ours, theirs):
            start = process_time()
            run()
            times.append(process_time() - start)
        ratios.append(times[0] / times[1])
    return median(ratios)


class Calls:
    """The same answers, with probes and without."""

    def __init__(self, folder: str, n_tokens: int) -> None:
        self.probe = fit_probe(folder, LAYER)
        self.three = {
            f"layer {layer}": fit_probe(folder, layer) for layer in (8, LAYER, 22)
        }
        self.options = {"do_sample": False, "min_new_tokens": n_tokens}
        self.n_tokens = n_tokens
        model = describe_model(self.probe[0])
        self.causal: Any = model.load_causal()
        self.tokenizer: Any = model.prompt_reader.tokenizer
        generate_with_probes(PROMPTS[:2], self.probe, max_new_tokens=2)

    def write_probed(
        self, prompts: Sequence[str], probes: object, **more: object
    ) -> list[Any]:
        """Write with probes."""
        return generate_with_probes(
            prompts,
            probes,
            max_new_tokens=self.n_tokens,
            generation_kwargs=self.options,
            **more,
        )

    def write(self, prompts: Sequence[str]) -> list[list[int]]:
        """Write without."""
        encoded = self.tokenizer(
            list(prompts), padding=True, padding_side="left", return_tensors="pt"
        )
        written = self.causal.generate(
            **encoded, **self.options, use_cache=True, max_new_tokens=self.n_tokens
        )
        return written[:, encoded["input_ids"].shape[1] :].tolist()

    def probe_one_by_one(self, prompts: Sequence[str]) -> None:
        """Write with a probe."""
        for prompt in prompts:
            self.write_probed([prompt], self.probe)

    def write_one_by_one(self, prompts: Sequence[str]) -> None:
        """Write without."""
        for prompt in prompts:
            self.write([prompt])

    def run_passes(self, prompts: Sequence[str]) -> None:
        """Run the forward passes of the answers, and nothing else."""
        for prompt in prompts:
            ids, cache = self.tokenizer(prompt, return_tensors="pt")["input_ids"], None
            with torch.no_grad():
                for _ in range(self.n_tokens):
                    found = self.causal(ids, cache=cache, use_cache=True)
                    cache = found.cache
                    ids = found.logits[:, -1:].argmax(dim=-1)


def measure_cost(calls: Calls, repeats: int) -> Iterator[Row]:
    """Compare answers with probes to answers without."""
    ours = [answer.token_ids for answer in calls.write_probed(PROMPTS, calls.probe)]
    if ours != calls.write(PROMPTS):
        sys.exit("The two sides write different tokens.")
    n = calls.n_tokens
    work = f"8 prompts x {n} tokens, one MLP probe"

    def write() -> object:
        return calls.write(PROMPTS)

    def probe() -> object:
        return calls.write_probed(PROMPTS, calls.probe)

    yield Row(work, "`generate` alone", compare(probe, write, repeats), 1.05)
    stop = {"probe": 1.0}
    yield Row(
        f"{work}, asked after each token (`stop`)",
        "`generate` alone",
        compare(
            lambda: calls.write_probed(PROMPTS, calls.probe, stop=stop),
            write,
            repeats,
        ),
        1.1,
    )
    three = compare(lambda: calls.write_probed(PROMPTS, calls.three), probe, repeats)
    yield Row("same, three probes on three layers", "one probe", three, 1.05)


def measure_ancestor(
    calls: Calls, prompts: Sequence[str], what: str, python: str, repeats: int
) -> Iterator[Row]:
    """Compare the times of one prompt after another, relative to ``generate``."""

    def write() -> None:
        calls.write_one_by_one(prompts)

    ours = compare(lambda: calls.probe_one_by_one(prompts), write, repeats)
    passes = compare(lambda: calls.run_passes(prompts), write, repeats)
    script = str(HERE / "peers_generation.py")
    folder = calls.probe[0].model_name
    command = [python, script, folder, str(LAYER), str(calls.n_tokens), str(repeats)]
    run = subprocess.run(
        [*command, *prompts], capture_output=True, text=True, check=True
    )
    theirs = median(map(float, run.stdout.split()))
    work = (
        f"{what} x {calls.n_tokens} tokens ({ours:.2f} x `generate`; the forward "
        f"passes alone {passes:.2f} x)"
    )
    against = f"pingkit ({theirs:.2f} x `generate`), times faster"
    yield Row(work, against, theirs / ours, 1.2, at_most=False)


def measure_memory(tokenizer_folder: str, parent: str) -> Iterator[Row]:
    """Compare how peak memory grows with the answer, with a probe and without."""
    folder = f"{parent}/wide"
    tokenizer = transformers.AutoTokenizer.from_pretrained(tokenizer_folder)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=64,
        num_hidden_layers=8,
        num_attention_heads=8,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
    )
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)

    def find_peak(n_tokens: int, probed: str) -> float:
        script = str(HERE / "generation_memory.py")
        command = [sys.executable, script, folder, str(n_tokens), probed]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        return float(run.stdout)

    growth = {
        probed: find_peak(MANY, probed) - find_peak(FEW, probed)
        for probed in ("yes", "no")
    }
    work = f"growth of peak memory from {FEW} to {MANY:,} tokens, probe of all layers"
    yield Row(work, "growth without", growth["yes"] - growth["no"], 8, unit=" MiB")


def measure_service(calls: Calls, repeats: int) -> Iterator[Row]:
    """Compare the first token's delay over HTTP with that of bare streamers."""
    sys.path.insert(0, str(HERE.parent / "examples"))
    import serve

    compute, write = serve.make_compute(calls.probe), serve.make_write(calls.probe)
    delays: dict[str, list[float]] = {"ours": [], "bare": []}
    for _ in range(repeats):
        ours = serve.make_app(compute, [0, 1], serve.Limits(), write)
        bare = make_bare_app(calls.causal, calls.tokenizer)
        for name, app in (("ours", ours), ("bare", bare)):
            delays[name] += asyncio.run(time_first_tokens(app, PROMPTS))
    ratio = median(delays["ours"]) / median(delays["bare"])
    yield Row(
        "`/generate`, 8 clients at once: first token's delay",
        "a bare streamer's",
        ratio,
        1.3,
    )


def write_table(rows: Sequence[Row], n_tokens: int) -> None:
    """Put the table into ``benchmarks/README.md``, and the figures beside it."""
    lines = [
        "| work | against | found | goal | verdict |",
        "|---|---|--:|--:|---|",
        *(row.line() for row in rows),
        "",
        f"torch {torch.__version__}, transformers {transformers.__version__}, "
        "1 thread, float32, SmolLM2-135M.",
    ]
    table = "\n".join(lines)
    readme = HERE / "README.md"
    before, rest = readme.read_text().split("<!-- generation -->\n")
    _, after = rest.split("<!-- /generation -->")
    readme.write_text(
        f"{before}<!-- generation -->\n{table}\n<!-- /generation -->{after}"
    )
    figures = [asdict(row) | {"verdict": row.verdict} for row in rows]
    FIGURES.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")


def read_rows(parts: Sequence[str]) -> list[Row]:
    """Read the stored rows of some parts."""
    stored = json.loads(FIGURES.read_text())
    names = [field.name for field in fields(Row)]
    return [
        Row(**{name: row[name] for name in names})
        for row in stored
        if row.get("part") in parts
    ]


def main(
    peers: str | None,
    model: str | None,
    n_tokens: int,
    repeats: int,
    parts: Sequence[str],
) -> int:
    """Measure, write the table, and return 1 if a goal is missed."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rows = read_rows([part for part in PARTS if part not in parts])
    with tempfile.TemporaryDirectory() as parent:
        folder = model or save_smollm2(Path(parent) / "smollm2")
        calls = Calls(folder, n_tokens)
        measures: dict[str, Callable[[], Iterator[Row]]] = {
            "cost": lambda: measure_cost(calls, repeats),
            "memory": lambda: measure_memory(folder, parent),
            "service": lambda: measure_service(calls, repeats),
        }
        length = len(calls.tokenizer(LONG_PROMPT)["input_ids"])
        if peers is not None:
            for part, prompts, what in (
                ("pingkit", PROMPTS[:2], "one prompt at a time"),
                ("pingkit, long prompt", [LONG_PROMPT], f"a prompt of {length} tokens"),
            ):
                measures[part] = partial(
                    measure_ancestor, calls, prompts, what, peers, repeats
                )
        for part in parts:
            if part in measures:
                for row in measures[part]():
                    rows.append(replace(row, part=part))
                    print(row.line(), flush=True)
    rows.sort(key=lambda row: PARTS.index(row.part))
    write_table(rows, n_tokens)
    return int(any(row.verdict == "MISSED" for row in rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", help="interpreter of an environment with pingkit")
    parser.add_argument("--model", help="folder of SmolLM2, if there is one")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    given = parser.parse_args()
    sys.exit(main(given.peers, given.model, given.tokens, given.repeats, given.parts))
