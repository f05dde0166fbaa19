"""Decide by the probabilities of probes when an answer ends."""

from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plug_sklearn.generation._probes import Probe

Probabilities = dict[str, NDArray[np.floating]]
Stop = Mapping[str, float] | Callable[[Probabilities], bool]

#: Values of ``stopped_by`` that are not names of probes.
REASONS = ("eos", "length", "stop", "stop_strings", "max_time", "stopping_criteria")


class StopRule:
    """Decides after each new token whether the answer to one prompt ends.

    ``stop`` is as in :func:`generate_with_probes`, and ``owner`` is the name of the
    function in messages. Raises a TypeError or ValueError if ``stop`` is invalid.
    """

    def __init__(self, stop: Any, probes: Mapping[str, Probe], owner: str) -> None:  # noqa: ANN401 - validated here
        self.owner = owner
        self.thresholds: dict[str, float] = {}
        self.callable: Callable[[Probabilities], bool] | None = None
        if callable(stop):
            self.callable = stop
        elif isinstance(stop, Mapping) and stop:
            for name, threshold in stop.items():
                self._check(name, threshold, probes, owner)
                self.thresholds[name] = float(threshold)
        elif stop is not None:
            raise TypeError(
                f"The 'stop' parameter of {owner} must be None, a dict of thresholds "
                f"by the names of probes, or a callable. Got {stop!r} instead."
            )

    def __bool__(self) -> bool:
        return bool(self.thresholds) or self.callable is not None

    def decide(self, probabilities: Probabilities) -> str | None:
        """Return why an answer ends, or None if it continues.

        ``probabilities`` holds those of each probe after each token so far.
        """
        for name, threshold in self.thresholds.items():
            if probabilities[name][-1, -1] >= threshold:
                return name
        if self.callable is None:
            return None
        ends = self.callable(probabilities)
        if not isinstance(ends, bool | np.bool_):
            raise TypeError(
                f"The 'stop' parameter of {self.owner} must be a callable that returns "
                f"True or False. Got {ends!r} from it instead."
            )
        return "stop" if ends else None

    @staticmethod
    def _check(
        name: str, threshold: object, probes: Mapping[str, Probe], owner: str
    ) -> None:
        if name not in probes:
            raise ValueError(
                f"The 'stop' parameter of {owner} must name probes among "
                f"{sorted(probes)}. Got {name!r} instead."
            )
        is_number = isinstance(threshold, Real) and not isinstance(threshold, bool)
        if not is_number or not 0 <= float(threshold) <= 1:  # type: ignore[arg-type]  # it is a number
            raise ValueError(
                f"The 'stop' parameter of {owner} must give a probability in [0, 1] "
                f"for the probe {name!r}. Got {threshold!r} instead."
            )
        n_classes = len(probes[name].classes)
        if n_classes != 2:
            raise ValueError(
                f"The 'stop' parameter of {owner} must be a callable for the probe "
                f"{name!r}, which has {n_classes} classes: a threshold is for the "
                f"second of two. Got {threshold!r} instead."
            )
