"""Trace what each block of a model computes, and find what adds to its stream."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from plug_sklearn.embedding.anatomy._model_state import first_tensor, run_hooked

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


@dataclass
class Call:
    """One call of a module within a block.

    ``path`` leads to the module in the block, and ``name`` is its class. ``taken`` and
    ``given``, of shape (texts, tokens, hidden), are its first input and output, or None
    if they are not as large as the block's.
    """

    path: str
    name: str
    taken: Tensor | None
    given: Tensor | None = None


@dataclass
class Trace:
    """What one call of a block took, gave, and computed on the way.

    ``taken`` and ``given``, of shape (texts, tokens, hidden), are the residual stream
    before and after it. ``calls`` are those of the modules inside that ran once, in the
    order in which they began.
    """

    block: nn.Module
    taken: Tensor
    given: Tensor
    calls: list[Call]


def trace_blocks(
    model: PreTrainedModel,
    blocks: Sequence[nn.Module],
    handle: Callable[[Trace], None],
) -> None:
    """Run random tokens and handle the trace of each call of a block, in their order.

    Raises a ValueError if the model does not run on token ids alone.
    """
    hooks = [hook for block in blocks for hook in _record_block(block, handle)]
    run_hooked(model, hooks)


def _record_block(
    block: nn.Module, handle: Callable[[Trace], None]
) -> list[RemovableHandle]:
    recorder = _Recorder(handle)
    handles = [block.register_forward_pre_hook(recorder.begin, with_kwargs=True)]
    for path, module in block.named_modules():
        # Dropout does nothing here: what it is given is named elsewhere.
        if path and not isinstance(module, nn.Dropout | nn.Identity):
            begin = partial(recorder.open_call, path)
            handles.append(module.register_forward_pre_hook(begin, with_kwargs=True))
            end = partial(recorder.close_call, path)
            handles.append(module.register_forward_hook(end))
    return [*handles, block.register_forward_hook(recorder.end)]


class _Recorder:
    """Records what one block and the modules in it take and give, call by call."""

    def __init__(self, handle: Callable[[Trace], None]) -> None:
        self.handle = handle
        self.taken: Tensor | None = None
        self.calls: list[Call] = []

    def begin(
        self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.calls = []
        self.taken = first_tensor(args or tuple(kwargs.values())).detach().clone()

    def end(self, block: nn.Module, args: object, output: object) -> None:
        if self.taken is None:
            return
        counts = Counter(call.path for call in self.calls)
        # A module called twice, such as a shared dropout, has no one output.
        once = [call for call in self.calls if counts[call.path] == 1]
        given = first_tensor(output).detach().clone()
        self.handle(Trace(block, self.taken, given, once))
        self.taken = None

    def open_call(
        self,
        path: str,
        module: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        # Blocks may share a module, and this call be another block's.
        if self.taken is not None:
            taken = self._keep(args or tuple(kwargs.values()))
            self.calls.append(Call(path, type(module).__name__, taken))

    def close_call(
        self, path: str, module: nn.Module, args: object, output: object
    ) -> None:
        if self.taken is not None:
            own = (call for call in reversed(self.calls) if call.path == path)
            next(own).given = self._keep(output)

    def _keep(self, value: object) -> Tensor | None:
        with suppress(TypeError):
            tensor = first_tensor(value)
            taken = self.taken
            if taken is not None and tensor.numel() == taken.numel():
                # Copied, because some families add to it in place.
                return tensor.detach().clone().reshape(taken.shape)
        return None


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
    search = _Search(trace)
    return search.follow(search.start, Contributions(), first_stop=0)


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
        floats = {n: v for n, v in vars(trace.block).items() if isinstance(v, float)}
        numbers = {name: v for name, v in floats.items() if v not in (0, 1)}
        self.scales = numbers | {f"1/{name}": 1 / v for name, v in numbers.items()}
        self.norms = [
            (self._flatten(call.taken), self._flatten(call.given))
            for call in trace.calls
            if call.taken is not None
            and call.given is not None
            and "norm" in f"{call.path}{call.name}".lower()
        ]

    def follow(
        self, stream: Tensor, found: Contributions, first_stop: int
    ) -> Contributions | None:
        if len(found.paths) > _MOST_ADDITIONS:
            return None
        last = len(self.stops) - 1
        for place in range(first_stop, len(self.stops)):
            for step in self._find_steps(stream, place, found):
                rest: Contributions | None = step
                if place < last:
                    rest = self.follow(self.stops[place], step, place + 1)
                if rest is not None:
                    return rest
        for given, normed in self.norms:
            if not self._is_sum([stream], given) or self._is_sum([stream], normed):
                continue
            replaced = replace(found, rescaled=True)
            if found.paths and self._is_sum([normed], self.end):
                return replaced
            after = self.follow(normed, replaced, first_stop)
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
            yield replace(found, paths=found.paths + paths)
        yield from self._find_scaled(stream, stop, free, outputs, found)
        for n_modules in (2, 3):
            for paths in self._find_sums(stream, stop, free, outputs, n_modules):
                yield replace(found, paths=found.paths + paths)
        for name, scale in self.scales.items():
            for paths in self._find_sums(stream, stop, free, outputs, 2, scale):
                scales = {**found.scales, **dict.fromkeys(paths, name)}
                yield replace(found, paths=found.paths + paths, scales=scales)
        # The output of the block may be the stream times a constant.
        whole = float((self.end @ stream) / (stream @ stream))
        if found.paths and is_end and self._is_sum([whole * stream], self.end):
            yield replace(found, rescaled=True)

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
