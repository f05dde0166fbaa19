"""One language model and how it reads texts: distinct texts → activations."""

import sys
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import joblib
import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm

from plug_sklearn._provenance import ProvenanceWarning
from plug_sklearn._warnings import warn_user
from plug_sklearn.embedding.anatomy._families import Stack
from plug_sklearn.embedding.models._adapter_files import find_adapter
from plug_sklearn.embedding.models._geometry import Geometry, read_geometry
from plug_sklearn.embedding.models._identity import identify_model, warn_of_change
from plug_sklearn.embedding.models._missing import require_weights
from plug_sklearn.embedding.models._models import (
    FETCHING,
    ModelSource,
    WeightOptions,
    load_config,
    load_model,
    load_tokenizer,
    tell_state,
)
from plug_sklearn.embedding.passes._capture import Request
from plug_sklearn.embedding.passes._exactness import try_ways
from plug_sklearn.embedding.passes._forward import ForwardPass
from plug_sklearn.embedding.passes._reading import read_activations
from plug_sklearn.embedding.prompts._prompts import PromptOptions, PromptReader
from plug_sklearn.embedding.prompts._tokenized import TokenizedPrompts
from plug_sklearn.embedding.prompts._turns import (
    ChatTurn,
    describe_difference,
    render_turn,
)
from plug_sklearn.embedding.store._store import ActivationStore

#: Part of every key in a store: raised when a release computes anything differently.
READING = 2

# Models and turns of which a change has been told in this process.
_TOLD: set[tuple[Hashable, ChatTurn]] = set()


@dataclass(frozen=True)
class LanguageModel:
    """All that decides the activations of a text, and what doesn't: size of batches.

    Attributes
    ----------
    source : ModelSource
        Where the model comes from.
    weights : WeightOptions
        How its weights are loaded.
    prompts : PromptOptions
        What a prompt is made of.
    pooling, stack : str
        As in :class:`~plug_sklearn.HFEmbeddingTransformer`.
    batch_tokens : int
        Tokens in one forward pass.
    verbose : bool
        Whether to say why token tries are not used.
    origin : str or None
        What the model was when an estimator that has been loaded was fitted with it.
    fitted_stack : "encoder", "decoder" or None
        The stack that was read then, for where its configuration is not at hand.
    fitted_sizes : tuple of int or None
        Layers and hidden size then.
    fitted_turn : ChatTurn or None
        What the chat template wrote around a message then; None renders it anew.
    """

    source: ModelSource
    weights: WeightOptions
    prompts: PromptOptions
    pooling: str
    stack: str
    batch_tokens: int
    verbose: bool = False
    origin: str | None = None
    fitted_stack: Stack | None = None
    fitted_sizes: tuple[int, int] | None = None
    fitted_turn: ChatTurn | None = None
    _told: set[str] = field(default_factory=set, init=False, repr=False)
    _geometries: list[Geometry] = field(default_factory=list, init=False, repr=False)
    _readers: list[PromptReader] = field(default_factory=list, init=False, repr=False)

    # No cached properties: before Python 3.12, these are computed under a lock of
    # their own, which a fork would leave locked in the child.
    @property
    def geometry(self) -> Geometry:
        """Layers, widths and limits, from the configuration alone."""
        if not self._geometries:
            config = load_config(self.source)
            self._geometries.append(read_geometry(config, self.stack))
        return self._geometries[0]

    def read_prompts(self, texts: Sequence[str]) -> TokenizedPrompts:
        """Tokenize texts, and choose the tokens to pool."""
        return self.prompt_reader.read(texts)

    @property
    def prompt_reader(self) -> PromptReader:
        """The model's tokenizer with these options, made on first use."""
        if not self._readers:
            geometry, tokenizer = self.geometry, load_tokenizer(self.source)
            limit, start = geometry.max_tokens, geometry.start_id
            self._readers.append(
                PromptReader(tokenizer, self.prompts, limit, start, self.fitted_turn)
            )
        return self._readers[0]

    @property
    def turn(self) -> ChatTurn | None:
        """What stands around each message; None without a chat template."""
        if not self.prompts.chat_template:
            return None
        return self.fitted_turn or self.prompt_reader.frame.turn

    def warn_of_other_turn(self) -> None:
        """Warn, once in a process, if the chat template writes something else by now.

        Nothing is said of a template that writes something else each time.
        """
        fitted = self.fitted_turn
        if fitted is None or (key := (tell_state(self.source), fitted)) in _TOLD:
            return
        try:
            tokenizer = load_tokenizer(self.source)
            now, again = render_turn(tokenizer), render_turn(tokenizer)
        except (OSError, ValueError, ImportError):
            # Texts can be read as in fit without the template, and stored ones without
            # the tokenizer.
            return
        if now == fitted or now != again:
            return
        warn_user(
            f"The chat template of {self.source.name!r} does not write what it wrote "
            "when HFEmbeddingTransformer was fitted: "
            f"{describe_difference(fitted, now)}. Texts are read as in 'fit'; fit "
            "again to use what the template writes now.",
            ProvenanceWarning,
        )
        _TOLD.add(key)

    def list_empty(self, texts: Sequence[str]) -> list[str]:
        """List the texts that have no token; none where no tokenizer is at hand.

        What a store holds needs none, and has tokens.
        """
        try:
            reader = self.prompt_reader
        except OSError:
            return []
        return reader.list_empty(texts)

    def tell_changes(self) -> None:
        """Warn, once for all texts read, of how many were cut or lost all tokens."""
        # What is read from a store alone needs no tokenizer.
        for reader in self._readers:
            reader.tell_changes()

    def check_model(self) -> None:
        """Warn if the model is not what it was, now that its weights are needed.

        Raises
        ------
        ValueError
            If its activations would be of another shape.
        """
        if self.origin is not None:
            warn_of_change(self.source, self.origin)
        found = self.geometry.n_layers, self.geometry.hidden_size
        if self.fitted_sizes not in (None, found):
            raise ValueError(
                "The 'model_name' parameter of HFEmbeddingTransformer must name the "
                "model it was fitted with, whose layers and hidden size were "
                f"{self.fitted_sizes}. Got {self.source.name!r} instead, with {found}: "
                "fit again."
            )

    def compute(
        self, texts: Sequence[str], layers: Sequence[int], parts: Sequence[str]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Run texts through the model, each once.

        Parameters
        ----------
        texts : sequence of str
            Distinct texts.
        layers, parts : sequence
            What to read.

        Yields
        ------
        numbers : ndarray of shape (n,), int64
            Texts of one batch.
        states : ndarray of shape (n, n_layers, n_parts, hidden_size), float32
            Their activations.
        """
        yield from self.run(self.read_prompts(texts), layers, parts)

    def run(
        self, prompts: TokenizedPrompts, layers: Sequence[int], parts: Sequence[str]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Do the same for texts that are tokens already."""
        stack = self.geometry.stack
        request = Request(tuple(layers), tuple(parts), self.pooling, stack)
        loaded = load_model(self.source, self.weights)
        require_weights(loaded, stack, self.source.name)
        forward = ForwardPass(loaded, request)
        trial = try_ways(forward)
        if trial.n_calls != self.geometry.n_layers:
            raise ValueError(
                "The 'model_name' parameter of HFEmbeddingTransformer must name a "
                "model that runs as many blocks on a text as its configuration tells, "
                f"{self.geometry.n_layers}. Got {self.source.name!r} instead, which "
                f"runs {trial.n_calls}."
            )
        if trial.why is not None and self.verbose and trial.why not in self._told:
            self._told.add(trial.why)
            tqdm.write(f"No token tries: {trial.why}.", file=sys.stderr)
        yield from read_activations(
            forward, prompts, self.batch_tokens, trial.way, trial.beyond
        )

    def register(self, store: ActivationStore) -> bytes:
        """Give a store's key of the model and its settings."""
        settings = self.describe()
        adapter = find_adapter(self.source, self.weights.adapter)
        if adapter is not None:
            settings["adapter"] = identify_model(adapter, store.path)
        return store.register(identify_model(self.source, store.path), **settings)

    def describe(self) -> dict[str, Any]:
        """Give all that changes a text's activations, except model and pooling."""
        weights, turn = self.weights, self.turn
        settings = {
            "reading": READING,
            "dtype": str(weights.dtype).removeprefix("torch."),
            "attn_implementation": weights.attn_implementation,
            "quantization": weights.quantization,
            "model_kwargs": joblib.hash(
                {k: v for k, v in weights.model_kwargs.items() if k not in FETCHING}
            ),
            "stack": self._find_stack(),
            **asdict(self.prompts),
        }
        if turn is not None:
            settings["turn"] = asdict(turn)
        return settings

    def _find_stack(self) -> Stack | None:
        try:
            return self.geometry.stack
        except OSError:
            # What is stored can be read without the model, once its stack is known.
            if self.source.commit is None:
                raise
            return self.fitted_stack


def choose_budget(batch_tokens: str | int, device: torch.device) -> int:
    """Choose the tokens in one forward pass."""
    if batch_tokens == "auto":
        return 2048 if device.type == "cpu" else 16384
    return int(batch_tokens)
