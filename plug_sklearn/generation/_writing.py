"""Run one batch of prompts through the model's own ``generate``, with hooks."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from copy import copy
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, StoppingCriteriaList

from plug_sklearn.embedding.passes import ForwardPass
from plug_sklearn.embedding.prompts import OpenPrompt
from plug_sklearn.generation._running_pools import (
    CountedTokens,
    MaskedPooler,
    PassCapture,
    PooledTokens,
    TokenPooler,
)
from plug_sklearn.generation._stopping import DelayedCriteria


@dataclass
class Answer:
    """The tokens of the answer to one prompt so far.

    ``ids`` are its tokens. ``reason`` says why it ends with the last of them, and is
    None while it continues. ``is_over`` is True once it has ended and the states of its
    last token have been read.
    """

    ids: list[int] = field(default_factory=list)
    reason: str | None = None
    is_over: bool = False


class Randomness:
    """Random numbers for sampling, drawn from a seed.

    ``generate`` draws from torch's global generators. Their states are replaced while a
    token is drawn, and restored after it. If ``seed`` is None, nothing is replaced.
    ``device`` is where tokens are drawn.
    """

    def __init__(self, seed: int | None, device: torch.device) -> None:
        self.seed = seed
        self.device = device
        self._own: list[Tensor] | None = None
        self._before: list[Tensor] | None = None

    def enter(self) -> None:
        """Replace the states of torch's generators by those of the seed."""
        if self.seed is None or self._before is not None:
            return
        self._before = self._get()
        if self._own is not None:
            self._set(self._own)
            return
        torch.default_generator.manual_seed(self.seed)
        if self.device.type == "cuda":
            with torch.cuda.device(self.device):
                torch.cuda.manual_seed(self.seed)
        elif self.device.type == "mps":
            torch.mps.manual_seed(self.seed)

    def leave(self) -> None:
        """Restore the states of torch's generators."""
        if self._before is None:
            return
        self._own = self._get()
        self._set(self._before)
        self._before = None

    def _get(self) -> list[Tensor]:
        states = [torch.get_rng_state()]
        if self.device.type == "cuda":
            states.append(torch.cuda.get_rng_state(self.device))
        elif self.device.type == "mps":
            states.append(torch.mps.get_rng_state())
        return states

    def _set(self, states: list[Tensor]) -> None:
        torch.set_rng_state(states[0])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(states[1], self.device)
        elif self.device.type == "mps":
            torch.mps.set_rng_state(states[1])


class Observer(Protocol):
    """Interface of an object that is given the states of each token."""

    def add_states(
        self, n_tokens: int, pooled: PooledTokens, rows: NDArray[np.intp]
    ) -> dict[int, str]:
        """Take the pooled tokens after ``n_tokens`` new tokens; 0: the prompts alone.

        Returns the reason for each row whose answer ends with its last token.
        """

    def report_tokens(self, n_tokens: int, rows: NDArray[np.intp]) -> None:
        """Take the rows whose answers now have ``n_tokens`` tokens to keep."""


@dataclass(frozen=True)
class Writer:
    """Writes answers, and reads the states of the model meanwhile.

    ``causal`` is the model with its head, and ``forward`` reads its blocks.
    """

    causal: PreTrainedModel
    forward: ForwardPass

    def write(
        self,
        prompts: Sequence[OpenPrompt],
        counted: CountedTokens,
        answers: Sequence[Answer],
        observer: Observer,
        randomness: Randomness,
        settings: GenerationConfig,
        options: dict[str, Any],
    ) -> None:
        """Write an answer to each prompt of one batch.

        This calls ``generate`` on a shallow copy of the model. The copy shares all
        modules, but has its own ``forward``, which adds hooks to the blocks only while
        it runs. The model itself is not changed.
        """
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


class _ProbedDecoding:
    """Reads states in each forward pass of ``generate``, and decides when rows end.

    The states of a token are known one step after it was drawn, when it has gone
    through the model. Each answer therefore runs for one more token, which is dropped.
    """

    def __init__(
        self,
        forward: ForwardPass,
        counted: CountedTokens,
        answers: Sequence[Answer],
        observer: Observer,
        randomness: Randomness,
    ) -> None:
        self.forward = forward
        self.counted = counted
        self.answers = answers
        self.observer = observer
        self.randomness = randomness
        self.n_passes = 0
        self.arrival = forward.loaded.turns.arrive()

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
