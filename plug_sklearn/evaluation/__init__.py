"""Evaluation of probes, as tables of numbers and as pictures.

``_layer_sweep``, ``_layer_scores``, ``_layer_sweep_display``
    Scores of a probe on each layer and part.
``_report``, ``_report_fits``, ``_report_scores``, ``_report_files``
    Cross-validation with out-of-fold probabilities, scores and files.
``_training_curves``
    Losses and scores by epoch.
``_capacity``, ``_capacity_display``
    Scores and sizes of a probe for several budgets of parameters.
``_calibration``, ``_reliability``
    Calibration errors and Brier scores; reliability diagrams.
``_token_scores``, ``_token_display``
    What a pipeline makes of each token: a table; HTML and a picture.
``_check_pipeline``
    Whether a pipeline fits its texts and labels, before any text is computed.
``_comparison``
    Whether one of two probes is better.
``_bootstrap``
    Bootstrap intervals.
``_folds``, ``_probabilities``, ``_drawing``
    What these share: cross-validation on fixed folds; checks of labels and
    probabilities; axes, legends and styles.
"""

from plug_sklearn.evaluation._bootstrap import BootstrapInterval, bootstrap_interval
from plug_sklearn.evaluation._calibration import (
    brier_score,
    calibration_bins,
    expected_calibration_error,
)
from plug_sklearn.evaluation._capacity import capacity_curve
from plug_sklearn.evaluation._capacity_display import CapacityCurveDisplay
from plug_sklearn.evaluation._check_pipeline import check_pipeline
from plug_sklearn.evaluation._comparison import (
    ProbeComparison,
    compare_probes,
    compare_scores,
)
from plug_sklearn.evaluation._layer_sweep import layer_sweep
from plug_sklearn.evaluation._layer_sweep_display import LayerSweepDisplay
from plug_sklearn.evaluation._reliability import ReliabilityDisplay
from plug_sklearn.evaluation._report import (
    CrossValidationReport,
    cross_validation_report,
)
from plug_sklearn.evaluation._token_display import TokenScoresDisplay
from plug_sklearn.evaluation._token_scores import score_tokens
from plug_sklearn.evaluation._training_curves import (
    TrainingCurveDisplay,
    training_history,
)

__all__ = [
    "BootstrapInterval",
    "CapacityCurveDisplay",
    "CrossValidationReport",
    "LayerSweepDisplay",
    "ProbeComparison",
    "ReliabilityDisplay",
    "TokenScoresDisplay",
    "TrainingCurveDisplay",
    "bootstrap_interval",
    "brier_score",
    "calibration_bins",
    "capacity_curve",
    "check_pipeline",
    "compare_probes",
    "compare_scores",
    "cross_validation_report",
    "expected_calibration_error",
    "layer_sweep",
    "score_tokens",
    "training_history",
]
