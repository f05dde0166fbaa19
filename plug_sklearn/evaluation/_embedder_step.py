"""Split off the embedder of a pipeline, which runs once for all fits."""

from typing import Any

from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline

from plug_sklearn.evaluation._inputs import check_estimator


def split_pipeline(
    pipeline: Any,  # noqa: ANN401 - anything else is refused
    owner: str,
    parameter: str = "pipeline",
) -> tuple[Any, BaseEstimator]:
    """Split a pipeline into its embedder, or None, and the steps after it."""
    check_estimator(pipeline, owner, parameter)
    if not isinstance(pipeline, Pipeline) or not is_embedder(pipeline.steps[0][1]):
        return None, pipeline
    if len(pipeline.steps) < 2:
        raise ValueError(
            f"The {parameter!r} parameter of {owner} must have a classifier after its "
            "embedder. Got the embedder alone."
        )
    return pipeline.steps[0][1], pipeline[1:]


def is_embedder(estimator: object) -> bool:
    """Return whether an estimator is an :class:`HFEmbeddingTransformer`."""
    # Other estimators need no torch, which takes seconds to import.
    names = {kind.__name__ for kind in type(estimator).__mro__}
    if "HFEmbeddingTransformer" not in names:
        return False
    from plug_sklearn.embedding import HFEmbeddingTransformer

    return isinstance(estimator, HFEmbeddingTransformer)
