"""Read what a language model knows from its hidden states, with scikit-learn.

Each sub-package is one step:

``embedding``
    Texts → activations: :class:`HFEmbeddingTransformer`.
``features``
    Activations → features: :class:`LayerAggregator`.
``classifiers``
    Features → probabilities: :class:`PlugStackClassifier`,
    :class:`PlugMLPClassifier` and :class:`PlugCNNClassifier`; features of tokens →
    probabilities: :class:`PlugTokenClassifier`.
``evaluation``
    Scores, comparisons and pictures of probes.
``generation``
    Probabilities after each token that a model writes: :func:`generate_with_probes`.
``persistence``
    Save fitted estimators in files that are safe to load.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plug_sklearn.classifiers import (
        PlugCNNClassifier,
        PlugMLPClassifier,
        PlugStackClassifier,
        PlugTokenClassifier,
    )
    from plug_sklearn.embedding import HFEmbeddingTransformer
    from plug_sklearn.evaluation import (
        BestLayerClassifier,
        BootstrapInterval,
        CapacityCurveDisplay,
        ControlsDisplay,
        CrossValidationReport,
        LayerSweepDisplay,
        ProbeComparison,
        ProbeDirection,
        ReliabilityDisplay,
        TokenScoresDisplay,
        TrainingCurveDisplay,
        TransferDisplay,
        bootstrap_interval,
        brier_score,
        calibration_bins,
        capacity_curve,
        check_pipeline,
        compare_probes,
        compare_scores,
        cross_validation_report,
        expected_calibration_error,
        layer_sweep,
        probe_controls,
        probe_direction,
        recall_at_fpr,
        score_tokens,
        summarize_layers,
        threshold_at_fpr,
        training_history,
        transfer_matrix,
    )
    from plug_sklearn.features import (
        LayerAggregator,
        load_npz_features,
        save_npz_features,
    )
    from plug_sklearn.generation import (
        GenerationDisplay,
        ProbedText,
        ProbedToken,
        generate_with_probes,
        stream_with_probes,
    )
    from plug_sklearn.persistence import load_artifacts, push_to_hub, save_artifacts

__version__ = "0.1.0"
__all__ = [
    "BestLayerClassifier",
    "BootstrapInterval",
    "CapacityCurveDisplay",
    "ControlsDisplay",
    "CrossValidationReport",
    "GenerationDisplay",
    "HFEmbeddingTransformer",
    "LayerAggregator",
    "LayerSweepDisplay",
    "PlugCNNClassifier",
    "PlugMLPClassifier",
    "PlugStackClassifier",
    "PlugTokenClassifier",
    "ProbeComparison",
    "ProbeDirection",
    "ProbedText",
    "ProbedToken",
    "ReliabilityDisplay",
    "TokenScoresDisplay",
    "TrainingCurveDisplay",
    "TransferDisplay",
    "bootstrap_interval",
    "brier_score",
    "calibration_bins",
    "capacity_curve",
    "check_pipeline",
    "compare_probes",
    "compare_scores",
    "cross_validation_report",
    "expected_calibration_error",
    "generate_with_probes",
    "layer_sweep",
    "load_artifacts",
    "load_npz_features",
    "probe_controls",
    "probe_direction",
    "push_to_hub",
    "recall_at_fpr",
    "save_artifacts",
    "save_npz_features",
    "score_tokens",
    "stream_with_probes",
    "summarize_layers",
    "threshold_at_fpr",
    "training_history",
    "transfer_matrix",
]

# Each name imports its sub-package when it is first used: torch, transformers and
# skorch take seconds to import, and not every user needs all of them.
_SUBPACKAGES = {
    **dict.fromkeys(__all__, "evaluation"),
    "GenerationDisplay": "generation",
    "HFEmbeddingTransformer": "embedding",
    "LayerAggregator": "features",
    "PlugCNNClassifier": "classifiers",
    "PlugMLPClassifier": "classifiers",
    "PlugStackClassifier": "classifiers",
    "PlugTokenClassifier": "classifiers",
    "ProbedText": "generation",
    "ProbedToken": "generation",
    "generate_with_probes": "generation",
    "load_artifacts": "persistence",
    "load_npz_features": "features",
    "push_to_hub": "persistence",
    "save_artifacts": "persistence",
    "save_npz_features": "features",
    "stream_with_probes": "generation",
}


def __getattr__(name: str) -> object:
    if name in _SUBPACKAGES:
        return getattr(import_module(f"plug_sklearn.{_SUBPACKAGES[name]}"), name)
    raise AttributeError(f"module 'plug_sklearn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
