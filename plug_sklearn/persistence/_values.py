"""Hyperparameters as plain values of JSON, and back."""

from collections.abc import Mapping
from inspect import signature
from math import isfinite
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError
from sklearn.base import BaseEstimator

#: Parameters that are not saved: where and how an estimator runs, and an estimator that
#: it holds, which is saved as such.
LEFT_OUT = frozenset({"device", "estimator", "n_jobs", "store", "verbose"})

#: Implementations of attention that come with torch. Others may be code from the hub: a
#: name with a slash is, and so is flash attention if only ``kernels`` is installed.
_ATTENTION = frozenset({"eager", "flex_attention", "sdpa"})

#: Parameters that files of earlier releases lack, and their values in these files.
_ADDED: dict[str, dict[str, Any]] = {
    "HFEmbeddingTransformer": {
        "activation_dtype": "float32",
        "generation_prompt": False,
        "pool_over": "prompt",
        "roles": None,
    },
    "LayerAggregator": {"part_names": None},
}


class _ModelArguments(BaseModel):
    """The ``model_kwargs`` that a file may hold: none lets the loader run code."""

    model_config = ConfigDict(extra="forbid", strict=True)

    device_map: Literal["auto", "balanced", "balanced_low_0", "sequential"] = "auto"
    subfolder: str = ""
    use_safetensors: Literal[True] = True
    variant: str | None = None


def _has_own_defaults(kind: type[BaseEstimator]) -> bool:
    """Return whether files leave out the parameters that are at their defaults.

    They do so for scikit-learn's classes, because other releases of it have other
    parameters. ``StandardScaler`` is an exception: its earlier files hold all
    parameters.
    """
    return kind.__module__.startswith("sklearn.") and kind.__name__ != "StandardScaler"


def list_parameters(estimator: type[BaseEstimator]) -> list[str]:
    """List the hyperparameters of an estimator that are saved."""
    names: list[str] = estimator._get_param_names()
    return [name for name in names if name not in LEFT_OUT]


def describe_parameters(estimator: BaseEstimator) -> dict[str, Any]:
    """Return the hyperparameters of an estimator as plain values.

    Arrays, tuples and ranges become lists, paths become strings, and ``class_weight``
    becomes a list of pairs, since labels need not be strings.
    """
    plain = {}
    kind = type(estimator)
    defaults = signature(kind).parameters if _has_own_defaults(kind) else {}
    for name in list_parameters(kind):
        value = getattr(estimator, name)
        if name in defaults and _is_same(value, defaults[name].default):
            continue
        if name == "class_weight" and isinstance(value, Mapping):
            value = [list(pair) for pair in value.items()]
        try:
            plain[name] = to_plain(value)
        except TypeError:
            raise ValueError(
                f"The {name!r} parameter of {type(estimator).__name__} must be None, a "
                "bool, int, finite float or str, or lists or dicts of these, to be "
                f"saved. Got {value!r} instead. The fitted estimator predicts without "
                f"it: replace it with estimator.set_params({name}=...) before saving."
            ) from None
    _refuse_code(type(estimator).__name__, plain)
    return plain


def read_parameters(
    kind: type[BaseEstimator], plain: dict[str, Any], **others: object
) -> BaseEstimator:
    """Make an unfitted estimator from what ``describe_parameters`` returned.

    ``others`` are parameters that are not saved.
    """
    owner = kind.__name__
    plain = {**_ADDED.get(owner, {}), **plain}
    expected, has_defaults = set(list_parameters(kind)), _has_own_defaults(kind)
    for what, names in (
        ("lacks", set() if has_defaults else expected - set(plain)),
        ("has unknown", set(plain) - expected),
    ):
        if names:
            raise ValueError(f"its {owner} {what} parameters: {sorted(names)}")
    _refuse_code(owner, plain)
    if isinstance(plain.get("class_weight"), list):
        plain["class_weight"] = _pair(owner, plain["class_weight"])
    if has_defaults:
        # scikit-learn's own classes accept no lists instead of tuples.
        for name, own in signature(kind).parameters.items():
            if isinstance(own.default, tuple) and isinstance(plain.get(name), list):
                plain[name] = tuple(plain[name])
    estimator = kind(**plain, **others)
    estimator._validate_params()
    return estimator


def to_plain(value: Any) -> Any:  # noqa: ANN401 - whatever a parameter is
    """Turn a value into None, bool, int, float, str, or lists and dicts of them.

    Raises a TypeError if it has no such form, or a number is not finite.
    """
    if value is None or isinstance(value, bool | np.bool_):
        return None if value is None else bool(value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real) and isfinite(value):
        return float(value)
    if isinstance(value, str | Path):
        return str(value)
    if isinstance(value, list | tuple | range):
        return [to_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return to_plain(value.tolist())
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {str(key): to_plain(item) for key, item in value.items()}
    raise TypeError


def _is_same(value: object, default: object) -> bool:
    return value is default or (type(value) is type(default) and value == default)


def _pair(owner: str, pairs: list[Any]) -> dict[Any, Any]:
    try:
        return dict(pairs)
    except (TypeError, ValueError):
        raise ValueError(
            f"The 'class_weight' parameter of {owner} must be a list of pairs of a "
            f"label and a weight. Got {pairs!r} instead."
        ) from None


def _refuse_code(owner: str, plain: Mapping[str, Any]) -> None:
    """Refuse parameters that let a model's repository run code or load pickles."""
    must_be = {}
    if plain.get("trust_remote_code"):
        must_be["trust_remote_code"] = "False"
    attention = plain.get("attn_implementation")
    if attention is not None and str(attention) not in _ATTENTION:
        must_be["attn_implementation"] = "one that needs no code from the hub"
    arguments = plain.get("model_kwargs")
    if arguments is not None:
        try:
            _ModelArguments.model_validate(arguments)
        except ValidationError:
            allowed = sorted(_ModelArguments.model_fields)
            must_be["model_kwargs"] = f"None or among {allowed}, without pickles,"
    for name, what in must_be.items():
        raise ValueError(
            f"The {name!r} parameter of {owner} must be {what} in a file, so that no "
            f"file can run code. Got {plain[name]!r} instead. Give it to set_params "
            "after loading."
        )
