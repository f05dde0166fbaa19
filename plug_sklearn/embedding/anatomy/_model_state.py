"""Run a model on a few random tokens, and restore its state after any pass."""

import copy
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils.generic import ModelOutput

#: Tokens in the text that is run.
N_TOKENS = 8


def run_random_tokens(model: PreTrainedModel) -> None:
    """Run a few random tokens through a model, and restore its state."""
    with restore_state(model), torch.no_grad():
        model.train(False)
        model(**draw_tokens(model))


def run_hooked(model: PreTrainedModel, hooks: Sequence[RemovableHandle]) -> None:
    """Run a few random tokens through a model, and remove its hooks.

    Raises a ValueError if the model does not run on token ids alone.
    """
    try:
        run_random_tokens(model)
    # The code of a family that nobody here knows may raise anything.
    except Exception as error:
        raise ValueError(
            "The 'model_name' parameter of HFEmbeddingTransformer must name a model "
            f"that runs on token ids. {type(model).__name__} raised {error!r} on "
            "random ones. If only its parts cannot be traced, name them with "
            "register_anatomy."
        ) from error
    finally:
        for hook in hooks:
            hook.remove()


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


def draw_tokens(model: PreTrainedModel) -> dict[str, Tensor]:
    """Draw a few random tokens, as arguments of a model."""
    words = list_words(model)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(len(words), (1, N_TOKENS), generator=generator)
    ids = torch.tensor(words)[drawn].to(find_input_device(model))
    tokens = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if model.config.is_encoder_decoder:
        tokens["decoder_input_ids"] = ids
    return tokens


def find_input_device(model: PreTrainedModel) -> torch.device:
    """Find the device of a model's input embeddings, which token ids go to."""
    embeddings = model.get_input_embeddings()
    device = next(embeddings.parameters()).device
    if device.type != "meta":
        return device
    # accelerate has offloaded the weights, and its hook brings them to a device.
    hook = getattr(embeddings, "_hf_hook", None)
    for each in getattr(hook, "hooks", [hook]):
        if getattr(each, "execution_device", None) is not None:
            return torch.device(each.execution_device)
    return torch.device("cpu")


def first_tensor(output: object) -> Tensor:
    """Return the tensor that a module returned: the output, or the first of several.

    It is not a copy, and some families add to it in place later.

    Raises a TypeError if the first output is no tensor.
    """
    first = output[0] if isinstance(output, tuple | list | ModelOutput) else output
    if not isinstance(first, Tensor):
        raise TypeError(
            "The output of a module must be a tensor or begin with one. "
            f"Got {type(output).__name__} instead."
        )
    return first


@contextmanager
def restore_state(
    model: PreTrainedModel, set_by_each_pass: Collection[nn.Module] = ()
) -> Iterator[Callable[[], bool]]:
    """Restore, on leaving the context, the state that a model has on entering it.

    A pass may change a model for good: BigBird replaces its sparse attention when a
    text is short, and some rotary embeddings are rescaled when one is long. Weights are
    not copied, since no pass changes them in place.

    Yields a function that tells whether anything has changed so far, other than in
    modules whose state each pass sets anew.
    """
    modules = list(model.modules())
    states = [_State(owner) for owner in [*modules, *_list_configs(modules)]]

    def list_changed() -> Iterator[_State]:
        return (state for state in states if state.has_changed())

    try:
        yield lambda: any(s.owner not in set_by_each_pass for s in list_changed())
    finally:
        for state in list_changed():
            state.restore()


class _State:
    """The attributes of a module or configuration, and the contents of its buffers."""

    def __init__(self, owner: Any) -> None:  # noqa: ANN401 - either of the two
        self.owner = owner
        self.attributes = {
            name: copy.copy(value) if type(value) in (list, dict, set) else value
            for name, value in vars(owner).items()
        }
        buffers = self.attributes.get("_buffers", {}).values()
        self.buffers = [(b, b.clone()) for b in buffers if b is not None]

    def has_changed(self) -> bool:
        """Return whether one of them is another than before."""
        saved, now = self.attributes, vars(self.owner)
        return (
            saved.keys() != now.keys()
            or not all(_are_same(saved[name], now[name]) for name in saved)
            or not all(buffer.equal(before) for buffer, before in self.buffers)
        )

    def restore(self) -> None:
        """Put everything back."""
        for buffer, before in self.buffers:
            if not buffer.equal(before):
                buffer.copy_(before)
        vars(self.owner).clear()
        vars(self.owner).update(self.attributes)


def _list_configs(modules: Sequence[nn.Module]) -> Iterator[PreTrainedConfig]:
    """List the distinct configurations that modules hold, and those within them."""
    seen: set[int] = set()
    held = [vars(module).get("config") for module in modules]
    while held:
        config = held.pop()
        if isinstance(config, PreTrainedConfig) and id(config) not in seen:
            seen.add(id(config))
            held += vars(config).values()
            yield config


def _are_same(saved: object, now: object) -> bool:
    """Return whether an attribute is the same object as before, with its contents."""
    if type(saved) is not type(now):
        return False
    if isinstance(saved, dict) and isinstance(now, dict):
        return list(saved) == list(now) and all(
            _are_same(saved[key], now[key]) for key in saved
        )
    if isinstance(saved, list) and isinstance(now, list):
        return len(saved) == len(now) and all(map(_are_same, saved, now))
    if isinstance(saved, bool | int | float | str | set | tuple | torch.dtype):
        return bool(saved is now or saved == now)
    return saved is now
