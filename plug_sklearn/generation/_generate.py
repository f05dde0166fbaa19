"""Let a language model write, and ask probes about every new token."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from numpy.random import RandomState
from sklearn.pipeline import Pipeline

from plug_sklearn.generation._job import Job
from plug_sklearn.generation._results import ProbedText, ProbedToken
from plug_sklearn.generation._stopping import Stop
from plug_sklearn.generation._threads import iterate


def generate_with_probes(
    prompts: Any,  # noqa: ANN401 - any container of texts
    probes: Pipeline | Mapping[str, Pipeline],
    *,
    max_new_tokens: int,
    stop: Stop | None = None,
    generation_kwargs: Mapping[str, Any] | None = None,
    random_state: int | RandomState | None = None,
    batch_size: int = 32,
) -> list[ProbedText]:
    """Let the model that probes read write answers, and ask the probes meanwhile.

    After each new token, the probabilities are those that the pipeline would give for
    the tokens of the prompt and the answer so far, if they were a text of ``X``. The
    model writes with its own ``generate``, and each token goes through it once.

    Parameters
    ----------
    prompts : list, tuple, 1-D array, Series, datasets column, pyarrow array or \
one-column frame
        Strings or conversations, as the probes' embedder takes them. What its chat
        template writes ends with the opening of the answer.
    probes : Pipeline or dict of str to Pipeline
        Fitted pipelines from texts to probabilities. Their embedders read the same
        model with the same settings of prompts; layers, parts and poolings may differ.
    max_new_tokens : int
        The most tokens of an answer.
    stop : dict of str to float or callable, default=None
        What ends an answer. A dict gives thresholds by the names of probes of two
        classes; an answer ends with the token after which the probability of the
        second class reaches one. A callable is given a dict of the probabilities
        after each token so far, arrays of shape (n_new_tokens, n_classes), and says
        whether the answer ends. Other answers go on.
    generation_kwargs : dict, default=None
        Options of ``generate``, such as ``{"do_sample": True, "temperature": 0.7}``.
        Those that run the model on tokens that are not in the answer, such as beams,
        are refused.
    random_state : int, RandomState or None, default=None
        Seed of sampling. An integer draws what ``generate`` draws after
        ``torch.manual_seed``, and leaves torch's generators as they were. None draws
        from these.
    batch_size : int, default=32
        Prompts that are written to at the same time.

    Returns
    -------
    list of ProbedText
        One for each prompt.

    Raises
    ------
    TypeError, ValueError
        If a parameter is not as described; the model has no language-model head; or
        its states are not the same while it writes as for a text.
    FloatingPointError
        If states overflow their dtype.

    See Also
    --------
    stream_with_probes : Yields token by token.
    GenerationDisplay : Shows an answer and its probabilities.

    Notes
    -----
    Which tokens of the prompt and the answer are pooled is what the embedder's
    ``pool_over``, ``roles``, ``token_filter`` and ``eos_token`` say. The answer is
    a part of the text, whatever template stands around it. Where ``roles`` are given,
    it is the assistant's.

    A probe whose embedder keeps every token (``pooling=None``) must end in a classifier
    that goes on from token to token, and its prompts are read once more.

    Without ``stop``, the probes are asked about many tokens at once, which costs less.

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
    return list(job.write())


def stream_with_probes(
    prompts: Any,  # noqa: ANN401 - any container of texts
    probes: Pipeline | Mapping[str, Pipeline],
    *,
    max_new_tokens: int,
    stop: Stop | None = None,
    generation_kwargs: Mapping[str, Any] | None = None,
    random_state: int | RandomState | None = None,
    batch_size: int = 32,
) -> Iterator[ProbedToken]:
    """Do what :func:`generate_with_probes` does, and yield each token when it is there.

    The model writes in a thread of its own, one token ahead of what is taken. Close the
    iterator, or leave it, to end it early.

    Parameters
    ----------
    prompts : list, tuple, 1-D array, Series, datasets column, pyarrow array or \
one-column frame
        Strings or conversations.
    probes : Pipeline or dict of str to Pipeline
        Fitted pipelines from texts to probabilities, of one model.
    max_new_tokens : int
        The most tokens of an answer.
    stop : dict of str to float or callable, default=None
        What ends an answer.
    generation_kwargs : dict, default=None
        Options of ``generate``.
    random_state : int, RandomState or None, default=None
        Seed of sampling.
    batch_size : int, default=32
        Prompts that are written to at the same time.

    Returns
    -------
    iterator of ProbedToken
        Token by token, those of several prompts by turns. The last token of each
        prompt says why its answer ends.

    Raises
    ------
    TypeError, ValueError
        If a parameter is not as described, at once; other errors come with the first
        token.

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

    def produce(hand_out: Callable[[ProbedToken], None]) -> None:
        for _ in job.write(hand_out):
            pass

    return iterate(produce)
