"""Let a language model write while probes read every new token."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from queue import Queue
from typing import Any

import sklearn
from numpy.random import RandomState
from sklearn.pipeline import Pipeline

from plug_sklearn.generation._job import Job
from plug_sklearn.generation._predictions import ProbedText, ProbedToken
from plug_sklearn.generation._stopping import Stop


def generate_with_probes(
    prompts: Any,  # noqa: ANN401 - any container of texts
    probes: Pipeline | Mapping[str, Pipeline],
    *,
    max_new_tokens: int,
    stop: Stop | Sequence[Stop | None] | None = None,
    generation_kwargs: Mapping[str, Any] | None = None,
    random_state: int | RandomState | None = None,
    batch_size: int = 32,
) -> list[ProbedText]:
    """Generate answers with a language model, and run probes on every new token.

    After each new token, each probe gives the same probabilities as its pipeline would
    give for a text that consists of the prompt and the answer so far. The model writes
    with its own ``generate`` method. Each new token goes through the model once.

    Parameters
    ----------
    prompts : list, tuple, 1-D array, Series, datasets column, pyarrow array or \
one-column frame
        Strings or conversations, as in ``fit`` of the probes' embedder. Prompts that
        the chat template writes end with the header of the assistant's turn, so that
        the model begins its answer.
    probes : Pipeline or dict of str to Pipeline
        One or more fitted pipelines from texts to probabilities. Their embedders must
        read the same model and must make prompts in the same way. Their layers, parts
        and poolings may differ. A single pipeline is named ``"probe"``.
    max_new_tokens : int
        Largest number of tokens in an answer.
    stop : dict of str to float, callable or list of these, default=None
        When to stop an answer early. A dict maps the name of a probe with two classes
        to a threshold: the answer ends with the first token after which the probability
        of the second class is at least the threshold. A callable takes a dict with, for
        each probe, the probabilities after each token so far, an array of shape
        (n_new_tokens, n_classes); it returns True to end the answer. It is called for
        each answer separately, so that the other answers continue. A list holds a
        dict, a callable or None for each prompt.
    generation_kwargs : dict, default=None
        Options of ``generate``, such as ``{"do_sample": True, "temperature": 0.7}``.
        Options that run the model on tokens that are not in the answer, such as beam
        search, are refused.
    random_state : int, RandomState or None, default=None
        Seed of sampling. An integer gives the same answers as ``generate`` after
        ``torch.manual_seed``, but leaves torch's global generators unchanged. None uses
        these generators.
    batch_size : int, default=32
        Number of prompts that are answered at the same time.

    Returns
    -------
    list of ProbedText
        One for each prompt.

    Raises
    ------
    TypeError, ValueError
        If a parameter is not as described, if the model has no language-model head, or
        if its states while it writes differ from those of the same tokens in a text.
    FloatingPointError
        If hidden states overflow their dtype.

    See Also
    --------
    stream_with_probes : Yields one token after another.
    GenerationDisplay : Shows an answer and its probabilities.

    Notes
    -----
    The embedder's ``pool_over``, ``roles``, ``token_filter`` and ``eos_token`` decide
    which tokens of the prompt and the answer are pooled. The answer belongs to the text
    and not to a template. If ``roles`` are given, it counts as a message of the
    assistant.

    If the embedder of a probe keeps every token (``pooling=None``), the pipeline must
    end in a classifier that can be updated token by token, such as
    :class:`PlugTokenClassifier`. The prompts then go through the model a second time.

    Without ``stop``, each probe predicts many tokens at once, which is faster.

    Examples
    --------
    >>> from plug_sklearn import generate_with_probes
    >>> answers = generate_with_probes(  # doctest: +SKIP
    ...     ["The capital of Peru is"],
    ...     pipeline,
    ...     max_new_tokens=20,
    ...     stop={"probe": 0.9},
    ... )
    >>> answers[0].text, answers[0].stopped_by  # doctest: +SKIP
    (' Lima, and', 'probe')
    """
    job = Job(
        "generate_with_probes",
        prompts,
        probes,
        max_new_tokens,
        stop,
        generation_kwargs,
        random_state,
        batch_size,
    )
    return job.write()


def stream_with_probes(
    prompts: Any,  # noqa: ANN401 - any container of texts
    probes: Pipeline | Mapping[str, Pipeline],
    *,
    max_new_tokens: int,
    stop: Stop | Sequence[Stop | None] | None = None,
    generation_kwargs: Mapping[str, Any] | None = None,
    random_state: int | RandomState | None = None,
    batch_size: int = 32,
) -> Iterator[ProbedToken]:
    """Generate answers as :func:`generate_with_probes` does, but yield each token.

    The model writes in a separate thread, at most one token ahead of the token that was
    last taken from the iterator. To stop early, close the iterator or drop it.

    Parameters
    ----------
    prompts : list, tuple, 1-D array, Series, datasets column, pyarrow array or \
one-column frame
        Strings or conversations.
    probes : Pipeline or dict of str to Pipeline
        One or more fitted pipelines that read the same model.
    max_new_tokens : int
        Largest number of tokens in an answer.
    stop : dict of str to float, callable or list of these, default=None
        When to stop an answer early.
    generation_kwargs : dict, default=None
        Options of ``generate``.
    random_state : int, RandomState or None, default=None
        Seed of sampling. While the writing thread draws a token, torch's global
        generators have this seed's state; their own is restored after each token.
    batch_size : int, default=32
        Number of prompts that are answered at the same time.

    Returns
    -------
    iterator of ProbedToken
        The tokens, as they are written. The tokens of prompts in one batch alternate.
        ``stopped_by`` of the last token of each answer says why the answer ended.

    Raises
    ------
    TypeError, ValueError
        If a parameter is not as described. Errors in parameters are raised by the call,
        and other errors when the next token is taken.

    See Also
    --------
    generate_with_probes : Returns whole answers; describes the parameters.

    Examples
    --------
    >>> from plug_sklearn import stream_with_probes
    >>> for token in stream_with_probes(  # doctest: +SKIP
    ...     ["The capital of Peru is"], pipeline, max_new_tokens=20
    ... ):
    ...     print(token.token, token.probabilities["probe"])
    """
    job = Job(
        "stream_with_probes",
        prompts,
        probes,
        max_new_tokens,
        stop,
        generation_kwargs,
        random_state,
        batch_size,
    )
    return _write_in_thread(job)


class _Cancelled(BaseException):
    """Ends the writing. No ``except Exception`` catches it."""


def _write_in_thread(job: Job) -> Iterator[ProbedToken]:
    """Write in a separate thread, which waits until each token is taken."""
    # The last item is the error that ended the writing, or None.
    items: Queue[ProbedToken | BaseException | None] = Queue(maxsize=1)
    is_cancelled = threading.Event()
    # Each thread has its own scikit-learn settings.
    settings = sklearn.get_config()

    def hand_out(token: ProbedToken) -> None:
        items.put(token)
        if is_cancelled.is_set():
            raise _Cancelled

    def write() -> None:
        error: BaseException | None = None
        try:
            with sklearn.config_context(**settings):
                job.write(hand_out)
        except _Cancelled:
            pass
        except BaseException as raised:
            error = raised
        items.put(error)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    has_ended = False
    try:
        while isinstance(item := items.get(), ProbedToken):
            yield item
        has_ended = True
        if item is not None:
            raise item
    finally:
        is_cancelled.set()
        while not has_ended:
            has_ended = not isinstance(items.get(), ProbedToken)
        thread.join()
