"""Check a call of ``generate_with_probes``, and write its answers batch by batch."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral
from typing import Any

import numpy as np
from numpy.random import RandomState
from transformers import GenerationConfig, StopStringCriteria

from plug_sklearn.embedding.models import (
    NoHeadError,
    find_index_limit,
    find_rotary_threshold,
)
from plug_sklearn.embedding.passes import ForwardPass, Request
from plug_sklearn.embedding.prompts import (
    OpenPrompt,
    OpenPromptReader,
    RefusedTextError,
    read_texts,
)
from plug_sklearn.generation._options import Randomness, check_options, join_options
from plug_sklearn.generation._predictions import (
    Answer,
    BatchPredictions,
    ProbedText,
    ProbedToken,
)
from plug_sklearn.generation._probes import (
    TokenStream,
    make_request,
    read_probes,
    read_prompt_tokens,
)
from plug_sklearn.generation._stopping import REASONS, read_stops
from plug_sklearn.generation._writing import Writer, explain_writing

_TEXT_OWNER = "HFEmbeddingTransformer"


class Job:
    """The checked arguments of one call; ``owner`` names its function in messages."""

    def __init__(
        self,
        owner: str,
        prompts: Any,  # noqa: ANN401 - validated here, as all of these
        probes: Any,  # noqa: ANN401
        max_new_tokens: Any,  # noqa: ANN401
        stop: Any,  # noqa: ANN401
        generation_kwargs: Any,  # noqa: ANN401
        random_state: Any,  # noqa: ANN401
        batch_size: Any,  # noqa: ANN401
    ) -> None:
        self.owner = owner
        self.max_new_tokens = self._read_count("max_new_tokens", max_new_tokens)
        self.batch_size = self._read_count("batch_size", batch_size)
        self.options = check_options(generation_kwargs, owner)
        self.probes = read_probes(probes, owner, REASONS)
        self.seed = self._read_seed(random_state)
        self.model = next(iter(self.probes.values())).model
        with self._naming_prompts():
            texts = read_texts(prompts, _TEXT_OWNER)
            self.stops = read_stops(stop, len(texts), self.probes, owner)
            self.reader: OpenPromptReader = self.model.make_open_reader()
            try:
                self.prompts = self.reader.open(texts)
            except RefusedTextError as error:
                raise error.locate(texts) from None
        self._check_lengths()
        self.reader.tell_changes(texts)

    def write(
        self, report: Callable[[ProbedToken], None] | None = None
    ) -> list[ProbedText]:
        """Write the answers, in the order of the prompts.

        ``report`` is called for each token as soon as its probabilities are known.
        """
        self.model.check_model()
        writer = self._make_writer()
        settings, options = join_options(self.options, writer.causal, self.owner)
        settings.max_new_tokens = self.max_new_tokens
        if settings.pad_token_id is None:
            settings.pad_token_id = writer.forward.pad_id
        if settings.stop_strings is not None:
            stops = StopStringCriteria(self.reader.tokenizer, settings.stop_strings)
            given = options.get("stopping_criteria") or []
            options["stopping_criteria"] = [*given, stops]
            settings.stop_strings = None
        device = writer.forward.loaded.input_device
        randomness = Randomness(self.seed, device)
        finished: dict[int, ProbedText] = {}
        with writer.forward.loaded.reading():
            for rows in self._plan_batches(writer):
                batch = self._write_batch(
                    writer, rows, settings, options, randomness, report
                )
                finished.update(zip(rows, batch, strict=True))
        return [finished[row] for row in range(len(self.prompts))]

    def _write_batch(
        self,
        writer: Writer,
        rows: Sequence[int],
        settings: GenerationConfig,
        options: dict[str, Any],
        randomness: Randomness,
        report: Callable[[ProbedToken], None] | None,
    ) -> list[ProbedText]:
        prompts = [self.prompts[row] for row in rows]
        answers = [Answer() for _ in rows]
        predictions = BatchPredictions(
            self.probes,
            writer.forward.request,
            [self.stops[row] for row in rows],
            answers,
            self.max_new_tokens,
            self._start_streams(writer, prompts),
            self.reader.tokenizer,
            rows,
            report,
        )
        selector = self.reader.selector
        writer.write(
            selector, prompts, answers, predictions, randomness, settings, options
        )
        predictions.flush()
        return [predictions.finish(place) for place in range(len(rows))]

    def _start_streams(
        self, writer: Writer, prompts: Sequence[OpenPrompt]
    ) -> dict[str, TokenStream]:
        """Start the probes that read every token, by reading the prompts."""
        owns_answer = np.array([prompt.owns_answer for prompt in prompts])
        streams = {}
        for name, probe in self.probes.items():
            if probe.reads_tokens:
                request = Request(probe.layers, probe.parts, None)
                read = read_prompt_tokens(writer.forward.loaded, request, prompts)
                dtype = probe.embedder.activation_dtype
                tokens = [states.astype(dtype, copy=False) for states in read]
                streams[name] = TokenStream(probe.rest, tokens, owns_answer)
        return streams

    def _make_writer(self) -> Writer:
        """Load the model with its head, and check that hooks read exact states."""
        try:
            causal = self.model.load_causal()
        except NoHeadError as error:
            raise ValueError(
                f"The 'probes' parameter of {self.owner} must read a model with a "
                f"language-model head, so that it can write. Got one whose head cannot "
                f"be used: {error}."
            ) from None
        loaded = self.model.load()
        with loaded.reading():
            writer = Writer(causal, ForwardPass(loaded, make_request(self.probes)))
            why = explain_writing(writer, padded=False)
        if why is not None:
            raise ValueError(
                f"The 'probes' parameter of {self.owner} must read a model whose "
                "states while it writes equal those of a text. Got "
                f"{self.model.source.name!r} of type "
                f"{loaded.model.config.model_type!r} instead: {why}."
            )
        return writer

    def _plan_batches(self, writer: Writer) -> list[list[int]]:
        """Group the prompts into batches, by length unless padding changes nothing."""
        fits = self._longest <= find_index_limit(writer.forward.loaded.model.config)
        pads = fits and explain_writing(writer, padded=True) is None
        groups: dict[int, list[int]] = {}
        for row, prompt in enumerate(self.prompts):
            groups.setdefault(0 if pads else len(prompt.ids), []).append(row)
        return [
            group[start : start + self.batch_size]
            for group in groups.values()
            for start in range(0, len(group), self.batch_size)
        ]

    @property
    def _longest(self) -> int:
        return max(len(prompt.ids) for prompt in self.prompts) + self.max_new_tokens

    def _check_lengths(self) -> None:
        """Refuse answers that are longer than the model can read in one text."""
        geometry = self.model.geometry
        config = self.model.load_config()
        limits = [geometry.max_tokens, self.reader.tokenizer.model_max_length]
        known = [limit for limit in limits if limit is not None]
        limit, why = min(known), "the model's own limit"
        threshold = find_rotary_threshold(config)
        if threshold < limit:
            limit, why = int(threshold), "above which it computes positions differently"
        longest = self._longest - self.max_new_tokens
        if longest >= limit:
            raise ValueError(
                f"The 'prompts' parameter of {self.owner} must leave room for an "
                f"answer: prompt and answer may have {limit} tokens, {why}. Got a "
                f"prompt of {longest} tokens, or one that was cut to this length."
            )
        if self._longest > limit:
            raise ValueError(
                f"The 'max_new_tokens' parameter of {self.owner} must be at most "
                f"{limit - longest} after a prompt of {longest} tokens: the two may "
                f"have {limit} tokens, {why}. Got {self.max_new_tokens} instead."
            )

    def _read_count(self, name: str, value: object) -> int:
        is_number = isinstance(value, Integral) and not isinstance(value, bool)
        count = int(value) if is_number else 0  # type: ignore[call-overload]  # it is a number
        if count < 1:
            raise ValueError(
                f"The {name!r} parameter of {self.owner} must be an integer of at "
                f"least 1. Got {value!r} instead."
            )
        return count

    def _read_seed(self, random_state: object) -> int | None:
        if random_state is None:
            return None
        if isinstance(random_state, RandomState):
            return int(random_state.randint(2**31))
        is_number = isinstance(random_state, Integral)
        seed = int(random_state) if is_number else -1  # type: ignore[call-overload]  # as above
        if not 0 <= seed < 2**32:
            raise ValueError(
                f"The 'random_state' parameter of {self.owner} must be None, an "
                "integer in [0, 2**32) or a RandomState of numpy. Got "
                f"{random_state!r} instead."
            )
        return seed

    @contextmanager
    def _naming_prompts(self) -> Iterator[None]:
        """Make errors about texts name the parameter ``prompts``."""
        before = f"X given to {_TEXT_OWNER}"
        try:
            yield
        except RefusedTextError:
            raise
        except (TypeError, ValueError) as error:
            said = str(error)
            if not said.startswith(before):
                raise
            after = f"The 'prompts' parameter of {self.owner}"
            raise type(error)(said.replace(before, after)) from None
