"""Run a model on a few random tokens, and restore its state after any pass."""

import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
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
    with restore_state(model), _evaluating(model), torch.no_grad():
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
    attributes = [_copy_attributes(module) for module in modules]
    configs = list(_list_configs(modules))
    settings = [_copy_containers(vars(config)) for config in configs]

    def list_changed() -> Iterator[tuple[object, dict[str, Any]]]:
        for module, saved in zip(modules, attributes, strict=True):
            if not _are_equal(saved, vars(module)):
                yield module, saved
        for config, saved in zip(configs, settings, strict=True):
            if not _are_same(saved, vars(config)):
                yield config, saved

    try:
        yield lambda: any(owner not in set_by_each_pass for owner, _ in list_changed())
    finally:
        for owner, saved in list(list_changed()):
            if isinstance(owner, nn.Module):
                _restore_attributes(owner, saved)
            else:
                vars(owner).clear()
                vars(owner).update(saved)


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


def _copy_containers(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: copy.copy(value) if type(value) in (list, dict, set) else value
        for name, value in attributes.items()
    }


def _copy_attributes(module: nn.Module) -> dict[str, Any]:
    """Copy what a module refers to; of containers and buffers, the contents too."""
    saved = _copy_containers(vars(module))
    saved["_buffers"] = {
        name: None if buffer is None else (buffer, buffer.clone())
        for name, buffer in module._buffers.items()
    }
    return saved


def _are_equal(saved: dict[str, Any], now: dict[str, Any]) -> bool:
    if saved.keys() != now.keys() or saved["_buffers"].keys() != now["_buffers"].keys():
        return False
    return all(
        _are_same(saved[name], value)
        for name, value in now.items()
        if name != "_buffers"
    ) and all(
        entry is buffer is None
        or (entry is not None and entry[0] is buffer and entry[1].equal(buffer))
        for entry, buffer in zip(
            saved["_buffers"].values(), now["_buffers"].values(), strict=True
        )
    )


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


def _restore_attributes(module: nn.Module, saved: dict[str, Any]) -> None:
    attributes = vars(module)
    buffers = {}
    for name, entry in saved["_buffers"].items():
        if entry is not None and not entry[0].equal(entry[1]):
            entry[0].copy_(entry[1])
        buffers[name] = None if entry is None else entry[0]
    attributes.clear()
    attributes.update({**saved, "_buffers": buffers})
