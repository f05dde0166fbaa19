"""The containers of texts that the embedder takes → a list of strings."""

from collections.abc import Iterable
from typing import Any

EXPECTED = (
    "a list, tuple, 1-D array, Series or one-column frame of strings, one text a row"
)


def read_texts(X: Any, owner: str) -> list[str]:  # noqa: ANN401 - any container of texts
    """Read the texts of ``X``, in order.

    Parameters
    ----------
    X : list, tuple, 1-D array, Series, datasets column, pyarrow array or \
one-column frame
        Strings, one text a row. A frame is one of pandas or polars, a ``Dataset`` of
        datasets, or a table or record batch of pyarrow.
    owner : str
        Name of the estimator, for messages.

    Returns
    -------
    list of str
        The texts; at least one.

    Raises
    ------
    TypeError
        If ``X`` is not such a container, or holds something that is no string.
    ValueError
        If ``X`` is empty or has more than one column, or a text holds half of a
        surrogate pair, which is no character.
    """
    texts = list(_iterate_rows(X, owner))
    if not texts:
        raise ValueError(
            f"X given to {owner} must hold at least one text. "
            f"Found an empty {type(X).__name__}."
        )
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(
                f"X given to {owner} must hold strings only. "
                f"Got {text!r} ({type(text).__name__}) at position {position} instead."
            )
        _check_characters(text, position, owner)
    # numpy's str_ is a str that tokenizers refuse
    return [str(text) for text in texts]


def _check_characters(text: str, position: int, owner: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"X given to {owner} must hold strings of Unicode characters. Got the lone "
            f"surrogate {text[error.start]!r} at position {position} instead."
        ) from None


def _iterate_rows(X: Any, owner: str) -> Iterable[object]:  # noqa: ANN401 - as above
    shape = getattr(X, "shape", None)
    if isinstance(shape, tuple) and len(shape) != 1:
        return _list_rows(_take_only_column(X, shape, owner))
    is_text = isinstance(X, (str, bytes))
    has_rows = hasattr(X, "__iter__") and hasattr(X, "__len__")
    if is_text or isinstance(X, (dict, set)) or not has_rows:
        raise TypeError(f"X given to {owner} must be {EXPECTED}. Got {X!r} instead.")
    return _list_rows(X)


def _take_only_column(X: Any, shape: tuple[int, ...], owner: str) -> Any:  # noqa: ANN401 - as above
    if len(shape) != 2 or shape[1] != 1:
        raise ValueError(
            f"X given to {owner} must be {EXPECTED}. Got a {type(X).__name__} of shape "
            f"{shape} instead; select the column of texts first."
        )
    if hasattr(X, "iloc"):
        return X.iloc[:, 0]
    if hasattr(X, "column_names"):
        # Tables of pyarrow and datasets are indexed by the name of a column.
        return X[X.column_names[0]]
    return X[:, 0]


def _list_rows(column: Any) -> Iterable[object]:  # noqa: ANN401 - as above
    # Iterating over a pyarrow array gives its scalars, which are no strings.
    rows: Iterable[object] = (
        column.to_pylist() if hasattr(column, "to_pylist") else column
    )
    return rows
