"""Check the texts in X: strings or conversations, in any container."""

from collections.abc import Iterable, Mapping, Sequence
from reprlib import repr as shorten
from typing import Any

import numpy as np

from plug_sklearn.embedding.prompts._conversations import Conversation, Text

EXPECTED = (
    "a list, tuple, 1-D array, Series or one-column frame of strings or of "
    "conversations, one a row"
)


def read_texts(X: Any, owner: str) -> list[Text]:  # noqa: ANN401 - any container of texts
    """Read the texts of ``X``, in order.

    Parameters
    ----------
    X : list, tuple, 1-D array, Series, datasets column, pyarrow array or \
one-column frame
        Strings or conversations, one a row. A conversation is a sequence of mappings
        with ``role`` and ``content``: a string, or a list of parts
        ``{"type": "text", "text": ...}``, which are joined. A frame is one of pandas or
        polars, a ``Dataset`` of datasets, or a table or record batch of pyarrow.
    owner : str
        Name of the estimator, for messages.

    Returns
    -------
    list of str and Conversation
        The texts; at least one.

    Raises a TypeError if ``X`` is not such a container, or a row is neither a string
    nor a conversation. Raises a ValueError if ``X`` is empty or has more than one
    column, a conversation is empty or its messages are not as described, or a text
    holds half of a surrogate pair, which is no character.
    """
    rows = list(_iterate_rows(X, owner))
    if not rows:
        raise ValueError(
            f"X given to {owner} must hold at least one text. "
            f"Found an empty {type(X).__name__}."
        )
    return [_read_row(row, position, owner) for position, row in enumerate(rows)]


def _read_row(row: object, position: int, owner: str) -> Text:
    if isinstance(row, str):
        _check_characters(row, position, owner)
        # numpy's str_ is a str that tokenizers refuse
        return str(row)
    if hasattr(row, "to_list"):
        # Cells of polars hold Series.
        row = row.to_list()
    if isinstance(row, Sequence | np.ndarray) and not isinstance(row, bytes):
        messages = list(row)
        if not messages or any(isinstance(one, Mapping) for one in messages):
            return _read_conversation(messages, position, owner)
    hint = ""
    if _is_message(row):
        hint = (
            " A conversation is a list of messages, also where it has only one: write "
            "[[{...}, {...}]] for one conversation of two messages."
        )
    raise TypeError(
        f"X given to {owner} must hold strings or conversations only. "
        f"Got {shorten(row)} ({type(row).__name__}) at position {position} "
        f"instead.{hint}"
    )


def _is_message(value: object) -> bool:
    return isinstance(value, Mapping) and {"role", "content"} <= value.keys()


def _read_conversation(
    messages: Sequence[Any], position: int, owner: str
) -> Conversation:
    if len(messages) == 0:
        raise ValueError(
            f"X given to {owner} must hold conversations of at least one message. "
            f"Got an empty one at position {position}."
        )
    messages = [_join_parts(message, position, owner) for message in messages]
    for message in messages:
        said: list[Any] = (
            [message.get(key) for key in ("role", "content")]
            if isinstance(message, Mapping)
            else [None]
        )
        if not all(isinstance(value, str) for value in said):
            raise TypeError(
                f"X given to {owner} must hold conversations whose messages are "
                "mappings with a string for 'role' and one for 'content'. "
                f"Got {message!r} at position {position} instead."
            )
        for value in said:
            _check_characters(value, position, owner)
    try:
        return Conversation.from_messages(messages)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"X given to {owner} must hold conversations of strings, numbers, lists "
            f"and mappings only. At position {position}, {error}."
        ) from None


def _join_parts(message: Any, position: int, owner: str) -> Any:  # noqa: ANN401 - checked by the caller
    """Join the parts of a content that is a list of texts, as processors take it."""
    content = message.get("content") if isinstance(message, Mapping) else None
    if isinstance(content, str | bytes) or not isinstance(
        content, Sequence | np.ndarray
    ):
        return message
    for part in content:
        is_mapping = isinstance(part, Mapping)
        kind = part.get("type") if is_mapping else type(part).__name__
        if kind != "text" or not is_mapping or not isinstance(part.get("text"), str):
            raise TypeError(
                f"X given to {owner} must hold conversations of text: the parts of a "
                "'content' that is a list must be {'type': 'text', 'text': '...'}. Got "
                f"{part!r}, of type {kind!r}, at position {position} instead."
            )
    return {**message, "content": "".join(part["text"] for part in content)}


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
    if isinstance(shape, tuple) and len(shape) != 1 and not _holds_messages(X, shape):
        return _list_rows(_take_only_column(X, shape, owner))
    is_text = isinstance(X, (str, bytes))
    has_rows = hasattr(X, "__iter__") and hasattr(X, "__len__")
    if is_text or isinstance(X, (dict, set)) or not has_rows:
        hint = " Write [[{...}]] for one message." if _is_message(X) else ""
        if isinstance(X, str):
            hint = " Write [text] for one text."
        raise TypeError(
            f"X given to {owner} must be {EXPECTED}. Got {shorten(X)} instead.{hint}"
        )
    return _list_rows(X)


def _holds_messages(X: Any, shape: tuple[int, ...]) -> bool:  # noqa: ANN401 - as above
    """Return whether ``X`` is an array of mappings.

    numpy makes a 2-D array of conversations of one length.
    """
    is_table = isinstance(X, np.ndarray) and len(shape) == 2 and X.size > 0
    return is_table and all(isinstance(message, Mapping) for message in X[0])


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


def list_texts(X: Any) -> list[str | list[dict[str, Any]]]:  # noqa: ANN401 - texts, see read_texts
    """List the texts and conversations of a container as plain values.

    Use it to combine texts from several containers, or for baselines that read words
    instead of hidden states.

    Parameters
    ----------
    X : list, tuple, 1-D array, Series, datasets column, pyarrow array or \
one-column frame
        Strings or conversations, one in each row, as in ``fit`` of
        :class:`HFEmbeddingTransformer`.

    Returns
    -------
    list of str and list of dict
        Strings are returned as they are, and conversations as lists of their messages.

    Raises
    ------
    TypeError, ValueError
        If ``X`` is not as described.

    Examples
    --------
    >>> import pandas as pd
    >>> from plug_sklearn.embedding import list_texts
    >>> list_texts(pd.DataFrame({"text": ["Gold.", "Iron."]}))
    ['Gold.', 'Iron.']
    """
    return [
        text if isinstance(text, str) else text.messages
        for text in read_texts(X, "list_texts")
    ]
