"""Installed packages: optional ones, and versions in the pickles of estimators."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from plug_sklearn._warnings import warn_user

#: Packages whose versions can change predictions.
PACKAGES = ("plug_sklearn", "scikit-learn", "torch", "transformers")
#: The packages of each extra, by their names in import statements.
EXTRAS = {
    "adapters": ("peft",),
    "gguf": ("gguf", "accelerate"),
    "multi-gpu": ("accelerate",),
    "plots": ("matplotlib",),
    "quantization": ("accelerate", "bitsandbytes"),
}


def require_extra(extra: str, user: str) -> None:
    """Raise an ImportError, which names ``user``, if a package of an extra is missing.

    The message says how to install the extra.
    """
    missing = [package for package in EXTRAS[extra] if find_spec(package) is None]
    if missing:
        names = " and ".join(missing)
        are = "which is" if len(missing) == 1 else "which are"
        raise ImportError(
            f"{user} needs {names}, {are} not installed. Run 'pip install "
            f"{' '.join(missing)}', or install plug_sklearn with its extra [{extra}].",
            name=missing[0],
        )


class ProvenanceWarning(UserWarning):
    """Warning that an estimator was fitted with another model or package version."""


@cache
def list_versions() -> dict[str, str]:
    """Return the versions of ``PACKAGES``, by name.

    Builds of one version, such as torch's for CUDA, have the same entry.
    """
    found = {package: find_version(package) for package in PACKAGES}
    return {
        package: number.partition("+")[0]
        for package, number in found.items()
        if number is not None
    }


def find_version(package: str) -> str | None:
    """Return the version of a package; None for a copy that is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


class RecordsVersions:
    """Mixin of estimators that stores versions in pickles, and compares them."""

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
        # Without the name of the estimator, Python shows it once for a whole pipeline.
        warn_user(
            f"Pickled with {', '.join(differing)}: predictions may differ. Fit again, "
            "or load the pickle with the same versions.",
            ProvenanceWarning,
        )
