"""Progress bars, shown where somebody can watch them."""

from typing import NoReturn

from tqdm.auto import tqdm


def show_progress(total: int, description: str, unit: str) -> "tqdm[NoReturn]":
    """Open a progress bar on standard error, or in a notebook.

    Output that goes to a file or a pipe gets no bar: there, each step of it would be a
    line.

    Parameters
    ----------
    total : int
        Steps until all is done.
    description : str
        What is being done.
    unit : str
        What one step is.

    Returns
    -------
    tqdm
        The bar, to be closed by the caller; hidden where nobody can watch it.
    """
    in_notebook = any(base.__module__ == "tqdm.notebook" for base in tqdm.__mro__)
    # None is tqdm's word for "only on a terminal", and a notebook is none.
    disable = False if in_notebook else None
    return tqdm(total=total, desc=description, unit=unit, disable=disable)
