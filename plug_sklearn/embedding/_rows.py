"""Convert texts from any container to plain Python values."""

from typing import Any

from plug_sklearn.embedding.prompts._texts import read_texts


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
