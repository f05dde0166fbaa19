"""Test whether states read while a model writes equal those read from a text."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import GenerationConfig

from plug_sklearn.embedding.anatomy import list_words
from plug_sklearn.embedding.passes import (
    ForwardPass,
    Request,
    choose_strategy,
    pad_prompts,
)
from plug_sklearn.embedding.prompts import OpenPrompt, TokenizedPrompts, TokenSelector
from plug_sklearn.generation._running_pools import CountedTokens, PooledTokens
from plug_sklearn.generation._writing import Answer, Randomness, Writer

#: Numbers of tokens in the prompts of the test, and in their answers.
_LENGTHS, _N_NEW = (3, 9), 4
#: As for padded batches: exact methods differ by rounding, and wrong ones by much more.
_LEAST_BOUND, _UNITS = 1e-4, 8

_KEY: Any = "writing"


def explain_writing(writer: Writer, *, padded: bool) -> str | None:
    """Return why states read while the model writes are wrong, or None if exact.

    Random prompts are tried, in one batch if ``padded``, and otherwise one by one. The
    outcome is remembered for as long as the model is loaded.
    """
    outcomes: dict[bool, str | None] = writer.forward.loaded.trials.setdefault(_KEY, {})
    if padded not in outcomes:
        outcomes[padded] = _try(writer, padded)
    return outcomes[padded]


def _try(writer: Writer, padded: bool) -> str | None:
    forward = writer.forward
    trial = choose_strategy(forward)
    if trial.changes:
        return str(trial.why)
    if forward.row_multiple != 1:
        return f"it pads its rows to multiples of {forward.row_multiple} tokens"
    parts = ("rs",) if forward.anatomy.reason else ("attn", "rs")
    layers = tuple(sorted({0, max(forward.request.layers)}))
    request = Request(layers, parts, ("last",), forward.request.stack)
    tried = Writer(writer.causal, ForwardPass(forward.loaded, request))
    prompts = _draw_prompts(tried)
    batches = [prompts] if padded else [[prompt] for prompt in prompts]
    try:
        differences = [_compare(tried, batch) for batch in batches]
    # The code of a model may fail on a cache or padding with any error.
    except Exception as error:
        return f"writing a few random words raises {error!r}"
    eps = float(torch.finfo(forward.loaded.model.dtype).eps)
    found = max(differences)
    if found <= max(_LEAST_BOUND, _UNITS * eps):
        return None
    return f"its states differ by {found:.1e} from those of the same tokens as a text"


def _draw_prompts(writer: Writer) -> list[OpenPrompt]:
    generator = np.random.default_rng(0)
    words = np.array(list_words(writer.forward.loaded.model), dtype=np.int32)
    return [
        OpenPrompt(
            words[generator.integers(len(words), size=n)], np.ones(n, bool), True
        )
        for n in _LENGTHS
    ]


class _Collector:
    """Keeps the states of the last token after each new token."""

    def __init__(self) -> None:
        self.states: list[NDArray[np.float32]] = []

    def add_states(
        self, n_tokens: int, pooled: PooledTokens, rows: NDArray[np.intp]
    ) -> dict[int, str]:
        self.states.append(pooled.pool("last").cpu().numpy())
        return {}

    def report_tokens(self, n_tokens: int, rows: NDArray[np.intp]) -> None:
        pass


def _compare(writer: Writer, prompts: Sequence[OpenPrompt]) -> float:
    """Return the largest relative error of the states of any layer and part."""
    forward = writer.forward
    device = forward.loaded.input_device
    counted = CountedTokens(_NO_FILTERS, prompts, ["last"], device)
    answers = [Answer() for _ in prompts]
    collector = _Collector()
    settings = GenerationConfig(  # type: ignore[no-untyped-call]  # transformers leaves it untyped
        max_new_tokens=_N_NEW,
        do_sample=False,
        pad_token_id=forward.pad_id,
        use_cache=True,
    )
    writer.write(
        prompts, counted, answers, collector, Randomness(None, device), settings, {}
    )
    worst = 0.0
    for n_new in (0, len(collector.states) - 1):
        for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            ids = np.array([*prompt.ids, *answer.ids[:n_new]], dtype=np.int32)
            text = TokenizedPrompts.join([ids])
            alone = forward.run(pad_prompts(text, [0], forward.pad_id))
            expected = np.asarray(alone)[0].reshape(len(forward.request.pairs), -1)
            error = np.linalg.norm(collector.states[n_new][row] - expected, axis=1)
            size = np.linalg.norm(expected, axis=1)
            worst = max(worst, float((error / np.maximum(size, 1e-30)).max()))
    return worst if np.isfinite(worst) else float("inf")


class _NoFilters:
    token_filter = None
    eos_id = None


_NO_FILTERS: TokenSelector = _NoFilters()  # type: ignore[assignment]  # all tokens count
