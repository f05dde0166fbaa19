"""Fill rows of an array with the activations of texts.

Activations that a store holds are read from it. The others are computed by the model,
in several joblib workers if asked to.
"""

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import blake2b
from itertools import pairwise
from typing import Any

import joblib
import numpy as np
import torch
from numpy.typing import NDArray

from plug_sklearn._devices import resolve_device
from plug_sklearn._forks import make_lock
from plug_sklearn._warnings import warn_user
from plug_sklearn.embedding._language_model import LanguageModel, NumberedStates
from plug_sklearn.embedding._rows import cast_states, put_states, refuse_infinite
from plug_sklearn.embedding.models import find_registered
from plug_sklearn.embedding.passes import NonFiniteStatesError, Request, sort_prompts
from plug_sklearn.embedding.prompts import Conversation, Text, TokenizedPrompts
from plug_sklearn.embedding.store import ActivationStore

Numbers = NDArray[np.int64]

#: Pieces for each worker at least: so that none waits long for the last.
PIECES_A_WORKER = 4
#: Batches in a piece at most: so that its activations travel, and fit in memory.
_BATCHES_A_PIECE = 4
#: Characters of text claimed in a store at once, for each token of a batch: four make
#: a token, and two batches are a fair share.
_CHARACTERS_CLAIMED = 8
#: Texts whose reading without a store is remembered.
_MOST_SEEN = 100_000


@dataclass(frozen=True)
class EmbeddingJob:
    """Distinct texts, and the rows of an array to fill with their activations.

    Text n goes to ``out[rows[n]]``. The shape of ``out`` is (n, n_layers,
    n_parts * n_poolings, hidden_size); or (n,), of dtype object, where ``poolings`` is
    None and every token is kept. The activations have the type ``dtype``. ``n_jobs``
    are workers, as joblib counts them; with ``spread``, each chooses its own device.
    ``report`` is told how many texts are done, each time that some are.
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
            # What renders conversations is no matter for strings, which a store may
            # hold already.
            kinds = np.array([isinstance(text, Conversation) for text in self.texts])
            with ActivationStore(store) as opened:
                for kind in np.unique(kinds):
                    numbers = np.flatnonzero(kinds == kind)
                    texts = [self.texts[number] for number in numbers.tolist()]
                    job = replace(self, texts=texts, rows=self.rows[numbers])
                    job._run_with(opened)
            return
        # A store of every token is large, and rarely what the user wants.
        if self.poolings is not None:
            settings = (self.model.source, self.model.describe(), self.poolings)
            if note_repetition(self.texts, repr(settings)):
                warn_user(
                    "HFEmbeddingTransformer has read most of these texts before in this"
                    " process. With store='some/folder' it would read each text once."
                )
        asked = Request(self.layers, self.parts, self.poolings)
        batches = compute_in_jobs(
            self.model, self.texts, asked, self.n_jobs, self.spread
        )
        for numbers, states in batches:
            put_states(self.out, self.rows[numbers], states, self.dtype)
            self.report(len(numbers))

    def _run_with(self, store: ActivationStore) -> None:
        """Read what is held, compute what no one else does, and wait for the rest."""
        store.create()
        conversations = any(isinstance(text, Conversation) for text in self.texts)
        settings = self.model.register(store, conversations=conversations)
        digests = [digest_text(text) for text in self.texts]
        names = ("layers", "parts", "poolings")
        asked: dict[str, Any] = {name: getattr(self, name) for name in names}
        # Texts with a common beginning are claimed, and so computed, together.
        spelled = [text.encode() for text in self.texts]
        pending = np.array(sorted(range(len(digests)), key=spelled.__getitem__))
        while len(pending):
            wanted, rows = [digests[number] for number in pending], self.rows[pending]
            missing = store.read_into(
                settings, wanted, out=self.out, rows=rows, dtype=self.dtype, **asked
            )
            is_held = ~missing.any(axis=(1, 2))
            held = rows[is_held]
            refuse_infinite((self.out[row] for row in held), self.dtype, held)
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
                batches = compute_in_jobs(
                    self.model, texts, asked, self.n_jobs, self.spread
                )
                for places, states in batches:
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
        columns = [part * n_poolings + nth for part in parts for nth in poolings]
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
            cast = cast_states(np.asarray(states), self.dtype, rows)
            self.out[rows[:, None, None], layers, columns] = cast
            return
        shape = (len(self.layers), len(self.parts), self.model.geometry.hidden_size)
        for row, item in zip(rows, states, strict=True):
            if self.out[row] is None:
                self.out[row] = np.empty((len(item), *shape), dtype=self.dtype)
            (cast,) = cast_states(item[None], self.dtype, [row])
            self.out[row][:, layers, columns] = cast


def compute_in_jobs(
    model: LanguageModel,
    texts: Sequence[Text],
    asked: Request,
    n_jobs: int | None,
    spread: bool,
) -> Iterator[NumberedStates]:
    """Run distinct texts through the model, over the workers of joblib's backend.

    Texts become tokens here; the workers need the model, and nothing else of this
    process. Yields the numbers of some texts, shape (n,), and their activations, shape
    (n, n_layers, n_parts * n_poolings, hidden_size), which may be overwritten when the
    next are asked for; or a list of arrays of shape
    (n_tokens, n_layers, n_parts, hidden_size) where every token is kept.
    """
    model.check_model()
    n_workers = joblib.effective_n_jobs(n_jobs)
    # Other processes do not have a registered model.
    if n_workers == 1 or find_registered(model.source.name) is not None:
        yield from model.compute(texts, asked)
        return
    prompts = model.read_prompts(texts)
    most = _BATCHES_A_PIECE * model.batch_tokens
    pieces = cut_prompts(prompts, PIECES_A_WORKER * n_workers, most)
    tasks = (
        joblib.delayed(_compute_piece)(
            # One worker of many says why tries are not used, and none needs a cache.
            replace(model, verbose=model.verbose and number == 0),
            number,
            prompts.take(piece),
            asked,
            spread,
        )
        for number, piece in enumerate(pieces)
    )
    try:
        parallel = joblib.Parallel(n_jobs, return_as="generator_unordered")
    except ValueError:
        # Backends of multiprocessing's kind give all results at the end.
        parallel = joblib.Parallel(n_jobs)
    results: Iterable[tuple[int, Any]] = parallel(tasks)
    try:
        for number, states in results:
            yield pieces[number], states
    except NonFiniteStatesError as error:
        found = [texts[pieces[number][row]] for number, row in error.texts]
        raise NonFiniteStatesError(error.states, found) from None


def cut_prompts(
    prompts: TokenizedPrompts, n_pieces: int, most_tokens: int
) -> list[Numbers]:
    """Cut prompts into pieces of like work that keep shared prefixes together.

    Aims at ``n_pieces``; cuts more where a piece would have more than about
    ``most_tokens`` distinct prefixes. Gives the numbers of each piece's prompts; no
    piece is empty.
    """
    order, shared = sort_prompts(prompts)
    own = prompts.lengths[order] - shared
    # What all share is computed in each piece: it is no one's work, but has its price.
    n_common = int(shared[1:].min(initial=own[0]))
    own[0] -= n_common
    ends = np.cumsum(own)
    n_pieces = max(n_pieces, -(-int(ends[-1]) // most_tokens))
    if n_common:
        n_pieces = min(n_pieces, max(1, int(ends[-1]) // n_common))
    n_pieces = min(n_pieces, len(order))
    cuts = set()
    for number in range(1, n_pieces):
        # Of the places near an even cut, the one where the least is shared.
        near = ends[-1] * (number + np.array([-0.25, 0.25])) / n_pieces
        low, high = np.searchsorted(ends, near)
        window = shared[low + 1 : high + 2]
        if len(window):
            cuts.add(int(low) + 1 + int(window.argmin()))
    pieces: list[Numbers] = np.split(order, sorted(cuts))
    return pieces


def _compute_piece(
    model: LanguageModel,
    number: int,
    prompts: TokenizedPrompts,
    asked: Request,
    spread: bool,
) -> tuple[int, NDArray[np.float32] | list[NDArray[np.float32]]]:
    """Compute one piece, in a worker; its states are in the order of its prompts."""
    if spread:
        weights = replace(model.weights, device=find_worker_device())
        model = replace(model, weights=weights)
    states: dict[int, NDArray[np.float32]] = {}
    try:
        for places, values in model.run(prompts, asked):
            # Those of the next batch take the place of an array.
            kept = values.copy() if isinstance(values, np.ndarray) else values
            states |= zip(places.tolist(), kept, strict=True)
    except NonFiniteStatesError as error:
        raise error.rename([(number, row) for row in range(len(prompts))]) from None
    in_order = [states[place] for place in range(len(prompts))]
    return number, in_order if asked.poolings is None else np.stack(in_order)


@lru_cache(maxsize=1)
def find_worker_device() -> torch.device:
    """Choose a device for this worker process: of several cards, a free one."""
    device = resolve_device("auto", "HFEmbeddingTransformer")
    if device.type != "cuda":
        return device
    # Processes started by one parent are numbered from 1, loky's and dask's too.
    process: Any = multiprocessing.current_process()
    identity: tuple[int, ...] = process._identity
    worker = identity[-1] - 1 if identity else 0
    # A card with a model of another worker has less memory left.
    cards = range(torch.cuda.device_count())
    left = [torch.cuda.mem_get_info(card)[0] for card in cards]
    free = [card for card, memory in enumerate(left) if memory > 0.95 * max(left)]
    return torch.device("cuda", free[worker % len(free)])


def digest_text(text: Text) -> bytes:
    """Digest a text, as a store addresses it."""
    return blake2b(text.encode(), digest_size=16).digest()


#: Texts read without a store in this process, as digests; the oldest are forgotten.
_seen: dict[bytes, None] = {}
_hinted: list[bool] = []
_noting = make_lock()


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
