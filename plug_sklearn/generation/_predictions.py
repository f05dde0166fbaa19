"""The results of generation with probes: compute the probabilities after each token."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from plug_sklearn.embedding.passes import Request
from plug_sklearn.generation._probes import Probe, TokenStream
from plug_sklearn.generation._running_pools import PooledTokens
from plug_sklearn.generation._stopping import Probabilities, StopRule

#: Most bytes of states that wait for a joint prediction. A classifier takes about as
#: long for one row as for hundreds.
_MOST_WAITING = 2**22
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
        The probabilities of the prompt alone; NaN if none of its tokens is pooled.
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


@dataclass
class Answer:
    """The tokens of the answer to one prompt so far.

    ``ids`` are its tokens. ``reason`` says why it ends with the last of them, and is
    None while it continues. ``is_over`` is True once it has ended and the states of its
    last token have been read.
    """

    ids: list[int] = field(default_factory=list)
    reason: str | None = None
    is_over: bool = False


@dataclass(eq=False)
class BatchPredictions:
    """Runs the probes on the answers of one batch.

    ``request`` is what the hooks read for ``probes``. ``stops`` holds the rule of each
    answer, and ``streams`` those of the probes that read every token. ``report`` is
    called with each token once its probabilities are known; ``numbers`` are the
    positions of the answers among all prompts. If there is a report or a rule, the
    probes predict after each token; otherwise, they predict many tokens together.
    """

    probes: Mapping[str, Probe]
    request: Request
    stops: Sequence[StopRule]
    answers: Sequence[Answer]
    max_new_tokens: int
    streams: Mapping[str, TokenStream]
    tokenizer: PreTrainedTokenizerBase
    numbers: Sequence[int]
    report: Callable[[ProbedToken], None] | None

    def __post_init__(self) -> None:
        probes = self.probes.items()
        self.places = {name: probe.find_places(self.request) for name, probe in probes}
        self.decoders = [PieceDecoder(self.tokenizer) for _ in self.answers]
        self.waits = not any(self.stops) and self.report is None
        # Column 0 holds the probabilities of the prompt.
        shape = len(self.answers), 1 + self.max_new_tokens
        self.found = {
            name: np.full((*shape, len(probe.classes)), np.nan)
            for name, probe in probes
        }
        self._waiting: list[tuple[int, NDArray[np.intp]]] = []
        self._states: dict[str, list[NDArray[np.float32]]] = {n: [] for n, _ in probes}
        self._n_bytes = 0

    def add_states(
        self, n_tokens: int, pooled: PooledTokens, rows: NDArray[np.intp]
    ) -> dict[int, str]:
        """Add the pooled tokens after ``n_tokens`` new tokens; 0: the prompts alone.

        Returns the reason for each row whose answer ends with its last token.
        """
        for name in self.probes:
            states = self._select(name, pooled, rows)
            self._states[name].append(states)
            self._n_bytes += states.nbytes
        self._waiting.append((n_tokens, rows))
        if not self.waits or self._n_bytes > _MOST_WAITING:
            self.flush()
        if n_tokens == 0 or not any(self.stops):
            return {}
        decided = {
            row: self.stops[row].decide(self.show(row, n_tokens))
            for row in rows.tolist()
        }
        return {row: reason for row, reason in decided.items() if reason}

    def report_tokens(self, n_tokens: int, rows: NDArray[np.intp]) -> None:
        """Report the last token of each of these rows."""
        if self.report is None or n_tokens == 0:
            return
        for row in rows.tolist():
            answer, decoder = self.answers[row], self.decoders[row]
            token_id = answer.ids[n_tokens - 1]
            piece = decoder.add(token_id)
            if answer.reason is not None:
                piece += decoder.finish()
            seen = self.show(row, n_tokens).items()
            self.report(
                ProbedToken(
                    prompt=self.numbers[row],
                    position=n_tokens - 1,
                    token_id=token_id,
                    token=piece,
                    probabilities={name: each[-1].copy() for name, each in seen},
                    prompt_probabilities=self.show_prompt(row),
                    stopped_by=answer.reason,
                )
            )

    def finish(self, row: int) -> ProbedText:
        """Make the result of a row whose answer is over."""
        answer = self.answers[row]
        decoder = PieceDecoder(self.tokenizer)
        pieces = [decoder.add(token_id) for token_id in answer.ids]
        if pieces:
            pieces[-1] += decoder.finish()
        seen = self.show(row, len(answer.ids))
        return ProbedText(
            text="".join(pieces),
            token_ids=answer.ids,
            tokens=pieces,
            probabilities={name: each.copy() for name, each in seen.items()},
            prompt_probabilities=self.show_prompt(row),
            stopped_by=str(answer.reason),
            classes={name: probe.classes for name, probe in self.probes.items()},
        )

    def flush(self) -> None:
        """Predict all states that wait."""
        if not self._waiting:
            return
        sizes = [len(rows) for _, rows in self._waiting]
        for name in self.probes:
            predicted = self._predict(name, sizes)
            for (n_tokens, rows), some in zip(self._waiting, predicted, strict=True):
                self.found[name][rows, n_tokens] = some
            self._states[name].clear()
        self._waiting.clear()
        self._n_bytes = 0

    def _predict(self, name: str, sizes: list[int]) -> list[NDArray[np.floating]]:
        """Predict waiting states with one probe; ``sizes`` are numbers of rows."""
        probe, states = self.probes[name], np.concatenate(self._states[name])
        if name not in self.streams:
            return np.split(probe.predict(states), np.cumsum(sizes)[:-1])
        # The stream read the prompts when it was started.
        batches = [rows for n_tokens, rows in self._waiting if n_tokens]
        n_prompts = sizes[0] if len(batches) < len(sizes) else 0
        first = [self.streams[name].current.copy()] if n_prompts else []
        if not batches:
            return first
        activations = probe.shape(states[n_prompts:])
        new = np.concatenate(batches)
        probe.require_finite(activations[self.streams[name].owns_answer[new]])
        return [*first, *self.streams[name].update(activations, batches)]

    def show(self, row: int, n_tokens: int) -> Probabilities:
        """Return the probabilities of a row after each of its first tokens."""
        return {
            name: found[row, 1 : 1 + n_tokens] for name, found in self.found.items()
        }

    def show_prompt(self, row: int) -> Probabilities:
        """Return the probabilities of the prompt of a row."""
        return {name: found[row, 0].copy() for name, found in self.found.items()}

    def _select(
        self, name: str, pooled: PooledTokens, rows: NDArray[np.intp]
    ) -> NDArray[np.float32]:
        """Select states of a probe, (n_rows, n_pairs, n_poolings, hidden_size)."""
        chosen = torch.from_numpy(rows).to(pooled.count.device)
        places = self.places[name]
        states = torch.stack(
            [
                pooled.pool(pooling)[chosen][:, places]
                for pooling in self.probes[name].poolings
            ],
            dim=2,
        )
        found: NDArray[np.float32] = states.float().cpu().numpy()
        found[(pooled.count[chosen] == 0).cpu().numpy()] = np.nan
        return found


class PieceDecoder:
    """Decodes an answer token by token. The pieces, joined, are its text.

    Some tokens are only some bytes of a character, and some tokenizers leave out the
    space before a first word. So each token is decoded after those before it.
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
