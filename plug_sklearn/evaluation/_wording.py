"""Scores, numbers and parts → the words of a picture."""

#: Words of scorers' names that people write otherwise.
WORDS = {
    "auc": "AUC",
    "brier": "Brier",
    "ovo": "OvO",
    "ovr": "OvR",
    "r2": "R²",
    "roc": "ROC",
}


def name_score(score: str) -> str:
    """Name a score as people do.

    Parameters
    ----------
    score : str
        A scorer's name, such as ``"roc_auc"``.

    Returns
    -------
    str
        A label.

    Examples
    --------
    >>> name_score("roc_auc"), name_score("neg_log_loss")
    ('ROC AUC', 'Negative log loss')
    """
    words = score.split("_")
    if words[0] == "neg":
        words[0] = "negative"
    label = " ".join(WORDS.get(word, word) for word in words)
    return label[:1].upper() + label[1:]


def write_score(value: float) -> str:
    """Write a score in few figures.

    Parameters
    ----------
    value : float
        The score.

    Returns
    -------
    str
        With two decimals, or three figures where it is large.

    Examples
    --------
    >>> write_score(0.9), write_score(-1234567.8)
    ('0.90', '-1.23e+06')
    """
    return f"{value:.2f}" if abs(value) < 100 else f"{value:.3g}"


def write_folds(n_folds: int) -> str:
    """Write how many folds there are.

    Parameters
    ----------
    n_folds : int
        Number of folds.

    Returns
    -------
    str
        Such as ``"5 folds"``.
    """
    return f"{n_folds} folds" if n_folds > 1 else "1 fold"


def name_part(part: object) -> str:
    """Name a part of the activations.

    Parameters
    ----------
    part : str or int
        Its name, or its position where it has none.

    Returns
    -------
    str
        Such as ``"mlp"`` or ``"part 0"``.
    """
    return part if isinstance(part, str) else f"part {part}"
