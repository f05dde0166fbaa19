"""Measure what probes cost while a model writes, and compare with pingkit.

Run it from a clone::

    python benchmarks/bench_generation.py --peers PYTHON

``PYTHON`` is the interpreter of an environment that holds pingkit, which
``benchmarks/README.md`` says how to make; without it, that row is left out. Both sides
of a ratio run by turns, on one thread, after a check that they write the same tokens;
the ratio is the median of those of the turns, in processor time. The table goes to
``benchmarks/README.md``, the figures to ``benchmarks/bench_generation.json``; the exit
code is 1 where a goal is missed.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import torch
import transformers
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
#: Tokens of the answers whose peak memory is compared.
FEW, MANY = 200, 2000


@dataclass
class Row:
    """One line of the table: a ratio, and what it must be."""

    work: str
    against: str
    ratio: float
    goal: float
    at_most: bool = True
    unit: str = ""

    def __post_init__(self) -> None:
        print(f"{self.work} | {self.against} | {self.ratio:.3f}, {self.verdict}")

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

    def ride(self, prompts: Sequence[str], probes: object, **more: object) -> list[Any]:
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

    def ride_one_by_one(self, prompts: Sequence[str]) -> None:
        """Write with a probe that is asked after each token."""
        for prompt in prompts:
            self.ride([prompt], self.probe, stop={"probe": 1.0})

    def write_one_by_one(self, prompts: Sequence[str]) -> None:
        """Write without."""
        for prompt in prompts:
            self.write([prompt])


def measure_cost(calls: Calls, repeats: int) -> Iterator[Row]:
    """Compare answers with probes to answers without."""
    ours = [answer.token_ids for answer in calls.ride(PROMPTS, calls.probe)]
    if ours != calls.write(PROMPTS):
        sys.exit("The two sides write different tokens.")
    n = calls.n_tokens
    work = f"8 prompts x {n} tokens, one MLP probe"

    def write() -> object:
        return calls.write(PROMPTS)

    def ride() -> object:
        return calls.ride(PROMPTS, calls.probe)

    yield Row(work, "`generate` alone", compare(ride, write, repeats), 1.05)
    stop = {"probe": 1.0}
    yield Row(
        f"{work}, asked after each token (`stop`)",
        "`generate` alone",
        compare(lambda: calls.ride(PROMPTS, calls.probe, stop=stop), write, repeats),
        1.1,
    )
    three = compare(lambda: calls.ride(PROMPTS, calls.three), ride, repeats)
    yield Row("same, three probes on three layers", "one probe", three, 1.05)


def measure_ancestor(
    calls: Calls, folder: str, python: str, repeats: int
) -> Iterator[Row]:
    """Compare the times of one prompt after another, each over its ``generate``."""
    prompts = PROMPTS[:2]
    ours = compare(
        lambda: calls.ride_one_by_one(prompts),
        lambda: calls.write_one_by_one(prompts),
        repeats,
    )
    script = str(HERE / "peers_generation.py")
    command = [python, script, folder, str(LAYER), str(calls.n_tokens), str(repeats)]
    run = subprocess.run(
        [*command, *prompts], capture_output=True, text=True, check=True
    )
    theirs = median(map(float, run.stdout.split()))
    work = f"one prompt at a time x {calls.n_tokens} tokens ({ours:.2f} x `generate`)"
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
    """Compare the first token's delay over HTTP with that of a bare streamer."""
    sys.path.insert(0, str(HERE.parent / "examples"))
    import serve

    def stream_bare(
        prompt: str, max_new_tokens: int, *_: object
    ) -> Iterator[dict[str, Any]]:
        encoded = calls.tokenizer(prompt, return_tensors="pt")
        streamer = transformers.TextIteratorStreamer(calls.tokenizer, skip_prompt=True)
        options = {"max_new_tokens": max_new_tokens, "use_cache": True}
        thread = threading.Thread(
            target=calls.causal.generate,
            kwargs={**encoded, **options, "streamer": streamer, "do_sample": False},
        )
        thread.start()
        for piece in streamer:
            yield {"token": piece, "probabilities": [], "stopped_by": None}
        thread.join()

    compute = serve.make_compute(calls.probe)
    delays: dict[str, list[float]] = {"ours": [], "bare": []}
    for _ in range(repeats):
        for name, write in (
            ("ours", serve.make_write(calls.probe)),
            ("bare", stream_bare),
        ):
            app = serve.make_app(compute, [0, 1], serve.Limits(), write)
            delays[name] += asyncio.run(time_first_tokens(app))
    ratio = median(delays["ours"]) / median(delays["bare"])
    yield Row(
        "`/generate`, 8 clients: first token's delay", "a bare streamer's", ratio, 1.3
    )


async def time_first_tokens(app: Any) -> list[float]:  # noqa: ANN401 - FastAPI's
    """Ask 8 times at once over loopback; gives the seconds to each first token."""
    import uvicorn

    config = uvicorn.Config(app, port=0, log_level="error")
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]

    async def ask(prompt: str) -> float:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        body = json.dumps({"prompt": prompt, "max_new_tokens": 16}).encode()
        head = "POST /generate HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        start = perf_counter()
        writer.write(head.encode() + body)
        while not (await reader.readline()).startswith(b"data:"):
            pass
        delay = perf_counter() - start
        await reader.read()
        writer.close()
        return delay

    delays = await asyncio.gather(*map(ask, PROMPTS))
    server.should_exit = True
    await task
    return list(delays)


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
    figures = [{**asdict(row), "verdict": row.verdict} for row in rows]
    path = HERE / "bench_generation.json"
    path.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")


def main(peers: str | None, model: str | None, n_tokens: int, repeats: int) -> int:
    """Measure, write the table, and say whether the goals are met."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as parent:
        folder = model or save_smollm2(Path(parent) / "smollm2")
        calls = Calls(folder, n_tokens)
        rows = [*measure_cost(calls, repeats)]
        if peers is not None:
            rows += measure_ancestor(calls, folder, peers, repeats)
        rows += measure_memory(folder, parent)
        rows += measure_service(calls, repeats)
    write_table(rows, n_tokens)
    return int(any(row.verdict == "MISSED" for row in rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", help="interpreter of an environment with pingkit")
    parser.add_argument("--model", help="folder of SmolLM2, if there is one")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    sys.exit(main(options.peers, options.model, options.tokens, options.repeats))
