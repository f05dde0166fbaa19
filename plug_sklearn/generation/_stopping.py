"""Decide when an answer ends: by probabilities, or by the criteria of ``generate``."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import (
    EosTokenCriteria,
    MaxLengthCriteria,
    MaxTimeCriteria,
    StoppingCriteria,
    StopStringCriteria,
)

from plug_sklearn.generation._probes import Probe

Probabilities = dict[str, NDArray[np.floating]]
Stop = Mapping[str, float] | Callable[[Probabilities], bool]

#: The reason that each stopping criterion means. If several apply, the first counts.
_CRITERIA: tuple[tuple[type[StoppingCriteria], str], ...] = (
    (EosTokenCriteria, "eos"),
    (StopStringCriteria, "stop_strings"),
    (StoppingCriteria, "stopping_criteria"),
    (MaxTimeCriteria, "max_time"),
    (MaxLengthCriteria, "length"),
)
#: Values of ``stopped_by`` that are not names of probes.
REASONS = ("stop", *(reason for _, reason in _CRITERIA))


class StopRule:
    """Decides after each new token whether the answer to one prompt ends.

    ``stop`` is as in :func:`generate_with_probes`, and ``owner`` is the name of the
    function in messages.
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
                "by the names of probes, a callable, or a list with one of these for "
                f"each prompt. Got {stop!r} instead."
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


def read_stops(
    stop: object, n_prompts: int, probes: Mapping[str, Probe], owner: str
) -> list[StopRule]:
    """Make the rule of each prompt, from one rule for all or a list of rules."""
    if not isinstance(stop, list | tuple):
        return [StopRule(stop, probes, owner)] * n_prompts
    if len(stop) != n_prompts:
        raise ValueError(
            f"The 'stop' parameter of {owner} must hold one rule for each of the "
            f"{n_prompts} prompts if it is a list. Got {len(stop)} instead."
        )
    return [StopRule(rule, probes, owner) for rule in stop]


@dataclass(eq=False)
class DelayedCriteria(StoppingCriteria):
    """Stopping criteria that run each row for one more pass, to read its last token.

    ``advance`` takes the last token of each row and the reason for which ``criteria``
    end the row with it, or None. It returns which rows are over.
    """

    criteria: Sequence[StoppingCriteria]
    advance: Callable[[list[int], list[str | None]], list[bool]]
    #: If a criterion has this attribute, ``generate`` pads the rows that are over.
    eos_token_id: Tensor | None = None

    def __call__(
        self,
        input_ids: Tensor,
        scores: Any,  # noqa: ANN401 - what generate has of them
        **kwargs: Any,  # noqa: ANN401 - what generate adds
    ) -> Tensor:
        """Return which rows are over."""
        n_rows = len(input_ids)
        found: dict[str, Tensor] = {}
        for criterion in self.criteria:
            done = torch.as_tensor(criterion(input_ids, scores, **kwargs))
            reason = _name_reason(criterion)
            done = done.expand(n_rows).cpu()
            found[reason] = found[reason] | done if reason in found else done
        reasons: list[str | None] = [None] * n_rows
        for _, reason in reversed(_CRITERIA):
            if reason in found:
                for row in found[reason].nonzero().flatten().tolist():
                    reasons[row] = reason
        over = self.advance(input_ids[:, -1].tolist(), reasons)
        return torch.tensor(over, device=input_ids.device)


def _name_reason(criterion: object) -> str:
    for kind, reason in _CRITERIA:
        if kind is not StoppingCriteria and isinstance(criterion, kind):
            return reason
    return "stopping_criteria"
