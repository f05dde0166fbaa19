"""Compute the activations of texts, in several joblib workers if asked to."""

import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import joblib
import numpy as np
import torch
from numpy.typing import NDArray

from plug_sklearn._devices import resolve_device
from plug_sklearn.embedding._language_model import Batch, LanguageModel
from plug_sklearn.embedding.passes import NonFiniteStatesError, Request, sort_prompts
from plug_sklearn.embedding.prompts import Text, TokenizedPrompts

Numbers = NDArray[np.int64]

#: Pieces for each worker at least: so that none waits long for the last.
PIECES_A_WORKER = 4
#: Batches in a piece at most: so that its activations travel, and fit in memory.
_BATCHES_A_PIECE = 4


def compute_in_jobs(
    model: LanguageModel,
    texts: Sequence[Text],
    asked: Request,
    *,
    n_jobs: int | None,
    spread: bool,
) -> Iterator[Batch]:
    """Run distinct texts through the model, over the workers of joblib's backend.

    Texts become tokens here; the workers need the model, and nothing else of this
    process. Yields the numbers of some texts, shape (n,), and their activations, shape
    (n, n_layers, n_parts * n_poolings, hidden_size), which may be overwritten when the
    next are asked for; or a list of arrays of shape
    (n_tokens, n_layers, n_parts, hidden_size) where every token is kept.
    """
    model.check_model()
    n_workers = joblib.effective_n_jobs(n_jobs)
    if n_workers == 1 or model.is_registered:
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
        low, high = np.searchsorted(
            ends, ends[-1] * (number + np.array([-0.25, 0.25])) / n_pieces
        )
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
    left = [
        torch.cuda.mem_get_info(card)[0] for card in range(torch.cuda.device_count())
    ]
    free = [card for card, memory in enumerate(left) if memory > 0.95 * max(left)]
    return torch.device("cuda", free[worker % len(free)])
