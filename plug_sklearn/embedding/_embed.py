"""Fill rows of an array with the activations of texts.

Activations that a store holds are read from it. The others are computed by the model.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray

from plug_sklearn._forks import make_lock
from plug_sklearn._warnings import warn_user
from plug_sklearn.embedding._embed_jobs import PIECES_A_WORKER, compute_in_jobs
from plug_sklearn.embedding._language_model import Batch, LanguageModel
from plug_sklearn.embedding._memory import cast_states, put_states, require_finite
from plug_sklearn.embedding.passes import Request
from plug_sklearn.embedding.prompts import (
    Conversation,
    Text,
)
from plug_sklearn.embedding.store import (
    ActivationStore,
)

Numbers = NDArray[np.int64]

#: Characters of text claimed in a store at once, for each token of a batch: four make
#: a token, and two batches are a fair share.
_CHARACTERS_CLAIMED = 8
#: Texts whose reading without a store is remembered.
_MOST_SEEN = 100_000


@dataclass(frozen=True)
class EmbeddingJob:
    """Distinct texts, and the rows of an array to fill with their activations.

    Attributes
    ----------
    model : LanguageModel
        What computes them.
    texts : sequence of str or Conversation
        Distinct texts.
    layers : tuple of int
        What axis 1 holds.
    parts, poolings : tuple of str
        What axis 2 holds: each part under each pooling. None for ``poolings`` keeps
        every token.
    out : ndarray of shape (n, n_layers, n_parts * n_poolings, hidden_size)
        What to fill; of shape (n,) and dtype object for arrays of token activations.
    dtype : dtype
        Type of the activations.
    rows : ndarray of shape (n_texts,), int64
        The row of each text.
    n_jobs : int or None
        Workers, as joblib counts them.
    spread : bool
        Whether each worker chooses its own device.
    report : callable
        Told how many texts are done, each time that some are.
    """

    model: LanguageModel
    texts: Sequence[Text]
    layers: tuple[int, ...]
    parts: tuple[str, ...]
    poolings: tuple[str, ...] | None
    out: NDArray[Any]
    dtype: np.dtype[np.floating]
    rows: Numbers
    n_jobs: int | None
    spread: bool
    report: Callable[[int], object]

    def run(self, store: str | None) -> None:
        """Fill the rows, through a store if its folder is given."""
        if store is not None:
            with ActivationStore(store) as opened:
                self._run_with(opened)
            return
        _hint_at_store(self.model, self.texts, self.poolings)
        asked = Request(self.layers, self.parts, self.poolings)
        for numbers, states in self._compute(self.texts, asked):
            put_states(self.out, self.rows[numbers], states, self.dtype)
            self.report(len(numbers))

    def _run_with(self, store: ActivationStore) -> None:
        """Read what is held, compute what no one else does, and wait for the rest."""
        store.create()
        settings = self.model.register(
            store,
            conversations=any(isinstance(text, Conversation) for text in self.texts),
        )
        digests = [digest_text(text) for text in self.texts]
        asked: dict[str, Any] = {
            "layers": self.layers,
            "parts": self.parts,
            "poolings": self.poolings,
        }
        # Texts with a common beginning are claimed, and so computed, together.
        spelled = [text.encode() for text in self.texts]
        pending = np.array(sorted(range(len(digests)), key=spelled.__getitem__))
        while len(pending):
            wanted = [digests[number] for number in pending]
            missing = store.read_into(
                settings,
                wanted,
                out=self.out,
                rows=self.rows[pending],
                dtype=self.dtype,
                **asked,
            )
            is_held = ~missing.any(axis=(1, 2))
            require_finite(self.out, self.rows[pending[is_held]], self.dtype)
            self.report(int(is_held.sum()))
            pending, missing = pending[~is_held], missing[~is_held]
            of_others = [pending[:0]]
            for span in self._cut(pending):
                wanted = [digests[number] for number in pending[span]]
                is_mine = store.claim(settings, wanted, **asked)
                claimed = pending[span][is_mine]
                self._compute_claimed(
                    store, settings, digests, claimed, missing[span][is_mine]
                )
                self.report(len(claimed))
                of_others.append(pending[span][~is_mine])
            pending = np.concatenate(of_others)
            if len(pending):
                store.wait(settings, [digests[number] for number in pending])

    def _cut(self, numbers: Numbers) -> list[slice]:
        """Cut texts into spans to claim at once: others may compute the rest."""
        chunk = _CHARACTERS_CLAIMED * self.model.batch_tokens
        n_workers = joblib.effective_n_jobs(self.n_jobs)
        if n_workers > 1:
            chunk *= PIECES_A_WORKER * n_workers
        chunks = np.cumsum([len(self.texts[number]) for number in numbers]) // chunk
        cuts = [0, *(np.flatnonzero(np.diff(chunks)) + 1), len(chunks)]
        return [slice(a, b) for a, b in pairwise(cuts) if a < b]

    def _compute_claimed(
        self,
        store: ActivationStore,
        settings: bytes,
        digests: Sequence[bytes],
        claimed: Numbers,
        missing: NDArray[np.bool_],
    ) -> None:
        """Compute claimed texts and write them; on an error, release the others."""
        left = set(claimed.tolist())
        try:
            # Texts that lack the same layers, parts and poolings run together.
            patterns, kinds = np.unique(missing, axis=0, return_inverse=True)
            for kind, pattern in enumerate(patterns):
                numbers = claimed[kinds.ravel() == kind]
                asked, where = self._ask(pattern)
                texts = [self.texts[number] for number in numbers]
                for places, states in self._compute(texts, asked):
                    done = numbers[places]
                    kept = store.write(
                        settings,
                        [digests[number] for number in done],
                        asked.layers,
                        asked.parts,
                        states,
                        poolings=asked.poolings,
                    )
                    self._put(self.rows[done], where, kept)
                    left.difference_update(done.tolist())
        finally:
            if left:
                store.release(settings, [digests[number] for number in left])

    def _ask(self, missing: NDArray[np.bool_]) -> tuple[Request, tuple[Any, ...]]:
        """Ask for what is missing of one text, shape (n_layers, n_parts * n_poolings).

        Gives also where it goes, as an index into these two axes.
        """
        n_poolings = len(self.poolings or (None,))
        lacks = missing.reshape(len(self.layers), len(self.parts), n_poolings)
        layers, parts, poolings = (
            np.flatnonzero(lacks.any(axis=tuple({0, 1, 2} - {axis}))).tolist()
            for axis in range(3)
        )
        asked = Request(
            tuple(self.layers[layer] for layer in layers),
            tuple(self.parts[part] for part in parts),
            self.poolings and tuple(self.poolings[pooling] for pooling in poolings),
        )
        columns = [
            part * n_poolings + pooling for part in parts for pooling in poolings
        ]
        return asked, np.ix_(layers, columns)

    def _put(
        self,
        rows: Numbers,
        where: tuple[Any, ...],
        states: NDArray[np.float32] | list[NDArray[np.float32]],
    ) -> None:
        """Put states of some texts where they go."""
        layers, columns = where
        if self.poolings is not None:
            cast = cast_states(np.asarray(states), self.dtype)
            self.out[rows[:, None, None], layers, columns] = cast
            return
        shape = (len(self.layers), len(self.parts), self.model.geometry.hidden_size)
        for row, item in zip(rows, states, strict=True):
            if self.out[row] is None:
                self.out[row] = np.empty((len(item), *shape), dtype=self.dtype)
            self.out[row][:, layers, columns] = cast_states(item, self.dtype)

    def _compute(self, texts: Sequence[Text], asked: Request) -> Iterator[Batch]:
        return compute_in_jobs(
            self.model, texts, asked, n_jobs=self.n_jobs, spread=self.spread
        )


def digest_text(text: Text) -> bytes:
    """Digest a text, as a store addresses it."""
    return blake2b(text.encode(), digest_size=16).digest()


#: Texts read without a store in this process, as digests; the oldest are forgotten.
_seen: dict[bytes, None] = {}
_hinted: list[bool] = []
_noting = make_lock()


def _hint_at_store(
    model: LanguageModel, texts: Sequence[Text], poolings: Sequence[str] | None
) -> None:
    # A store of every token is large, and rarely what the user wants.
    if poolings is None:
        return
    settings = repr((model.source, model.describe(), poolings))
    if note_repetition(texts, settings):
        warn_user(
            "HFEmbeddingTransformer has read most of these texts before in this "
            "process. With store='some/folder' it would read each text once."
        )


def note_repetition(texts: Sequence[Text], settings: str) -> bool:
    """Note texts that are read without a store; True, once, where most were before."""
    if _hinted:
        return False
    start = blake2b(settings.encode(), digest_size=16).digest()
    digests = [start + digest_text(text) for text in texts[:_MOST_SEEN]]
    with _noting:
        n_seen = sum(digest in _seen for digest in digests)
        _seen.update(dict.fromkeys(digests))
        while len(_seen) > _MOST_SEEN:
            del _seen[next(iter(_seen))]
        if _hinted or n_seen <= len(digests) / 2:
            return False
        _hinted.append(True)
        _seen.clear()
        return True
