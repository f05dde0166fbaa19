"""Probes while the model writes.

``_generate``
    :func:`generate_with_probes` and :func:`stream_with_probes`.
``_results``
    What they give: :class:`ProbedText` and :class:`ProbedToken`.
``_display``
    An answer as a picture: :class:`GenerationDisplay`.
``_job``, ``_options``, ``_stopping``, ``_reporting``, ``_threads``
    One call: its parameters, checked; its batches; its tokens, in a thread.
``_probes``, ``_token_probes``, ``_judging``
    Fitted pipelines of one model; those that read every token; what they say.
``_writing``, ``_randomness``, ``_trial``
    The model's own ``generate``, observed; its random numbers; whether what is observed
    is exact.
``_counted_tokens``, ``_running_pools``, ``_pieces``
    Which tokens are pooled, and their states so far; what each token adds to the text.
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
