"""Distinct texts → rows of an array: through a store, by workers, or here and now."""

from collections.abc import Callable, Sequence
from functools import partial

import joblib
import numpy as np
from numpy.typing import NDArray

from plug_sklearn._warnings import warn_user
from plug_sklearn.embedding._jobs import PIECES_A_WORKER, compute_in_jobs
from plug_sklearn.embedding._language_model import LanguageModel
from plug_sklearn.embedding._memory import put_states
from plug_sklearn.embedding.models._adapter_files import find_adapter
from plug_sklearn.embedding.models._identity import identify_model
from plug_sklearn.embedding.prompts._conversations import Conversation, Text
from plug_sklearn.embedding.store._recall import Recall, note_repetition
from plug_sklearn.embedding.store._store import ActivationStore

#: Characters of text claimed in a store at once, for each token of a batch: four make
#: a token, and two batches are a fair share.
CHARACTERS_CLAIMED = 8


def fill_rows(
    model: LanguageModel,
    texts: Sequence[Text],
    out: NDArray[np.floating] | NDArray[np.object_],
    rows: NDArray[np.int64],
    layers: Sequence[int],
    parts: Sequence[str],
    *,
    store: str | None,
    n_jobs: int | None,
    spread: bool,
    report: Callable[[int], object],
    dtype: np.dtype[np.floating],
) -> None:
    """Fill rows of an array with the activations of texts.

    Parameters
    ----------
    model : LanguageModel
        What computes them.
    texts : sequence of str
        Distinct texts.
    out : ndarray of shape (n, n_layers, n_parts * n_poolings, hidden_size)
        What to fill; of shape (n,) and dtype object for arrays of token activations.
    rows : ndarray of shape (n_texts,), int64
        The row of each text.
    layers, parts : sequence
        What axes 1 and 2 hold.
    store : str or None
        Folder of a store to read and to add to.
    n_jobs : int or None
        Workers, as joblib counts them.
    spread : bool
        Whether each worker chooses its own device.
    report : callable
        Told how many texts are done, each time that some are.
    dtype : dtype
        What the activations become.
    """
    compute = partial(compute_in_jobs, model, n_jobs=n_jobs, spread=spread)
    if store is None:
        _hint_at_store(model, texts)
        for numbers, states in compute(texts, layers, parts):
            put_states(out, rows[numbers], states, dtype)
            report(len(numbers))
        return
    chunk = CHARACTERS_CLAIMED * model.batch_tokens
    n_workers = joblib.effective_n_jobs(n_jobs)
    if n_workers > 1:
        chunk *= PIECES_A_WORKER * n_workers
    with ActivationStore(store) as opened:
        settings = model.describe(
            conversations=any(isinstance(text, Conversation) for text in texts)
        )
        adapter = find_adapter(model.source, model.weights.adapter)
        if adapter is not None:
            settings["adapter"] = identify_model(adapter, opened.path)
        name = identify_model(model.source, opened.path)
        key = opened.register(name, **settings)
        recall = Recall(opened, key, layers, parts, compute, chunk)
        recall.fill(texts, out, rows, report)


def _hint_at_store(model: LanguageModel, texts: Sequence[Text]) -> None:
    if note_repetition(texts, repr((model.source, model.describe()))):
        warn_user(
            "HFEmbeddingTransformer has read most of these texts before in this "
            "process. With store='some/folder' it would read each text once."
        )
