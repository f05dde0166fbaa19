"""Hooks that read the requested activations during a forward pass."""

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, empty, nn, zeros_like

from plug_sklearn.embedding.anatomy import Block, Stack, first_tensor

Hook = Callable[[nn.Module, Any, Any], None]


@dataclass(frozen=True)
class Request:
    """Which activations to read.

    Attributes
    ----------
    layers : tuple of int
        Layers, counted from 0, in the order of axis 1.
    parts : tuple of str
        Any of ``"rs"``, ``"attn"`` and ``"mlp"``, in the order of axis 2.
    poolings : tuple of str, or None
        Any of ``"last"``, ``"first"``, ``"mean"`` and ``"max"``, in the order in which
        axis 2 holds them for each part; None keeps every token.
    stack : "encoder", "decoder" or None
        Which half of an encoder-decoder model is read; None for other models.
    """

    layers: tuple[int, ...]
    parts: tuple[str, ...]
    poolings: tuple[str, ...] | None
    stack: Stack | None = None

    @property
    def pairs(self) -> list[tuple[int, str]]:
        """Every (layer, part) asked for, in the order of axes 1 and 2."""
        return [(layer, part) for layer in self.layers for part in self.parts]


class AllRead(Exception):
    """A signal, not an error: all that was asked for has been read."""


class PoolsTokens(Protocol):
    """What pools the tokens of one pass."""

    @property
    def read(self) -> Tensor | None:
        """The only tokens that are read, in the flattened batch; None for all."""

    def pool(self, states: Tensor) -> list[Tensor]:
        """Pool states (n_rows * n_tokens, hidden_size), in one or several ways."""


class Capture:
    """Pools what the blocks of one pass put out.

    Parameters
    ----------
    request : Request
        What to read.
    shape : tuple of int
        Rows of the pass, and tokens in each.
    pooler : PoolsTokens
        What pools their states.
    narrows : bool, default=False
        Whether the model's MLPs are known to treat each token by itself.
    ends_pass : bool, default=True
        Whether the pass ends, with :class:`AllRead`, when the last of the request is
        read.
    memory : Tensor, default=None
        Memory to put the states into, if it is large enough.

    Attributes
    ----------
    states : Tensor of shape (n_prompts, n_layers, n_parts * n_poolings, units), float32
        What the pooler makes of the states; ``n_kept`` along axis 0 where nothing is
        pooled. None until the first of them are read.
    """

    def __init__(
        self,
        request: Request,
        shape: tuple[int, int],
        pooler: PoolsTokens,
        *,
        narrows: bool = False,
        ends_pass: bool = True,
        memory: Tensor | None = None,
    ) -> None:
        self.request = request
        self.shape = shape
        self.memory = memory
        self.states: Tensor | None = None
        self.parts = request.parts
        #: Where along axes 1 and 2 the states of each layer and part begin.
        self.places = {
            pair: divmod(place, len(request.parts))
            for place, pair in enumerate(request.pairs)
        }
        self.deepest = max(request.layers)
        self.pooler = pooler
        self.ends_pass = ends_pass
        self.narrowed_to = self.pooler.read if narrows else None
        self.left = set(self.places)
        # A block may serve several layers (ALBERT): the layer is the count of calls.
        self.layer = 0
        # What the modules of each part have put out so far in the present layer.
        self.added: dict[str, list[Tensor]] = {}

    def add_hooks(self, blocks: Sequence[Block], hooks: ExitStack) -> None:
        """Put hooks on the blocks; leaving ``hooks`` takes them off."""
        for block in blocks:
            if (
                self.narrowed_to is not None
                and len(block.mlp) == 1
                and not _convolves(block.mlp[0])
            ):
                self._narrow(block.mlp[0], self.narrowed_to, hooks)
            for part in self.parts:
                if part != "rs":
                    for module in getattr(block, part):
                        read = self._read_part(block, part)
                        hooks.callback(module.register_forward_hook(read).remove)
            # Last, so that a block that is its own part is read before it is counted.
            handle = block.module.register_forward_hook(self._read_block(block))
            hooks.callback(handle.remove)

    def _narrow(self, mlp: nn.Module, tokens: Tensor, hooks: ExitStack) -> None:
        """Run the deepest layer's MLP only on the tokens that are read.

        An MLP treats each token by itself, and nothing after it is read.
        """
        narrowed: list[bool] = []

        def narrow(
            module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[Any, dict[str, Any]] | None:
            # Some MLPs take the token ids too.
            fits = len(args) == 1 and not kwargs and args[0].shape[:-1] == self.shape
            if self.layer < self.deepest or not fits:
                return None
            narrowed.append(True)
            states = args[0].flatten(end_dim=1)
            return (states[tokens.to(states.device)][None],), kwargs

        def widen(module: nn.Module, args: object, output: object) -> object:
            if not narrowed:
                return None
            narrowed.clear()
            states = first_tensor(output).reshape(len(tokens), -1)
            wide = states.new_zeros(self.shape[0] * self.shape[1], states.shape[-1])
            wide[tokens.to(states.device)] = states
            wide = wide.reshape(*self.shape, -1)
            return (wide, *output[1:]) if isinstance(output, tuple) else wide

        handle = mlp.register_forward_pre_hook(narrow, with_kwargs=True)
        hooks.callback(handle.remove)
        hooks.callback(mlp.register_forward_hook(widen).remove)

    def _read_part(self, block: Block, part: str) -> Hook:
        def read(module: nn.Module, args: object, output: object) -> None:
            if (self.layer, part) in self.places:
                states = block.put_tokens_second(first_tensor(output))
                scale = block.scale_of(module)
                added = self.added.setdefault(part, [])
                added.append(states if scale == 1 else states * scale)
                if len(added) == len(getattr(block, part)):
                    self._keep(part, sum(added[1:], added[0]))

        return read

    def _read_block(self, block: Block) -> Hook:
        def read(module: nn.Module, args: object, output: object) -> None:
            states = block.read_stream(output)
            for part in self.parts:
                if (self.layer, part) not in self.left:
                    continue
                # What a block has no module for, or does not run, adds nothing.
                added = self.added.get(part) or [zeros_like(states)]
                self._keep(part, states if part == "rs" else sum(added[1:], added[0]))
            self.added.clear()
            self.layer += 1

        return read

    def _keep(self, part: str, states: Tensor) -> None:
        n_rows, n_tokens = self.shape
        if len(states) == n_rows and states.dim() > 2:
            # Some models pad within, on the right.
            states = states[:, :n_tokens]
        # Some modules flatten batch and tokens into one axis; here all are flattened.
        flat = states.reshape(n_rows * n_tokens, -1)
        self.put(self.places[self.layer, part], self.pooler.pool(flat))
        self.left.discard((self.layer, part))
        if self.ends_pass and not self.left:
            raise AllRead

    def put(self, place: tuple[int, int], pooled: list[Tensor]) -> None:
        """Put what is pooled of a layer and part, at ``place`` along axes 1 and 2.

        Each part holds all poolings, one after the other. A copy of each now takes less
        time and memory than to join all at the end.
        """
        if self.states is None:
            self.states = self._make_room(pooled[0])
        layer, part = place
        for number, values in enumerate(pooled, part * len(pooled)):
            self.states[:, layer, number] = values

    def _make_room(self, pooled: Tensor) -> Tensor:
        n_vectors, hidden_size = pooled.shape
        n_parts = len(self.parts) * len(self.request.poolings or (None,))
        shape = (n_vectors, len(self.request.layers), n_parts, hidden_size)
        size, memory = math.prod(shape), self.memory
        if memory is None or len(memory) < size or memory.device != pooled.device:
            memory = self.memory = empty(size, device=pooled.device)
        return memory[:size].view(shape)


def _convolves(module: nn.Module) -> bool:
    return any(isinstance(one, nn.Conv1d) for one in module.modules())
