"""Activations from the store where it holds them, and from the model where not."""

from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from plug_sklearn._forks import make_lock
from plug_sklearn.embedding.store._store import ActivationStore

Numbers = NDArray[np.int64]
States = NDArray[np.float32]

#: Computes some layers and parts of texts: yields their numbers, and their states.
Compute = Callable[
    [Sequence[str], Sequence[int], Sequence[str]], Iterator[tuple[Numbers, States]]
]


def digest_text(text: str) -> bytes:
    """Digest a text, as the store addresses it."""
    # A lone surrogate is no text to a tokenizer, but it can be told from others.
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


class Recall:
    """Fills an array with the activations of texts, each computed once over all users.

    Parameters
    ----------
    store : ActivationStore
        Where activations are kept.
    settings : bytes
        The store's key of the model and its settings.
    layers, parts : sequence
        What to fill axes 1 and 2 with.
    compute : callable
        Computes what the store does not hold.
    chunk : int
        Characters of text to claim at once: others may compute the rest meanwhile.
    """

    def __init__(
        self,
        store: ActivationStore,
        settings: bytes,
        layers: Sequence[int],
        parts: Sequence[str],
        compute: Compute,
        chunk: int,
    ) -> None:
        self.store = store
        self.settings = settings
        self.layers = np.array(layers)
        self.parts = np.array(parts)
        self.compute = compute
        self.chunk = chunk

    def fill(
        self,
        texts: Sequence[str],
        out: States,
        rows: Numbers,
        report: Callable[[int], object],
    ) -> None:
        """Fill rows of an array.

        Parameters
        ----------
        texts : sequence of str
            Distinct texts.
        out : ndarray of shape (n, n_layers, n_parts, hidden_size), float32
            What to fill.
        rows : ndarray of shape (n_texts,), int64
            The row of each text.
        report : callable
            Told how many texts are done, each time that some are.
        """
        digests = [digest_text(text) for text in texts]
        # Texts with a common beginning are claimed, and so computed, together.
        pending = np.array(sorted(range(len(texts)), key=texts.__getitem__))
        while len(pending):
            missing = self._read(digests, pending, out, rows)
            report(int((~missing.any(axis=(1, 2))).sum()))
            held = ~missing.any(axis=(1, 2))
            pending, missing = pending[~held], missing[~held]
            others = []
            for span in self._cut([len(texts[number]) for number in pending]):
                mine = self._claim(digests, pending[span])
                others.append(pending[span][~mine])
                claimed = pending[span][mine]
                self._compute(texts, digests, claimed, missing[span][mine], out, rows)
                report(len(claimed))
            pending = np.concatenate(others) if others else pending
            if len(pending):
                self.store.wait(self.settings, [digests[n] for n in pending])

    def _read(
        self, digests: Sequence[bytes], numbers: Numbers, out: States, rows: Numbers
    ) -> NDArray[np.bool_]:
        return self.store.read_into(
            self.settings,
            [digests[number] for number in numbers],
            self.layers.tolist(),
            self.parts.tolist(),
            out,
            rows[numbers],
        )

    def _claim(self, digests: Sequence[bytes], numbers: Numbers) -> NDArray[np.bool_]:
        return self.store.claim(
            self.settings,
            [digests[number] for number in numbers],
            self.layers.tolist(),
            self.parts.tolist(),
        )

    def _cut(self, lengths: Sequence[int]) -> list[slice]:
        """Cut texts into spans of about a chunk."""
        chunks = np.cumsum(lengths) // self.chunk
        cuts = [0, *(np.flatnonzero(np.diff(chunks)) + 1), len(chunks)]
        return [slice(a, b) for a, b in pairwise(cuts) if a < b]

    def _compute(
        self,
        texts: Sequence[str],
        digests: Sequence[bytes],
        claimed: Numbers,
        missing: NDArray[np.bool_],
        out: States,
        rows: Numbers,
    ) -> None:
        """Compute claimed texts, write them, and give up on the others on an error."""
        written: set[int] = set()
        try:
            # Texts that lack the same layers and parts run together.
            patterns, kinds = np.unique(missing, axis=0, return_inverse=True)
            for kind, pattern in enumerate(patterns):
                numbers = claimed[kinds.ravel() == kind]
                layers, parts = pattern.any(axis=1), pattern.any(axis=0)
                for places, states in self.compute(
                    [texts[number] for number in numbers],
                    self.layers[layers].tolist(),
                    self.parts[parts].tolist(),
                ):
                    kept = self.store.write(
                        self.settings,
                        [digests[number] for number in numbers[places]],
                        self.layers[layers].tolist(),
                        self.parts[parts].tolist(),
                        states,
                    )
                    out[np.ix_(rows[numbers[places]], layers, parts)] = kept
                    written.update(numbers[places].tolist())
        finally:
            left = [digests[n] for n in claimed.tolist() if n not in written]
            if left:
                self.store.release(self.settings, left)


#: Texts read without a store in this process, as digests; the oldest are forgotten.
_SEEN: dict[bytes, None] = {}
_MOST_SEEN = 100_000
_HINTED: list[bool] = []
_NOTING = make_lock()


def note_repetition(texts: Sequence[str], settings: str) -> bool:
    """Note texts that are read without a store; True, once, where most were before."""
    if _HINTED:
        return False
    start = blake2b(settings.encode(), digest_size=16).digest()
    digests = [start + digest_text(text) for text in texts[:_MOST_SEEN]]
    with _NOTING:
        n_seen = sum(digest in _SEEN for digest in digests)
        _SEEN.update(dict.fromkeys(digests))
        while len(_SEEN) > _MOST_SEEN:
            del _SEEN[next(iter(_SEEN))]
        if _HINTED or n_seen <= len(digests) / 2:
            return False
        _HINTED.append(True)
        _SEEN.clear()
        return True
