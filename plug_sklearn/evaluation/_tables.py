"""Tables of scores: their columns, and whether they are what a display draws."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

Scoring = (
    str | Callable[..., Any] | Sequence[str] | Mapping[str, str | Callable[..., Any]]
)

#: Columns of a table of scores that are no scores.
TIMES = ["fit_time", "score_time"]
#: Ends the name of the column that holds the chance level of a score.
CHANCE = "_chance"


def check_table(
    table: Any,  # noqa: ANN401 - what is no table is refused
    columns: Sequence[str],
    name: str,
    owner: str,
    maker: str,
) -> None:
    """Make sure that a table is of the kind that a display draws.

    Parameters
    ----------
    table : DataFrame
        The table.
    columns : sequence of str
        Columns that it must have.
    name, owner, maker : str
        Of the parameter, of whose it is, and of what makes such tables, for messages.

    Raises
    ------
    ValueError
        If it is none.
    """
    is_table = isinstance(table, pd.DataFrame)
    if not is_table or not set(columns) <= set(table.columns):
        found = f"the columns {list(table.columns)}" if is_table else repr(table)
        raise ValueError(
            f"The {name!r} parameter of {owner} must be a DataFrame with the columns "
            f"{list(columns)}, as {maker} returns it. Got {found} instead."
        )


def find_score(frame: pd.DataFrame, score: str | None, name: str, owner: str) -> str:
    """Find the column of a score that is asked for.

    Parameters
    ----------
    frame : DataFrame
        A table with a column ``fold``, scores and times.
    score : str or None
        Its name; None: the first.
    name, owner : str
        Of the parameter that holds the table, and of whose it is, for messages.

    Returns
    -------
    str
        Its name.

    Raises
    ------
    ValueError
        If there is none, or it is nowhere a number.
    """
    scores = list_scores(frame)
    _refuse_other_scores(scores, score, owner)
    found = scores[0] if score is None else score
    if frame[found].isna().all():
        raise ValueError(
            f"The {name!r} parameter of {owner} must hold scores that are numbers. Got "
            f"none of {found!r}."
        )
    return found


def check_score(scoring: Scoring | None, score: str | None, owner: str) -> None:
    """Make sure that a score will be there, before anything is computed.

    Parameters
    ----------
    scoring : str, callable, sequence of str, dict or None
        What will be scored; what a callable returns is not known.
    score : str or None
        The score that is asked for.
    owner : str
        Who asks, for messages.

    Raises
    ------
    ValueError
        If it will not be there.
    """
    if scoring is None:
        scoring = ["score"]
    if score is not None and not callable(scoring):
        scores = [scoring] if isinstance(scoring, str) else list(scoring)
        _refuse_other_scores(scores, score, owner)


def _refuse_other_scores(scores: list[str], score: str | None, owner: str) -> None:
    if not scores or score not in (None, *scores):
        raise ValueError(
            f"The 'score' parameter of {owner} must be one of {scores}. Got {score!r} "
            "instead."
        )


def list_scores(frame: pd.DataFrame) -> list[str]:
    """List the scores of a table: what stands between ``fold`` and ``fit_time``.

    Parameters
    ----------
    frame : DataFrame
        A table of scores by fold.

    Returns
    -------
    list of str
        Names of columns, without those of chance levels.
    """
    columns = list(frame.columns)
    if not {"fold", "fit_time"} <= set(columns):
        return []
    between = columns[columns.index("fold") + 1 : columns.index("fit_time")]
    return [name for name in between if not name.endswith(CHANCE)]
