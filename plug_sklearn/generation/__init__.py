"""Run fitted probes while a language model writes.

``_generate``
    :func:`generate_with_probes` and :func:`stream_with_probes`.
``_display``
    :class:`GenerationDisplay`, a picture of an answer.
``_job``, ``_options``, ``_stopping``
    One call of these functions: check its arguments, write the prompts batch by batch,
    and decide when an answer ends.
``_probes``
    The fitted pipelines.
``_predictions``
    Their probabilities after each token, as :class:`ProbedText` and
    :class:`ProbedToken`.
``_writing``
    Run the model's own ``generate`` with hooks, and test whether these read exact
    states.
``_running_pools``
    Which tokens are pooled, and their pooled states so far.
"""

from plug_sklearn.generation._display import GenerationDisplay
from plug_sklearn.generation._generate import generate_with_probes, stream_with_probes
from plug_sklearn.generation._predictions import ProbedText, ProbedToken

__all__ = [
    "GenerationDisplay",
    "ProbedText",
    "ProbedToken",
    "generate_with_probes",
    "stream_with_probes",
]
