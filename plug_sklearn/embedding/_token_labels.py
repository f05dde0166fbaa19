"""Labels of tokens, made from labelled spans of characters."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plug_sklearn.embedding._parameters import OWNER
from plug_sklearn.embedding._rows import naming_positions
from plug_sklearn.embedding._transformer import HFEmbeddingTransformer
from plug_sklearn.embedding.prompts import read_texts

#: Default label of a span, and label of the tokens outside all spans.
IN_SPAN, IN_NO_SPAN = 1, 0
#: Label of the tokens of a template, which means no label.
OF_TEMPLATE = -1

Span = tuple[int, int, int]


def token_labels(
    embedder: HFEmbeddingTransformer,
    texts: Sequence[str],
    spans: Sequence[Sequence[Sequence[int]]],
) -> NDArray[np.object_]:
    """Convert labelled spans of characters into labels of tokens.

    The labels are those of the tokens whose activations ``embedder`` gives with
    ``pooling=None``, in the same order: templates, token filters and truncation are
    taken into account. ``PlugTokenClassifier.fit`` takes them as ``y``.

    Parameters
    ----------
    embedder : HFEmbeddingTransformer
        A fitted embedder with a fast tokenizer.
    texts : sequence of str
        Texts; conversations are not supported.
    spans : sequence of sequence
        For each text, its spans: ``(start, end)`` or ``(start, end, label)``. Start and
        end are positions of characters, as in ``text[start:end]``. The label is an
        integer; the default is 1. A text may have no spans.

    Returns
    -------
    ndarray of shape (n_samples,), object
        For each text, an array of shape (n_tokens,), int64: the label of the last span
        that shares a character with the token, not counting white space; 0 for tokens
        outside all spans; and -1, which means no label, for tokens of a template.

    Raises
    ------
    ValueError
        If the embedder's tokenizer is not a fast one; if ``spans`` does not hold spans
        for each text; or if a text is a conversation or has no tokens.

    See Also
    --------
    HFEmbeddingTransformer.selected_tokens : Shows the tokens.

    Examples
    --------
    >>> from plug_sklearn import HFEmbeddingTransformer
    >>> from plug_sklearn.embedding import token_labels
    >>> embedder = HFEmbeddingTransformer(pooling=None).fit(texts)  # doctest: +SKIP
    >>> token_labels(embedder, ["It is in Rome."], [[(9, 13)]])  # doctest: +SKIP
    array([array([0, 0, 0, 1, 0])], dtype=object)
    """
    if not isinstance(embedder, HFEmbeddingTransformer):
        raise ValueError(
            "The 'embedder' given to token_labels must be an HFEmbeddingTransformer. "
            f"Got {type(embedder).__name__} instead."
        )
    if isinstance(texts, str) or not hasattr(texts, "__len__"):
        raise ValueError(
            "The 'texts' given to token_labels must be a list of texts. Got "
            f"{texts!r} instead."
        )
    if not hasattr(spans, "__len__") or len(spans) != len(texts):
        found = len(spans) if hasattr(spans, "__len__") else spans
        raise ValueError(
            "The 'spans' given to token_labels must hold the spans of each text: "
            f"{len(texts)} lists. Got {found} instead."
        )
    texts = list(texts)
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(
                "The 'texts' given to token_labels must be strings. Got a "
                f"{type(text).__name__} at position {position} instead."
            )
    places = _locate_tokens(embedder, texts)
    checked = [
        _check_spans(own, text, position)
        for position, (own, text) in enumerate(zip(spans, texts, strict=True))
    ]
    labels = np.empty(len(texts), dtype=object)
    for position, own in enumerate(checked):
        labels[position] = _label_tokens(texts[position], places[position], own)
    return labels


def _locate_tokens(
    embedder: HFEmbeddingTransformer, texts: list[str]
) -> list[NDArray[np.int64]]:
    """Find the positions of the kept tokens in their texts, (n_tokens, 2)."""
    reader = embedder._describe_model().prompt_reader
    rows = read_texts(texts, OWNER)
    if not reader.tokenizer.is_fast:
        raise ValueError(
            "The 'embedder' given to token_labels must have a tokenizer that tells "
            "where its tokens stand in a text. Got a "
            f"{type(reader.tokenizer).__name__} instead."
        )
    with naming_positions(rows):
        prompts = reader.read(rows)
    return [
        reader.locate(str(text))[prompts.kept_of(number)]
        for number, text in enumerate(rows)
    ]


def _check_spans(
    spans: Any,  # noqa: ANN401 - validated here
    text: str,
    position: int,
) -> list[Span]:
    if not isinstance(spans, list | tuple | np.ndarray):
        raise ValueError(
            "The 'spans' given to token_labels must hold a list of spans for each "
            f"text. Got {spans!r} for the text at position {position} instead."
        )
    checked = []
    for span in spans:
        parts = list(span) if isinstance(span, tuple | list | np.ndarray) else [span]
        are_whole = all(isinstance(part, Integral) for part in parts)
        if len(parts) not in (2, 3) or not are_whole:
            raise ValueError(
                "The 'spans' given to token_labels must be (start, end) or (start, "
                f"end, label), of integers. Got {span!r} for the text at position "
                f"{position} instead."
            )
        start, end, label = (int(part) for part in [*parts, IN_SPAN][:3])
        if not 0 <= start < end <= len(text):
            raise ValueError(
                "The 'spans' given to token_labels must be positions in their text, "
                f"with 0 <= start < end <= {len(text)} for the text at position "
                f"{position}. Got {span!r} instead."
            )
        checked.append((start, end, label))
    return checked


def _label_tokens(
    text: str, places: NDArray[np.int64], spans: Sequence[Span]
) -> NDArray[np.int64]:
    is_own = places[:, 0] >= 0
    labels = np.where(is_own, IN_NO_SPAN, OF_TEMPLATE).astype(np.int64)
    for start, end, label in spans:
        begins, ends = places[:, 0].clip(min=start), places[:, 1].clip(max=end)
        for token in np.flatnonzero(is_own & (begins < ends)):
            shared = text[begins[token] : ends[token]]
            own = text[places[token, 0] : places[token, 1]]
            if shared.strip() or not own.strip():
                labels[token] = label
    return labels
