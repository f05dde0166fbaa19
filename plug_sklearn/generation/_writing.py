"""Run one batch of prompts through the model's own ``generate``, with hooks.

A trial tests whether the states that the hooks read equal those of a text.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from copy import copy
from dataclasses import dataclass
from functools import wraps
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, StoppingCriteriaList

from plug_sklearn.embedding.anatomy import list_words
from plug_sklearn.embedding.passes import (
    ForwardPass,
    Request,
    choose_strategy,
    pad_prompts,
)
from plug_sklearn.embedding.prompts import OpenPrompt, TokenizedPrompts, TokenSelector
from plug_sklearn.generation._options import Randomness
from plug_sklearn.generation._predictions import Answer, BatchPredictions
from plug_sklearn.generation._running_pools import (
    CountedTokens,
    MaskedPooler,
    PassCapture,
    PooledTokens,
    TokenPooler,
)
from plug_sklearn.generation._stopping import DelayedCriteria

#: Numbers of tokens in the prompts of the test, and in their answers.
_LENGTHS, _N_NEW = (3, 9), 4
#: As for padded batches: exact methods differ by rounding, and wrong ones by much more.
_LEAST_BOUND, _UNITS = 1e-4, 8
_KEY: Any = "writing"
#: In place of a ``TokenSelector``: all tokens count.
_NO_FILTERS: Any = SimpleNamespace(token_filter=None, eos_id=None)


@dataclass(frozen=True)
class Writer:
    """Writes answers, and reads the states of the model meanwhile.

    ``causal`` is the model with its head, and ``forward`` reads its blocks.
    """

    causal: PreTrainedModel
    forward: ForwardPass

    def write(
        self,
        selector: TokenSelector,
        prompts: Sequence[OpenPrompt],
        answers: Sequence[Answer],
        observer: "BatchPredictions | _Collector",
        randomness: Randomness,
        settings: GenerationConfig,
        options: dict[str, Any],
    ) -> None:
        """Write an answer to each prompt of one batch.

        This calls ``generate`` on a shallow copy of the model. The copy shares all
        modules, but has its own ``forward``, which adds hooks to the blocks only while
        it runs. The model itself is not changed.
        """
        poolings = self.forward.request.poolings or ()
        device = self.forward.loaded.input_device
        counted = CountedTokens(selector, prompts, poolings, device)
        decoding = _ProbedDecoding(self.forward, counted, answers, observer, randomness)
        shell = copy(self.causal)
        run = self.causal.forward

        @wraps(run)
        def forward(*args: object, **kwargs: Any) -> object:  # noqa: ANN401 - the model's
            return decoding.run(run, args, kwargs)

        shell.forward = forward
        ids, mask = self._pad(prompts)
        try:
            shell.generate(  # type: ignore[operator]  # a mixin's
                input_ids=ids,
                attention_mask=mask,
                generation_config=settings,
                custom_generate=decoding.decode,
                **options,
            )
        finally:
            randomness.leave()

    def _pad(self, prompts: Sequence[OpenPrompt]) -> tuple[Tensor, Tensor]:
        longest = max(len(prompt.ids) for prompt in prompts)
        ids = np.full((len(prompts), longest), self.forward.pad_id, dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt.ids) :] = prompt.ids
            mask[row, longest - len(prompt.ids) :] = 1
        device = self.forward.loaded.input_device
        return torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device)


@dataclass(eq=False)
class _ProbedDecoding:
    """Reads states in each forward pass of ``generate``, and decides when rows end.

    The states of a token are known one step after it was drawn, when it has gone
    through the model. Each answer therefore runs for one more token, which is dropped.
    """

    forward: ForwardPass
    counted: CountedTokens
    answers: Sequence[Answer]
    observer: "BatchPredictions | _Collector"
    randomness: Randomness
    n_passes: int = 0

    def __post_init__(self) -> None:
        self.arrival = self.forward.loaded.turns.arrive()

    def run(
        self, run: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> object:
        """Run one forward pass, and add the states of its tokens."""
        n_prompts, n_tokens = kwargs["input_ids"].shape
        pooler: MaskedPooler | TokenPooler = TokenPooler()
        if self.n_passes == 0:
            pooler = self.counted.start(n_tokens)
        elif n_tokens != 1:
            raise ValueError(f"the model keeps no cache, and runs {n_tokens} tokens")
        request = self.forward.request
        capture = PassCapture(request, (n_prompts, n_tokens), pooler)
        loaded = self.forward.loaded
        with loaded.turns.take(self._arrive()), loaded.lock, ExitStack() as hooks:
            self.forward.reset_rotary_factors()
            capture.add_hooks(self.forward.blocks, hooks)
            output = run(*args, **kwargs)
        device = self.counted.device
        # In the order of the layers and parts of the request.
        states = [capture.pooled[place].to(device) for place in capture.places.values()]
        if isinstance(pooler, MaskedPooler):
            self.counted.set_prompts(pooler.unpack(torch.stack(states, dim=2)))
        else:
            last = [answer.ids[-1] for answer in self.answers]
            self.counted.add(last, self._going(), torch.stack(states, dim=1))
        self.n_passes += 1
        self.randomness.enter()
        return output

    def decode(
        self,
        model: PreTrainedModel,
        input_ids: Tensor,
        logits_processor: Any,  # noqa: ANN401 - a list of callables
        stopping_criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
        **others: Any,  # noqa: ANN401 - the model's own
    ) -> object:
        """Decode as ``generate`` does, but let this object decide when rows end."""
        delayed = DelayedCriteria(list(stopping_criteria), self.advance)
        return type(model)._sample(  # type: ignore[attr-defined]  # a mixin's
            model,
            input_ids,
            logits_processor=logits_processor,
            stopping_criteria=StoppingCriteriaList([delayed]),
            generation_config=generation_config,
            **others,
        )

    def advance(self, tokens: list[int], reasons: list[str | None]) -> list[bool]:
        """Add the token drawn for each row, and return which rows are over."""
        self.randomness.leave()
        n_tokens = self.n_passes - 1
        rows = np.flatnonzero(self._going())
        if len(rows):
            ended = self.observer.add_states(n_tokens, self.counted.pooled(), rows)
            for row in rows.tolist():
                answer = self.answers[row]
                answer.reason = answer.reason or ended.get(row)
                answer.is_over = answer.reason is not None
            self.observer.report_tokens(n_tokens, rows)
        for answer, token, reason in zip(self.answers, tokens, reasons, strict=True):
            if not answer.is_over:
                answer.ids.append(token)
                answer.reason = reason
        return [answer.is_over for answer in self.answers]

    def _arrive(self) -> int:
        """Return the key of the next pass.

        The first two passes, which draw the first token and read it, go first.
        """
        if self.n_passes < 2:
            return self.arrival
        return self.forward.loaded.turns.arrive(patient=True)

    def _going(self) -> NDArray[np.bool_]:
        return np.array([not answer.is_over for answer in self.answers])


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
    answers = [Answer() for _ in prompts]
    collector = _Collector()
    settings = GenerationConfig(  # type: ignore[no-untyped-call]  # transformers leaves it untyped
        max_new_tokens=_N_NEW,
        do_sample=False,
        pad_token_id=forward.pad_id,
        use_cache=True,
    )
    randomness = Randomness(None, forward.loaded.input_device)
    writer.write(_NO_FILTERS, prompts, answers, collector, randomness, settings, {})
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
