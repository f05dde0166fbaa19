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
    warnings.warn(message, category, stacklevel=_find_stack_level())


def _find_stack_level() -> int:
    """Count the frames from ``warn_user`` out to the user's own."""
    frame: FrameType | None = sys._getframe(1)
    level = 1
    while frame is not None and _is_library(frame):
        frame, level = frame.f_back, level + 1
    # A worker process runs none of the user's code: its outermost frame is as good.
    return level if frame is not None else level - 1


def _is_library(frame: FrameType) -> bool:
    module = str(frame.f_globals.get("__name__", ""))
    if module.partition(".")[0] in _CALLERS:
        return True
    path = frame.f_code.co_filename
    if path.startswith("<frozen"):
        return True
    is_installed = any(folder in path for folder in _INSTALLED)
    return path.startswith(_STANDARD_LIBRARY) and not is_installed
