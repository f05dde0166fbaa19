"""Find the transformer blocks of a model, and what adds to their residual stream."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from weakref import WeakKeyDictionary

from torch import Tensor, nn
from transformers import PreTrainedModel

from plug_sklearn.embedding.anatomy._discovery import discover_anatomy
from plug_sklearn.embedding.anatomy._families import (
    FAMILIES,
    VARIANTS,
    Anatomy,
    Stack,
    resolve_modules,
)
from plug_sklearn.embedding.anatomy._model_state import first_tensor

#: What a block adds to the residual stream, by fields of Anatomy and Block.
PARTS = ("attn", "mlp", "others")
#: How the name of a class of MLPs, dense or of experts, ends.
_MLP_CLASS = re.compile("(mlp|moe|moeblock|feedforward|ffn|experts?)$", re.IGNORECASE)

_REGISTERED: dict[tuple[str, Stack | None], Anatomy] = {}

# Discovery runs the model: once is enough for as long as the model lives.
_DISCOVERED: WeakKeyDictionary[PreTrainedModel, dict[Stack | None, Anatomy]] = (
    WeakKeyDictionary()
)


@dataclass(frozen=True)
class Block:
    """One transformer block of a model, and the modules that are its parts.

    The output of ``module`` is the residual stream. The outputs of ``attn``, ``mlp``
    and ``others``, each times its scale in ``scales`` or 1, are what the token mixer,
    the MLP and all else add to it; they may be empty. ``channels`` and ``token_axis``
    are as in :class:`Anatomy`. ``width`` is the number of hidden units of the residual
    stream, where its channels lie one after another.
    """

    module: nn.Module
    attn: tuple[nn.Module, ...]
    mlp: tuple[nn.Module, ...]
    others: tuple[nn.Module, ...] = ()
    scales: Mapping[nn.Module, float] = field(default_factory=dict)
    channels: int | None = None
    token_axis: int = 1
    width: int | None = None

    def scale_of(self, module: nn.Module) -> float:
        """Return the factor between what a module puts out and what it adds."""
        return self.scales.get(module, 1.0)

    def read_stream(self, output: object) -> Tensor:
        """Return the residual stream of an output, (texts, tokens, hidden_size)."""
        states = first_tensor(output)
        if self.channels == -1:
            width = self.width or states.shape[-1]
            states = states.reshape(*states.shape[:-1], -1, width)
            return states.mean(dim=-2)
        if self.channels is not None:
            return states.mean(dim=self.channels)
        return self.put_tokens_second(states)

    def put_tokens_second(self, states: Tensor) -> Tensor:
        """Return states of the block with axes (texts, tokens, hidden_size)."""
        if self.token_axis == 1 or states.dim() < 3:
            return states
        return states.movedim(self.token_axis, 1)


def register_anatomy(
    model_type: str, anatomy: Anatomy, *, stack: Stack | None = None
) -> None:
    """Register where a model family keeps its blocks, attention and MLPs.

    The registration is valid in this process, and replaces what the package knows about
    the family.

    Parameters
    ----------
    model_type : str
        Name of the family in its configuration: ``model.config.model_type``.
    anatomy : Anatomy
        Paths of the blocks and of their parts.
    stack : {"encoder", "decoder"}, default=None
        Whether the paths are those of the encoder or of the decoder of such a model.
        None: the model is not an encoder-decoder model.

    Raises
    ------
    TypeError
        If ``attn``, ``mlp`` or ``others`` of the anatomy is not a tuple.

    See Also
    --------
    Anatomy : Describes the paths.

    Examples
    --------
    >>> from plug_sklearn.embedding import Anatomy, register_anatomy
    >>> register_anatomy(
    ...     "my_model", Anatomy("layers", attn=("mixer",), mlp=("feed_forward",))
    ... )
    """
    for part in PARTS:
        paths = getattr(anatomy, part)
        if not isinstance(paths, tuple):
            raise TypeError(
                f"The {part!r} parameter of Anatomy must be a tuple of module paths. "
                f"Got {paths!r} instead."
            )
    _REGISTERED[model_type, stack] = anatomy


def anatomy_of(model: PreTrainedModel, stack: Stack | None) -> Anatomy:
    """Find where a model keeps its blocks, attention and MLP.

    An anatomy that the user registered goes before the package's table; families that
    neither knows are found by running them. Paths begin at `model`, also where the text
    model is inside a larger one.

    Raises a ValueError if `stack` does not suit the model or the blocks are not found.
    """
    _check_stack(model, stack)
    for model_type in _name_types(model):
        registered = _REGISTERED.get((model_type, stack))
        for anatomy in (registered, _known_anatomy(model, model_type, stack)):
            placed = anatomy and _place_anatomy(model, model_type, anatomy)
            if placed:
                return placed
            if anatomy and anatomy is registered:
                raise ValueError(
                    f"The anatomy registered for {model_type!r} must give paths that "
                    f"exist in {type(model).__name__}. Got {anatomy} instead."
                )
    discovered = _DISCOVERED.setdefault(model, {})
    if stack not in discovered:
        # Stacks may be of one type, and only their names tell which is meant.
        models = _text_models(model, _name_types(model)[-1]) if stack is None else ()
        root = next((path for path, _ in models), "")
        discovered[stack] = discover_anatomy(model, root, stack)
    return discovered[stack]


def is_tabled(model: PreTrainedModel, stack: Stack | None) -> bool:
    """Return whether a model's anatomy is in the package's own table."""
    return any(
        (model_type, stack) in FAMILIES and (model_type, stack) not in _REGISTERED
        for model_type in _name_types(model)
    )


def find_blocks(model: PreTrainedModel, anatomy: Anatomy) -> list[Block]:
    """List the blocks of a model with their parts, in the order of the layers.

    A block that serves several layers, as in ALBERT, is listed once.
    """
    return [
        _describe_block(model, module, number, anatomy)
        for number, module in enumerate(resolve_modules(model, anatomy.blocks))
    ]


def _resolve_part(
    model: nn.Module, block: nn.Module, number: int, path: str
) -> list[nn.Module]:
    if path.startswith("/"):
        return resolve_modules(model, path[1:])[number : number + 1]
    return resolve_modules(block, path)


def _describe_block(
    model: PreTrainedModel, block: nn.Module, number: int, anatomy: Anatomy
) -> Block:
    parts: dict[str, list[nn.Module]] = {part: [] for part in PARTS}
    scales: dict[nn.Module, float] = {}
    for part in PARTS:
        for path in getattr(anatomy, part):
            for module in _resolve_part(model, block, number, path):
                # Hybrids may have a mixer or an MLP under one name.
                is_mlp = _MLP_CLASS.search(type(module).__name__)
                own = "mlp" if part == "attn" and is_mlp else part
                parts[own].append(module)
                name = anatomy.multiplier
                if isinstance(name, Mapping):
                    name = name.get(path)
                if name is not None:
                    scale = float(getattr(block, name.removeprefix("1/")))
                    scales[module] = 1 / scale if name.startswith("1/") else scale
    named = {part: tuple(modules) for part, modules in parts.items()}
    return Block(
        block,
        **named,
        scales=scales,
        channels=anatomy.channels,
        token_axis=anatomy.token_axis,
        width=getattr(model.config.get_text_config(), "hidden_size", None),
    )


def require_parts(
    model: PreTrainedModel,
    anatomy: Anatomy,
    parts: Sequence[str],
) -> None:
    """Check that the parts asked for are known.

    A part that only some layers lack is zeros there.

    Raises a ValueError if the family is unknown and its parts were not found, or what
    was registered for it does not name them.
    """
    for part in parts:
        if part == "rs":
            continue
        if anatomy.reason is not None:
            raise ValueError(_explain_unknown(model, anatomy, part))
        registered = {model_type for model_type, _ in _REGISTERED}
        blocks = find_blocks(model, anatomy)
        if not registered.isdisjoint(_name_types(model)) and not any(
            getattr(block, part) for block in blocks
        ):
            raise ValueError(
                "The 'parts' parameter of HFEmbeddingTransformer must be parts that "
                f"the registered anatomy of {model.config.model_type!r} has. Got "
                f"{part!r} instead, which it lacks."
            )


def _explain_unknown(model: PreTrainedModel, anatomy: Anatomy, part: str) -> str:
    blocks = resolve_modules(model, anatomy.blocks)
    model_type = model.config.model_type
    return (
        "The 'parts' parameter of HFEmbeddingTransformer must be ('rs',) for "
        f"{model_type}, whose attention and MLP modules are unknown: {anatomy.reason}. "
        f"Got {part!r} instead. Its blocks are {anatomy.blocks!r}, {len(blocks)} "
        f"modules {type(blocks[0]).__name__} of "
        f"{[name for name, _ in blocks[0].named_children()]}. Name the modules whose "
        "outputs attention and MLP add: "
        f"plug_sklearn.embedding.register_anatomy({model_type!r}, "
        f"Anatomy({anatomy.blocks!r}, attn=(...,), mlp=(...,)))"
    )


def _check_stack(model: PreTrainedModel, stack: Stack | None) -> None:
    model_type = model.config.model_type
    if model.config.is_encoder_decoder and stack is None:
        raise ValueError(
            "The 'stack' parameter of HFEmbeddingTransformer must be 'encoder' or "
            f"'decoder' for {model_type}, which has both. Got {stack!r} instead."
        )
    if not model.config.is_encoder_decoder and stack is not None:
        raise ValueError(
            "The 'stack' parameter of HFEmbeddingTransformer must be 'auto' for "
            f"{model_type}, which is not an encoder-decoder model. Got {stack!r} "
            "instead."
        )


def _name_types(model: PreTrainedModel) -> list[str]:
    text_config = model.config.get_text_config()
    return list(dict.fromkeys([model.config.model_type, text_config.model_type]))


def _known_anatomy(
    model: PreTrainedModel, model_type: str, stack: Stack | None
) -> Anatomy | None:
    config = model.config.get_text_config()
    for attribute, value, anatomy in VARIANTS.get((model_type, stack), ()):
        if getattr(config, attribute, None) == value:
            return anatomy
    return FAMILIES.get((model_type, stack))


def _place_anatomy(
    model: PreTrainedModel, model_type: str, anatomy: Anatomy
) -> Anatomy | None:
    """Return the anatomy's paths from `model`, or None if its modules aren't there."""
    for root, module in _text_models(model, model_type):
        blocks = resolve_modules(module, anatomy.blocks)
        if blocks and all(
            # Some blocks may lack a part, but not all of them.
            any(
                _resolve_part(module, block, number, path)
                for number, block in enumerate(blocks)
            )
            for path in anatomy.attn + anatomy.mlp + anatomy.others
        ):
            return _move_paths(anatomy, f"{root}." if root else "")
    return None


def _move_paths(anatomy: Anatomy, prefix: str) -> Anatomy:
    """Return an anatomy whose paths begin further up, at the model."""

    def move(paths: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(re.sub("^/", f"/{prefix}", path) for path in paths)

    return replace(
        anatomy,
        blocks=",".join(f"{prefix}{path}" for path in anatomy.blocks.split(",")),
        attn=move(anatomy.attn),
        mlp=move(anatomy.mlp),
        others=move(anatomy.others),
    )


def _text_models(
    model: PreTrainedModel, model_type: str
) -> Iterator[tuple[str, PreTrainedModel]]:
    for path, module in model.named_modules():
        if (
            isinstance(module, PreTrainedModel)
            and module.config.model_type == model_type
        ):
            yield path, module
