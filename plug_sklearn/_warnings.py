"""Warnings that show the line of the user's code that caused them."""

import sys
import sysconfig
import warnings
from types import FrameType

#: This package, and libraries that call it.
_CALLERS = frozenset({"imblearn", "joblib", "plug_sklearn", "sklearn", "skorch"})
_STANDARD_LIBRARY = sysconfig.get_path("stdlib")
_INSTALLED = ("site-packages", "dist-packages")


def warn_user(message: str, category: type[Warning] = UserWarning) -> None:
    """Issue a warning at the innermost line of the user's code.

    A pipeline or a search puts a number of scikit-learn's frames between the user's
    line and this package. The number differs by release, so that a fixed ``stacklevel``
    would show a line of scikit-learn.
    """
    frame = sys._getframe()
    # A worker process runs no lines of the user's code.
    while _is_library(frame) and frame.f_back is not None:
        frame = frame.f_back
    warnings.warn_explicit(
        message,
        category,
        filename=frame.f_code.co_filename,
        lineno=frame.f_lineno,
        module=frame.f_globals.get("__name__"),
        registry=frame.f_globals.setdefault("__warningregistry__", {}),
    )


def _is_library(frame: FrameType) -> bool:
    """Return whether a frame does not belong to the user's code."""
    module = str(frame.f_globals.get("__name__", ""))
    if module.partition(".")[0] in _CALLERS:
        return True
    path = frame.f_code.co_filename
    if path.startswith("<frozen"):
        return True
    is_installed = any(folder in path for folder in _INSTALLED)
    return path.startswith(_STANDARD_LIBRARY) and not is_installed
