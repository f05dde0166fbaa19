"""Plot the calibration of a probe: 80% of predictions of 80% should be true.

Run ``python examples/is_it_calibrated.py``.
"""

from functools import partial
from pathlib import Path

from setting import load_statements, make_embedder, make_folds, make_linear_probe, run

from plug_sklearn import (
    ReliabilityDisplay,
    bootstrap_interval,
    cross_validation_report,
    expected_calibration_error,
)


def main(out: Path, model: str | None = None, n_pairs: int | None = None) -> None:
    """Measure and plot the calibration of a weakly and a strongly regularised probe."""
    statements = load_statements(n_pairs)
    y, groups = statements["label"], statements["group"]
    activations = make_embedder(out, model).fit_transform(statements["statement"])
    X = activations[:, 2 * activations.shape[1] // 3, 0]  # a layer two thirds up
    # The error of the probability of "true", which the diagram shows.
    measure = partial(expected_calibration_error, method="positive")
    found, axes = [], None
    for C in (1.0, 0.01):
        probe = make_linear_probe().set_params(
            logisticregression__C=C, logisticregression__max_iter=1000
        )
        report = cross_validation_report(
            probe, X, y, cv=make_folds(), groups=groups, scoring="roc_auc"
        )
        probabilities = report.predictions["proba_1"]
        interval = bootstrap_interval(
            measure, y, probabilities, groups=groups, random_state=0
        )
        rank = report.overall.loc["roc_auc", "pooled"]
        print(f"C = {C}: ROC-AUC {rank:.3f}, calibration error {interval}")
        display = ReliabilityDisplay.from_predictions(
            y, probabilities, name=f"C = {C}", ax=axes
        )
        axes = display.ax_
        found.append(probabilities)
    difference = bootstrap_interval(
        measure, y, found[0], other=found[1], groups=groups, random_state=0
    )
    print("Difference in error, on the same resamples of facts:", difference)
    axes.set(title="Is it calibrated? Better, if regularised more")
    axes.figure.savefig(out / "is_it_calibrated.png")


if __name__ == "__main__":
    run(main, __doc__)
