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
    X : list, tuple, 1-D array, pandas or polars Series, datasets column or \
one-column frame
        Strings, one text a row.
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
    is_text = isinstance(X, (str, bytes))
    has_rows = hasattr(X, "__iter__") and hasattr(X, "__len__")
    if is_text or isinstance(X, (dict, set)) or not has_rows:
        raise TypeError(f"X given to {owner} must be {EXPECTED}. Got {X!r} instead.")
    shape = getattr(X, "shape", None)
    rows: Iterable[object] = X
    if shape is None or len(shape) == 1:
        return rows
    if len(shape) == 2 and shape[1] == 1:
        rows = X.iloc[:, 0] if hasattr(X, "iloc") else X[:, 0]
        return rows
    raise ValueError(
        f"X given to {owner} must be {EXPECTED}. Got a {type(X).__name__} of shape "
        f"{tuple(shape)} instead; select the column of texts first."
    )
