"""Models in memory, registered under names that estimators can use."""

import json
import zlib
from collections.abc import Hashable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from plug_sklearn._forks import make_lock
from plug_sklearn.embedding.models._sharing import LoadedModel

#: How a digest of a registered model begins.
REGISTERED = "registered:"


@dataclass
class RegisteredModel:
    """A user's model and tokenizer.

    ``model`` has no head, and shares its weights with the user's. ``whole`` is the
    model with the head that it was given with, if it has one.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    whole: PreTrainedModel
    # What load_model gave for it.
    loaded: LoadedModel | None = field(default=None, repr=False)
    _digests: dict[Hashable, str] = field(default_factory=dict, repr=False)
    _undo: ExitStack = field(default_factory=ExitStack, repr=False)
    _n_readers: int = 0
    _lock: Any = field(default_factory=make_lock, repr=False)

    @property
    def origin(self) -> str:
        """Identity of the present model, which estimators record in ``fit``."""
        return f"{REGISTERED}{self.digest()}"

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Prepare the model to be read; the last of its readers restores it."""
        with self._lock:
            if self._n_readers == 0:
                self._undo = set_for_reading(self.model)
            self._n_readers += 1
        try:
            yield
        finally:
            with self._lock:
                self._n_readers -= 1
                if self._n_readers == 0:
                    self._undo.close()

    def digest(self) -> str:
        """Digest the weights, the adapters in use and the tokenizer as they are now.

        Each time, this takes cheap checksums of all weights. Their digest is computed
        only if a checksum, or torch's count of changes, differs from the last one.
        """
        adapters = _describe_adapters(self.model)
        state = (_sum_up_weights(self.model), adapters)
        if state not in self._digests:
            self._digests.clear()
            self._digests[state] = _digest_model(self.model, adapters)
        return f"{self._digests[state]}:{_digest_tokenizer(self.tokenizer)}"


_REGISTERED: dict[str, RegisteredModel] = {}
_LOCK = make_lock()


def register_model(
    name: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Register a model that is in memory, so that estimators can read it by name.

    Use this for a model that was fine-tuned, edited or quantized in this process.
    Estimators then take ``model_name=name``. Their clones and pickles contain only the
    name, and raise an error in a process where it is not registered. The model is not
    copied, moved or changed: it keeps its device and dtype, and its training mode and
    settings are restored after each pass. A store identifies the model by a digest of
    its weights, its active adapters and its tokenizer, so that texts are computed again
    after further training. The digest does not cover hooks or code of your own, so do
    not use a store while these change what the model computes.

    Parameters
    ----------
    name : str
        Name for ``model_name``. If it is registered already, this model replaces the
        earlier one.
    model : PreTrainedModel or PeftModel
        The model, with or without a head. It must not be trained while texts are read.
    tokenizer : PreTrainedTokenizerBase
        Tokenizer of the model.

    Raises
    ------
    TypeError
        If an argument has another type, or if the model has a prompt-learning adapter,
        which changes prompts and not weights.

    Examples
    --------
    >>> from plug_sklearn import HFEmbeddingTransformer
    >>> from plug_sklearn.embedding import register_model
    >>> register_model("fine-tuned", model, tokenizer)  # doctest: +SKIP
    >>> embedder = HFEmbeddingTransformer("fine-tuned", layers=[10])
    """
    if not isinstance(name, str) or not name:
        raise TypeError(
            "The 'name' parameter of register_model must be a string that is not "
            f"empty. Got {name!r} instead."
        )
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise TypeError(
            "The 'tokenizer' parameter of register_model must be a tokenizer of "
            f"transformers. Got {type(tokenizer).__name__} instead."
        )
    whole = _unwrap(model)
    backbone = whole.base_model
    if not isinstance(backbone, PreTrainedModel):
        backbone = whole
    with _LOCK:
        _REGISTERED[name] = RegisteredModel(backbone, tokenizer, whole)


def unregister_model(name: str) -> None:
    """Remove a registered model, so that its memory can be freed.

    Parameters
    ----------
    name : str
        Name of the model.

    Raises
    ------
    KeyError
        If no model of that name is registered.
    """
    with _LOCK:
        if name not in _REGISTERED:
            raise KeyError(
                f"No model is registered as {name!r}. The registered models "
                f"are {sorted(_REGISTERED)}."
            )
        del _REGISTERED[name]


def find_registered(name: str) -> RegisteredModel | None:
    """Find the model that is registered under a name."""
    return _REGISTERED.get(name)


def set_for_reading(model: PreTrainedModel) -> ExitStack:
    """Switch dropout, chunks of MLPs and the KV cache off.

    An MLP run in chunks would put out its contribution in pieces, and a cache would
    cost memory that no pass here reads again. Closing the result undoes it.
    """
    undo = ExitStack()
    for module in model.modules():
        for name, value in (("training", False), ("chunk_size_feed_forward", 0)):
            if before := getattr(module, name, value):
                undo.callback(setattr, module, name, before)
                setattr(module, name, value)
    for config in (model.config, model.config.get_text_config()):
        use_cache = getattr(config, "use_cache", None)
        if use_cache is None:
            undo.callback(delattr, config, "use_cache")
        else:
            undo.callback(setattr, config, "use_cache", use_cache)
        config.use_cache = False
    return undo


def _unwrap(model: Any) -> PreTrainedModel:  # noqa: ANN401 - validated here
    adapters = getattr(model, "peft_config", None)
    if hasattr(model, "get_base_model") and isinstance(adapters, dict):
        if any(adapter.is_prompt_learning for adapter in adapters.values()):
            raise TypeError(
                "The 'model' parameter of register_model must not be an adapter of "
                "prompt learning, which changes prompts and not weights. Got "
                f"{sorted(adapters)}."
            )
        model = model.get_base_model()
    if not isinstance(model, PreTrainedModel):
        raise TypeError(
            "The 'model' parameter of register_model must be a model of transformers. "
            f"Got {type(model).__name__} instead."
        )
    return model


def _list_weights(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [*model.named_parameters(), *model.named_buffers()]


def _sum_up_weights(model: nn.Module) -> Hashable:
    """Describe all weights in a cheap way that tells whether one has changed."""
    with torch.no_grad():
        return tuple(
            (
                name,
                weight.data_ptr(),
                # Tensors of inference mode count no changes, nor are changes counted
                # that are made through numpy or ``data``.
                0 if weight.is_inference() else weight._version,
                _sum_up(weight.detach()),
            )
            for name, weight in _list_weights(model)
        )


def _sum_up(weight: Tensor) -> Hashable:
    """Compute a checksum that depends on the order of the values."""
    if weight.device.type == "cpu" or weight.numel() == 0:
        return zlib.crc32(_view_bytes(weight.cpu()))
    # The sums of rows and of columns, each with another factor: the weights stay on
    # their device, and no copy of them is made.
    table = weight.reshape(-1, weight.shape[-1] if weight.dim() else 1)
    # Apple's graphics cards have no float64.
    dtype = torch.float32 if weight.device.type == "mps" else torch.float64
    totals = []
    for axis in (0, 1):
        sums = table.sum(dim=axis, dtype=dtype)
        factors = torch.arange(1, len(sums) + 1, device=sums.device, dtype=dtype).sqrt()
        totals.append(float(sums @ factors))
    # As text, NaN equals itself.
    return repr(totals)


def _view_bytes(weight: Tensor) -> memoryview:
    return weight.contiguous().reshape(-1).view(torch.uint8).numpy().data


def _describe_adapters(model: nn.Module) -> str:
    """Describe which adapters each layer uses, as PEFT's layers have them."""
    return repr(
        [
            (
                name,
                module.active_adapters,
                module.disable_adapters,
                module.merged_adapters,
                getattr(module, "scaling", None),
            )
            for name, module in model.named_modules()
            if hasattr(module, "merged_adapters")
        ]
    )


def _digest_model(model: nn.Module, adapters: str) -> str:
    digest = blake2b(adapters.encode(), digest_size=16)
    for name, weight in sorted(_list_weights(model), key=lambda pair: pair[0]):
        digest.update(f"{name}:{weight.dtype}:{tuple(weight.shape)};".encode())
        digest.update(_view_bytes(weight.detach().cpu()))
    return digest.hexdigest()


def _digest_tokenizer(tokenizer: PreTrainedTokenizerBase) -> str:
    """Digest everything that turns texts and conversations into tokens."""
    if tokenizer.is_fast:
        # The settings before the tokens are those of the last call.
        spelled = tokenizer.backend_tokenizer.to_str()
        spelled = spelled[spelled.index('"added_tokens"') :]
    else:
        spelled = json.dumps(tokenizer.get_vocab(), sort_keys=True)
    digest = blake2b(spelled.encode(), digest_size=16)
    for setting in (
        tokenizer.chat_template,
        tokenizer.model_max_length,
        tokenizer.special_tokens_map,
    ):
        digest.update(repr(setting).encode())
    return digest.hexdigest()
