"""Hooks that pool what the blocks of one forward pass put out."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plug_sklearn.embedding.anatomy._anatomy import Block, Stack, first_tensor
from plug_sklearn.embedding.passes._batches import Batch

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
        Which stack of an encoder-decoder model; None where there is only one.
    """

    layers: tuple[int, ...]
    parts: tuple[str, ...]
    poolings: tuple[str, ...] | None
    stack: Stack | None = None

    @property
    def slots(self) -> list[tuple[int, str]]:
        """Every (layer, part) asked for, in the order of axes 1 and 2."""
        return [(layer, part) for layer in self.layers for part in self.parts]

    @property
    def picks_tokens(self) -> bool:
        """Whether every pooling picks one token of each prompt."""
        return self.poolings is not None and set(self.poolings) <= {"first", "last"}


def _convolves(module: nn.Module) -> bool:
    return any(isinstance(one, nn.Conv1d) for one in module.modules())


class AllRead(Exception):
    """A signal, not an error: all that was asked for is read."""


class Capture:
    """Pools what the blocks of one pass put out, at once, on their device.

    Parameters
    ----------
    request : Request
        What to read. The pass ends, by :class:`AllRead`, when the last of it is read.
    batch : Batch
        What the pass runs.
    narrows : bool, default=False
        Whether the model's MLPs are known to treat each token by itself.

    Attributes
    ----------
    pooled : dict of (int, str) to Tensor
        Pooled states by layer and part, float32, of shape
        (n_prompts, n_poolings, hidden_size); the states of all kept tokens, prompt by
        prompt, of shape (n_tokens, 1, hidden_size), where nothing is pooled.
    """

    def __init__(
        self, request: Request, batch: Batch, *, narrows: bool = False
    ) -> None:
        self.shape = batch.ids.shape
        self.parts = request.parts
        self.wanted = set(request.slots)
        self.deepest = max(request.layers)
        self.poolings = request.poolings
        self.tokens = torch.from_numpy(batch.pooled)
        self.offsets = torch.from_numpy(batch.offsets)
        # The last token of a prompt is the one before the next prompt's first.
        ends = torch.cat([self.offsets[1:], torch.tensor([len(self.tokens)])])
        self.picks = {
            "first": self.tokens[self.offsets],
            "last": self.tokens[ends - 1],
        }
        # The tokens whose states in the deepest layer are enough.
        self.enough: Tensor | None = None
        if narrows and request.picks_tokens:
            self.enough = torch.cat([self.picks[name] for name in self.poolings or ()])
        self.pooled: dict[tuple[int, str], Tensor] = {}
        # A block may serve several layers (ALBERT): the layer is the count of calls.
        self.layer = 0
        # What the modules of each part have put out so far, in the present call.
        self.heard: dict[str, list[Tensor]] = {}

    def listen_to(self, blocks: Sequence[Block], hooks: ExitStack) -> None:
        """Put hooks on the blocks; leaving ``hooks`` takes them off."""
        for block in blocks:
            narrows = self.enough is not None and len(block.mlp) == 1
            if narrows and not _convolves(block.mlp[0]):
                self._narrow(block.mlp[0], hooks)
            for part in self.parts:
                if part != "rs":
                    for module in getattr(block, part):
                        hear = self._hear_part(block, part)
                        hooks.callback(module.register_forward_hook(hear).remove)
            # Last, so that a block that is its own part is read before it is counted.
            handle = block.module.register_forward_hook(self._hear_block(block))
            hooks.callback(handle.remove)

    def _narrow(self, mlp: nn.Module, hooks: ExitStack) -> None:
        """Run the deepest layer's MLP only on the tokens that are pooled.

        An MLP treats each token by itself, and nothing after it is read.
        """
        narrowed: list[bool] = []
        tokens = self.enough
        assert tokens is not None

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
            states = first_tensor(output)
            states = states.reshape(len(tokens), -1)
            wide = states.new_zeros(self.shape[0] * self.shape[1], states.shape[-1])
            wide[tokens.to(states.device)] = states
            wide = wide.reshape(*self.shape, -1)
            return (wide, *output[1:]) if isinstance(output, tuple) else wide

        handle = mlp.register_forward_pre_hook(narrow, with_kwargs=True)
        hooks.callback(handle.remove)
        hooks.callback(mlp.register_forward_hook(widen).remove)

    def _hear_part(self, block: Block, part: str) -> Hook:
        def hear(module: nn.Module, args: object, output: object) -> None:
            if (self.layer, part) in self.wanted:
                states = block.put_tokens_second(first_tensor(output))
                scale = block.scale_of(module)
                heard = self.heard.setdefault(part, [])
                heard.append(states if scale == 1 else states * scale)
                if len(heard) == len(getattr(block, part)):
                    self._keep(part, sum(heard[1:], heard[0]))

        return hear

    def _hear_block(self, block: Block) -> Hook:
        def hear(module: nn.Module, args: object, output: object) -> None:
            states = block.read_stream(output)
            for part in self.parts:
                if (self.layer, part) not in self.wanted - self.pooled.keys():
                    continue
                heard = self.heard.get(part) or [torch.zeros_like(states)]
                # What a block has no module for, or does not run, adds nothing.
                self._keep(part, states if part == "rs" else sum(heard[1:], heard[0]))
            self.heard.clear()
            self.layer += 1

        return hear

    def _keep(self, part: str, states: Tensor) -> None:
        n_rows, n_tokens = self.shape
        if len(states) == n_rows and states.dim() > 2:
            # Some models pad within, on the right.
            states = states[:, :n_tokens]
        # Some modules flatten batch and tokens into one axis; here all are flattened.
        flat = states.reshape(self.shape[0] * self.shape[1], -1)
        self.pooled[self.layer, part] = self._pool(flat)
        if len(self.pooled) == len(self.wanted):
            raise AllRead

    def _pool(self, flat: Tensor) -> Tensor:
        tokens, offsets = self.tokens.to(flat.device), self.offsets.to(flat.device)
        if self.poolings is None:
            return flat[tokens].float()[:, None]
        pooled = [
            flat[self.picks[name].to(flat.device)].float()
            if name in self.picks
            else F.embedding_bag(tokens, flat.float(), offsets, mode=name)
            for name in self.poolings
        ]
        return torch.stack(pooled, dim=1)
