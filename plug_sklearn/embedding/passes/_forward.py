"""Run a batch through a model, and return the pooled activations of its blocks."""

import re
from collections.abc import Sequence
from contextlib import ExitStack
from inspect import signature
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import Cache, DynamicCache, PreTrainedModel

from plug_sklearn.embedding.anatomy import (
    anatomy_of,
    find_blocks,
    is_tabled,
    require_parts,
    restore_state,
)
from plug_sklearn.embedding.models import LoadedModel, find_row_multiple
from plug_sklearn.embedding.passes._batching import Batch, pad_prompts
from plug_sklearn.embedding.passes._capture import (
    AllRead,
    Capture,
    Request,
)
from plug_sklearn.embedding.passes._pooling import Numbers, Pooler, States
from plug_sklearn.embedding.passes._prefixes import SharedPrefix
from plug_sklearn.embedding.prompts import (
    TokenizedPrompts,
)

#: Kinds of rotary scaling whose factors depend on the length of texts.
_LENGTH_DEPENDENT = re.compile("dynamic|longrope")


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
        """Return the same error where text number i is called ``names[i]``."""
        return NonFiniteStatesError(self.states, [names[text] for text in self.texts])


class ForwardPass:
    """Runs batches through a model and reads what was asked for on the way.

    A pass ends as soon as the last of the request is read: no deeper block runs, nor a
    head. The model's lock is held while a batch has hooks on it.

    Parameters
    ----------
    loaded : LoadedModel
        The model.
    request : Request
        What to read.
    reuses_memory : bool, default=False
        Whether the next batch overwrites the pooled states of the last one, where the
        model is on the CPU. This saves time: new memory takes longer to get than to
        fill.

    Attributes
    ----------
    anatomy : Anatomy
        Where the model keeps its parts.
    pad_id : int
        The token that fills rows.
    row_multiple : int
        The length of rows must be a multiple of this.

    Raises
    ------
    ValueError
        If the model does not have a part asked for.
    """

    def __init__(
        self, loaded: LoadedModel, request: Request, *, reuses_memory: bool = False
    ) -> None:
        self.loaded = loaded
        self.request = request
        # The states of all tokens are not copied into a larger array: they are kept.
        self.reuses_memory = reuses_memory and request.poolings is not None
        self._memory: Tensor | None = None
        with loaded.lock:
            # Finding the parts of an unknown family runs it with hooks.
            self.anatomy = anatomy_of(loaded.model, request.stack)
        self.blocks = find_blocks(loaded.model, self.anatomy)
        require_parts(loaded.model, self.anatomy, request.parts)
        # Experts of families that the table does not know may have a capacity, which
        # the tokens of a batch share.
        self.narrows = is_tabled(loaded.model, request.stack)
        self.pad_id = _choose_pad_id(loaded.model)
        self.row_multiple = find_row_multiple(loaded.model.config, request.stack)
        self.rotary_modules = _list_rotary_modules(loaded.model)

    def run(
        self, batch: Batch, prefix: SharedPrefix | None = None
    ) -> States | list[States]:
        """Read the activations of one batch, whose rows may all continue a prefix.

        Returns
        -------
        ndarray of shape (n_prompts, n_layers, n_parts * n_poolings, hidden_size), \
float32
            Pooled over the batch's tokens, in the request's order of layers, parts and
            poolings; or a list of arrays of shape
            (n_tokens, n_layers, n_parts, hidden_size) where nothing is pooled.
        """
        if prefix is None:
            states = self._read(batch)
        else:
            cache = prefix.repeat_cache(len(batch.ids))
            states = self._read(batch, cache, prefix.n_tokens)
        if self.request.poolings is None:
            return np.split(states, batch.offsets[1:])
        return states

    def reset_rotary_factors(self) -> None:
        """Make rotary factors forget how long earlier texts were.

        Dynamic scaling keeps the factors of the longest text for shorter ones, down to
        the length that the model was trained on. LongRoPE sets them in each pass.
        """
        for module in self.rotary_modules:
            if "dynamic" not in str(module.rope_type):
                continue
            held = {**vars(module), **dict(module.named_buffers(recurse=False))}
            for name, value in held.items():
                if name.endswith("max_seq_len_cached"):
                    setattr(module, name, module.original_max_seq_len)
                elif name.endswith("original_inv_freq"):
                    current = name.replace("original_inv_freq", "inv_freq")
                    factors = value.to(held[current].device)
                    module.register_buffer(current, factors, persistent=False)

    def run_prefix(
        self, prompts: TokenizedPrompts, *, own_cache: bool = False
    ) -> SharedPrefix:
        """Run the prefix of many prompts, given as one prompt, and keep its cache.

        With ``own_cache`` the model makes the cache, as in generation: each layer keeps
        what its kind needs, such as a recurrent state or the keys and values of its
        window. Otherwise every layer keeps all keys and values.
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
        return SharedPrefix(
            n_tokens=len(prompts.ids),
            cache=cache,
            # The next batches may take its memory.
            pooled=pooled.copy() if len(kept) else None,
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
        """What the model calls its cache: transformers 5.24 renamed it.

        A function that wraps ``forward`` may show no parameters: it has the new name.
        """
        known = signature(self.loaded.model.forward).parameters
        is_old = "past_key_values" in known and "cache" not in known
        return "past_key_values" if is_old else "cache"

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
        # Only the pass holds it meanwhile: it is freed if the pass runs out of memory.
        memory, self._memory = self._memory, None
        shape = (batch.ids.shape[0], batch.ids.shape[1])
        pooler = Pooler(self.request.poolings, batch.kept, batch.offsets)
        capture = Capture(
            self.request, shape, pooler, narrows=self.narrows, memory=memory
        )
        del memory
        with self.loaded.lock, torch.inference_mode(), ExitStack() as hooks:
            trial = self.loaded.trials.get(self.request.stack)
            if trial is not None and trial.changes:
                hooks.enter_context(restore_state(self.loaded.model))
            self.reset_rotary_factors()
            capture.add_hooks(self.blocks, hooks)
            try:
                self.loaded.model(**inputs)
            except AllRead:
                pass
        if capture.states is None or capture.left:
            raise LookupError(f"No block put out {sorted(capture.left)}.")
        if self.reuses_memory:
            self._memory = capture.memory
        # One copy to the host, of pooled states only.
        states: States = capture.states.cpu().numpy()
        return states

    def _name_inputs(self, batch: Batch, n_before: int) -> dict[str, Any]:
        device = self.loaded.input_device
        ids = torch.from_numpy(batch.ids).to(device)
        if batch.positions is not None:
            positions = torch.from_numpy(batch.positions + n_before).to(device)
            return {
                "input_ids": ids,
                "attention_mask": self._bias_attention(batch.mask, n_before),
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

    def _bias_attention(self, mask: NDArray[np.bool_], n_before: int) -> Tensor:
        """Turn which tokens each one attends to into a bias of attention's logits."""
        dtype, device = self.loaded.model.dtype, self.loaded.input_device
        shape = (len(mask), 1, mask.shape[1], n_before + mask.shape[2])
        added = torch.zeros(shape, dtype=dtype, device=device)
        hidden = ~torch.from_numpy(mask).to(device)[:, None]
        added[..., n_before:].masked_fill_(hidden, torch.finfo(dtype).min)
        return added

    def check_finite(self, numbers: Numbers, states: States | list[States]) -> None:
        """Raise an error if states of some texts overflowed or are not a number."""
        over = (0, 3) if self.request.poolings is None else 2
        finite = np.stack([np.isfinite(item).all(axis=over) for item in states])
        if finite.all():
            return
        pairs = self.request.pairs
        # Each part holds all poolings, one after the other.
        n_poolings = len(self.request.poolings or (None,))
        place = int(np.argmin(finite.all(axis=0).ravel()))
        layer, part = pairs[place // n_poolings]
        texts = numbers[~finite.reshape(len(finite), -1).all(axis=1)].tolist()
        raise NonFiniteStatesError(
            f"layer {layer} (part {part!r}) in {self.loaded.model.dtype}", sorted(texts)
        )


def _choose_pad_id(model: PreTrainedModel) -> int:
    """Choose the token that fills rows, which is masked, whatever it is.

    Some configurations say -1, or name a token that the embedding has no row for.
    """
    pad_id = getattr(model.config.get_text_config(), "pad_token_id", None)
    weight: Tensor = model.get_input_embeddings().weight  # type: ignore[assignment]  # Module attributes are a union to mypy
    if isinstance(pad_id, int) and 0 <= pad_id < len(weight):
        return pad_id
    return 0


def _list_rotary_modules(model: PreTrainedModel) -> list[nn.Module]:
    """List the modules whose rotary factors depend on the length of texts."""
    return [
        module
        for module in model.modules()
        if _LENGTH_DEPENDENT.search(str(getattr(module, "rope_type", "")))
        and hasattr(module, "original_max_seq_len")
    ]
