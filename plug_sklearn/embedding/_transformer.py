"""Text → activations, as a scikit-learn transformer."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from numbers import Integral
from os.path import expanduser
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from plug_sklearn._devices import resolve_device
from plug_sklearn._positions import resolve_positions
from plug_sklearn._progress import show_progress
from plug_sklearn._provenance import RecordsVersions
from plug_sklearn.embedding._embed import EmbeddingJob
from plug_sklearn.embedding._language_model import LanguageModel, choose_budget
from plug_sklearn.embedding._memory import count_bytes, refuse_too_large
from plug_sklearn.embedding.models._geometry import read_geometry
from plug_sklearn.embedding.models._identity import find_origin
from plug_sklearn.embedding.models._models import (
    ModelSource,
    WeightOptions,
    find_commit,
    load_config,
    load_tokenizer,
)
from plug_sklearn.embedding.passes._forward import NonFiniteStatesError
from plug_sklearn.embedding.prompts._conversations import (
    ChatTemplate,
    Conversation,
    Text,
    describe_chat_template,
)
from plug_sklearn.embedding.prompts._errors import (
    MOST_LISTED,
    RefusedTextError,
    refuse_empty_texts,
)
from plug_sklearn.embedding.prompts._prompts import PromptOptions
from plug_sklearn.embedding.prompts._templates import SLOT, ChatTurn, render_turn
from plug_sklearn.embedding.prompts._texts import read_texts

PARTS = ("rs", "attn", "mlp")
POOLINGS = ("last", "first", "mean", "max")
OWNER = "HFEmbeddingTransformer"


class HFEmbeddingTransformer(  # type: ignore[call-arg]  # TransformerMixin is untyped
    TransformerMixin, RecordsVersions, BaseEstimator, auto_wrap_output_keys=None
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
        Hub id, local folder, or path of a ``.gguf`` file. A path may begin with
        ``~``, as in ``adapter`` and ``store``. The files must hold all weights of the
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

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "model_name": [str, Path],
        "activation_dtype": [StrOptions({"float32", "float16"})],
        "pool_over": [StrOptions({"auto", "prompt", "text"})],
        "token_filter": [StrOptions({"special", "non_text"}), None],
        "eos_token": [str, None],
        "prompt_template": [str, None],
        "chat_template": ["boolean"],
        "generation_prompt": ["boolean"],
        "special_tokens": [StrOptions({"parse", "literal"})],
        "stack": [StrOptions({"auto", "encoder", "decoder"})],
        "max_length": [Interval(Integral, 1, None, closed="left"), None],
        "truncation_side": [StrOptions({"left", "right"})],
        "batch_tokens": [
            StrOptions({"auto"}),
            Interval(Integral, 1, None, closed="left"),
        ],
        "device": [str],
        "dtype": [StrOptions({"auto", "float32", "bfloat16", "float16"})],
        "attn_implementation": [str, None],
        "quantization": [StrOptions({"4bit", "8bit"}), None],
        "adapter": [str, Path, None],
        "revision": [str, None],
        "trust_remote_code": ["boolean"],
        "model_kwargs": [dict, None],
        "store": [str, Path, None],
        "n_jobs": [
            Interval(Integral, 1, None, closed="left"),
            Interval(Integral, None, -1, closed="right"),
            None,
        ],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        model_name: str | Path = "Qwen/Qwen3-0.6B",
        *,
        layers: str | int | Sequence[int] = "all",
        parts: Sequence[str] = ("rs",),
        pooling: str | Sequence[str] | None = "last",
        pool_over: str = "auto",
        roles: Sequence[str] | None = None,
        token_filter: str | None = None,
        eos_token: str | None = None,
        prompt_template: str | None = None,
        chat_template: bool = False,
        generation_prompt: bool = False,
        special_tokens: str = "parse",
        stack: str = "auto",
        max_length: int | None = None,
        truncation_side: str = "left",
        batch_tokens: str | int = "auto",
        device: str = "auto",
        dtype: str = "auto",
        activation_dtype: str = "float32",
        attn_implementation: str | None = None,
        quantization: str | None = None,
        adapter: str | Path | None = None,
        revision: str | None = None,
        trust_remote_code: bool = False,
        model_kwargs: Mapping[str, Any] | None = None,
        store: str | Path | None = None,
        n_jobs: int | None = None,
        verbose: bool = False,
    ) -> None:
        self.model_name = model_name
        self.layers = layers
        self.parts = parts
        self.pooling = pooling
        self.pool_over = pool_over
        self.roles = roles
        self.token_filter = token_filter
        self.eos_token = eos_token
        self.prompt_template = prompt_template
        self.chat_template = chat_template
        self.generation_prompt = generation_prompt
        self.special_tokens = special_tokens
        self.stack = stack
        self.max_length = max_length
        self.truncation_side = truncation_side
        self.batch_tokens = batch_tokens
        self.device = device
        self.dtype = dtype
        self.activation_dtype = activation_dtype
        self.attn_implementation = attn_implementation
        self.quantization = quantization
        self.adapter = adapter
        self.revision = revision
        self.trust_remote_code = trust_remote_code
        self.model_kwargs = model_kwargs
        self.store = store
        self.n_jobs = n_jobs
        self.verbose = verbose

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
        self._origin: str | None = None
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
        with _naming_positions(first_rows):
            refuse_empty_texts(texts, model.list_empty(distinct))
            activations = self._make_room(model, len(texts), distinct)
            try:
                self._fill(model, distinct, activations, rows)
            except NonFiniteStatesError as error:
                raise _explain_overflow(error, texts) from None
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
        with _naming_positions(first_rows):
            refuse_empty_texts(texts, model.list_empty(list(first_rows)))
            prompts = reader.read(texts)
        reader.tell_changes()
        model.warn_of_other_turn()
        shown = reader.show_tokens(prompts)
        places = {"first": 0, "last": -1}
        poolings = self._read_poolings()
        if poolings is None or not set(poolings) <= places.keys():
            return shown
        return [[tokens[places[name]] for name in poolings] for tokens in shown]

    def get_feature_names_out(
        self, input_features: object = None
    ) -> NDArray[np.object_]:
        """Name each unit of the activations, flattened: layer, part, unit.

        Parameters
        ----------
        input_features : None
            Ignored; texts have no names.

        Returns
        -------
        ndarray of shape (n_layers * n_parts * hidden_size,), object
            Such as ``"L20_rs_17"``, or ``"L20_rs_mean_17"`` with several poolings.
        """
        check_is_fitted(self)
        names = [
            f"L{layer}_{part}_{unit}"
            for layer in self.layers_
            for part in self.parts_
            for unit in range(self.hidden_size_)
        ]
        return np.array(names, dtype=object)

    def set_output(self, *, transform: str | None = None) -> Self:
        """Let a pipeline's ``set_output`` reach the steps whose output can be a frame.

        Activations have four axes and stay arrays.

        Parameters
        ----------
        transform : {"default", "pandas", "polars"}, default=None
            What the other steps of the pipeline give.

        Returns
        -------
        HFEmbeddingTransformer
            This estimator, unchanged.

        Raises
        ------
        ValueError
            If ``transform`` is none of these.
        """
        if transform not in ("default", "pandas", "polars", None):
            raise ValueError(
                f"The 'transform' parameter of {OWNER}.set_output must be 'default', "
                f"'pandas', 'polars' or None. Got {transform!r} instead."
            )
        return self

    def __sklearn_tags__(self) -> Tags:
        tags: Tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        tags.transformer_tags.preserves_dtype = []
        return tags

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

    @property
    def _source(self) -> ModelSource:
        model_kwargs = self._read_model_kwargs()
        return ModelSource(
            expanduser(self.model_name),
            self.revision,
            bool(model_kwargs.get("trust_remote_code", self.trust_remote_code)),
            commit=getattr(self, "model_revision_", None),
            model_kwargs=model_kwargs,
        )

    def _check_parameters(self) -> None:
        """Check what is used as it stands: it may have been set since ``fit``."""
        self._validate_params()
        poolings = self._read_poolings()
        # Pickles of earlier releases do not have it.
        fitted = getattr(self, "_poolings", poolings)
        if fitted != poolings:
            raise ValueError(
                f"The 'pooling' parameter of {OWNER} must be what it was in fit, "
                f"{fitted!r}. Got {self.pooling!r} instead: fit again."
            )
        self._read_roles()
        store = self.store
        if store is not None and (not str(store) or Path(expanduser(store)).is_file()):
            raise ValueError(
                f"The 'store' parameter of {OWNER} must be the path of a folder, or "
                f"None. Got {str(store)!r} instead"
                f"{', which is a file' if str(store) else ''}."
            )
        revision = (self.model_kwargs or {}).get("revision", self.revision)
        if self.revision not in (None, revision):
            raise ValueError(
                f"The 'revision' parameter of {OWNER} must be that of 'model_kwargs', "
                f"{revision!r}, or None. Got {self.revision!r} instead."
            )
        if self.prompt_template is not None and SLOT not in self.prompt_template:
            raise ValueError(
                f"The 'prompt_template' parameter of {OWNER} must be a string that "
                f"holds {{text}}. Got {self.prompt_template!r} instead."
            )

    def _read_parts(self) -> tuple[str, ...]:
        parts = self.parts
        if not isinstance(parts, Sequence | np.ndarray) or isinstance(parts, str):
            parts = [parts]
        known = len(parts) > 0 and all(part in PARTS for part in parts)
        if isinstance(self.parts, str) or not known or len(set(parts)) < len(parts):
            raise ValueError(
                f"The 'parts' parameter of {OWNER} must be a sequence of any of "
                f"{PARTS}, each named once. Got {self.parts!r} instead."
            )
        if len(parts) == len(PARTS) and tuple(parts) != PARTS:
            raise ValueError(
                f"The 'parts' parameter of {OWNER} must name all three in the order "
                f"{PARTS}, by which LayerAggregator knows them. Got {self.parts!r} "
                "instead."
            )
        return tuple(str(part) for part in parts)

    def _read_poolings(self) -> tuple[str, ...] | None:
        """Give the poolings that axis 2 holds for each part."""
        pooling = self.pooling
        if pooling is None:
            return None
        names = [pooling] if isinstance(pooling, str) else pooling
        is_listed = isinstance(names, Sequence | np.ndarray) and len(names) > 0
        if not is_listed or not all(
            isinstance(name, str) and name in POOLINGS for name in names
        ):
            expected = f"among {POOLINGS}, a sequence of these, or None"
        elif len(set(names)) < len(names):
            expected = "a sequence of poolings, each named once"
        else:
            return tuple(map(str, names))
        raise ValueError(
            f"The 'pooling' parameter of {OWNER} must be {expected}. "
            f"Got {pooling!r} instead."
        )

    def _name_parts(self) -> tuple[str, ...]:
        """Name what axis 2 holds."""
        parts, poolings = self._read_parts(), self._read_poolings()
        if poolings is None or len(poolings) == 1:
            return parts
        return tuple(f"{part}_{pooling}" for part in parts for pooling in poolings)

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

    def _read_roles(self) -> tuple[str, ...] | None:
        roles = self.roles
        if roles is None:
            return None
        is_listed = isinstance(roles, Sequence | np.ndarray)
        if (
            isinstance(roles, str)
            or not is_listed
            or not all(isinstance(role, str) for role in roles)
            or len(roles) == 0
        ):
            raise ValueError(
                f"The 'roles' parameter of {OWNER} must be None or a sequence of the "
                f"names of roles, such as ('assistant',). Got {roles!r} instead."
            )
        return tuple(str(role) for role in roles)

    def _read_model_kwargs(self) -> dict[str, Any]:
        """Give ``model_kwargs`` with paths that do not begin with ``~``."""
        model_kwargs = dict(self.model_kwargs or {})
        for name in ("cache_dir", "offload_folder"):
            if model_kwargs.get(name) is not None:
                model_kwargs[name] = expanduser(model_kwargs[name])
        return model_kwargs

    def _describe_model(self) -> LanguageModel:
        device = resolve_device(self.device, OWNER)
        dtype = self.dtype
        if dtype == "auto":
            # Half precision is slow on most CPUs, and a probe reads small differences.
            dtype = "float32" if device.type == "cpu" else "bfloat16"
        weights = WeightOptions(
            device=device,
            dtype=getattr(torch, dtype),
            attn_implementation=self.attn_implementation,
            quantization=self.quantization,
            adapter=None if self.adapter is None else expanduser(self.adapter),
            model_kwargs=self._read_model_kwargs(),
        )
        prompts = PromptOptions(
            prompt_template=self.prompt_template,
            chat_template=bool(self.chat_template),
            generation_prompt=bool(self.generation_prompt),
            special_tokens=self.special_tokens,
            pool_over=self.pool_over,
            roles=self._read_roles(),
            token_filter=self.token_filter,
            eos_token=self.eos_token,
            max_length=self.max_length,
            truncation_side=self.truncation_side,
        )
        return LanguageModel(
            source=self._source,
            weights=weights,
            prompts=prompts,
            stack=self.stack,
            batch_tokens=choose_budget(self.batch_tokens, device),
            verbose=bool(self.verbose),
            origin=self._origin,
            fitted_stack=self._stack,
            fitted_sizes=(self.n_model_layers_, self.hidden_size_),
            fitted_turn=self._find_turn(),
            fitted_chat=self._find_chat(),
        )

    def _find_turn(self) -> ChatTurn | None:
        """Give what the chat template wrote in ``fit``, if it was asked for then."""
        # Pickles of earlier releases do not have it.
        turn: dict[str, str] | None = getattr(self, "_turn", None)
        is_open = getattr(self, "_turn_is_open", self.generation_prompt)
        if not turn or not self.chat_template or is_open != self.generation_prompt:
            return None
        return ChatTurn(**turn)

    def _find_chat(self) -> ChatTemplate | None:
        """Give the chat template of conversations in ``fit``, if X held any."""
        chat: dict[str, str] | None = getattr(self, "_chat", None)
        return ChatTemplate(**chat) if chat else None

    def _fill(
        self,
        model: LanguageModel,
        texts: Sequence[Text],
        activations: NDArray[Any],
        rows: NDArray[np.int64],
    ) -> None:
        """Put the activations of distinct texts into their rows."""
        chooses = self.device == "auto" and "device_map" not in (
            self.model_kwargs or {}
        )
        report: Callable[[int], object] = int
        with ExitStack() as shown:
            if self.verbose:
                # Only then: tqdm starts a thread and takes a lock of all processes
                # even where it shows nothing.
                progress = show_progress(len(texts), "Embedding", "text")
                report = shown.enter_context(progress).update
            EmbeddingJob(
                model,
                texts,
                layers=self.layers_,
                parts=self._read_parts(),
                poolings=self._read_poolings(),
                out=activations,
                dtype=np.dtype(self.activation_dtype),
                rows=rows,
                n_jobs=self.n_jobs,
                spread=chooses,
                report=report,
            ).run(None if self.store is None else expanduser(self.store))
        model.tell_changes()
        model.warn_of_other_turn()


def _explain_overflow(
    error: NonFiniteStatesError, texts: Sequence[Text]
) -> FloatingPointError:
    """Say which rows of X have states that are not finite."""
    found = set(error.texts)
    positions = [row for row, text in enumerate(texts) if text in found]
    listed = ", ".join(map(str, positions[:MOST_LISTED]))
    more = ", ..." if len(positions) > MOST_LISTED else ""
    return FloatingPointError(
        f"The states of {error.states} hold infinities or NaN for at least "
        f"{len(positions)} of {len(texts)} texts, at positions [{listed}{more}]; the "
        f"first is {texts[positions[0]]!r}. Use dtype='bfloat16' or 'float32' in "
        f"{OWNER}."
    )


@contextmanager
def _naming_positions(positions: Mapping[Any, int]) -> Iterator[None]:
    """Let an error about one text name its position in X."""
    try:
        yield
    except RefusedTextError as error:
        raise error.at(positions[error.text]) from None
