"""Find the transformer blocks of a model, and what adds to their residual stream."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from plug_sklearn.embedding._families import FAMILIES, VARIANTS, Anatomy, Stack

__all__ = [
    "Anatomy",
    "Block",
    "Stack",
    "anatomy_of",
    "find_blocks",
    "first_tensor",
    "register_anatomy",
    "require_parts",
]

_REGISTERED: dict[tuple[str, Stack | None], Anatomy] = {}


@dataclass(frozen=True)
class Block:
    """One transformer block of a model, and the modules that are its parts.

    Attributes
    ----------
    module : nn.Module
        The block. Its output is the residual stream.
    attn, mlp : tuple of nn.Module
        Modules whose outputs, summed and times `multiplier`, are what attention and
        the MLP add to the residual stream. Empty where the block has no such part.
    multiplier : float
        Scale of both contributions.
    """

    module: nn.Module
    attn: tuple[nn.Module, ...]
    mlp: tuple[nn.Module, ...]
    multiplier: float


def register_anatomy(
    model_type: str, anatomy: Anatomy, *, stack: Stack | None = None
) -> None:
    """Tell where a model family keeps its blocks, attention and MLP.

    The registration holds in this process, and goes before what the package knows.

    Parameters
    ----------
    model_type : str
        The family, as its configuration names it: ``model.config.model_type``.
    anatomy : Anatomy
        Where the parts are.
    stack : {"encoder", "decoder"}, default=None
        The stack meant, for an encoder-decoder.

    Raises
    ------
    TypeError
        If `attn` or `mlp` of the anatomy is not a tuple of paths.

    See Also
    --------
    Anatomy : What can be told.

    Examples
    --------
    >>> from plug_sklearn.embedding import Anatomy, register_anatomy
    >>> register_anatomy(
    ...     "my_model", Anatomy("layers", attn=("mixer",), mlp=("feed_forward",))
    ... )
    """
    for part in ("attn", "mlp"):
        paths = getattr(anatomy, part)
        if not isinstance(paths, tuple):
            raise TypeError(
                f"The {part!r} parameter of Anatomy must be a tuple of module paths. "
                f"Got {paths!r} instead."
            )
    _REGISTERED[model_type, stack] = anatomy


def anatomy_of(model: PreTrainedModel, stack: Stack | None) -> Anatomy:
    """Say where a model keeps its blocks, attention and MLP.

    Parameters
    ----------
    model : PreTrainedModel
        A model as ``AutoModel`` builds it.
    stack : {"encoder", "decoder"} or None
        The stack of an encoder-decoder; None for a model that has one stack.

    Returns
    -------
    Anatomy
        With paths from `model`, also where the text model is inside a larger one.

    Raises
    ------
    ValueError
        If `stack` does not suit the model or the blocks are not found.
    """
    _check_stack(model, stack)
    for model_type in _name_types(model):
        registered = _REGISTERED.get((model_type, stack))
        known = registered or _known_anatomy(model, model_type, stack)
        if known is None:
            continue
        for prefix, module in _text_models(model, model_type):
            if _resolve(module, known.blocks):
                return replace(known, blocks=_join(prefix, known.blocks))
        if registered is not None:
            raise ValueError(
                f"The 'blocks' parameter of the Anatomy registered for "
                f"{model_type!r} must be the path of a list of modules in "
                f"{type(model).__name__}. Got {known.blocks!r} instead."
            )
    raise ValueError(f"No blocks were found in {type(model).__name__}.")


def find_blocks(model: PreTrainedModel, anatomy: Anatomy) -> list[Block]:
    """List the distinct blocks of a model with the modules that are their parts.

    Parameters
    ----------
    model : PreTrainedModel
        The model that `anatomy` describes.
    anatomy : Anatomy
        What `anatomy_of` returned for it.

    Returns
    -------
    list of Block
        In the order of the model's layers. A block that serves several layers,
        as in ALBERT, is listed once.
    """
    return [
        Block(
            module=module,
            attn=tuple(m for path in anatomy.attn for m in _resolve(module, path)),
            mlp=tuple(m for path in anatomy.mlp for m in _resolve(module, path)),
            multiplier=float(getattr(module, anatomy.multiplier))
            if anatomy.multiplier
            else 1.0,
        )
        for module in _resolve(model, anatomy.blocks)
    ]


def first_tensor(output: object) -> Tensor:
    """Return a module's output tensor: itself, or the first of several outputs.

    Parameters
    ----------
    output : Tensor, tuple or ModelOutput
        What the module returned.

    Returns
    -------
    Tensor

    Raises
    ------
    TypeError
        If the first output is no tensor.
    """
    first = output[0] if isinstance(output, tuple | list | ModelOutput) else output
    if not isinstance(first, Tensor):
        raise TypeError(
            "A module's output must be a tensor or begin with one. "
            f"Got {type(output).__name__} instead."
        )
    return first


def require_parts(
    model: PreTrainedModel,
    anatomy: Anatomy,
    *,
    layers: Sequence[int],
    parts: Sequence[str],
) -> None:
    """Make sure that the layers asked for have the parts asked for.

    Parameters
    ----------
    model : PreTrainedModel
        The model that `anatomy` describes.
    anatomy : Anatomy
        What `anatomy_of` returned for it.
    layers : sequence of int
        Layers, counted from 0.
    parts : sequence of {"rs", "attn", "mlp"}
        Parts.

    Raises
    ------
    ValueError
        If a layer lacks a part, or the family is unknown and its parts were not found.
    """
    blocks = find_blocks(model, anatomy)
    for part in parts:
        if part == "rs":
            continue
        # Layers beyond the list of distinct blocks share the last one's anatomy.
        missing = [
            layer
            for layer in layers
            if not getattr(blocks[min(layer, len(blocks) - 1)], part)
        ]
        if missing:
            raise ValueError(
                "The 'parts' parameter of HFEmbeddingTransformer must be parts that "
                f"each layer has. Got {part!r} instead, which layers {missing} of "
                f"{model.config.model_type} do not have."
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
            f"{model_type}, which has one stack. Got {stack!r} instead."
        )


def _name_types(model: PreTrainedModel) -> list[str]:
    text_config = model.config.get_text_config()
    return list(dict.fromkeys([model.config.model_type, text_config.model_type]))


def _known_anatomy(
    model: PreTrainedModel, model_type: str, stack: Stack | None
) -> Anatomy | None:
    config: PreTrainedConfig = model.config.get_text_config()
    for variant in VARIANTS.get((model_type, stack), ()):
        if getattr(config, variant.attribute, None) == variant.value:
            return variant.anatomy
    return FAMILIES.get((model_type, stack))


def _text_models(
    model: PreTrainedModel, model_type: str
) -> Iterator[tuple[str, PreTrainedModel]]:
    for path, module in model.named_modules():
        if (
            isinstance(module, PreTrainedModel)
            and module.config.model_type == model_type
        ):
            yield path, module


def _resolve(root: nn.Module, path: str) -> list[nn.Module]:
    """List the modules at a path; a list of modules stands for its items."""
    modules = [root]
    for name in path.split("."):
        found: list[nn.Module | None] = []
        for module in modules:
            children = dict(module.named_children())
            found += children.values() if name == "*" else [children.get(name)]
        modules = [module for module in found if module is not None]
    return [
        item
        for module in modules
        for item in (module if isinstance(module, nn.ModuleList) else [module])
    ]


def _join(prefix: str, path: str) -> str:
    return f"{prefix}.{path}" if prefix else path
