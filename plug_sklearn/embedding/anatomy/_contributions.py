"""Find which modules of a block add to its residual stream, from one trace of it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from plug_sklearn.embedding.anatomy._tracing import Call, Trace

# Sums of a few terms in the model's own precision are off by a few units of rounding.
_ROUNDING_UNITS = 8
#: Additions to follow within one block.
_MOST_ADDITIONS = 6
#: Numbers of each tensor that are compared first.
_N_SAMPLED = 64
#: How far a scale that is fitted may be from the one that is named.
_SCALE_TOLERANCE = 1e-5
#: The least factor of a stream that goes on.
_LEAST_KEPT = 1e-3


@dataclass(frozen=True)
class Contributions:
    """The modules that add to the residual stream of one block.

    ``paths`` lead to them in the block, in the order in which they are added.
    ``scales`` maps paths to attributes of the block that scale the outputs of these
    modules. If ``rescaled``, a norm or a scale comes between additions or after the
    last one, so that the block's output is not the sum of its input and the
    contributions.
    """

    paths: tuple[str, ...] = ()
    scales: Mapping[str, str] = field(default_factory=dict)
    rescaled: bool = False


def find_contributions(trace: Trace) -> Contributions | None:
    """Follow the residual stream through a block, addition by addition.

    The stream is known where a module takes it. It changes when outputs of modules are
    added, when a norm replaces it, and when a constant scales it. The result is None if
    the block's output is not reached.
    """
    return _Search(trace).run()


class _Search:
    def __init__(self, trace: Trace) -> None:
        dtype = trace.given.dtype
        self.exact = torch.promote_types(dtype, torch.float64)
        self.rounding = _ROUNDING_UNITS * torch.finfo(dtype).eps
        self.start, self.end = self._flatten(trace.taken), self._flatten(trace.given)
        # Most combinations are ruled out on a few of the numbers.
        generator = torch.Generator().manual_seed(0)
        drawn = torch.randint(len(self.end), (_N_SAMPLED,), generator=generator)
        self.sampled = drawn.to(self.end.device)
        self.sources = self._list_sources(trace.calls)
        self.stops = self._list_stops(trace.calls)
        numbers = {
            name: value
            for name, value in vars(trace.block).items()
            if isinstance(value, float) and value not in (0, 1)
        }
        divisors = {f"1/{name}": 1 / value for name, value in numbers.items()}
        self.scales = numbers | divisors
        self.norms = [
            (self._flatten(call.taken), self._flatten(call.given))
            for call in trace.calls
            if call.taken is not None
            and call.given is not None
            and "norm" in f"{call.path}{call.name}".lower()
        ]

    def run(self) -> Contributions | None:
        return self._follow(self.start, Contributions(), first_stop=0)

    def _follow(
        self, stream: Tensor, found: Contributions, first_stop: int
    ) -> Contributions | None:
        if len(found.paths) > _MOST_ADDITIONS:
            return None
        last = len(self.stops) - 1
        for place in range(first_stop, len(self.stops)):
            for step in self._find_steps(stream, place, found):
                rest: Contributions | None = step
                if place < last:
                    rest = self._follow(self.stops[place], step, place + 1)
                if rest is not None:
                    return rest
        for given, normed in self.norms:
            if not self._is_sum([stream], given) or self._is_sum([stream], normed):
                continue
            replaced = Contributions(found.paths, found.scales, rescaled=True)
            if found.paths and self._is_sum([normed], self.end):
                return replaced
            after = self._follow(normed, replaced, first_stop)
            if after is not None:
                return after
        return None

    def _find_steps(
        self, stream: Tensor, place: int, found: Contributions
    ) -> Iterator[Contributions]:
        """Yield the ways in which outputs are added to the stream up to a stop."""
        stop, is_end = self.stops[place], place == len(self.stops) - 1
        if self._is_sum([stream], stop):
            if found.paths and is_end:
                yield found
            return
        free = [path for path in self.sources if path not in found.paths]
        if not free:
            return
        outputs = torch.stack([self.sources[path][self.sampled] for path in free])
        for paths in self._find_sums(stream, stop, free, outputs, 1):
            yield Contributions(found.paths + paths, found.scales, found.rescaled)
        yield from self._find_scaled(stream, stop, free, outputs, found)
        for n_modules in (2, 3):
            for paths in self._find_sums(stream, stop, free, outputs, n_modules):
                yield Contributions(found.paths + paths, found.scales, found.rescaled)
        for name, scale in self.scales.items():
            for paths in self._find_sums(stream, stop, free, outputs, 2, scale):
                scales = {**found.scales, **dict.fromkeys(paths, name)}
                yield Contributions(found.paths + paths, scales, found.rescaled)
        yield from self._end_scaled(stream, place, found)

    def _end_scaled(
        self, stream: Tensor, place: int, found: Contributions
    ) -> Iterator[Contributions]:
        """Yield what has been found if the block's output is the stream, scaled."""
        scale = float((self.end @ stream) / (stream @ stream))
        is_end = place == len(self.stops) - 1
        if found.paths and is_end and self._is_sum([scale * stream], self.end):
            yield Contributions(found.paths, found.scales, rescaled=True)

    def _find_sums(
        self,
        stream: Tensor,
        stop: Tensor,
        free: Sequence[str],
        outputs: Tensor,
        n_modules: int,
        scale: float = 1.0,
    ) -> Iterator[tuple[str, ...]]:
        chosen = torch.combinations(torch.arange(len(free)), n_modules)
        chosen = chosen.to(outputs.device)
        outputs = scale * outputs
        added = sum(outputs[chosen[:, nth]] for nth in range(n_modules))
        sizes = sum(outputs[chosen[:, nth]].abs() for nth in range(n_modules))
        before, after = stream[self.sampled], stop[self.sampled]
        errors = (before + added - after).abs()
        fits = (errors <= self.rounding * (before.abs() + sizes)).all(dim=1)
        for row in chosen[fits].tolist():
            paths = tuple(free[number] for number in row)
            terms = [scale * self.sources[path] for path in paths]
            if self._is_sum([stream, *terms], stop):
                yield paths
                return

    def _find_scaled(
        self,
        stream: Tensor,
        stop: Tensor,
        free: Sequence[str],
        outputs: Tensor,
        found: Contributions,
    ) -> Iterator[Contributions]:
        """Yield an output, scaled by an attribute, that is added to a scaled stream."""
        before = stream[self.sampled].expand_as(outputs)
        after = stop[self.sampled].expand_as(outputs)
        columns = torch.stack([before, outputs], dim=2)
        fits = torch.linalg.pinv(columns) @ after[..., None]
        errors = (columns @ fits)[..., 0] - after
        near = errors.norm(dim=1) <= 8 * self.rounding * after.norm(dim=1)
        for number in near.nonzero()[:, 0].tolist():
            kept, scale = fits[number, :, 0].tolist()
            path = free[number]
            terms = [kept * stream, scale * self.sources[path]]
            # One scale of the whole sum comes after the addition.
            whole = abs(scale - kept) < max(_SCALE_TOLERANCE, self.rounding)
            name = "" if whole else self._name_scale(scale)
            # A stream that is dropped was replaced, and not added to.
            dropped = abs(kept) < _LEAST_KEPT
            if dropped or name is None or not self._is_sum(terms, stop, slack=8):
                continue
            scales = {**found.scales, **({path: name} if name else {})}
            rescaled = found.rescaled or abs(kept - 1) > _SCALE_TOLERANCE
            yield Contributions((*found.paths, path), scales, rescaled)
            return

    def _name_scale(self, scale: float) -> str | None:
        """Name the attribute of the block that is a scale; "" where the scale is 1."""
        tolerance = max(_SCALE_TOLERANCE, self.rounding)
        if abs(scale - 1) < tolerance:
            return ""
        for name, value in self.scales.items():
            if abs(value - scale) < tolerance * abs(scale):
                return name
        return None

    def _list_sources(self, calls: Sequence[Call]) -> dict[str, Tensor]:
        """List distinct outputs, each by the module nearest to the block."""
        sources: dict[str, Tensor] = {}
        for call in sorted(calls, key=lambda call: (call.path.count("."), call.path)):
            if call.given is None:
                continue
            output = self._flatten(call.given)
            if output.any() and not any(map(output.equal, sources.values())):
                sources[call.path] = output
        return sources

    def _list_stops(self, calls: Sequence[Call]) -> list[Tensor]:
        """List the distinct tensors that modules take, in order, then the output."""
        stops: list[Tensor] = []
        for call in calls:
            if call.taken is not None:
                taken = self._flatten(call.taken)
                if not any(map(taken.equal, [*stops, self.end])):
                    stops.append(taken)
        return [*stops, self.end]

    def _flatten(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.exact).flatten()

    def _is_sum(self, terms: Sequence[Tensor], total: Tensor, slack: int = 1) -> bool:
        error = (total - sum(terms)).abs()
        size = torch.stack([term.abs() for term in terms]).sum(dim=0)
        return bool((error <= slack * self.rounding * size).all())
