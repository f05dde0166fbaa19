"""A fitted classifier → whether its width is the least or the most there is."""

from typing import Any

from plug_sklearn.classifiers._sizing import LEAST_CNN_CHANNELS, LEAST_MLP_UNITS


def find_width_limit(
    probe: Any,  # noqa: ANN401 - estimators of any kind
) -> str:
    """Tell which limit keeps the width of a network from following ``target_ratio``.

    Parameters
    ----------
    probe : estimator
        Fitted.

    Returns
    -------
    str
        ``"least"`` or ``"most"``, where ``sizing="heuristic"`` has given its first
        layer the fewest units or channels there are, or ``width_cap``; otherwise
        ``"none"``.
    """
    if getattr(probe, "sizing", None) != "heuristic":
        return "none"
    sizes = probe.net_.get_params_for("module")
    is_cnn = "n_layers" in sizes
    if sizes["first"] <= (LEAST_CNN_CHANNELS if is_cnn else LEAST_MLP_UNITS):
        return "least"
    return "most" if sizes["first"] >= probe.width_cap else "none"
