"""Activations → features.

``_aggregator``
    :class:`LayerAggregator`, the estimator.
"""

from plug_sklearn.features._aggregator import LayerAggregator

__all__ = ["LayerAggregator"]
