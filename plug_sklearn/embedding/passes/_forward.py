"""Batches → pooled activations."""

from collections.abc import Sequence
from contextlib import ExitStack
from inspect import signature
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel

from plug_sklearn.embedding.anatomy._anatomy import (
    anatomy_of,
    find_blocks,
    is_tabled,
    require_parts,
)
from plug_sklearn.embedding.anatomy._preserving import preserve_state
from plug_sklearn.embedding.models._limits import find_row_multiple
from plug_sklearn.embedding.models._models import LoadedModel
from plug_sklearn.embedding.passes._batches import Batch, pad_prompts
from plug_sklearn.embedding.passes._capture import AllRead, Capture, Request
from plug_sklearn.embedding.passes._preambles import Preamble
from plug_sklearn.embedding.passes._rotary import (
    list_dynamic_modules,
    reset_rotary_factors,
)
from plug_sklearn.embedding.prompts._tokenized import TokenizedPrompts

States = NDArray[np.float32]


class NonFiniteStatesError(FloatingPointError):
    """States that hold infinities or NaN.

    Parameters
    ----------
    states : str
        Which states they are.
    texts : list
        The texts that they are of, as far as they have been read.
    """

    def __init__(self, states: str, texts: Sequence[Any]) -> None:
        super().__init__(states, texts)
        self.states = states
        self.texts = texts

    def rename(self, names: Sequence[Any]) -> "NonFiniteStatesError":
        """Give the same error where text number i is called ``names[i]``."""
        return NonFiniteStatesError(self.states, [names[text] for text in self.texts])


class ForwardPass:
    """Runs batches through a model and reads what was asked for on the way.

    A pass ends as soon as the last of it is read: no deeper block runs, nor a head.

    Parameters
    ----------
    loaded : LoadedModel
        The model; its lock is held while a batch has hooks on it.
    request : Request
        What to read.

    Attributes
    ----------
    anatomy : Anatomy
        Where the model keeps its parts.
    pad_id : int
        The token that fills rows.
    row_multiple : int
        What the length of rows is to be a multiple of.

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
            self.anatomy = anatomy_of(loaded.model, request.stack)
        self.blocks = find_blocks(loaded.model, self.anatomy)
        require_parts(loaded.model, self.anatomy, request.parts)
        # Those that the table does not know may treat tokens together, by a capacity.
        self.narrows = is_tabled(loaded.model, request.stack)
        self.pad_id = _choose_pad_id(loaded.model)
        self.row_multiple = find_row_multiple(loaded.model.config, request.stack)
        self.dynamic_modules = list_dynamic_modules(loaded.model)

    def run(
        self, batch: Batch, preamble: Preamble | None = None
    ) -> States | list[States]:
        """Read the activations of one batch.

        Parameters
        ----------
        batch : Batch
            What to run.
        preamble : Preamble, default=None
            What stands before every row.

        Returns
        -------
        ndarray of shape (n_prompts, n_layers, n_parts * n_poolings, hidden_size), \
float32
            Pooled over the batch's tokens, in the request's order of layers, parts and
            poolings; or a list of arrays of shape
            (n_tokens, n_layers, n_parts, hidden_size) where nothing is pooled.
        """
        if preamble is None:
            states = self._read(batch)
        else:
            cache = preamble.repeat_cache(len(batch.ids))
            states = self._read(batch, cache, preamble.n_tokens)
        if self.request.poolings is None:
            return np.split(states, batch.offsets[1:])
        return states

    def run_preamble(
        self, prompts: TokenizedPrompts, *, own_cache: bool = False
    ) -> Preamble:
        """Run the one prompt that is the beginning of many, and keep what they need.

        Parameters
        ----------
        prompts : TokenizedPrompts
            The one prompt.
        own_cache : bool, default=False
            Whether each layer keeps what its kind needs, as in generation: states, or
            the keys and values of a window. Else all keep all keys and values.

        Returns
        -------
        Preamble
            With its pooled activations, and a cache for one row.
        """
        kept = prompts.kept_of(0)
        # Something must be read for the pass to end after the deepest layer.
        read = prompts if len(kept) else TokenizedPrompts.join([prompts.ids])
        batch = pad_prompts(read, [0], self.pad_id)
        if own_cache:
            pooled, cache = self._read_with_cache(batch)
        else:
            cache = DynamicCache()
            pooled = self._read(batch, cache)
        return Preamble(
            n_tokens=len(prompts.ids),
            cache=cache,
            pooled=pooled if len(kept) else None,
            n_kept=len(kept),
        )

    def _read_with_cache(self, batch: Batch) -> tuple[States, DynamicCache]:
        """Read a batch, and give the cache that the model makes for it."""
        caches: list[Any] = []

        def keep(_: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            taken = (*args, *kwargs.values())
            caches.extend(value for value in taken if isinstance(value, Cache))

        hooks = [
            block.module.register_forward_pre_hook(keep, with_kwargs=True)
            for block in self.blocks
        ]
        try:
            pooled = self._read(batch, keeps_cache=True)
        finally:
            for hook in hooks:
                hook.remove()
        if not caches:
            raise TypeError("The model's blocks must take a cache. Got none instead.")
        return pooled, caches[0]

    @property
    def _cache_name(self) -> str:
        """What the model calls its cache: transformers 5.24 renamed it."""
        known = signature(self.loaded.model.forward).parameters
        return "cache" if "cache" in known else "past_key_values"

    def _read(
        self,
        batch: Batch,
        cache: DynamicCache | None = None,
        n_before: int = 0,
        *,
        keeps_cache: bool = False,
    ) -> States:
        inputs = self._name_inputs(batch, n_before)
        if cache is not None:
            inputs |= {self._cache_name: cache}
        if cache is not None or keeps_cache:
            inputs |= {"use_cache": True}
        capture = Capture(self.request, batch, narrows=self.narrows)
        with self.loaded.lock, torch.inference_mode(), ExitStack() as hooks:
            trial = self.loaded.trials.get(self.request.stack)
            if trial is not None and trial.changes:
                hooks.enter_context(preserve_state(self.loaded.model))
            for module in self.dynamic_modules:
                reset_rotary_factors(module)
            capture.listen_to(self.blocks, hooks)
            try:
                self.loaded.model(**inputs)
            except AllRead:
                pass
        return self._collect(capture.pooled)

    def _name_inputs(self, batch: Batch, n_before: int) -> dict[str, Any]:
        device = self.loaded.input_device
        ids = torch.from_numpy(batch.ids).to(device)
        if batch.positions is not None:
            positions = torch.from_numpy(batch.positions + n_before).to(device)
            return {
                "input_ids": ids,
                "attention_mask": self._weigh(batch.mask, n_before),
                "position_ids": positions,
            }
        if n_before:
            # No row sees its own padding, which is on the right, and models differ in
            # how they would have a mask over what the cache holds.
            return {"input_ids": ids}
        mask = torch.from_numpy(batch.mask).to(device, torch.int64)
        if self.request.stack != "decoder":
            return {"input_ids": ids, "attention_mask": mask}
        # The encoder reads the text, the decoder the start token and then the text.
        return {
            "input_ids": ids[:, 1:],
            "attention_mask": mask[:, 1:],
            "decoder_input_ids": ids,
            "decoder_attention_mask": mask,
        }

    def _weigh(self, mask: NDArray[np.bool_], n_before: int) -> Tensor:
        """Turn what each token sees into what is added to attention's logits."""
        dtype, device = self.loaded.model.dtype, self.loaded.input_device
        shape = (len(mask), 1, mask.shape[1], n_before + mask.shape[2])
        added = torch.zeros(shape, dtype=dtype, device=device)
        hidden = ~torch.from_numpy(mask).to(device)[:, None]
        added[..., n_before:].masked_fill_(hidden, torch.finfo(dtype).min)
        return added

    def check_finite(
        self, numbers: NDArray[np.int64], states: States | list[States]
    ) -> None:
        """Raise an error if states of some texts overflowed or are not a number."""
        over = (0, 3) if self.request.poolings is None else 2
        finite = np.stack([np.isfinite(item).all(axis=over) for item in states])
        if finite.all():
            return
        # Each part holds all poolings, one after the other.
        n_poolings = len(self.request.poolings or (None,))
        place = int(np.argmin(finite.all(axis=0).ravel()))
        layer, part = self.request.slots[place // n_poolings]
        texts = numbers[~finite.reshape(len(finite), -1).all(axis=1)].tolist()
        raise NonFiniteStatesError(
            f"layer {layer} (part {part!r}) in {self.loaded.model.dtype}", sorted(texts)
        )

    def _collect(self, pooled: dict[tuple[int, str], Tensor]) -> States:
        slots = self.request.slots
        # One copy to the host, of pooled states only.
        device = pooled[slots[0]].device
        states = torch.stack([pooled[slot].to(device) for slot in slots], dim=1)
        activations: States = states.cpu().numpy()
        *_, n_poolings, hidden_size = activations.shape
        n_parts = len(self.request.parts) * n_poolings
        shape = (len(activations), len(self.request.layers), n_parts, hidden_size)
        return activations.reshape(shape)


def _choose_pad_id(model: PreTrainedModel) -> int:
    """Choose the token that fills rows, which is masked, whatever it is.

    Some configurations say -1, or name a token that the embedding has no row for.
    """
    pad_id = getattr(model.config.get_text_config(), "pad_token_id", None)
    weight: Tensor = model.get_input_embeddings().weight  # type: ignore[assignment]  # Module attributes are a union to mypy
    if isinstance(pad_id, int) and 0 <= pad_id < len(weight):
        return pad_id
    return 0
