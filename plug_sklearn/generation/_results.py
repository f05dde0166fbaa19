"""The objects that generation with probes returns."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class ProbedToken:
    """One new token, and the probabilities of each probe after it.

    Parameters
    ----------
    prompt : int
        Position of the prompt in ``prompts``.
    position : int
        Position of the token in the answer, from 0.
    token_id : int
        Id of the token in the vocabulary.
    token : str
        The text that the token adds. It is empty for special tokens. If a character
        consists of several tokens, the last of them adds it, and the others are empty.
    probabilities : dict of str to ndarray of shape (n_classes,)
        Probabilities of each probe for the prompt and the answer up to this token.
    prompt_probabilities : dict of str to ndarray of shape (n_classes,)
        Probabilities of each probe for the prompt alone.
    stopped_by : str or None
        Why the answer ends with this token, as in :class:`ProbedText`; None if it
        continues.
    """

    prompt: int
    position: int
    token_id: int
    token: str
    probabilities: dict[str, NDArray[np.floating]]
    prompt_probabilities: dict[str, NDArray[np.floating]]
    stopped_by: str | None = None


@dataclass(frozen=True, eq=False)
class ProbedText:
    """The answer to one prompt, with the probabilities of each probe after each token.

    Parameters
    ----------
    text : str
        What the model wrote, without special tokens.
    token_ids : list of int
        Ids of the new tokens, including the end-of-text token if the model wrote it.
    tokens : list of str
        The text that each token adds. Joined, they are ``text``.
    probabilities : dict of str to ndarray of shape (n_new_tokens, n_classes)
        For each probe, the probabilities after each new token. A single pipeline is
        called ``"probe"``.
    prompt_probabilities : dict of str to ndarray of shape (n_classes,)
        The probabilities of the prompt alone; NaN where no token of it is pooled.
    stopped_by : str
        ``"eos"`` for the end-of-text token; ``"length"`` for ``max_new_tokens``; the
        name of a probe whose threshold was reached; ``"stop"`` for a callable;
        ``"stop_strings"``, ``"max_time"`` or ``"stopping_criteria"`` for these options
        of ``generate``.
    classes : dict of str to list, default={}
        For each probe, the classes that the columns of its probabilities stand for.

    See Also
    --------
    generate_with_probes : Returns these objects.
    GenerationDisplay : Shows one as a picture.
    """

    text: str
    token_ids: list[int]
    tokens: list[str]
    probabilities: dict[str, NDArray[np.floating]]
    prompt_probabilities: dict[str, NDArray[np.floating]]
    stopped_by: str
    classes: dict[str, list[object]] = field(default_factory=dict)
