"""Check the parameters of HFEmbeddingTransformer."""

from collections.abc import Mapping, Sequence
from numbers import Integral
from os.path import expanduser
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator

from plug_sklearn._activations import PART_NAMES, POOLINGS
from plug_sklearn._devices import check_device
from plug_sklearn._sklearn import Interval, StrOptions
from plug_sklearn.embedding.models import ModelSource
from plug_sklearn.embedding.prompts import FIELD

OWNER = "HFEmbeddingTransformer"


class EmbeddingParameters(BaseEstimator):
    """Base class of estimators that read a language model.

    :class:`~plug_sklearn.HFEmbeddingTransformer` documents the parameters.
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

    def _check_parameters(self) -> None:
        """Check what is used as it stands: it may have been set since ``fit``."""
        self._validate_params()
        check_device(self.device, OWNER)
        self._read_parts()
        self._read_poolings()
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
                f"The 'revision' parameter of {OWNER} must be None or the revision in "
                f"'model_kwargs', {revision!r}. Got {self.revision!r} instead."
            )
        if self.prompt_template is not None and FIELD not in self.prompt_template:
            raise ValueError(
                f"The 'prompt_template' parameter of {OWNER} must be a string that "
                f"contains {{text}}. Got {self.prompt_template!r} instead."
            )

    def _read_parts(self) -> tuple[str, ...]:
        """Check ``parts``, and give it as a tuple."""
        parts = self.parts
        known = _is_listed(parts) and len(parts) > 0
        known = known and all(part in PART_NAMES for part in parts)
        if not known or len(set(parts)) < len(parts):
            raise ValueError(
                f"The 'parts' parameter of {OWNER} must be a sequence of distinct "
                f"parts among {PART_NAMES}. Got {self.parts!r} instead."
            )
        if len(parts) == len(PART_NAMES) and tuple(parts) != PART_NAMES:
            raise ValueError(
                f"The 'parts' parameter of {OWNER} must have the order {PART_NAMES} "
                "if all three are given, because LayerAggregator relies on it. Got "
                f"{self.parts!r} instead."
            )
        return tuple(str(part) for part in parts)

    def _read_poolings(self) -> tuple[str, ...] | None:
        """Return the poolings that axis 2 holds for each part."""
        pooling = self.pooling
        if pooling is None:
            return None
        names = [pooling] if isinstance(pooling, str) else pooling
        is_listed = _is_listed(names) and len(names) > 0
        if not is_listed or not all(
            isinstance(name, str) and name in POOLINGS for name in names
        ):
            expected = f"among {POOLINGS}, a sequence of these, or None"
        elif len(set(names)) < len(names):
            expected = "a sequence of distinct poolings"
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

    def _read_roles(self) -> tuple[str, ...] | None:
        roles = self.roles
        if roles is None:
            return None
        is_named = _is_listed(roles) and all(isinstance(role, str) for role in roles)
        if not is_named or len(roles) == 0:
            raise ValueError(
                f"The 'roles' parameter of {OWNER} must be None or a sequence of role "
                f"names, such as ('assistant',). Got {roles!r} instead."
            )
        return tuple(str(role) for role in roles)

    @property
    def _source(self) -> ModelSource:
        """Where the model comes from, by paths in which ``~`` is expanded."""
        model_kwargs = dict(self.model_kwargs or {})
        for name in ("cache_dir", "offload_folder"):
            if model_kwargs.get(name) is not None:
                model_kwargs[name] = expanduser(model_kwargs[name])
        return ModelSource(
            expanduser(self.model_name),
            self.revision,
            bool(model_kwargs.get("trust_remote_code", self.trust_remote_code)),
            commit=getattr(self, "model_revision_", None),
            model_kwargs=model_kwargs,
        )


def _is_listed(names: object) -> bool:
    """Return whether names are a sequence, other than a string or a 0-D array."""
    if isinstance(names, np.ndarray):
        return names.ndim == 1
    return isinstance(names, Sequence) and not isinstance(names, str)
