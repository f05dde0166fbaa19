"""A scikit-learn transformer that computes activations of texts."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from copy import copy
from dataclasses import asdict
from os.path import expanduser
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from plug_sklearn._activations import name_axes, resolve_positions
from plug_sklearn._packages import RecordsVersions
from plug_sklearn._progress import show_progress
from plug_sklearn.embedding._embed import EmbeddingJob
from plug_sklearn.embedding._fitted import FittedEmbedding
from plug_sklearn.embedding._parameters import OWNER
from plug_sklearn.embedding._rows import (
    make_room,
    naming_positions,
    refuse_missing_labels,
)
from plug_sklearn.embedding.models import (
    check_adapter,
    find_commit,
    find_registered,
    load_config,
    load_tokenizer,
    read_geometry,
)
from plug_sklearn.embedding.prompts import (
    Conversation,
    Text,
    describe_chat_template,
    list_positions,
    read_texts,
    refuse_empty_texts,
    render_turn,
)

#: Seconds without a bar: a search reads from a store many times, which is quick.
_QUICK = 1.0


class HFEmbeddingTransformer(  # type: ignore[call-arg]  # TransformerMixin is untyped
    RecordsVersions, FittedEmbedding, auto_wrap_output_keys=None
):
    """Compute the activations of a Hugging Face language model for texts.

    For each text, this reads the outputs of the model's blocks: the residual stream
    after a block, and what the block's token mixer and MLP add to it. In every family
    of models, the states are raw, that is, before the final norm. They are pooled over
    the tokens of the text, on the device of the model.

    ``fit`` reads only the model's configuration, and the tokenizer if a chat template
    is used. The weights are loaded in the first ``transform``. A process holds one copy
    of a model, however many clones use it. Pickles do not contain the weights.

    Parameters
    ----------
    model_name : str or Path, default="Qwen/Qwen3-0.6B"
        Hub id, local folder, path of a ``.gguf`` file, or the name of a model in memory
        (see :func:`~plug_sklearn.embedding.register_model`). Paths may begin with
        ``~``, here and in ``adapter`` and ``store``. The files must contain all weights
        of the blocks and of the layers before them. Weights of heads and poolers may be
        missing.
    layers : "all", int or sequence of int, default="all"
        Blocks to read, counted from 0 in the order in which they run. Negative numbers
        count from the end. A block that runs several times counts as several layers.
    parts : sequence of str, default=("rs",)
        Parts to read. ``"rs"``: the residual stream after the block. ``"attn"``: what
        the token mixer adds to it (attention, or the linear attention, state space or
        convolution in its place). ``"mlp"``: what the MLP adds. In most pre-norm
        models, ``rs[l] == rs[l-1] + attn[l] + mlp[l]``. If a block has no token mixer
        or no MLP, its part is zero. If the residual stream has several channels,
        ``"rs"`` is their mean. If all three parts are given, they must be in this
        order, so that :class:`LayerAggregator` can find them by name.
    pooling : {"last", "first", "mean", "max"}, sequence of these or None, \
default="last"
        How the vectors of the tokens become one vector. Several poolings are read in
        one pass: axis 2 of the activations then holds each part under each pooling, in
        the order ``rs_last``, ``rs_mean``, ``attn_last`` and so on. None: keep the
        vectors of all tokens.
    pool_over : {"auto", "text", "prompt"}, default="auto"
        Which tokens are pooled. ``"prompt"``: all of them. ``"text"``: the tokens of
        your own text, or of the contents of a conversation, without templates, default
        system messages and the special tokens that the tokenizer adds. ``"auto"``:
        ``"text"`` for conversations, and for texts in a template unless it ends with a
        ``generation_prompt``; otherwise ``"prompt"``. :meth:`selected_tokens` shows the
        result.
    roles : sequence of str, default=None
        Roles whose messages are pooled in conversations, such as ``("assistant",)``.
        A string counts as a message of ``"user"``. None: all roles.
    token_filter : {None, "special", "non_text"}, default=None
        Tokens that are left out of pooling. ``"special"``: special tokens.
        ``"non_text"``: special tokens, and tokens without a letter or digit. If a text
        has no other tokens, all its tokens are pooled, and a warning says how many
        texts this affects.
    eos_token : str, default=None
        Text of a token that marks the end of a text, such as ``"<end_of_turn>"``. If a
        text ends with this token, once or repeatedly, these tokens and the blank tokens
        between them are left out of pooling.
    prompt_template : str, default=None
        A string that contains ``{text}``. Each text is inserted there.
    chat_template : bool, default=False
        Whether to wrap each string as a user turn with the chat template of the
        tokenizer, after its ``prompt_template`` is applied. The template is rendered
        once, in ``fit``. If it writes the date, ``transform`` and copies of this
        estimator use the date of ``fit``; a warning is issued if the template has
        changed since then. Conversations are always rendered with the chat template.
    generation_prompt : bool, default=False
        Whether a prompt from the chat template ends where the answer of the model
        would begin, that is, after the header of the assistant's turn.
    special_tokens : {"parse", "literal"}, default="parse"
        How text that spells a special token is tokenized. ``"parse"``: as the special
        token, as is needed for prompts that are already formatted. ``"literal"``: as
        ordinary characters, for untrusted input. Templates can contain special tokens
        in both cases. With ``"literal"``, the tokens around the text are the same for
        all texts.
    stack : {"auto", "encoder", "decoder"}, default="auto"
        Whether the encoder or the decoder of an encoder-decoder model is read.
        ``"auto"``: the encoder. The encoder is given the text; the decoder is given its
        start token and the text.
    max_length : int, default=None
        Maximum number of tokens in a prompt; None: the limit of the model. If a prompt
        is longer, its text is truncated and its template is kept. In conversations, the
        messages of roles that ``roles`` leaves out are truncated first. A warning says
        how many texts were truncated.
    truncation_side : {"left", "right"}, default="left"
        The side on which texts are truncated. ``"left"`` keeps the end of the text,
        where the last token is.
    batch_tokens : "auto" or int, default="auto"
        Largest number of tokens in a forward pass, including padding. A longer text is
        read alone. The number is halved if memory runs out. ``"auto"``: 2,048 on the
        CPU, and 16,384 on an accelerator.
    device : str, default="auto"
        ``"auto"``: CUDA if available, then MPS, then the CPU. Otherwise a torch device,
        such as ``"cpu"`` or ``"cuda:1"``. If this device is not available, a warning is
        issued and the CPU is used. To spread a model over several GPUs, use
        ``model_kwargs={"device_map": "auto"}``.
    dtype : {"auto", "float32", "bfloat16", "float16"}, default="auto"
        Data type of the weights and hidden states. ``"auto"``: bfloat16 on an
        accelerator, and float32 on the CPU.
    activation_dtype : {"float32", "float16"}, default="float32"
        Data type of the activations that :meth:`transform` returns. Pooling is computed
        in float32.
    attn_implementation : str, default=None
        Implementation of attention, such as ``"eager"`` or ``"sdpa"``; None: the
        default of transformers.
    quantization : {None, "4bit", "8bit"}, default=None
        Load the weights quantized to 4 or 8 bits, with bitsandbytes.
    adapter : str or Path, default=None
        Path or hub id of a PEFT adapter that changes weights, such as LoRA. None: the
        adapter in the folder or repository of the model, if there is an
        ``adapter_config.json``. Adapters that were trained on causal models, on
        classifiers or on models that also read images are applied to the modules that
        are read; the head is not used. Prompt tuning and similar methods are refused.
    revision : str, default=None
        Branch, tag or commit on the hub.
    trust_remote_code : bool, default=False
        Whether to run code from the repository of the model.
    model_kwargs : dict, default=None
        Further arguments of ``from_pretrained``. Arguments that locate files, such as
        ``cache_dir``, ``subfolder`` or ``token``, are also used for the configuration
        and the tokenizer; arguments about downloads are also used for the adapter.
        Weights are read from safetensors files only, unless
        ``{"use_safetensors": False}`` is given.
    store : str or Path, default=None
        Folder of an :class:`~plug_sklearn.embedding.ActivationStore`, which is created
        if it does not exist. Each distinct text then goes through the model once, over
        all fits, processes and runs that ask for the same layers, parts and poolings.
        If some of these are missing, the text needs another pass. So give this
        estimator all layers and parts that a search compares, and let the search choose
        ``layers`` and ``parts`` of :class:`LayerAggregator`. A fitted estimator that is
        loaded from a pickle or an artifact has no store, so that a service does not
        keep the texts of its users; use ``set_params(store=...)`` to set one.
    n_jobs : int, default=None
        Number of workers that share the texts, on the active joblib backend: processes
        on this machine, or on a cluster with ``joblib.parallel_config("dask")``. Each
        worker loads the model. Only the calling process writes to the store. With
        ``device="auto"``, each worker chooses its own device, and several GPUs are
        spread over the workers; ``"auto"`` for ``dtype`` and ``batch_tokens`` is
        resolved in the calling process. None: 1, unless in a
        ``joblib.parallel_config``.
    verbose : bool, default=False
        Whether to show a progress bar in a terminal or notebook. It appears after a
        second.

    Attributes
    ----------
    layers_ : tuple of int
        Layers along axis 1 of the activations.
    parts_ : tuple of str
        Names along axis 2 of the activations: parts, such as ``"rs"``; or, with several
        poolings, parts and poolings, such as ``"rs_last"`` and ``"rs_mean"``.
    hidden_size_ : int
        Length of axis 3 of the activations.
    n_model_layers_ : int
        Number of layers in the model.
    model_revision_ : str or None
        Hub commit of the model; None for local folders and files.

    See Also
    --------
    LayerAggregator : Computes features from activations.

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
            Strings or conversations, one in each row. A conversation is a sequence of
            messages, which are mappings with ``role`` and ``content``. The
            content is a string, or a list of ``{"type": "text", "text": ...}``, whose
            texts are joined.
        y : array-like of shape (n_samples,), default=None
            Not used. An error is raised if its length differs from that of ``X`` or a
            label is missing, so that a pipeline fails before it reads any text.

        Returns
        -------
        HFEmbeddingTransformer
            This estimator. The weights are not loaded yet.

        Raises
        ------
        TypeError, ValueError
            If a parameter or ``X`` is invalid, or ``y`` has another length or a missing
            label.
        """
        self._check_parameters()
        texts = read_texts(X, OWNER)
        self._check_prompts(texts)
        if y is not None:
            # A pipeline passes labels, which a later step would only refuse afterwards.
            check_consistent_length(texts, y)
            refuse_missing_labels(y)
        if self.adapter is not None:
            check_adapter(self._source, expanduser(self.adapter))
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
        self._turn = self._chat = None
        if self.chat_template:
            # Once for all texts: a template may write today's date.
            tokenizer, opens = load_tokenizer(self._source), self.generation_prompt
            self._turn = asdict(render_turn(tokenizer, generation_prompt=bool(opens)))
        if any(isinstance(text, Conversation) for text in texts):
            chat = describe_chat_template(load_tokenizer(self._source))
            self._chat = asdict(chat)
        self._reading = self._describe_reading()
        self._fitted_source = self._source
        return self

    def _check_prompts(self, texts: Sequence[Text]) -> None:
        if not self.generation_prompt or self.chat_template:
            return
        strings = [row for row, text in enumerate(texts) if isinstance(text, str)]
        if strings:
            raise ValueError(
                f"The 'generation_prompt' parameter of {OWNER} must be False for texts "
                f"that are not in a chat template. Got True instead, and "
                f"{len(strings)} strings, at positions {list_positions(strings)}: set "
                "chat_template=True, or give conversations only."
            )

    def transform(self, X: Any) -> NDArray[Any]:  # noqa: ANN401 - as for fit
        """Compute the activations of texts.

        Parameters
        ----------
        X : list, tuple, 1-D array, Series, datasets column, pyarrow array or \
one-column frame
            Strings or conversations, as in :meth:`fit`. Each distinct text is computed
            once.

        Returns
        -------
        ndarray of shape (n_samples, n_layers, n_parts, hidden_size)
            Pooled activations, in the order of ``layers_`` and ``parts_`` and with
            ``activation_dtype``. With ``pooling=None``, an array of shape
            (n_samples,) and dtype object, in which item i is an array of shape
            (n_tokens_i, n_layers, n_parts, hidden_size). Equal texts share one array.
            The array also holds ``layers_`` and ``parts_``, so that a
            :class:`LayerAggregator` can select by them.

        Raises
        ------
        TypeError, ValueError
            If ``X`` is invalid, a text has no tokens, or a part does not exist in a
            layer.
        FloatingPointError
            If hidden states overflow ``dtype`` or ``activation_dtype``. The message
            names the texts.
        MemoryError
            If the activations would not fit into free memory. This is checked before
            anything is computed.
        """
        model = self._describe_model()
        texts = read_texts(X, OWNER)
        self._check_prompts(texts)
        first_rows: dict[Text, int] = {}
        first = np.array([first_rows.setdefault(t, n) for n, t in enumerate(texts)])
        distinct, rows = list(first_rows), np.array(list(first_rows.values()))
        with naming_positions(texts), ExitStack() as shown:
            refuse_empty_texts(texts, model.list_empty(distinct), model.prompts.roles)
            activations = make_room(
                len(texts),
                (len(self.layers_), len(self.parts_), self.hidden_size_),
                np.dtype(self.activation_dtype),
                None if self.pooling is not None else model.count_tokens(distinct),
            )
            report: Callable[[int], object] = int
            if self.verbose:
                # tqdm starts a thread and takes a lock of all processes, even if it
                # shows nothing.
                progress = show_progress(
                    len(distinct), "Embedding", "text", delay=_QUICK
                )
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
                spread=self.device == "auto"
                and "device_map" not in (self.model_kwargs or {}),
                report=report,
            ).run(None if self.store is None else expanduser(self.store))
        model.tell_changes(texts)
        for row in np.flatnonzero(first != np.arange(len(texts))):
            activations[row] = activations[first[row]]
        return name_axes(activations, self.layers_, self.parts_)

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
            For each text, its pooled tokens as strings. With ``pooling="last"`` or
            ``"first"``, this is one token; with other poolings, all tokens that
            ``pool_over``, ``roles``, ``token_filter`` and ``eos_token`` keep. With
            ``pooling=None``, these are the tokens along axis 0 of the text's
            activations.
        """
        model = self._describe_model()
        texts = read_texts(X, OWNER)
        self._check_prompts(texts)
        reader = model.prompt_reader
        with naming_positions(texts):
            refuse_empty_texts(texts, model.list_empty(texts), model.prompts.roles)
            prompts = reader.read(texts)
        model.tell_changes(texts)
        shown = reader.show_tokens(prompts)
        places = {"first": 0, "last": -1}
        poolings = self._read_poolings()
        if poolings is None or not set(poolings) <= places.keys():
            return shown
        return [[tokens[places[name]] for name in poolings] for tokens in shown]

    def keep_tokens(self) -> Self:
        """Make a fitted copy that keeps every token, as ``pooling=None`` does.

        Returns
        -------
        HFEmbeddingTransformer
            The copy. It reads the tokens that this estimator pools. It has no
            ``store``, which would need much space for all tokens.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If ``fit`` has not been called.
        """
        check_is_fitted(self)
        copied = copy(self)
        copied.pooling, copied.store = None, None
        copied.parts_ = copied._name_parts()
        reading = self._reading or self._describe_reading()
        copied._reading = {**reading, "pooling": None, "parts": copied.parts_}
        return copied
