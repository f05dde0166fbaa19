"""Run fitted probes while a language model writes.

``_generate``
    :func:`generate_with_probes` and :func:`stream_with_probes`.
``_results``
    The objects they return: :class:`ProbedText` and :class:`ProbedToken`.
``_display``
    :class:`GenerationDisplay`, a picture of an answer.
``_job``, ``_options``, ``_stopping``, ``_reporting``, ``_background``
    One call of these functions: check its arguments, write the prompts batch by batch,
    decide when an answer ends, and yield tokens from a thread.
``_probes``, ``_token_probes``, ``_predictions``
    The fitted pipelines: check them, run those that read every token, and compute the
    probabilities after each token.
``_writing``, ``_randomness``, ``_trial``
    Run the model's own ``generate`` with hooks, seed its sampling, and test whether the
    hooks read exact states.
``_counted_tokens``, ``_running_pools``, ``_pieces``
    Which tokens are pooled, their pooled states so far, and the text of each token.
"""

from plug_sklearn.generation._display import GenerationDisplay
from plug_sklearn.generation._generate import generate_with_probes, stream_with_probes
from plug_sklearn.generation._results import ProbedText, ProbedToken

__all__ = [
    "GenerationDisplay",
    "ProbedText",
    "ProbedToken",
    "generate_with_probes",
    "stream_with_probes",
]
