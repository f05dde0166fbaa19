"""Run random tokens through a model and record what each block computes."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from plug_sklearn.embedding.anatomy._modules import find_input_device, first_tensor

#: Tokens in the text that is run.
N_TOKENS = 8
# Sums of a few terms in the model's own precision are off by a few units of rounding.
_ROUNDING_UNITS = 8


@dataclass
class Trace:
    """What one call of a block took, gave, and computed on the way.

    Attributes
    ----------
    taken, given : Tensor of shape (texts, tokens, hidden)
        The residual stream before and after the block.
    outputs : dict of str to Tensor of shape (texts, tokens, hidden)
        Output of each module inside that ran once and is as large, by path.
    """

    taken: Tensor
    given: Tensor
    outputs: dict[str, Tensor]

    def adds_up(self, added: Iterable[Tensor]) -> bool:
        """Tell whether the block's output is its input plus these, but for rounding."""
        dtype = self.given.dtype
        terms = [
            tensor.to(torch.promote_types(dtype, torch.float32))
            for tensor in (self.taken, *added)
        ]
        error = (self.given - sum(terms)).abs()
        size = sum(term.abs() for term in terms)
        return bool((error <= _ROUNDING_UNITS * torch.finfo(dtype).eps * size).all())

    def follows(self, before: "Trace") -> bool:
        """Tell whether this block took what the block before it gave."""
        return torch.equal(self.taken, before.given.to(self.taken.device))

    def take(self, paths: Sequence[str]) -> list[Tensor]:
        """List the outputs at those of the paths that are in this block."""
        return [self.outputs[path] for path in paths if path in self.outputs]


def trace_blocks(
    model: PreTrainedModel,
    blocks: Sequence[nn.Module],
    judge: Callable[[Trace], None],
) -> None:
    """Run random tokens and judge each call of a block.

    Parameters
    ----------
    model : PreTrainedModel
        Any model; it is left without hooks and in the mode it had.
    blocks : sequence of nn.Module
        Blocks of it.
    judge : callable
        Called with the trace of each call, in the order of the layers.

    Raises
    ------
    ValueError
        If the model does not run on token ids alone.
    """
    handles = [handle for block in blocks for handle in _watch_block(block, judge)]
    try:
        with _evaluating(model), torch.no_grad():
            model(**_draw_tokens(model))
    # The code of a family that nobody here knows may raise anything.
    except Exception as error:
        raise ValueError(
            "The 'model_name' parameter of HFEmbeddingTransformer must name a model "
            f"that runs on token ids. {type(model).__name__} raised {error!r} on "
            "random ones; if only its parts can't be traced, tell where they are with "
            "register_anatomy."
        ) from error
    finally:
        for handle in handles:
            handle.remove()


def _watch_block(
    block: nn.Module, judge: Callable[[Trace], None]
) -> list[RemovableHandle]:
    taken: list[Tensor] = []
    outputs: dict[str, list[Tensor]] = {}

    def begin(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        outputs.clear()
        taken[:] = [first_tensor(args or tuple(kwargs.values())).clone()]

    def end(_: nn.Module, __: object, output: object) -> None:
        # A module called twice, such as a shared dropout, has no one output.
        once = {path: calls[0] for path, calls in outputs.items() if len(calls) == 1}
        judge(Trace(taken.pop(), first_tensor(output).clone(), once))

    def keep(path: str) -> Callable[[nn.Module, object, object], None]:
        def hook(_: nn.Module, __: object, output: object) -> None:
            with suppress(TypeError):
                tensor = first_tensor(output)
                # Blocks may share a module, and this call be another block's.
                if taken and tensor.numel() == taken[0].numel():
                    # Copied, because some families add to it in place.
                    copy = tensor.clone().reshape(taken[0].shape)
                    outputs.setdefault(path, []).append(copy)

        return hook

    return [
        block.register_forward_pre_hook(begin, with_kwargs=True),
        *(
            module.register_forward_hook(keep(path))
            for path, module in block.named_modules()
            # Dropout does nothing here: what it is given is named elsewhere.
            if path and not isinstance(module, nn.Dropout | nn.Identity)
        ),
        block.register_forward_hook(end),
    ]


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
