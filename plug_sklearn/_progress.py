"""Progress bars for terminals and notebooks."""

from typing import NoReturn

from tqdm.auto import tqdm


def show_progress(total: int, description: str, unit: str) -> "tqdm[NoReturn]":
    """Open a progress bar of ``total`` steps, to be closed by the caller.

    It is on standard error, or in a notebook. Output to a file or a pipe has no bar,
    since each step would be a line.
    """
    in_notebook = any(base.__module__ == "tqdm.notebook" for base in tqdm.__mro__)
    # None makes tqdm show the bar on terminals only, which a notebook is not.
    disable = False if in_notebook else None
    return tqdm(total=total, desc=description, unit=unit, disable=disable)
