"""Batches → pooled activations."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from plug_sklearn.embedding._anatomy import (
    Block,
    anatomy_of,
    find_blocks,
    first_tensor,
    require_parts,
)
from plug_sklearn.embedding._batches import pad_ids
from plug_sklearn.embedding._models import LoadedModel
from plug_sklearn.embedding._prompts import Prompt

Stack = Literal["encoder", "decoder"] | None
Pool = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Request:
    """Which activations to read.

    Attributes
    ----------
    layers : tuple of int
        Layers, counted from 0, in the order of axis 1.
    parts : tuple of str
        Any of ``"rs"``, ``"attn"`` and ``"mlp"``, in the order of axis 2.
    pooling : str
        ``"last"``, ``"first"``, ``"mean"`` or ``"max"`` over the positions kept.
    stack : "encoder", "decoder" or None
        Which stack of an encoder-decoder model; None where there is only one.
    """

    layers: tuple[int, ...]
    parts: tuple[str, ...]
    pooling: str
    stack: Stack = None


class ActivationReader:
    """Runs prompts through a model and reads what was asked for on the way.

    The pass ends as soon as the last of it is read: no deeper block runs, nor a head.

    Parameters
    ----------
    loaded : LoadedModel
        The model; its lock is held while a batch has hooks on it.
    request : Request
        What to read.

    Raises
    ------
    ValueError
        If a part does not exist in a layer asked for.
    """

    def __init__(self, loaded: LoadedModel, request: Request) -> None:
        self.loaded = loaded
        self.request = request
        with loaded.lock:
            # Finding the parts of an unknown family runs it with hooks.
            anatomy = anatomy_of(loaded.model, request.stack)
        self.blocks = find_blocks(loaded.model, anatomy)
        require_parts(loaded.model, anatomy, layers=request.layers, parts=request.parts)

    def read(self, prompts: Sequence[Prompt]) -> NDArray[np.float32]:
        """Read the activations of one batch of prompts.

        Returns
        -------
        ndarray of shape (n_prompts, n_layers, n_parts, hidden_size), float32
            Pooled activations, in the request's order of layers and parts.

        Raises
        ------
        FloatingPointError
            If a state overflowed its dtype or is not a number.
        """
        ids, mask = pad_ids([prompt.ids for prompt in prompts], self._pad_id)
        device = self.loaded.input_device
        pool = _choose_pool(self.request.pooling, prompts, ids.shape[1])
        capture = _Capture(self.request, ids.shape, pool)
        inputs = self._name_inputs(
            torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device)
        )
        with self.loaded.lock, torch.inference_mode(), ExitStack() as hooks:
            capture.listen_to(self.blocks, hooks)
            try:
                self.loaded.model(**inputs)
            except _AllRead:
                pass
        return self._collect(capture.pooled)

    @property
    def _pad_id(self) -> int:
        pad_id = self.loaded.model.config.get_text_config().pad_token_id
        return 0 if pad_id is None else int(pad_id)

    def _name_inputs(self, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
        if self.request.stack != "decoder":
            return {"input_ids": ids, "attention_mask": mask}
        # The encoder reads the text, the decoder the start token and then the text.
        return {
            "input_ids": ids[:, 1:],
            "attention_mask": mask[:, 1:],
            "decoder_input_ids": ids,
            "decoder_attention_mask": mask,
        }

    def _collect(self, pooled: dict[tuple[int, str], Tensor]) -> NDArray[np.float32]:
        request = self.request
        wanted = [(layer, part) for layer in request.layers for part in request.parts]
        # One copy to the host, of pooled states only.
        device = pooled[wanted[0]].device
        states = torch.stack([pooled[key].to(device) for key in wanted], dim=1)
        activations: NDArray[np.float32] = states.cpu().numpy()
        finite = np.isfinite(activations).all(axis=(0, 2))
        if not finite.all():
            layer, part = wanted[int(np.argmin(finite))]
            raise FloatingPointError(
                f"The states of layer {layer} (part {part!r}) hold infinities or NaN "
                f"in {self.loaded.model.dtype}. Use dtype='bfloat16' or 'float32' in "
                "HFEmbeddingTransformer."
            )
        return activations.reshape(
            len(activations), len(request.layers), len(request.parts), -1
        )


class _AllRead(Exception):
    """A signal, not an error: all that was asked for is read."""


class _Capture:
    """Pools what the blocks of one pass put out, at once, on their device."""

    def __init__(self, request: Request, shape: tuple[int, ...], pool: Pool) -> None:
        self.shape = shape
        self.pool = pool
        self.wanted = {(layer, p) for layer in request.layers for p in request.parts}
        self.parts = request.parts
        self.pooled: dict[tuple[int, str], Tensor] = {}
        # A block may serve several layers (ALBERT): the layer is the count of calls.
        self.layer = 0

    def listen_to(self, blocks: Sequence[Block], hooks: ExitStack) -> None:
        """Put hooks on the blocks; leaving ``hooks`` takes them off."""
        for block in blocks:
            for part in self.parts:
                if part != "rs":
                    hear = self._hear_part(part, getattr(block, part), block.multiplier)
                    for module in getattr(block, part):
                        hooks.callback(module.register_forward_hook(hear).remove)
            # Last, so that a block that is its own part is read before it is counted.
            handle = block.module.register_forward_hook(self._hear_block)
            hooks.callback(handle.remove)

    def _hear_part(
        self, part: str, modules: Sequence[nn.Module], multiplier: float
    ) -> Callable[[nn.Module, Any, Any], None]:
        heard: list[Tensor] = []

        def hear(module: nn.Module, args: object, output: object) -> None:
            if (self.layer, part) in self.wanted:
                heard.append(first_tensor(output))
                if len(heard) == len(modules):
                    self._keep(part, sum(heard[1:], heard[0]), multiplier)
                    heard.clear()

        return hear

    def _hear_block(self, module: nn.Module, args: object, output: object) -> None:
        if (self.layer, "rs") in self.wanted:
            self._keep("rs", first_tensor(output), 1.0)
        self.layer += 1

    def _keep(self, part: str, states: Tensor, multiplier: float) -> None:
        # Some modules flatten batch and tokens into one axis.
        pooled = self.pool(states.reshape(*self.shape, -1))
        self.pooled[self.layer, part] = pooled * multiplier
        if len(self.pooled) == len(self.wanted):
            raise _AllRead


def _choose_pool(pooling: str, prompts: Sequence[Prompt], n_tokens: int) -> Pool:
    """Give the function (batch, tokens, hidden) → (batch, hidden), float32."""
    if pooling in ("last", "first"):
        place = -1 if pooling == "last" else 0
        index = torch.tensor([int(prompt.kept[place]) for prompt in prompts])
        return lambda states: states[
            torch.arange(len(states), device=states.device), index.to(states.device)
        ].float()
    kept = torch.zeros(len(prompts), n_tokens, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        kept[row, torch.from_numpy(prompt.kept)] = True
    if pooling == "mean":
        weights = kept.float() / kept.sum(dim=1, keepdim=True)
        return lambda states: torch.einsum(
            "bt,bth->bh", weights.to(states.device), states.float()
        )
    return lambda states: (
        states.float()
        .masked_fill(~kept.to(states.device)[:, :, None], -torch.inf)
        .amax(dim=1)
    )
