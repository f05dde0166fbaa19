"""What texts and conversations say, as plain strings."""

from typing import Any

from plug_sklearn.embedding.prompts._texts import read_texts


def read_contents(X: Any) -> list[str]:  # noqa: ANN401 - texts, see read_texts
    r"""Turn texts and conversations into plain strings.

    Use it for baselines that read words and not hidden states.

    Parameters
    ----------
    X : list, tuple, 1-D array, Series, datasets column, pyarrow array or \
one-column frame
        Strings or conversations, one text a row, as :class:`HFEmbeddingTransformer`
        takes them.

    Returns
    -------
    list of str
        Strings as they are. A conversation becomes the contents of its messages, joined
        by line breaks, without roles and templates.

    Raises
    ------
    TypeError, ValueError
        If ``X`` is not as described.

    Examples
    --------
    >>> from plug_sklearn.embedding import read_contents
    >>> conversation = [
    ...     {"role": "user", "content": "Gold?"},
    ...     {"role": "assistant", "content": "A metal."},
    ... ]
    >>> read_contents(["Iron.", conversation])
    ['Iron.', 'Gold?\nA metal.']
    """
    return [
        text
        if isinstance(text, str)
        else "\n".join(message["content"] for message in text.messages)
        for text in read_texts(X, "read_contents")
    ]
