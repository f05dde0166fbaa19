"""The progress bars of transformers."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from transformers.utils import logging


@contextmanager
def hide_loading_bars() -> Iterator[None]:
    """Hide the bars that transformers shows while it loads weights.

    The bars of downloads are shown by the hub's client, and stay.
    """

    def hide(
        make: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:  # noqa: ANN401 - tqdm, or what stands in for it
        return make(*args, **{**kwargs, "disable": True})

    previous = logging.set_tqdm_hook(hide)
    try:
        yield
    finally:
        logging.set_tqdm_hook(previous)
