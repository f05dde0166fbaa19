"""What ``fit`` has found: output names, and a check of what has been set since."""

from dataclasses import fields, replace
from os.path import expanduser
from typing import Any, Self

import joblib
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted
from transformers import PreTrainedModel

from plug_sklearn._activations import resolve_positions
from plug_sklearn._devices import resolve_device
from plug_sklearn._packages import ProvenanceWarning
from plug_sklearn._warnings import warn_user
from plug_sklearn.embedding._language_model import LanguageModel
from plug_sklearn.embedding._parameters import OWNER, EmbeddingParameters
from plug_sklearn.embedding.anatomy import Stack
from plug_sklearn.embedding.models import (
    FETCHING,
    REGISTERED,
    ModelSource,
    WeightOptions,
    find_origin,
    find_registered,
)
from plug_sklearn.embedding.prompts import ChatTemplate, ChatTurn, PromptOptions

#: Parameters that must keep the value that they had in ``fit``, besides those that are
#: compared in another form. The rest changes speed, place or rounding only.
_PROMPTING = tuple(option.name for option in fields(PromptOptions))
_KEPT = (*_PROMPTING, "stack", "quantization")
#: Keys of ``model_kwargs`` that say how weights are loaded, where to, and in which
#: precision.
_PLACING = {
    "attn_implementation",
    "device_map",
    "dtype",
    "low_cpu_mem_usage",
    "max_memory",
    "offload_buffers",
    "offload_folder",
    "offload_state_dict",
    "torch_dtype",
    "trust_remote_code",
    "use_safetensors",
}


class FittedEmbedding(  # type: ignore[call-arg]  # TransformerMixin is untyped
    TransformerMixin, EmbeddingParameters, auto_wrap_output_keys=None
):
    """Base class that keeps what ``fit`` has found, and describes the model by it."""

    layers_: tuple[int, ...]
    parts_: tuple[str, ...]
    n_model_layers_: int
    hidden_size_: int
    model_revision_: str | None
    # What the model was in fit, as far as it is known.
    _origin: str | None
    _stack: Stack | None
    # What fit read of a text, from which source, and what the chat template wrote then.
    # Pickles of earlier releases do not have all of these.
    _reading: dict[str, Any] | None = None
    _fitted_source: ModelSource | None = None
    _turn: dict[str, Any] | None = None
    _chat: dict[str, Any] | None = None

    def get_feature_names_out(
        self, input_features: object = None
    ) -> NDArray[np.object_]:
        """Return a name for each hidden unit of the flattened activations.

        Parameters
        ----------
        input_features : None
            Ignored, since texts have no names.

        Returns
        -------
        ndarray of shape (n_layers * n_parts * hidden_size,), object
            Names such as ``"L20_rs_17"``, or ``"L20_rs_mean_17"`` with several
            poolings.
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
        """Accept a container for the output of a pipeline, and keep returning arrays.

        Activations have four axes, and cannot be a data frame. The other steps of a
        pipeline follow its ``set_output``.

        Parameters
        ----------
        transform : {"default", "pandas", "polars"}, default=None
            Container that the other steps of the pipeline return.

        Returns
        -------
        HFEmbeddingTransformer
            This estimator, unchanged.

        Raises
        ------
        ValueError
            If ``transform`` has another value.
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

    def _describe_reading(self) -> dict[str, Any]:
        """Describe what is read of a text, by the names of parameters."""
        layers = resolve_positions(
            self.layers, self.n_model_layers_, parameter="layers", owner=OWNER
        )
        model_kwargs = {
            name: value
            for name, value in (self.model_kwargs or {}).items()
            if name not in FETCHING | _PLACING
        }
        return {
            "layers": layers,
            "pooling": self._read_poolings(),
            "parts": self._name_parts(),
            **{name: getattr(self, name) for name in _KEPT},
            "roles": self._read_roles(),
            "model_kwargs": joblib.hash(model_kwargs) if model_kwargs else None,
            "adapter": None if self.adapter is None else expanduser(self.adapter),
        }

    def _check_unchanged(self) -> None:
        """Raise a ValueError if what is read of a text differs from what fit was given.

        An adapter may have been moved, so that only a warning is issued of another one.
        """
        found = self._describe_reading()
        fitted = self._reading or found
        for name in (name for name in found if found[name] != fitted[name]):
            given = getattr(self, name)
            if name == "adapter":
                warn_user(
                    f"The 'adapter' parameter of {OWNER} was {fitted[name]!r} in fit, "
                    f"and is {str(given)!r} here. If their files differ, predictions "
                    "do too. Fit again to use it.",
                    ProvenanceWarning,
                )
                continue
            was = f", where it gave {fitted[name]!r}" if name != "model_kwargs" else ""
            raise ValueError(
                f"The {name!r} parameter of {OWNER} must not change after fit{was}. "
                f"Got {given!r} instead. Fit again to use it."
            )

    def _describe_model(self) -> LanguageModel:
        """Describe the language model, and how it reads texts.

        Parameters may have been set since ``fit``: they are checked again, and must not
        ask for anything else.
        """
        check_is_fitted(self)
        self._check_parameters()
        self._check_unchanged()
        weights = self._describe_weights()
        source, fitted = self._source, self._fitted_source or self._source
        # In one process, a model is the same as long as it has the same name.
        is_same = (source.name, source.revision) == (fitted.name, fitted.revision)
        batch_tokens = self.batch_tokens
        if batch_tokens == "auto":
            batch_tokens = 2048 if weights.device.type == "cpu" else 16384
        prompts = replace(
            PromptOptions(**{name: getattr(self, name) for name in _PROMPTING}),
            chat_template=bool(self.chat_template),
            generation_prompt=bool(self.generation_prompt),
            roles=self._read_roles(),
            max_length=None if self.max_length is None else int(self.max_length),
        )
        return LanguageModel(
            source=source,
            weights=weights,
            prompts=prompts,
            stack=self.stack,
            batch_tokens=int(batch_tokens),
            verbose=bool(self.verbose),
            origin=self._origin if is_same else self._find_origin(),
            fitted_stack=self._stack,
            fitted_sizes=(self.n_model_layers_, self.hidden_size_),
            fitted_turn=self._find_turn(),
            fitted_chat=self._find_chat(),
        )

    def _describe_weights(self) -> WeightOptions:
        """Describe how the weights are loaded, or are there already."""
        registered = find_registered(self._source.name)
        if registered is not None:
            return self._describe_registered(registered.model)
        if str(self._origin).startswith(REGISTERED):
            raise ValueError(
                f"The 'model_name' parameter of {OWNER} must name a model that is "
                "registered in this process, as it was in fit. Got "
                f"{self.model_name!r} instead: call register_model first."
            )
        device = resolve_device(self.device, OWNER)
        dtype = self.dtype
        if dtype == "auto":
            # Half precision is slow on most CPUs, and a probe reads small differences.
            dtype = "float32" if device.type == "cpu" else "bfloat16"
        return WeightOptions(
            device=device,
            dtype=getattr(torch, dtype),
            attn_implementation=self.attn_implementation,
            quantization=self.quantization,
            adapter=None if self.adapter is None else expanduser(self.adapter),
            model_kwargs=self._source.model_kwargs,
        )

    def _describe_registered(self, model: PreTrainedModel) -> WeightOptions:
        """Describe the weights of a registered model, which stay as they are."""
        for name in ("attn_implementation", "quantization", "adapter", "model_kwargs"):
            value = getattr(self, name)
            if value is not None:
                raise ValueError(
                    f"The {name!r} parameter of {OWNER} must be None for a registered "
                    f"model, which is used as it is. Got {value!r} instead."
                )
        dtype = str(model.dtype).removeprefix("torch.")
        if self.dtype not in ("auto", dtype):
            raise ValueError(
                f"The 'dtype' parameter of {OWNER} must be 'auto' or {dtype!r}, the "
                f"dtype of the registered model. Got {self.dtype!r} instead."
            )
        return WeightOptions(device=model.device, dtype=model.dtype)

    def _find_turn(self) -> ChatTurn | None:
        """Return what the chat template wrote in ``fit``, if it was used then."""
        return ChatTurn(**self._turn) if self._turn else None

    def _find_chat(self) -> ChatTemplate | None:
        """Return the chat template of conversations in ``fit``, if X held any."""
        return ChatTemplate(**self._chat) if self._chat else None

    def _find_origin(self) -> str | None:
        """Return the identity of the model in ``fit``, as far as it is known."""
        known = self._origin or self.model_revision_
        fitted = self._fitted_source or self._source
        if known is None and fitted.path.exists():
            known = find_origin(fitted)
        return known

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if "layers_" in state:
            state["_origin"] = self._find_origin()
            state.pop("_fitted_source", None)
            # A loaded estimator reads new texts, and must not store them unasked.
            state["store"], state["verbose"] = None, False
        return state


def describe_model(embedder: FittedEmbedding) -> LanguageModel:
    """Describe the language model that a fitted embedder reads, and how it does.

    Raises
    ------
    NotFittedError
        If it is not fitted.
    ValueError
        If a parameter is not as it must be, or has been changed since ``fit``.
    """
    return embedder._describe_model()
