"""The objects that generation with probes returns, and the text of each token."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

#: The decoder writes this for bytes that do not form a character yet.
_INCOMPLETE = "\ufffd"


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


class PieceDecoder:
    """Decodes an answer token by token. The pieces, joined, are its text.

    Some tokens are parts of a character, and some tokenizers leave out the space before
    a first word. So each token is decoded after those before it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        # The tokens of the last complete piece, and the tokens after it.
        self._before: list[int] = []
        self._after: list[int] = []

    def add(self, token_id: int) -> str:
        """Return the text that a token adds: none while a character is incomplete."""
        before = self._decode(self._before)
        self._after.append(token_id)
        text = self._decode([*self._before, *self._after])
        if text.endswith(_INCOMPLETE):
            return ""
        if text != before:
            self._before, self._after = self._after, []
        return text[len(before) :]

    def finish(self) -> str:
        """Return the incomplete rest at the end of an answer."""
        before = self._decode(self._before)
        return self._decode([*self._before, *self._after])[len(before) :]

    def _decode(self, ids: list[int]) -> str:
        if not ids:
            return ""
        return str(
            self.tokenizer.decode(
                ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )


def split_answer(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    """Return the piece of text that each token of an answer adds."""
    decoder = PieceDecoder(tokenizer)
    pieces = [decoder.add(token_id) for token_id in ids]
    if pieces:
        pieces[-1] += decoder.finish()
    return pieces
