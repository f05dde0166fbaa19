"""Seed sampling without changing torch's global generators."""

import torch
from torch import Tensor


class Randomness:
    """Random numbers for sampling, drawn from a seed.

    ``generate`` draws from torch's global generators. Their states are replaced while a
    token is drawn, and restored after it. If ``seed`` is None, nothing is replaced.
    ``device`` is where tokens are drawn.
    """

    def __init__(self, seed: int | None, device: torch.device) -> None:
        self.seed = seed
        self.device = device
        self._own: list[Tensor] | None = None
        self._before: list[Tensor] | None = None

    def enter(self) -> None:
        """Replace the states of torch's generators by those of the seed."""
        if self.seed is None or self._before is not None:
            return
        self._before = self._get()
        if self._own is not None:
            self._set(self._own)
            return
        torch.default_generator.manual_seed(self.seed)
        if self.device.type == "cuda":
            with torch.cuda.device(self.device):
                torch.cuda.manual_seed(self.seed)
        elif self.device.type == "mps":
            torch.mps.manual_seed(self.seed)

    def leave(self) -> None:
        """Restore the states of torch's generators."""
        if self._before is None:
            return
        self._own = self._get()
        self._set(self._before)
        self._before = None

    def _get(self) -> list[Tensor]:
        states = [torch.get_rng_state()]
        if self.device.type == "cuda":
            states.append(torch.cuda.get_rng_state(self.device))
        elif self.device.type == "mps":
            states.append(torch.mps.get_rng_state())
        return states

    def _set(self, states: list[Tensor]) -> None:
        torch.set_rng_state(states[0])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(states[1], self.device)
        elif self.device.type == "mps":
            torch.mps.set_rng_state(states[1])
