"""Check token features and labels that users pass to ``fit`` and ``predict``."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_array, check_consistent_length
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d, validate_data

from plug_sklearn._sklearn import check_y, explaining_texts
from plug_sklearn._warnings import warn_user
from plug_sklearn.classifiers._data import (
    encode_labels,
    holds_sequences,
    number_groups,
    read_sample_weight,
    refuse_mixed_labels,
)
from plug_sklearn.classifiers._splitting import hash_arrays, merge_rows
from plug_sklearn.classifiers._token_batches import TextRows
from plug_sklearn.classifiers._token_targets import (
    encode_each,
    encode_token_labels,
    has_token_labels,
    is_unlabelled,
    read_token_labels,
)

#: Description of X in messages.
EXPECTED = (
    "must hold an array of numbers for each text, (n_tokens, n_features) or "
    "(n_tokens, n_layers, n_parts, hidden_size)"
)
#: Dtypes of plain arrays that are not converted.
KEPT_DTYPES = [np.float32, np.float16]


def read_text_rows(
    estimator: BaseEstimator,
    X: Any,  # noqa: ANN401 - validated here
    y: Any,  # noqa: ANN401 - validated here
    sample_weight: ArrayLike | None,
    groups: ArrayLike | None,
) -> TextRows:
    """Check the arguments of ``fit``, and merge equal texts.

    Sets ``input_shape_``, ``classes_``, ``n_features_in_`` and ``labels_tokens_``.
    """
    owner = type(estimator).__name__
    texts = read_texts(estimator, X, reset=True)
    check_consistent_length(texts, y)
    weight = read_sample_weight(sample_weight, np.zeros((len(texts), 1)), owner)
    token_codes = None
    if has_token_labels(y):
        labels = read_token_labels(y, texts, owner)
        estimator.classes_, token_codes = encode_token_labels(labels, weight, owner)
        codes = np.array([own.max() for own in token_codes])
        # Texts without a labelled token are dropped.
        weight = np.where(codes < 0, 0, weight)
        _, kinds = np.unique(hash_arrays(token_codes), return_inverse=True)
    else:
        if holds_sequences(y):
            raise ValueError(
                f"y given to {owner} must hold a label for each text, or a sequence of "
                "labels for each text. Got both."
            )
        if y is not None:
            refuse_mixed_labels(np.asarray(y), owner)
        labels = check_y(y, estimator=estimator)
        check_classification_targets(labels)
        estimator.classes_, codes = encode_labels(labels, weight, owner)
        kinds = codes
    numbers = number_groups(groups, len(texts), owner)
    digests = hash_arrays(texts[weight > 0])
    index, weight, sample_of_row, numbers = merge_rows(digests, kinds, weight, numbers)
    estimator.labels_tokens_ = token_codes is not None
    if estimator.labels_tokens_ and estimator.monitor not in ("roc_auc", "loss"):
        raise ValueError(
            "The 'monitor' parameter of PlugTokenClassifier must be 'roc_auc' or "
            f"'loss' if tokens have labels. Got {estimator.monitor!r} instead."
        )
    return TextRows(
        texts,
        codes[index],
        weight,
        numbers,
        index,
        sample_of_row,
        token_codes=token_codes,
    )


def read_text_validation_rows(
    estimator: BaseEstimator,
    X_val: Any,  # noqa: ANN401 - validated here
    y_val: Any,  # noqa: ANN401 - validated here
) -> TextRows:
    """Check the validation texts given to ``fit``, after its training texts."""
    owner = type(estimator).__name__
    if X_val is None or y_val is None:
        raise ValueError(
            f"The 'X_val' and 'y_val' given to {owner} must come "
            f"together. Got {'y_val' if X_val is None else 'X_val'} alone instead."
        )
    texts = read_texts(estimator, X_val)
    check_consistent_length(texts, y_val)
    per_token = estimator.labels_tokens_
    if has_token_labels(y_val) != per_token:
        raise ValueError(
            f"The 'y_val' given to {owner} must hold labels of "
            f"{'tokens' if per_token else 'texts'}, as y does."
        )
    classes = estimator.classes_
    token_codes = None
    if per_token:
        labels = read_token_labels(y_val, texts, owner)
        flat = np.concatenate(labels)
        labelled = flat[~is_unlabelled(flat)]
        if not len(labelled):
            raise ValueError(
                f"The 'y_val' given to {owner} must label at least one token. Got "
                f"{len(flat)} tokens without a label instead."
            )
        _refuse_unknown(labelled, classes, owner)
        token_codes = encode_each(labels, classes)
        codes = np.array([own.max() for own in token_codes])
        texts, token_codes = texts[codes >= 0], token_codes[codes >= 0]
        codes = codes[codes >= 0]
    else:
        labels = column_or_1d(y_val)
        _refuse_unknown(labels, classes, owner)
        codes = np.searchsorted(classes, labels)
    order = np.argsort([len(text) for text in texts], kind="stable")
    return TextRows(
        texts, codes[order], np.ones(len(codes)), places=order, token_codes=token_codes
    )


def _refuse_unknown(labels: Any, classes: NDArray[Any], owner: str) -> None:  # noqa: ANN401 - an array
    unknown = np.setdiff1d(labels, classes)
    if len(unknown):
        raise ValueError(
            f"The 'y_val' given to {owner} must hold labels that y "
            f"holds, {classes.tolist()}. Got {unknown.tolist()} instead."
        )


def read_texts(
    estimator: BaseEstimator,
    X: Any,  # noqa: ANN401 - validated here
    *,
    reset: bool = False,
) -> NDArray[np.object_]:
    """Check token features, and return an array (n,) of arrays (n_tokens, n_features).

    The arrays are float16, float32 or float64, and are not copied. An object that
    occurs twice stays one object. With ``reset``, ``input_shape_`` and
    ``n_features_in_`` are set. Otherwise, the number of features must equal that of
    ``fit``.
    """
    owner = type(estimator).__name__
    if isinstance(X, list | tuple) and not X:
        raise ValueError(
            f"X given to {owner} must hold at least one text. Got {X!r} instead."
        )
    if _is_ragged(X):
        texts = _read_items(X, owner)
    else:
        texts = _split_array(estimator, X, owner, reset)
    n_features = texts[0].shape[1]
    if reset:
        estimator.n_features_in_ = n_features
        estimator.input_shape_ = (n_features,)
    elif n_features != estimator.n_features_in_:
        raise ValueError(
            f"X has {n_features} features, but {owner} is expecting "
            f"{estimator.n_features_in_} features as input, for each token."
        )
    return texts


def _is_ragged(X: Any) -> bool:  # noqa: ANN401 - validated by its callers
    if isinstance(X, list | tuple):
        items = X[0] if X and isinstance(X[0], list | tuple) else []
        is_nested = len(items) > 0 and isinstance(items[0], list | tuple | np.ndarray)
        return is_nested or any(getattr(item, "ndim", 0) > 1 for item in X)
    if getattr(X, "ndim", 0) != 1 or str(getattr(X, "dtype", None)) != "object":
        return False
    return any(isinstance(item, np.ndarray | list | tuple) for item in X)


def _read_items(X: Any, owner: str) -> NDArray[np.object_]:  # noqa: ANN401 - a sequence
    checked: dict[int, NDArray[Any]] = {}
    texts = np.empty(len(X), dtype=object)
    for position, item in enumerate(X):
        if id(item) not in checked:
            checked[id(item)] = _check_item(item, position, owner)
        texts[position] = checked[id(item)]
        n_features, found = texts[0].shape[1], texts[position].shape[1]
        if found != n_features:
            raise ValueError(
                f"X given to {owner} must hold arrays that differ only in their number "
                f"of tokens: earlier ones have {n_features} features for each token. "
                f"Got {found} at position {position} instead."
            )
    return texts


def _check_item(
    item: Any,  # noqa: ANN401 - validated here
    position: int,
    owner: str,
) -> NDArray[Any]:
    reason = ""
    try:
        array = np.asarray(item)
    except (ValueError, TypeError, RuntimeError) as error:
        # numpy refuses lists of different lengths, and torch tensors in bfloat16.
        array, reason = np.empty(0, dtype=object), f" ({error})"
    if array.ndim < 2 or array.dtype.kind not in "fiub":
        found = type(item).__name__
        if isinstance(item, np.ndarray):
            found = f"{array.dtype} of shape {array.shape}"
        raise ValueError(
            f"X given to {owner} {EXPECTED}. Got {found} at position {position} "
            f"instead{reason}."
        )
    if array.size == 0:
        raise ValueError(
            f"X given to {owner} must hold arrays of at least one token and feature. "
            f"Got one of shape {array.shape} at position {position} instead."
        )
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    # Values beyond float32 become infinite.
    with np.errstate(over="ignore"):
        is_finite = np.isfinite(array.astype(np.float32, copy=False)).all()
    if not is_finite:
        raise ValueError(
            f"X given to {owner} must not hold NaN or infinity. Found one at position "
            f"{position}."
        )
    return array.reshape(len(array), -1)


def _split_array(
    estimator: BaseEstimator,
    X: Any,  # noqa: ANN401 - validated here
    owner: str,
    reset: bool,
) -> NDArray[np.object_]:
    """Read a plain array: texts of equal lengths; with two axes, of one token each."""
    if not hasattr(X, "ndim") and not isinstance(X, list | tuple):
        X = np.asarray(X)
    if np.ndim(X) == 0:
        raise TypeError(
            f"X given to {owner} {EXPECTED}. Got {type(np.asarray(X).item()).__name__}."
        )
    if np.ndim(X) == 1 and len(X) == 0:
        raise ValueError(f"X given to {owner} must hold at least one text. Got none.")
    # Values beyond float32 become infinite, which validate_data then refuses.
    with np.errstate(over="ignore"), explaining_texts(owner):
        if np.ndim(X) <= 2:
            array = validate_data(estimator, X, dtype=KEPT_DTYPES, reset=reset)
        else:
            array = check_array(
                X, dtype=KEPT_DTYPES, allow_nd=True, estimator=estimator, input_name="X"
            )
    if array.ndim not in (2, 3, 5):
        raise ValueError(
            f"X given to {owner} {EXPECTED}, or be one array (n_samples, n_tokens, "
            f"n_features). Got an array of shape {array.shape} instead; "
            "pooling=None in HFEmbeddingTransformer keeps the tokens."
        )
    if not array.size:
        raise ValueError(
            f"X given to {owner} must have no empty axis. Got {array.shape} instead."
        )
    if reset and array.ndim == 2:
        warn_user(
            f"X given to {owner} has two axes, so that each text is read as one token. "
            "pooling=None in HFEmbeddingTransformer keeps all tokens of a text."
        )
    texts = np.empty(len(array), dtype=object)
    for position, item in enumerate(array):
        texts[position] = item.reshape(1 if array.ndim == 2 else len(item), -1)
    return texts
