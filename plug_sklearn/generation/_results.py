"""What probes have seen of prompts and of what the model wrote."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class ProbedToken:
    """One new token, and the probabilities after it.

    Parameters
    ----------
    prompt : int
        Position of the prompt in ``prompts``.
    position : int
        Position of the token in the answer, from 0.
    token_id : int
        Its number in the vocabulary.
    token : str
        What it adds to the text. It is empty for special tokens, and where a character
        needs several tokens for all but the last of them.
    probabilities : dict of str to ndarray of shape (n_classes,)
        What each probe says of the prompt and the answer so far.
    prompt_probabilities : dict of str to ndarray of shape (n_classes,)
        What it said of the prompt.
    stopped_by : str or None
        Why the answer ends with this token, as in :class:`ProbedText`; None if it goes
        on.
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
    """The answer to one prompt, and what each probe said of it token by token.

    Parameters
    ----------
    text : str
        What the model wrote, without special tokens.
    token_ids : list of int
        The new tokens, the end-of-text token among them where it was written.
    tokens : list of str
        What each adds to the text; joined, they are ``text``.
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
        For each probe, what the columns of its probabilities are.

    See Also
    --------
    generate_with_probes : Makes them.
    GenerationDisplay : Shows one as a picture.
    """

    text: str
    token_ids: list[int]
    tokens: list[str]
    probabilities: dict[str, NDArray[np.floating]]
    prompt_probabilities: dict[str, NDArray[np.floating]]
    stopped_by: str
    classes: dict[str, list[object]] = field(default_factory=dict)
