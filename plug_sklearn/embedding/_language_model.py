"""A language model with its settings, which computes the activations of texts."""

import sys
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from plug_sklearn._packages import ProvenanceWarning
from plug_sklearn._warnings import warn_user
from plug_sklearn.embedding.anatomy import Stack
from plug_sklearn.embedding.models import (
    FETCHING,
    Geometry,
    LoadedModel,
    ModelSource,
    WeightOptions,
    file_state,
    find_adapter,
    identify_model,
    load_causal,
    load_config,
    load_model,
    load_tokenizer,
    read_geometry,
    require_weights,
    warn_of_change,
)
from plug_sklearn.embedding.passes import (
    ForwardPass,
    NonFiniteStatesError,
    Request,
    choose_strategy,
    read_activations,
)
from plug_sklearn.embedding.prompts import (
    ChatTemplate,
    ChatTurn,
    Conversation,
    OpenPromptReader,
    PromptOptions,
    PromptReader,
    Text,
    TokenizedPrompts,
    describe_chat_template,
    describe_difference,
    list_invisible,
    render_turn,
)
from plug_sklearn.embedding.store import ActivationStore

#: A number in every key of a store, raised when a release computes anything
#: differently.
READING = 2

# Models, and turns or templates, of which a change has been told in this process.
_TOLD: set[tuple[Hashable, ChatTurn | ChatTemplate]] = set()


#: Numbers of some texts, and their activations; a list of arrays keeps every token.
NumberedStates = tuple[
    NDArray[np.int64], NDArray[np.float32] | list[NDArray[np.float32]]
]


@dataclass
class LanguageModel:
    """A language model, and all settings that its activations depend on.

    ``source`` and ``weights`` say where the model comes from and how it is loaded,
    ``prompts`` what a prompt is made of, and ``batch_tokens`` how many tokens are in
    one forward pass. With ``verbose``, it is said why token tries are not used.

    The others are what the model was when an estimator that has been loaded was fitted
    with it: its identity ``origin``; the stack that was read, for where its
    configuration is not at hand; its numbers of layers and of hidden units; what the
    chat template wrote around a message; and the template that rendered conversations.
    None renders these anew.
    """

    source: ModelSource
    weights: WeightOptions
    prompts: PromptOptions
    stack: str
    batch_tokens: int
    verbose: bool = False
    origin: str | None = None
    fitted_stack: Stack | None = None
    fitted_sizes: tuple[int, int] | None = None
    fitted_turn: ChatTurn | None = None
    fitted_chat: ChatTemplate | None = None
    _told: set[str] = field(default_factory=set, init=False, repr=False)
    _geometry: Geometry | None = field(default=None, init=False, repr=False)
    _reader: PromptReader | None = field(default=None, init=False, repr=False)
    # Texts whose tokens were counted, by their numbers among the prompts.
    _numbers: dict[Text, int] = field(default_factory=dict, init=False, repr=False)
    _prompts: TokenizedPrompts | None = field(default=None, init=False, repr=False)

    # No cached properties: before Python 3.12, these are computed under a lock of
    # their own, which a fork would leave locked in the child.
    @property
    def geometry(self) -> Geometry:
        """Layers, widths and limits, from the configuration alone."""
        if self._geometry is None:
            self._geometry = read_geometry(load_config(self.source), self.stack)
        return self._geometry

    def read_prompts(self, texts: Sequence[Text]) -> TokenizedPrompts:
        """Tokenize texts, and choose the tokens to pool."""
        if self._prompts is not None and self._numbers.keys() >= set(texts):
            return self._prompts.take(np.array([self._numbers[t] for t in texts]))
        return self.prompt_reader.read(texts)

    @property
    def prompt_reader(self) -> PromptReader:
        """The model's tokenizer with these options, made on first use."""
        if self._reader is None:
            geometry, tokenizer = self.geometry, load_tokenizer(self.source)
            limit, start = geometry.max_tokens, geometry.start_id
            fitted = self.fitted_turn, self.fitted_chat
            self._reader = PromptReader(tokenizer, self.prompts, limit, start, *fitted)
        return self._reader

    def list_empty(self, texts: Sequence[Text]) -> list[Text]:
        """List the texts that have no token to pool; none without a tokenizer.

        What a store holds needs none, and has tokens.
        """
        suspects = list_invisible(texts, self.prompts.roles)
        if not suspects:
            return []
        try:
            reader = self.prompt_reader
        except OSError:
            return []
        return reader.list_empty(suspects)

    def count_tokens(self, texts: Sequence[Text]) -> int:
        """Count the tokens of texts that are kept, and remember their prompts."""
        self._prompts = self.prompt_reader.read(texts)
        self._numbers = {text: number for number, text in enumerate(texts)}
        return int(self._prompts.kept.sum())

    def tell_changes(self, X: Sequence[Text]) -> None:
        """Warn, once for all rows of X, of those that are not read as in fit.

        Of a chat template that has changed, this warns once in a process.
        """
        # What is read from a store alone needs no tokenizer.
        if self._reader is not None:
            self._reader.tell_changes(X)
        has_conversations = any(isinstance(text, Conversation) for text in X)
        for fitted in (self.fitted_turn, has_conversations and self.fitted_chat):
            if not fitted or (key := (file_state(self.source), fitted)) in _TOLD:
                continue
            try:
                change = self._describe_change(load_tokenizer(self.source), fitted)
            except (OSError, ValueError, ImportError):
                # Texts can be read as in fit without the template, and stored ones
                # without the tokenizer.
                continue
            if change is not None:
                warn_user(
                    f"The chat template of {self.source.name!r} has changed since "
                    f"HFEmbeddingTransformer was fitted{change}",
                    ProvenanceWarning,
                )
                _TOLD.add(key)

    def _describe_change(
        self, tokenizer: PreTrainedTokenizerBase, fitted: ChatTurn | ChatTemplate
    ) -> str | None:
        """Say how a chat template has changed since fit; None if it has not.

        Nothing is said of a template that writes something else each time.
        """
        if isinstance(fitted, ChatTemplate):
            if describe_chat_template(tokenizer, fitted.time) == fitted:
                return None
            return (
                ". Conversations are rendered with the current one, and predictions "
                "may differ. Fit again to use it for all texts."
            )
        opens = self.prompts.generation_prompt
        now, again = (render_turn(tokenizer, generation_prompt=opens) for _ in range(2))
        if now == fitted or now != again:
            return None
        return (
            f": {describe_difference(fitted, now)}. Texts are still read with the "
            "template of 'fit'. Fit again to use the current one."
        )

    def check_model(self) -> None:
        """Warn if the model is not what it was, now that its weights are needed.

        Raises
        ------
        ValueError
            If its activations would be of another shape.
        """
        found = self.geometry.n_layers, self.geometry.hidden_size
        if self.fitted_sizes not in (None, found):
            raise ValueError(
                "The 'model_name' parameter of HFEmbeddingTransformer must name the "
                "model that was used in fit, whose number of layers and hidden size "
                f"were {self.fitted_sizes}. Got {self.source.name!r} instead, with "
                f"{found}. Fit again to use it."
            )
        if self.origin is not None:
            warn_of_change(self.source, self.origin)

    def compute(
        self, texts: Sequence[Text], asked: Request
    ) -> Iterator[NumberedStates]:
        """Run distinct texts through the model.

        ``asked`` says what to read, of the stack that the model's options name. Yields
        the numbers (n,) of the texts of one batch, and their activations of shape (n,
        n_layers, n_parts * n_poolings, hidden_size), overwritten when the next batch is
        asked for; or a list of arrays (n_tokens, n_layers, n_parts, hidden_size), which
        are not, where every token is kept.
        """
        try:
            yield from self.run(self.read_prompts(texts), asked)
        except NonFiniteStatesError as error:
            raise error.rename(texts) from None

    def run(
        self, prompts: TokenizedPrompts, asked: Request
    ) -> Iterator[NumberedStates]:
        """Do the same for texts that are tokens already."""
        request = replace(asked, stack=self.geometry.stack)
        loaded = self.load()
        with loaded.reading():
            forward = ForwardPass(loaded, request, reuses_memory=True)
            trial = choose_strategy(forward)
            if trial.n_calls != self.geometry.n_layers:
                raise ValueError(
                    "The 'model_name' parameter of HFEmbeddingTransformer must name a "
                    f"model that runs {self.geometry.n_layers} blocks on a text, as "
                    f"its configuration says. Got {self.source.name!r} instead, which "
                    f"runs {trial.n_calls}."
                )
            if trial.why is not None and self.verbose and trial.why not in self._told:
                self._told.add(trial.why)
                tqdm.write(f"No token tries: {trial.why}.", file=sys.stderr)
            yield from read_activations(
                forward, prompts, self.batch_tokens, trial.strategy, trial.beyond_window
            )

    def load(self) -> LoadedModel:
        """Load the model without its head, and make sure that no weight is missing."""
        loaded = load_model(self.source, self.weights)
        require_weights(loaded, self.geometry.stack, self.source.name)
        return loaded

    def load_config(self) -> PreTrainedConfig:
        """Load the model's configuration, and nothing else."""
        return load_config(self.source)

    def load_causal(self) -> PreTrainedModel:
        """Return the model with its language-model head; they share their weights.

        Raises
        ------
        NoHeadError
            If the model has no head.
        """
        return load_causal(self.source, self.weights, self.load())

    def make_open_reader(self) -> OpenPromptReader:
        """Make the reader of prompts that the model continues."""
        return OpenPromptReader(
            load_tokenizer(self.source),
            self.prompts,
            self.geometry.max_tokens,
            self.fitted_turn,
            self.fitted_chat,
        )

    def register(self, store: ActivationStore, *, conversations: bool = False) -> bytes:
        """Add the model and its settings to a store, and return their key.

        What renders conversations is among them only if ``conversations`` are read.
        """
        settings = self.describe(conversations=conversations)
        adapter = find_adapter(self.source, self.weights.adapter)
        if adapter is not None:
            settings["adapter"] = identify_model(adapter, store.path)
        return store.register(identify_model(self.source, store.path), **settings)

    def describe(self, *, conversations: bool = False) -> dict[str, Any]:
        """Return everything that activations depend on, except model and pooling."""
        weights, turn = self.weights, None
        if self.prompts.chat_template:
            turn = self.fitted_turn or self.prompt_reader.template.turn
        try:
            stack = self.geometry.stack
        except OSError:
            # What is stored can be read without the model, once its stack is known.
            if self.source.commit is None:
                raise
            stack = self.fitted_stack
        settings = {
            "reading": READING,
            "dtype": str(weights.dtype).removeprefix("torch."),
            "attn_implementation": weights.attn_implementation,
            "quantization": weights.quantization,
            "model_kwargs": joblib.hash(
                {k: v for k, v in weights.model_kwargs.items() if k not in FETCHING}
            ),
            "stack": stack,
            **asdict(self.prompts),
        }
        if turn is not None:
            settings["turn"] = asdict(turn)
        if conversations:
            settings["chat"] = (self.fitted_chat or self.prompt_reader.chat).digest
        return settings
