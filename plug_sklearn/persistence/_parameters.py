"""Hyperparameters ⇄ plain JSON values."""

from collections.abc import Mapping
from math import isfinite
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError
from sklearn.base import BaseEstimator

#: Where and how an estimator runs, which is for whoever loads it to say.
LEFT_OUT = frozenset({"device", "n_jobs", "store", "verbose"})

#: Implementations of attention that come with torch. A name with a slash is code from
#: the hub, and so is flash attention where only the package ``kernels`` is installed.
_ATTENTION = frozenset({"eager", "flex_attention", "sdpa"})


class _ModelArguments(BaseModel):
    """What of ``model_kwargs`` a file may say: it cannot make the loader run code."""

    model_config = ConfigDict(extra="forbid", strict=True)

    device_map: Literal["auto", "balanced", "balanced_low_0", "sequential"] = "auto"
    subfolder: str = ""
    use_safetensors: Literal[True] = True
    variant: str | None = None


def list_parameters(estimator: type[BaseEstimator]) -> list[str]:
    """List the hyperparameters of an estimator that a file holds."""
    names: list[str] = estimator._get_param_names()
    return [name for name in names if name not in LEFT_OUT]


def describe_parameters(estimator: BaseEstimator) -> dict[str, Any]:
    """Turn the hyperparameters of an estimator into plain values.

    Parameters
    ----------
    estimator : BaseEstimator
        Any of ours.

    Returns
    -------
    dict
        None, bool, int, float, str, and lists and dicts of them. Arrays, tuples and
        ranges are lists, paths are strings, and ``class_weight`` is a list of pairs,
        since labels need not be strings.

    Raises
    ------
    ValueError
        If one is no plain value, or would let whoever loads the file run code.
    """
    plain = {}
    for name in list_parameters(type(estimator)):
        value = getattr(estimator, name)
        if name == "class_weight" and isinstance(value, Mapping):
            value = [list(pair) for pair in value.items()]
        try:
            plain[name] = to_plain(value)
        except TypeError:
            raise ValueError(
                f"The {name!r} parameter of {type(estimator).__name__} must be a plain "
                "value, or lists or dicts of such, to be saved: None, bool, int, "
                f"finite float or str. Got {value!r} instead. What is fitted predicts "
                f"without it: estimator.set_params({name}=...) before saving."
            ) from None
    _refuse_code(type(estimator).__name__, plain)
    return plain


def read_parameters(
    kind: type[BaseEstimator], plain: dict[str, Any], **others: object
) -> BaseEstimator:
    """Make an estimator of plain values.

    Parameters
    ----------
    kind : type
        Of the estimator.
    plain : dict
        What ``describe_parameters`` gave.
    **others
        Parameters that no file holds.

    Returns
    -------
    BaseEstimator
        Not fitted.

    Raises
    ------
    ValueError
        If a name is missing or unknown, or a value is not what it must be.
    """
    owner = kind.__name__
    expected = set(list_parameters(kind))
    for what, names in (
        ("lacks", expected - set(plain)),
        ("has unknown", set(plain) - expected),
    ):
        if names:
            raise ValueError(f"its {owner} {what} parameters: {sorted(names)}")
    _refuse_code(owner, plain)
    plain = dict(plain)
    if isinstance(plain.get("class_weight"), list):
        plain["class_weight"] = _pair(owner, plain["class_weight"])
    estimator = kind(**plain, **others)
    estimator._validate_params()
    return estimator


def to_plain(value: Any) -> Any:  # noqa: ANN401 - whatever a parameter is
    """Turn a value into None, bool, int, float, str, or lists and dicts of them.

    Parameters
    ----------
    value : object
        Such a value, a numpy scalar, an array, a sequence, a mapping or a path.

    Returns
    -------
    object
        Equal to the value, as JSON can hold it.

    Raises
    ------
    TypeError
        If it is anything else, or holds a number that is not finite.
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


def _pair(owner: str, pairs: list[Any]) -> dict[Any, Any]:
    try:
        return dict(pairs)
    except (TypeError, ValueError):
        raise ValueError(
            f"The 'class_weight' parameter of {owner} must be a list of pairs of a "
            f"label and a weight. Got {pairs!r} instead."
        ) from None


def _refuse_code(owner: str, plain: Mapping[str, Any]) -> None:
    """Refuse what lets a language model's repository run code or read pickles."""
    must_be = {}
    if plain.get("trust_remote_code"):
        must_be["trust_remote_code"] = "False"
    attention = plain.get("attn_implementation")
    if attention is not None and str(attention) not in _ATTENTION:
        must_be["attn_implementation"] = "one that needs no code of the hub"
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
            f"file can run code. Got {plain[name]!r} instead: give it to set_params "
            "after loading."
        )
