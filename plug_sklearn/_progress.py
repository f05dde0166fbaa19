"""Progress bars for terminals and notebooks."""

from collections.abc import Iterable, Iterator
from typing import Any, NoReturn, TypeVar

from sklearn.utils.parallel import Parallel
from tqdm.auto import tqdm

Step = TypeVar("Step")


def show_progress(
    total: int, description: str, unit: str, *, delay: float = 0.0
) -> "tqdm[NoReturn]":
    """Open a progress bar of ``total`` steps, to be closed by the caller.

    It appears after ``delay`` seconds, and not at all if it is closed before.

    It is on standard error, or in a notebook. Output to a file or a pipe has no bar,
    since each step would be a line.
    """
    in_notebook = any(base.__module__ == "tqdm.notebook" for base in tqdm.__mro__)
    # None makes tqdm show the bar on terminals only, which a notebook is not.
    disable = False if in_notebook else None
    return tqdm(total=total, desc=description, unit=unit, disable=disable, delay=delay)


def run_jobs(
    jobs: list[Any], *, n_jobs: int | None, unit: str, verbose: bool
) -> list[Any]:
    """Run joblib's delayed calls, with a progress bar of fits if ``verbose``.

    Gives their results in order.
    """
    try:
        parallel = Parallel(n_jobs, return_as="generator" if verbose else "list")
    except ValueError:
        # Backends of multiprocessing's kind give all results at the end.
        parallel = Parallel(n_jobs)
    return list(count_fits(parallel(jobs), len(jobs), unit, shown=verbose))


def count_fits(
    steps: Iterable[Step], total: int, unit: str, *, shown: bool
) -> Iterator[Step]:
    """Iterate over steps, with a progress bar of fits if ``shown``."""
    if not shown:
        yield from steps
        return
    with show_progress(total, "Fitting", unit) as progress:
        for step in steps:
            yield step
            progress.update()
