"""Read what a language model knows from its hidden states, with scikit-learn.

Each sub-package is one step:

``embedding``
    Activations from texts: :class:`HFEmbeddingTransformer`.
``features``
    Features from activations: :class:`LayerAggregator`.
``classifiers``
    Probabilities from features: :class:`PlugMLPClassifier` and
    :class:`PlugCNNClassifier`; from those of tokens: :class:`PlugTokenClassifier`.
``evaluation``
    Scores, comparisons and pictures of probes.
``persistence``
    Files of fitted estimators that are safe to load.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plug_sklearn.classifiers import (
        PlugCNNClassifier,
        PlugMLPClassifier,
        PlugTokenClassifier,
    )
    from plug_sklearn.embedding import HFEmbeddingTransformer
    from plug_sklearn.evaluation import (
        BootstrapInterval,
        CapacityCurveDisplay,
        CrossValidationReport,
        LayerSweepDisplay,
        ProbeComparison,
        ReliabilityDisplay,
        TrainingCurveDisplay,
        bootstrap_interval,
        brier_score,
        calibration_bins,
        capacity_curve,
        compare_probes,
        compare_scores,
        cross_validation_report,
        expected_calibration_error,
        layer_sweep,
        training_history,
    )
    from plug_sklearn.features import (
        LayerAggregator,
        load_npz_features,
        save_npz_features,
    )
    from plug_sklearn.persistence import load_artifacts, save_artifacts

__version__ = "0.1.0"
__all__ = [
    "BootstrapInterval",
    "CapacityCurveDisplay",
    "CrossValidationReport",
    "HFEmbeddingTransformer",
    "LayerAggregator",
    "LayerSweepDisplay",
    "PlugCNNClassifier",
    "PlugMLPClassifier",
    "PlugTokenClassifier",
    "ProbeComparison",
    "ReliabilityDisplay",
    "TrainingCurveDisplay",
    "bootstrap_interval",
    "brier_score",
    "calibration_bins",
    "capacity_curve",
    "compare_probes",
    "compare_scores",
    "cross_validation_report",
    "expected_calibration_error",
    "layer_sweep",
    "load_artifacts",
    "load_npz_features",
    "save_artifacts",
    "save_npz_features",
    "training_history",
]

# Each name imports its sub-package when it is first used: torch, transformers and
# skorch take seconds to import, and not every user needs all of them.
_SUBPACKAGES = {
    "BootstrapInterval": "evaluation",
    "CapacityCurveDisplay": "evaluation",
    "CrossValidationReport": "evaluation",
    "HFEmbeddingTransformer": "embedding",
    "LayerAggregator": "features",
    "LayerSweepDisplay": "evaluation",
    "PlugCNNClassifier": "classifiers",
    "PlugMLPClassifier": "classifiers",
    "PlugTokenClassifier": "classifiers",
    "ProbeComparison": "evaluation",
    "ReliabilityDisplay": "evaluation",
    "TrainingCurveDisplay": "evaluation",
    "bootstrap_interval": "evaluation",
    "brier_score": "evaluation",
    "calibration_bins": "evaluation",
    "capacity_curve": "evaluation",
    "compare_probes": "evaluation",
    "compare_scores": "evaluation",
    "cross_validation_report": "evaluation",
    "expected_calibration_error": "evaluation",
    "layer_sweep": "evaluation",
    "load_artifacts": "persistence",
    "load_npz_features": "features",
    "save_artifacts": "persistence",
    "save_npz_features": "features",
    "training_history": "evaluation",
}


def __getattr__(name: str) -> object:
    if name in _SUBPACKAGES:
        return getattr(import_module(f"plug_sklearn.{_SUBPACKAGES[name]}"), name)
    raise AttributeError(f"module 'plug_sklearn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
