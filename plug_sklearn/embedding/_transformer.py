"""Text → activations, as a scikit-learn transformer."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from plug_sklearn._positions import resolve_positions
from plug_sklearn._progress import show_progress
from plug_sklearn._provenance import RecordsVersions
from plug_sklearn.embedding._embed import EmbeddingJob
from plug_sklearn.embedding._language_model import LanguageModel
from plug_sklearn.embedding._memory import count_bytes, refuse_too_large
from plug_sklearn.embedding._output import ActivationOutput
from plug_sklearn.embedding._parameters import OWNER, EmbeddingParameters
from plug_sklearn.embedding.models import (
    find_commit,
    find_origin,
    find_registered,
    load_config,
    load_tokenizer,
    read_geometry,
)
from plug_sklearn.embedding.passes import NonFiniteStatesError
from plug_sklearn.embedding.prompts._conversations import (
    Conversation,
    Text,
    describe_chat_template,
)
from plug_sklearn.embedding.prompts._errors import (
    MOST_LISTED,
    RefusedTextError,
    refuse_empty_texts,
)
from plug_sklearn.embedding.prompts._templates import render_turn
from plug_sklearn.embedding.prompts._texts import read_texts


class HFEmbeddingTransformer(  # type: ignore[call-arg]  # TransformerMixin is untyped
    ActivationOutput, RecordsVersions, EmbeddingParameters, auto_wrap_output_keys=None
):
    """Texts → activations of a Hugging Face language model.

    Reads, for each text, what the blocks of a model put out while it reads the text:
    the residual stream after a block, and what its token mixer and its MLP add. Every
    family of models gives the raw states, before the final norm, pooled over the
    text's tokens on the model's device.

    ``fit`` reads only the model's configuration, and its tokenizer for a chat
    template. The weights load on the first ``transform``; one process holds one copy
    of a model, however many clones ask for it, and a pickle holds none.

    Parameters
    ----------
    model_name : str or Path, default="Qwen/Qwen3-0.6B"
        Hub id, local folder, path of a ``.gguf`` file, or the name of a model in memory
        (:func:`~plug_sklearn.embedding.register_model`). A path may begin with ``~``,
        as in ``adapter`` and ``store``. The files must hold all weights of the
        blocks and of what comes before them; heads and poolers may be missing.
    layers : "all", int or sequence of int, default="all"
        Blocks to read, counted from 0 in the order in which they run; negative ones
        count from the end. A block that runs several times is as many layers.
    parts : sequence of str, default=("rs",)
        Any of ``"rs"``, the residual stream after the block; ``"attn"``, what the
        token mixer adds to it (attention, or the linear attention, state space or
        convolution in its place); and ``"mlp"``, what the MLP adds. For pre-norm
        families, ``rs[l] == rs[l-1] + attn[l] + mlp[l]``; a block without a mixer or
        without an MLP gives zeros for it. Where the stream has several channels,
        ``"rs"`` is their mean. All three come in this order, by which
        :class:`LayerAggregator` knows their names.
    pooling : {"last", "first", "mean", "max"}, sequence of these or None, \
default="last"
        How a text's tokens become one vector. Several poolings are read in one pass:
        axis 2 of the activations then holds each part under each pooling, part by part
        (``rs_last``, ``rs_mean``, ``attn_last``, ...). None keeps every token.
    pool_over : {"auto", "text", "prompt"}, default="auto"
        Which tokens are pooled: ``"prompt"`` is all of them, ``"text"`` only those of
        your own text or of a conversation's contents, without templates, default system
        turns and the tokenizer's special tokens. ``"auto"`` is ``"text"`` in
        conversations and where a template stands around the text, unless it ends with a
        ``generation_prompt``, and ``"prompt"`` elsewhere. :meth:`selected_tokens` shows
        the difference.
    roles : sequence of str, default=None
        Pool only the tokens of what these roles say, such as ``("assistant",)``, in
        conversations. A string is said by ``"user"``. None is all roles.
    token_filter : {None, "special", "non_text"}, default=None
        Tokens left out of pooling: ``"special"`` leaves out special tokens,
        ``"non_text"`` those without a letter or digit too. A text that has none left
        is pooled over all its tokens, and a warning counts such texts.
    eos_token : str, default=None
        A token's text, such as ``"<end_of_turn>"``, to take as the end of the text:
        the trailing run of it, blank tokens included, is left out of pooling.
    prompt_template : str, default=None
        A string that holds ``{text}``, which each text replaces.
    chat_template : bool, default=False
        Whether to wrap each string (in its ``prompt_template``) as a user turn with
        the tokenizer's own chat template. The template is rendered once, in ``fit``; if
        it writes today's date, ``transform`` and copies of this estimator keep that
        date, and a warning tells when the template has come to write something else.
        Conversations are always rendered with the chat template.
    generation_prompt : bool, default=False
        Whether a prompt that the chat template writes ends with its opening of the
        answer, where the model would go on.
    special_tokens : {"parse", "literal"}, default="parse"
        ``"parse"``: text that spells a special token becomes it, as ready-made
        prompts need. ``"literal"``: text from strangers cannot; the template's still
        do, and the tokens around a text are the same for every text.
    stack : {"auto", "encoder", "decoder"}, default="auto"
        Which stack of an encoder-decoder model; ``"auto"`` is its encoder. The
        decoder reads its start token and then the text, the encoder the text.
    max_length : int, default=None
        Longest prompt in tokens; None is the model's own limit. Of a longer one the
        text is cut, not its template, and a warning counts such texts. Of a
        conversation, what ``roles`` leaves out is cut first.
    truncation_side : {"left", "right"}, default="left"
        The side to cut: left keeps the end of the text, where the last token is.
    batch_tokens : "auto" or int, default="auto"
        Tokens in one forward pass, padding included; halved where memory runs out.
        ``"auto"`` is 2,048 on the CPU and 16,384 on an accelerator.
    device : str, default="auto"
        ``"auto"`` is CUDA, then MPS, then the CPU. An accelerator that is named and
        absent warns and becomes the CPU. For a model spread over several cards, give
        ``model_kwargs={"device_map": "auto"}``.
    dtype : {"auto", "float32", "bfloat16", "float16"}, default="auto"
        Type of weights and states; ``"auto"`` is bfloat16 on an accelerator and
        float32 on the CPU.
    activation_dtype : {"float32", "float16"}, default="float32"
        Type of the activations that :meth:`transform` returns. They are pooled in
        float32.
    attn_implementation : str, default=None
        Passed to the model's loader, such as ``"eager"`` or ``"sdpa"``.
    quantization : {None, "4bit", "8bit"}, default=None
        Load the weights quantized, through bitsandbytes.
    adapter : str or Path, default=None
        Path or hub id of a PEFT adapter that changes weights, such as LoRA. None is
        the adapter in the model's own folder or repository, if it holds an
        ``adapter_config.json``. Adapters of causal models, classifiers and models that
        see images as well are applied to the part that is read; their heads are not
        used. Prompt tuning and its like are refused.
    revision : str, default=None
        Branch, tag or commit on the hub.
    trust_remote_code : bool, default=False
        Whether code that the model's repository ships may run.
    model_kwargs : dict, default=None
        More arguments for the model's ``from_pretrained``. Those that locate files,
        such as ``cache_dir``, ``subfolder`` or ``token``, hold for the configuration
        and the tokenizer too, and those that say how files are fetched for the
        adapter. Weights are read from safetensors only, unless it says
        ``{"use_safetensors": False}``.
    store : str or Path, default=None
        Folder of an :class:`~plug_sklearn.embedding.ActivationStore`, made if it is
        not there. Each distinct text then goes through the model once, over all fits,
        processes and runs that use it.
    n_jobs : int, default=None
        Workers that share the texts, on whatever joblib backend is active: processes
        of this machine, or of a cluster with ``joblib.parallel_config("dask")``. Each
        loads the model; this process alone writes the store. With ``device="auto"``
        each worker chooses its device, and several cards are spread over the workers;
        what ``"auto"`` means for ``dtype`` and ``batch_tokens`` is decided here. None
        is 1, unless a ``joblib.parallel_config`` says otherwise.
    verbose : bool, default=False
        Whether to show a progress bar, on a terminal or in a notebook.

    Attributes
    ----------
    layers_ : tuple of int
        Layers along axis 1 of the activations.
    parts_ : tuple of str
        What axis 2 of the activations holds: parts, such as ``"rs"``, or parts under
        each of several poolings, such as ``"rs_last"`` and ``"rs_mean"``.
    hidden_size_ : int
        Units along axis 3 of the activations.
    n_model_layers_ : int
        Layers that the model has.
    model_revision_ : str or None
        Hub commit of the model; None for a local folder or file.

    See Also
    --------
    LayerAggregator : Turns activations into features.

    Examples
    --------
    >>> from plug_sklearn import HFEmbeddingTransformer
    >>> embedder = HFEmbeddingTransformer("Qwen/Qwen3-0.6B", layers=[0, -1])
    >>> activations = embedder.fit_transform(  # doctest: +SKIP
    ...     ["Paris is in France.", "Lima is in Peru."]
    ... )
    >>> activations.shape == (2, 2, 1, embedder.hidden_size_)  # doctest: +SKIP
    True
    >>> embedder.selected_tokens(["Paris is in France."])  # doctest: +SKIP
    [['.']]
    """

    def fit(self, X: Any, y: object = None) -> Self:  # noqa: ANN401 - texts, see read_texts
        """Validate the parameters and read the model's configuration.

        Parameters
        ----------
        X : list, tuple, 1-D array, Series, datasets column, pyarrow array or \
one-column frame
            Strings or conversations, one text a row. A conversation is a sequence of
            mappings with ``role`` and ``content``.
        y : None
            Ignored.

        Returns
        -------
        HFEmbeddingTransformer
            This estimator. No weights are loaded.

        Raises
        ------
        TypeError, ValueError
            If a parameter or ``X`` is not as described.
        """
        self._poolings = self._read_poolings()
        self._check_parameters()
        texts = read_texts(X, OWNER)
        geometry = read_geometry(load_config(self._source), self.stack)
        self.layers_ = resolve_positions(
            self.layers, geometry.n_layers, parameter="layers", owner=OWNER
        )
        self.parts_ = self._name_parts()
        self.hidden_size_ = geometry.hidden_size
        self.n_model_layers_ = geometry.n_layers
        self.model_revision_ = find_commit(self._source)
        # Training a registered model further is noticed in this process too.
        registered = find_registered(self._source.name)
        self._origin = None if registered is None else registered.origin
        self._stack = geometry.stack
        self._turn: dict[str, str] | None = None
        self._turn_is_open = bool(self.generation_prompt)
        if self.chat_template:
            # Once for all texts: a template may write today's date.
            tokenizer = load_tokenizer(self._source)
            turn = render_turn(tokenizer, generation_prompt=self._turn_is_open)
            self._turn = asdict(turn)
        self._chat: dict[str, str | None] | None = None
        if any(isinstance(text, Conversation) for text in texts):
            chat = describe_chat_template(load_tokenizer(self._source))
            self._chat = asdict(chat)
        return self

    def transform(self, X: Any) -> NDArray[Any]:  # noqa: ANN401 - as for fit
        """Read the activations of texts.

        Parameters
        ----------
        X : list, tuple, 1-D array, Series, datasets column, pyarrow array or \
one-column frame
            Strings or conversations, as in :meth:`fit`. Equal texts are computed once.

        Returns
        -------
        ndarray of shape (n_samples, n_layers, n_parts, hidden_size)
            Pooled activations, in the order of ``layers_`` and ``parts_``, of
            ``activation_dtype``. With ``pooling=None``, an array of shape
            (n_samples,) and dtype object: item i is an array of shape
            (n_tokens_i, n_layers, n_parts, hidden_size), and equal texts share one.

        Raises
        ------
        TypeError, ValueError
            If ``X`` is not as described, a text has no token, or a part does not
            exist in a layer.
        FloatingPointError
            If states of some texts overflow ``dtype`` or ``activation_dtype``; says
            which texts.
        MemoryError
            If the activations would not fit into free memory; nothing is computed then.
        """
        check_is_fitted(self)
        self._check_parameters()
        texts = read_texts(X, OWNER)
        first_rows: dict[Text, int] = {}
        first = np.array([first_rows.setdefault(t, n) for n, t in enumerate(texts)])
        distinct, rows = list(first_rows), np.array(list(first_rows.values()))
        model = self._describe_model()
        with _naming_positions(texts, first_rows), ExitStack() as shown:
            refuse_empty_texts(texts, model.list_empty(distinct), model.prompts.roles)
            activations = self._make_room(model, len(texts), distinct)
            report: Callable[[int], object] = int
            if self.verbose:
                # Only then: tqdm starts a thread and takes a lock of all processes
                # even where it shows nothing.
                progress = show_progress(len(distinct), "Embedding", "text")
                report = shown.enter_context(progress).update
            EmbeddingJob(
                model,
                distinct,
                layers=self.layers_,
                parts=self._read_parts(),
                poolings=self._read_poolings(),
                out=activations,
                dtype=np.dtype(self.activation_dtype),
                rows=rows,
                n_jobs=self.n_jobs,
                spread=self._workers_choose_devices(),
                report=report,
            ).run(self._find_store())
        model.tell_changes()
        model.warn_of_other_turn()
        for row in np.flatnonzero(first != np.arange(len(texts))):
            activations[row] = activations[first[row]]
        return activations

    def selected_tokens(self, X: Any) -> list[list[str]]:  # noqa: ANN401 - as for fit
        """Show which tokens of each text are pooled.

        Parameters
        ----------
        X : list, tuple, 1-D array, Series, datasets column, pyarrow array or \
one-column frame
            Strings or conversations, as in :meth:`fit`.

        Returns
        -------
        list of list of str
            For each text, the text of its pooled tokens: one with ``pooling="last"``
            or ``"first"``, all that the filter keeps with others and with None, which
            keeps as many in the activations.
        """
        check_is_fitted(self)
        self._check_parameters()
        texts = read_texts(X, OWNER)
        model = self._describe_model()
        reader = model.prompt_reader
        first_rows = {text: n for n, text in reversed(list(enumerate(texts)))}
        with _naming_positions(texts, first_rows):
            empty = model.list_empty(list(first_rows))
            refuse_empty_texts(texts, empty, model.prompts.roles)
            prompts = reader.read(texts)
        reader.tell_changes()
        model.warn_of_other_turn()
        shown = reader.show_tokens(prompts)
        places = {"first": 0, "last": -1}
        poolings = self._read_poolings()
        if poolings is None or not set(poolings) <= places.keys():
            return shown
        return [[tokens[places[name]] for name in poolings] for tokens in shown]

    def _locate_tokens(self, X: Any) -> list[NDArray[np.int64]]:  # noqa: ANN401 - as for fit
        """Find where the tokens that are kept stand in their texts, (n_tokens, 2)."""
        check_is_fitted(self)
        self._check_parameters()
        texts = read_texts(X, OWNER)
        reader = self._describe_model().prompt_reader
        if not reader.tokenizer.is_fast:
            raise ValueError(
                "The 'embedder' given to token_labels must have a tokenizer that tells "
                "where its tokens stand in a text. Got a "
                f"{type(reader.tokenizer).__name__} instead."
            )
        for position, text in enumerate(texts):
            if not isinstance(text, str):
                raise ValueError(
                    "The 'texts' given to token_labels must be strings. Got a "
                    f"conversation at position {position} instead."
                )
        first_rows = {text: n for n, text in reversed(list(enumerate(texts)))}
        with _naming_positions(texts, first_rows):
            prompts = reader.read(texts, counts=False)
        return [
            reader.locate(str(text))[prompts.kept_of(number)]
            for number, text in enumerate(texts)
        ]

    def _make_room(
        self, model: LanguageModel, n_samples: int, distinct: Sequence[Text]
    ) -> NDArray[Any]:
        """Make the array of activations, if they fit into free memory."""
        dtype = np.dtype(self.activation_dtype)
        shape = (len(self.layers_), len(self.parts_), self.hidden_size_)
        if self.pooling is not None:
            refuse_too_large(count_bytes(n_samples, shape, dtype), n_samples)
            return np.empty((n_samples, *shape), dtype=dtype)
        n_tokens = model.count_tokens(distinct)
        refuse_too_large(count_bytes(n_tokens, shape, dtype), n_samples)
        return np.empty(n_samples, dtype=object)

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        if "layers_" in state:
            state["_origin"] = self._find_origin()
        return state

    def _find_origin(self) -> str | None:
        """Tell what the model was in ``fit``, or all that is known of it."""
        known = self._origin or self.model_revision_
        if known is None and self._source.path.exists():
            known = find_origin(self._source)
        return known


@contextmanager
def _naming_positions(
    texts: Sequence[Text], first_rows: Mapping[Any, int]
) -> Iterator[None]:
    """Let an error about texts name their positions in X."""
    try:
        yield
    except RefusedTextError as error:
        raise error.at(first_rows[error.text]) from None
    except NonFiniteStatesError as error:
        found = set(error.texts)
        positions = [row for row, text in enumerate(texts) if text in found]
        listed = ", ".join(map(str, positions[:MOST_LISTED]))
        more = ", ..." if len(positions) > MOST_LISTED else ""
        raise FloatingPointError(
            f"The states of {error.states} hold infinities or NaN for at least "
            f"{len(positions)} of {len(texts)} texts, at positions [{listed}{more}]; "
            f"the first is {texts[positions[0]]!r}. Use dtype='bfloat16' or 'float32' "
            f"in {OWNER}."
        ) from None
