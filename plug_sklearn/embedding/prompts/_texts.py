"""The texts in X: strings or conversations, in any container, and their errors."""

import json
import unicodedata
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from reprlib import repr as shorten
from typing import Any

import numpy as np

EXPECTED = (
    "a list, tuple, 1-D array, Series or one-column frame of strings or of "
    "conversations, one in each row"
)
#: Positions that an error lists.
_MOST_LISTED = 5

Message = dict[str, Any]


@dataclass(frozen=True)
class Conversation:
    """One conversation of X; ``spelling`` holds its messages as JSON, for hashing."""

    spelling: str

    @classmethod
    def from_messages(cls, messages: Sequence[Mapping[str, Any]]) -> "Conversation":
        """Make a conversation of messages; keys without a value are left out."""
        # Tables fill keys that a message does not have with None.
        present = [
            {key: value for key, value in message.items() if value is not None}
            for message in messages
        ]
        spelling = json.dumps(present, default=_convert_arrays)
        return cls(spelling)

    @property
    def messages(self) -> list[Message]:
        """The messages, each with its role and content."""
        messages: list[Message] = json.loads(self.spelling)
        return messages

    def __len__(self) -> int:
        return len(self.spelling)

    def __repr__(self) -> str:
        return self.spelling

    def encode(self) -> bytes:
        """Return the bytes that identify it; no string has the same in UTF-8."""
        return b"\xff" + self.spelling.encode()


#: What one row of X becomes.
Text = str | Conversation


class RefusedTextError(ValueError):
    """An error about texts of X.

    ``message`` says what is wrong with ``text``, without a full stop. ``others`` are
    more texts that are refused for the same reason.
    """

    def __init__(
        self, text: Hashable, message: str, others: Sequence[Hashable] = ()
    ) -> None:
        super().__init__(f"{message}.")
        self.message = message
        self.texts = [text, *others]

    def locate(self, texts: Sequence[Hashable]) -> ValueError:
        """Return the same error with the positions in X, for whoever knows X."""
        refused = set(self.texts)
        rows = [row for row, text in enumerate(texts) if text in refused]
        if len(rows) == 1:
            return ValueError(f"{self.message}, at position {rows[0]}.")
        return ValueError(
            f"{self.message}, at {len(rows)} positions: {list_positions(rows)}."
        )


def refuse_empty_texts(
    texts: Sequence[Text], empty: Collection[Text], roles: Sequence[str] | None = None
) -> None:
    """Raise a ValueError if texts of X are ``empty``, before any text is computed.

    ``empty`` are those without a token to pool, of ``roles`` if these are given. The
    message says how many there are, and where the first ones are.
    """
    rows = [row for row, text in enumerate(texts) if text in empty]
    if rows:
        said = "" if roles is None else f" of roles={roles!r}"
        raise ValueError(
            "X given to HFEmbeddingTransformer must hold texts of at least one token"
            f"{said}. Got {len(rows)} of {len(texts)} texts without one, at positions "
            f"{list_positions(rows)}; the first is {texts[rows[0]]!r}."
        )


def list_positions(rows: Sequence[int]) -> str:
    """List the positions of some rows for a message: the first ones of many."""
    listed = [*map(str, rows[:_MOST_LISTED]), *["..."] * (len(rows) > _MOST_LISTED)]
    return f"[{', '.join(listed)}]"


def list_invisible(texts: Sequence[Text], roles: Sequence[str] | None) -> list[Text]:
    """List the texts in which these roles write nothing that can be seen.

    Only separators and control characters are invisible. None is all roles.
    """
    invisible: list[Text] = []
    for text in texts:
        said = _join_contents(text, roles)
        if all(unicodedata.category(character)[0] in "ZC" for character in said):
            invisible.append(text)
    return invisible


def _join_contents(text: Text, roles: Sequence[str] | None) -> str:
    if isinstance(text, str):
        # A string is a user's turn.
        return text if roles is None or "user" in roles else ""
    said = [m["content"] for m in text.messages if roles is None or m["role"] in roles]
    return "".join(said)


def read_texts(X: Any, owner: str) -> list[Text]:  # noqa: ANN401 - any container of texts
    """Read the texts of ``X``, in order; at least one.

    ``X`` is a list, tuple, 1-D array, Series, datasets column, pyarrow array or
    one-column frame. A row is a string or a conversation: a sequence of mappings with
    ``role`` and ``content``, which is a string, or a list of items ``{"type": "text",
    "text": ...}`` that are joined. ``owner`` names the estimator in messages.

    Raises a TypeError if ``X`` is not such a container, or a row is neither a string
    nor a conversation. Raises a ValueError if ``X`` is empty or has more than one
    column, a conversation is empty or its messages are not as described, or a text
    holds half of a surrogate pair, which is no character.
    """
    column = _find_column(X, owner)
    # Iterating over a pyarrow array gives its scalars, which are no strings.
    rows = column.to_pylist() if hasattr(column, "to_pylist") else list(column)
    if not rows:
        raise ValueError(
            f"X given to {owner} must hold at least one text. "
            f"Found an empty {type(X).__name__}."
        )
    others = [position for position, row in enumerate(rows) if not _may_be_text(row)]
    if len(others) > 1:
        first = rows[others[0]]
        raise TypeError(
            f"X given to {owner} must hold strings or conversations only. Got "
            f"{len(others)} other rows instead, at positions {list_positions(others)}; "
            f"the first is {shorten(first)} ({type(first).__name__})."
        )
    return [_read_row(row, position, owner) for position, row in enumerate(rows)]


def _may_be_text(row: object) -> bool:
    is_list = isinstance(row, Sequence | np.ndarray) and not isinstance(row, bytes)
    # A mapping alone gets an error of its own.
    return is_list or hasattr(row, "to_list") or isinstance(row, Mapping)


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
    messages = [_join_items(message, position, owner) for message in messages]
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


def _join_items(message: Any, position: int, owner: str) -> Any:  # noqa: ANN401 - checked by the caller
    """Join the items of a content that is a list of texts, as processors take it."""
    content = message.get("content") if isinstance(message, Mapping) else None
    if isinstance(content, str | bytes) or not isinstance(
        content, Sequence | np.ndarray
    ):
        return message
    for item in content:
        is_mapping = isinstance(item, Mapping)
        kind = item.get("type") if is_mapping else type(item).__name__
        if kind != "text" or not is_mapping or not isinstance(item.get("text"), str):
            raise TypeError(
                f"X given to {owner} must hold conversations of text: the items of a "
                "'content' that is a list must be {'type': 'text', 'text': '...'}. Got "
                f"{item!r}, of type {kind!r}, at position {position} instead."
            )
    return {**message, "content": "".join(item["text"] for item in content)}


def _check_characters(text: str, position: int, owner: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"X given to {owner} must hold strings of Unicode characters. Got the lone "
            f"surrogate {text[error.start]!r} at position {position} instead."
        ) from None


def _find_column(X: Any, owner: str) -> Any:  # noqa: ANN401 - as above
    shape = getattr(X, "shape", None)
    if isinstance(shape, tuple) and len(shape) != 1 and not _holds_messages(X, shape):
        return _take_only_column(X, shape, owner)
    is_text = isinstance(X, (str, bytes))
    has_rows = hasattr(X, "__iter__") and hasattr(X, "__len__")
    if is_text or isinstance(X, (dict, set)) or not has_rows:
        hint = " Write [[{...}]] for one message." if _is_message(X) else ""
        if isinstance(X, str):
            hint = " Write [text] for one text."
        raise TypeError(
            f"X given to {owner} must be {EXPECTED}. Got {shorten(X)} instead.{hint}"
        )
    return X


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


def _convert_arrays(value: object) -> object:
    """Make lists of numpy's arrays and scalars, which parquet files give."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a value of type {type(value).__name__} is not JSON")
