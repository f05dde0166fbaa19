"""Warnings that point at the line of the user's code that led to them."""

import sys
import sysconfig
import warnings
from types import FrameType

#: Libraries that call this package on the user's behalf, and this package itself.
_CALLERS = frozenset({"imblearn", "joblib", "plug_sklearn", "sklearn", "skorch"})
_STANDARD_LIBRARY = sysconfig.get_path("stdlib")
_INSTALLED = ("site-packages", "dist-packages")


def warn_user(message: str, category: type[Warning] = UserWarning) -> None:
    """Issue a warning at the innermost line that the user wrote.

    A pipeline or a search puts scikit-learn's frames between the user's line and
    ours, and how many differs by release: a fixed ``stacklevel`` would show a line
    inside scikit-learn.

    Parameters
    ----------
    message : str
        What to say.
    category : type of Warning, default=UserWarning
        Class of the warning.
    """
    frame = _find_user_frame(sys._getframe())
    warnings.warn_explicit(
        message,
        category,
        filename=frame.f_code.co_filename,
        lineno=frame.f_lineno,
        module=frame.f_globals.get("__name__"),
        registry=frame.f_globals.setdefault("__warningregistry__", {}),
    )


def _find_user_frame(frame: FrameType) -> FrameType:
    """Find the innermost frame that is no library's."""
    while _is_library(frame):
        if frame.f_back is None:
            # A worker process runs none of the user's own lines.
            break
        frame = frame.f_back
    return frame


def _is_library(frame: FrameType) -> bool:
    module = str(frame.f_globals.get("__name__", ""))
    if module.partition(".")[0] in _CALLERS:
        return True
    path = frame.f_code.co_filename
    if path.startswith("<frozen"):
        return True
    is_installed = any(folder in path for folder in _INSTALLED)
    return path.startswith(_STANDARD_LIBRARY) and not is_installed
