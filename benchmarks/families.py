"""Try each text model type of transformers on tiny random models.

Run it from a clone::

    python benchmarks/families.py [MODEL_TYPE ...] [--resume]

Each row of the table, ``benchmarks/families.md``, tells the parts that are given, the
error of the identity (what a block adds is the sum of its parts), the error of a batch
against single texts, and the way texts are read. Figures are written to
``benchmarks/families.json`` after each model type. With model types given, only those
are tried; with ``--resume``, only those that have no figures yet, so that a run may be
interrupted. The exit code is 1 where an error is larger than rounding.
"""

import argparse
import json
import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny_models import build_config, build_model
from torch import Tensor, nn
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

from plug_sklearn.embedding.anatomy import Block, find_blocks
from plug_sklearn.embedding.models import LoadedModel, read_geometry
from plug_sklearn.embedding.passes import (
    ForwardPass,
    Request,
    choose_strategy,
    read_activations,
    read_padded,
)
from plug_sklearn.embedding.prompts._tokens import TokenizedPrompts

HERE = Path(__file__).parent
LARGEST_ERROR = 1e-5
Figures = dict[str, Any]


def draw_prompts(start: int | None) -> TokenizedPrompts:
    """Draw texts that share beginnings, of 3 to 66 tokens."""
    generator = np.random.default_rng(2)
    texts = [generator.integers(5, 90, n) for n in (3, 9)]
    for n_shared, ends in ((6, (7, 3, 1)), (60, (3, 6, 2))):
        stem = generator.integers(5, 90, n_shared)
        texts += [np.concatenate([stem, generator.integers(5, 90, n)]) for n in ends]
    first = [] if start is None else [start]
    return TokenizedPrompts.join([np.array([*first, *text]) for text in texts])


def try_family(model_type: str, stack: str | None) -> Figures:
    """Try one stack of one model type."""
    model = build_model(model_type)
    geometry = read_geometry(model.config, stack or "auto")
    loaded, layers = LoadedModel(model), tuple(range(geometry.n_layers))
    rs = ForwardPass(loaded, Request(layers, ("rs",), ("mean",), stack))
    parts = ("rs",) if rs.anatomy.reason else ("rs", "attn", "mlp")
    forward = ForwardPass(loaded, Request(layers, parts, ("mean",), stack))
    trial = choose_strategy(forward)
    prompts = draw_prompts(geometry.start_id)
    alone = in_order(read_padded(forward, prompts, np.arange(len(prompts)), 1))
    batches = read_activations(
        forward, prompts, 4096, trial.strategy, trial.beyond_window
    )
    error = np.linalg.norm(in_order(batches) - alone) / np.linalg.norm(alone)
    identity = None
    if len(parts) > 1 and not rs.anatomy.post_norm:
        identity = measure_identity(forward, prompts)
    return {
        "parts": list(parts),
        "reason": rs.anatomy.reason,
        "identity": identity,
        "batch": float(error),
        "way": trial.strategy.value,
        "why": trial.why,
    }


def in_order(batches: Any) -> np.ndarray:  # noqa: ANN401 - an iterator of pairs
    """Join batches in the order of their texts."""
    numbers, states = zip(*batches, strict=True)
    return np.concatenate(states)[np.argsort(np.concatenate(numbers))]


def measure_identity(forward: ForwardPass, prompts: TokenizedPrompts) -> float:
    """Measure, by plain hooks, what a block adds beyond its parts and others."""
    errors: list[float] = []
    handles = []
    for block in find_blocks(forward.loaded.model, forward.anatomy):
        handles += hook_block(block, errors)
    list(read_padded(forward, prompts, np.arange(1), 1))
    for handle in handles:
        handle.remove()
    return max(errors)


def hook_block(block: Block, errors: list[float]) -> list[Any]:
    """Put hooks on a block that note how far each call is from the identity."""
    rest: list[Tensor] = []

    def first(value: Any) -> Tensor:  # noqa: ANN401 - modules return what they like
        return value if isinstance(value, Tensor) else value[0]

    def begin(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        rest[:] = [-first(args or tuple(kwargs.values()))]

    def add(module: nn.Module, _: object, output: object) -> None:
        states = first(output).reshape(rest[0].shape)
        rest[0] = rest[0] - states * block.scale_of(module)

    def end(_: nn.Module, __: object, output: object) -> None:
        states = first(output)
        errors.append(float((rest[0] + states).norm() / states.norm()))

    return [
        block.module.register_forward_pre_hook(begin, with_kwargs=True),
        *(
            module.register_forward_hook(add)
            for module in (*block.attn, *block.mlp, *block.others)
        ),
        # Before the pass ends at what is read last.
        block.module.register_forward_hook(end, prepend=True),
    ]


def try_type(model_type: str) -> dict[str, Figures]:
    """Try each stack of a model type; give one row for each."""
    try:
        two = build_config(model_type).is_encoder_decoder
        runs_on_text(model_type)
    except Exception as error:  # most types read no text, some have no tiny model
        return {model_type: {"no text": type(error).__name__}}
    rows = {}
    for stack in ("encoder", "decoder") if two else (None,):
        name = f"{model_type}, {stack}" if stack else model_type
        try:
            rows[name] = try_family(model_type, stack)
        except Exception as error:  # whatever stops a family is what its row says
            rows[name] = {"refused": str(error)}
    return rows


def runs_on_text(model_type: str) -> None:
    """Raise if a model does not run on token ids alone."""
    model = build_model(model_type)
    ids = torch.arange(5, 12)[None]
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = ids
    with torch.no_grad():
        model(**inputs)


def write_table(figures: dict[str, Figures]) -> int:
    """Write the table; give how many families are off by more than rounding."""
    read = {name: row for name, row in figures.items() if "way" in row}
    ways = [row["way"] for row in read.values()]
    lines = [
        "# Families of transformers",
        "",
        f"{len(read)} stacks are read: "
        + ", ".join(f"{ways.count(way)} {way}" for way in sorted(set(ways)))
        + ".",
        "",
        "| family | parts | identity error | batch error | way |",
        "|---|---|---:|---:|---|",
    ]
    wrong = 0
    for name, row in sorted(read.items()):
        identity = row["identity"]
        shown = "no identity" if identity is None else f"{identity:.1e}"
        parts = " ".join(row["parts"]) + (f": {row['reason']}" if row["reason"] else "")
        lines.append(
            f"| {name} | {parts} | {shown} | {row['batch']:.1e} | {row['way']} |"
        )
        wrong += max(identity or 0, row["batch"]) > LARGEST_ERROR
    lines += ["", "Refused:", ""]
    for name, row in sorted(figures.items()):
        if "refused" in row:
            # What the user may do about it follows a semicolon.
            lines.append(f"- {name}: {row['refused'].split(';')[0].strip()}")
    (HERE / "families.md").write_text("\n".join(lines) + "\n")
    return wrong


def main() -> int:
    """Try the model types asked for; give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model_types", nargs="*", default=sorted(MODEL_MAPPING_NAMES))
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    path = HERE / "families.json"
    figures = json.loads(path.read_text()) if path.exists() else {}
    done = {name.split(", ")[0] for name in figures} if arguments.resume else set()
    for model_type in arguments.model_types:
        if model_type not in done:
            rows = try_type(model_type)
            print(json.dumps(rows), flush=True)
            figures = {
                name: row
                for name, row in figures.items()
                if name.split(", ")[0] != model_type
            }
            figures |= rows
            path.write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n")
    return int(write_table(figures) > 0)


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    logging.disable(logging.CRITICAL)
    sys.exit(main())
