"""Run random tokens through a model and record what each block computes."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from plug_sklearn.embedding.anatomy._model_state import restore_state
from plug_sklearn.embedding.anatomy._modules import find_input_device, first_tensor

#: Tokens in the text that is run.
N_TOKENS = 8


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

    def follows(self, before: "Trace") -> bool:
        """Return whether this block took what the block before it gave."""
        return torch.equal(self.taken, before.given.to(self.taken.device))


def trace_blocks(
    model: PreTrainedModel,
    blocks: Sequence[nn.Module],
    handle: Callable[[Trace], None],
) -> None:
    """Run random tokens and handle the trace of each call of a block, in their order.

    Raises a ValueError if the model does not run on token ids alone.
    """
    hooks = [hook for block in blocks for hook in _record_block(block, handle)]
    try:
        with explain_failure(model):
            run_random_tokens(model)
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def explain_failure(model: PreTrainedModel) -> Iterator[None]:
    """Turn what a model raises on random tokens into an error that says so."""
    try:
        yield
    # The code of a family that nobody here knows may raise anything.
    except Exception as error:
        raise ValueError(
            "The 'model_name' parameter of HFEmbeddingTransformer must name a model "
            f"that runs on token ids. {type(model).__name__} raised {error!r} on "
            "random ones. If only its parts cannot be traced, name them with "
            "register_anatomy."
        ) from error


def run_random_tokens(model: PreTrainedModel) -> None:
    """Run a few random tokens through a model, and restore its state."""
    with restore_state(model), _evaluating(model), torch.no_grad():
        model(**_draw_tokens(model))


def _record_block(
    block: nn.Module, handle: Callable[[Trace], None]
) -> list[RemovableHandle]:
    recorder = _Recorder(handle)
    handles = [block.register_forward_pre_hook(recorder.begin, with_kwargs=True)]
    for path, module in block.named_modules():
        # Dropout does nothing here: what it is given is named elsewhere.
        if path and not isinstance(module, nn.Dropout | nn.Identity):
            open_call = partial(recorder.open_call, path)
            close_call = partial(recorder.close_call, path)
            handles += [
                module.register_forward_pre_hook(open_call, with_kwargs=True),
                module.register_forward_hook(close_call),
            ]
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


def list_words(model: PreTrainedModel) -> list[int]:
    """List the token ids of a model that its configuration gives no special role."""
    embeddings: Any = model.get_input_embeddings()
    # An image's token, say, would ask for the image.
    special: list[object] = []
    for config in (model.config, model.config.get_text_config()):
        for name, value in config.to_dict().items():
            if name.endswith(("_token_id", "_token_index")):
                special += value if isinstance(value, list) else [value]
    return [i for i in range(len(embeddings.weight)) if i not in special]


def _draw_tokens(model: PreTrainedModel) -> dict[str, Tensor]:
    words = list_words(model)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(len(words), (1, N_TOKENS), generator=generator)
    ids = torch.tensor(words)[drawn].to(find_input_device(model))
    tokens = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if model.config.is_encoder_decoder:
        tokens["decoder_input_ids"] = ids
    return tokens


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Switch dropout off, and afterwards each module back to the mode it had."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
