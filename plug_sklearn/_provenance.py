"""What made a fitted estimator: the versions of the packages, kept in its pickle."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from plug_sklearn._warnings import warn_user

#: Those that decide what a fitted estimator gives.
PACKAGES = ("plug_sklearn", "scikit-learn", "torch", "transformers")


class ProvenanceWarning(UserWarning):
    """What a fitted estimator was made with is not what is here."""


@cache
def list_versions() -> dict[str, str]:
    """List the versions of the packages that decide what an estimator gives.

    Returns
    -------
    dict of str
        By name. Builds of one version, such as torch's for CUDA, are the same.
    """
    found = {package: find_version(package) for package in PACKAGES}
    return {
        package: number.partition("+")[0]
        for package, number in found.items()
        if number is not None
    }


def find_version(package: str) -> str | None:
    """Find the version of a package; None for a copy that was never installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


class RecordsVersions:
    """A mixin for estimators: versions go into pickles, and are compared on loading."""

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()  # type: ignore[assignment]  # scikit-learn's
        return {**state, "_versions": dict(list_versions())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        _compare(state.pop("_versions", {}))
        super().__setstate__(state)  # type: ignore[misc]  # scikit-learn's


def _compare(recorded: dict[str, str]) -> None:
    here = list_versions()
    differing = [
        f"{package} {recorded.get(package, 'unknown')} (here {here[package]})"
        for package in here
        if recorded.get(package) != here[package]
    ]
    if differing:
        # The text names no estimator: Python shows it once for a whole pipeline.
        warn_user(
            f"Pickled with {', '.join(differing)}: predictions may differ. Fit again, "
            "or load it where the versions are the same.",
            ProvenanceWarning,
        )
