"""Evaluation of probes, as tables of numbers and as pictures.

``_layer_sweep``, ``_layer_fits``
    Scores of a probe on each layer and part. MLPs of a sweep are trained together.
``_layer_choice``
    Choose a layer by these scores.
``_report``, ``_report_fits``, ``_report_scores``, ``_report_files``, ``_report_page``
    Cross-validation with out-of-fold probabilities, scores and files.
``_controls``, ``_control_inputs``
    Compare a probe with controls, such as words and shuffled labels.
``_transfer``, ``_transfer_display``
    Train a probe on each of several data sets, and test it on each.
``_directions``
    The direction that a probe reads, in the hidden space of the model.
``_operating_points``
    Thresholds that flag few negative samples, and the recall at these thresholds.
``_training_curves``
    Losses and scores by epoch.
``_capacity``
    Scores and sizes of a probe for several budgets of parameters.
``_calibration``, ``_reliability``
    Calibration errors and Brier scores; reliability diagrams.
``_token_scores``, ``_token_display``
    Probabilities for each token: as a table, as HTML and as a picture.
``_check_pipeline``
    Check a pipeline with its texts and labels, before the model reads any text.
``_comparison``
    Test whether one of two probes is better.
``_bootstrap``
    Bootstrap intervals.
``_folds``, ``_inputs``, ``_drawing``
    What these share: cross-validation on fixed folds; checks of estimators, samples,
    labels and probabilities; axes, legends and styles.
"""

from plug_sklearn.evaluation._bootstrap import BootstrapInterval, bootstrap_interval
from plug_sklearn.evaluation._calibration import (
    brier_score,
    calibration_bins,
    expected_calibration_error,
)
from plug_sklearn.evaluation._capacity import CapacityCurveDisplay, capacity_curve
from plug_sklearn.evaluation._check_pipeline import check_pipeline
from plug_sklearn.evaluation._comparison import (
    ProbeComparison,
    compare_probes,
    compare_scores,
)
from plug_sklearn.evaluation._controls import ControlsDisplay, probe_controls
from plug_sklearn.evaluation._directions import ProbeDirection, probe_direction
from plug_sklearn.evaluation._layer_choice import BestLayerClassifier, summarize_layers
from plug_sklearn.evaluation._layer_sweep import LayerSweepDisplay, layer_sweep
from plug_sklearn.evaluation._operating_points import recall_at_fpr, threshold_at_fpr
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
from plug_sklearn.evaluation._transfer import transfer_matrix
from plug_sklearn.evaluation._transfer_display import TransferDisplay

__all__ = [
    "BestLayerClassifier",
    "BootstrapInterval",
    "CapacityCurveDisplay",
    "ControlsDisplay",
    "CrossValidationReport",
    "LayerSweepDisplay",
    "ProbeComparison",
    "ProbeDirection",
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
    "layer_sweep",
    "probe_controls",
    "probe_direction",
    "recall_at_fpr",
    "score_tokens",
    "summarize_layers",
    "threshold_at_fpr",
    "training_history",
    "transfer_matrix",
]
