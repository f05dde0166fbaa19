"""Probes → numbers and pictures: where, how well, how surely, and which better.

``_layer_sweep``, with ``_layer_scores``; ``_layer_sweep_display``
    Scores of each layer and part.
``_training_history``, ``_training_curves``
    Losses and scores by epoch.
``_report``, with ``_report_predictions``, ``_report_scores`` and ``_report_files``
    Out-of-fold probabilities and scores, and the files of a run.
``_comparison``, with ``_paired_scores``
    Whether one probe is better than another.
``_capacity``, ``_capacity_display``
    Scores and parameters against the budget.
``_calibration``, with ``_bins`` and ``_probabilities``; ``_reliability_display``
    Calibration errors and Brier scores, and the diagram.
``_bootstrap``
    A metric → the interval that chance in the choice of rows leaves it.
``_folds``
    What all of these share: folds that are split once, and scores on them.
``_tables``
    Tables of scores: their columns, and whether they are what a display draws.
``_drawing``, with ``_wording`` and ``_styles``
    Axes and legends, words, colours.
"""

from plug_sklearn.evaluation._bootstrap import BootstrapInterval, bootstrap_interval
from plug_sklearn.evaluation._calibration import (
    brier_score,
    calibration_bins,
    expected_calibration_error,
)
from plug_sklearn.evaluation._capacity import capacity_curve
from plug_sklearn.evaluation._capacity_display import CapacityCurveDisplay
from plug_sklearn.evaluation._comparison import compare_probes
from plug_sklearn.evaluation._layer_sweep import layer_sweep
from plug_sklearn.evaluation._layer_sweep_display import LayerSweepDisplay
from plug_sklearn.evaluation._paired_scores import ProbeComparison, compare_scores
from plug_sklearn.evaluation._reliability_display import ReliabilityDisplay
from plug_sklearn.evaluation._report import (
    CrossValidationReport,
    cross_validation_report,
)
from plug_sklearn.evaluation._training_curves import TrainingCurveDisplay
from plug_sklearn.evaluation._training_history import training_history

__all__ = [
    "BootstrapInterval",
    "CapacityCurveDisplay",
    "CrossValidationReport",
    "LayerSweepDisplay",
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
    "training_history",
]
