"""Which modules hold the blocks, attention and MLP of each model family."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Literal

from torch import nn

Stack = Literal["encoder", "decoder"]


@dataclass(frozen=True)
class Anatomy:
    """Where a model family keeps its transformer blocks and their parts.

    Paths are dotted, as in ``torch.nn.Module.get_submodule``. ``*`` and ``?`` match any
    characters of a name, as in file names. ``a|b`` stands for the first of several
    paths that exists. The path of a part may begin with ``/``: it then leads from the
    model to a list of as many modules as there are blocks, one for each block.

    Parameters
    ----------
    blocks : str
        Path from the model, as ``AutoModel`` builds it, to its list of blocks. Paths of
        several lists are separated by commas.
    attn : tuple of str, default=()
        Paths from a block to the modules whose outputs add up to what the token mixer
        adds to the residual stream: attention, or the linear attention, state space or
        convolution in its place. If a block has none of these modules, the part is
        zero. Modules whose class has the name of an MLP count as ``mlp``.
    mlp : tuple of str, default=()
        The same for the MLP, dense or a mixture of experts.
    others : tuple of str, default=()
        The same for everything else that a block adds, such as a token embedding for
        each layer. It is not a part that can be read, but completes the sum.
    multiplier : str or mapping of str to str, default=None
        Attribute of the block by which the outputs are multiplied; or a mapping of
        paths to such attributes, for some of the modules. ``"1/name"``: the outputs are
        divided by the attribute.
    post_norm : bool, default=False
        Whether a norm or a scale is applied after an addition. The output of a block is
        then not the sum of its input and its parts.
    channels : int, default=None
        Axis of a block's output that holds several channels of the residual stream; -1
        if the last axis holds them one after another. The part ``"rs"`` is their mean.
        The other parts are what the token mixer and the MLP pass to the channels; each
        channel adds this with its own weight.
    token_axis : int, default=1
        Axis of a block's output, without channels, along which the tokens lie.
    reason : str, default=None
        Why ``attn`` and ``mlp`` are unknown, if they are.

    See Also
    --------
    register_anatomy : Registers an anatomy for a family.

    Examples
    --------
    >>> from plug_sklearn.embedding import Anatomy
    >>> Anatomy("layers", attn=("self_attn",), mlp=("mlp",)).blocks
    'layers'
    """

    blocks: str
    attn: tuple[str, ...] = ()
    mlp: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    multiplier: str | Mapping[str, str] | None = None
    post_norm: bool = False
    channels: int | None = None
    token_axis: int = 1
    reason: str | None = None


def resolve_modules(root: nn.Module, path: str) -> list[nn.Module]:
    """List the modules at a path below `root`, none if the path leads nowhere.

    Names are joined by dots; ``*`` and ``?`` stand for any characters, as in file
    names. A list of modules at the end of the path stands for its items. Several paths
    are joined by commas; of paths joined by ``|``, the first that leads somewhere
    counts.
    """
    modules: list[nn.Module] = []
    for alternatives in path.split(","):
        found = (_resolve_path(root, one) for one in alternatives.split("|"))
        modules += next(filter(None, found), [])
    return modules


def _resolve_path(root: nn.Module, path: str) -> list[nn.Module]:
    modules = [root]
    for name in path.split("."):
        modules = [
            child
            for module in modules
            for child_name, child in module._modules.items()
            if child is not None and fnmatchcase(child_name, name)
        ]
    return [
        item
        for module in modules
        for item in (module if isinstance(module, nn.ModuleList) else [module])
    ]


_LLAMA = Anatomy("layers", ("self_attn",), ("mlp",))
_SANDWICH = Anatomy(
    "layers", ("post_attention_layernorm",), ("post_feedforward_layernorm",)
)
_GRANITE_MOE = Anatomy(
    "layers",
    ("self_attn",),
    ("block_sparse_moe",),
    multiplier="residual_multiplier",
)
_GRANITE_HYBRID = replace(
    _GRANITE_MOE, attn=("self_attn", "mamba"), mlp=("block_sparse_moe", "shared_mlp")
)
_GPT2 = Anatomy("h", ("attn",), ("mlp",))
_OPT = Anatomy("decoder.layers", ("self_attn",), ("fc2",))
_BLOOM = Anatomy("h", ("self_attention.dense",), ("mlp.dense_4h_to_h",))
_BERT = Anatomy(
    "encoder.layer", ("attention.output.dense",), ("output.dense",), post_norm=True
)
_T5_ENCODER = Anatomy(
    "encoder.block", ("layer.0.SelfAttention",), ("layer.1.DenseReluDense",)
)
_T5_DECODER = Anatomy(
    "decoder.block",
    ("layer.0.SelfAttention", "layer.1.EncDecAttention"),
    ("layer.2.DenseReluDense",),
)
_MBART_ENCODER = Anatomy("encoder.layers", ("self_attn",), ("fc2",))
_MBART_DECODER = Anatomy("decoder.layers", ("self_attn", "encoder_attn"), ("fc2",))

# Each block reads one mixture of the channels, and writes to all of them.
_HYPER_CONNECTED = replace(_LLAMA, post_norm=True, channels=2)
# The layers of XLM are four lists: what the second norm puts out is the stream.
_XLM = Anatomy("layer_norm2", ("/attentions",), ("/ffns",), post_norm=True)
# The stream begins anew at some blocks; a convolution follows each part.
_INKLING = Anatomy(
    "layers",
    ("post_attention_convolution",),
    ("post_mlp_convolution",),
    post_norm=True,
)

#: Families whose blocks add what no module puts out, and why.
_ONLY_STREAM: Mapping[str, Anatomy] = {
    "beam": Anatomy("layers", reason="the depth of a layer scales what it adds"),
    "dory": Anatomy("layers", reason="its blocks rotate the stream"),
    "gpt_neox_japanese": Anatomy(
        "layers", reason="its last block adds a bias outside of any module"
    ),
    "mobilebert": Anatomy(
        "encoder.layer", reason="its blocks narrow the stream and widen it again"
    ),
    "muse_spark_text": Anatomy(
        "layers", reason="gates mix the stream with what a block adds"
    ),
    "xlnet": Anatomy(
        "layer", token_axis=0, reason="its attention adds outside of any module"
    ),
    "zaya": Anatomy(
        "layers", reason="a learned scale and bias change what a block adds"
    ),
}

_ONE_STACK: Mapping[str, Anatomy] = {
    **_ONLY_STREAM,
    **dict.fromkeys(
        (
            "cohere",
            "cohere2",
            "deepseek_v3",
            "gemma",
            "gpt_oss",
            "llama",
            "mistral",
            "mixtral",
            "olmo",
            "phi",
            "phi3",
            "qwen2",
            "qwen2_moe",
            "qwen3",
            "qwen3_moe",
            "smollm3",
            "stablelm",
            "starcoder2",
        ),
        _LLAMA,
    ),
    **dict.fromkeys(
        ("qwen3_5_moe_text", "qwen3_5_text", "qwen3_next"),
        replace(_LLAMA, attn=("self_attn", "linear_attn")),
    ),
    **dict.fromkeys(("gemma2", "gemma3_text", "olmo2", "olmo3"), _SANDWICH),
    **dict.fromkeys(
        ("deepseek_v4", "glm5_next_text", "hy_v4", "hy_v4_vl_text"), _HYPER_CONNECTED
    ),
    "qwen4_exp_text": replace(
        _HYPER_CONNECTED, attn=("self_attn", "linear_attn"), channels=-1
    ),
    **dict.fromkeys(("inkling2_loop_text", "inkling2_text"), _INKLING),
    **dict.fromkeys(("gpt2", "gpt_neo", "gptj", "codegen", "gpt_bigcode"), _GPT2),
    **dict.fromkeys(
        (
            "bert",
            "camembert",
            "deberta",
            "deberta-v2",
            "electra",
            "ernie",
            "rembert",
            "roberta",
            "xlm-roberta",
            "xmod",
        ),
        _BERT,
    ),
    "albert": Anatomy(
        # One group of layers is called again and again, and a layer is one call.
        "encoder.albert_layer_groups.*.albert_layers",
        ("attention.dense",),
        ("ffn_output",),
        post_norm=True,
    ),
    "bloom": _BLOOM,
    "distilbert": Anatomy(
        "transformer.layer", ("attention",), ("ffn",), post_norm=True
    ),
    # A weight for each channel scales the stream before each addition.
    "doge": replace(_LLAMA, post_norm=True),
    "falcon": Anatomy("h", ("self_attention",), ("mlp",)),
    "gemma3n_text": replace(_SANDWICH, post_norm=True, channels=0),
    "glm4": Anatomy("layers", ("post_self_attn_layernorm",), ("post_mlp_layernorm",)),
    "gpt_neox": Anatomy("layers", ("attention",), ("mlp",)),
    "granite": replace(_LLAMA, multiplier="residual_multiplier"),
    "granitemoe": _GRANITE_MOE,
    "granitemoehybrid": _GRANITE_HYBRID,
    "llama4_text": Anatomy("layers", ("self_attn",), ("feed_forward",)),
    "mamba": Anatomy("layers", ("mixer",)),
    "modernbert": Anatomy("layers", ("attn",), ("mlp",)),
    "mpnet": Anatomy(
        "encoder.layer", ("attention.attn",), ("output.dense",), post_norm=True
    ),
    # The block hands its residual to `ffn`, which adds it.
    "mpt": Anatomy("blocks", ("attn",), ("ffn.down_proj",)),
    "nomic_bert": replace(_LLAMA, post_norm=True),
    "opt": _OPT,
    # Hooks on its blocks are never called: the encoder calls their ``forward``.
    "squeezebert": Anatomy(
        "encoder.layers.*.output",
        ("/encoder.layers.*.post_attention.conv1d",),
        ("conv1d",),
        post_norm=True,
        token_axis=2,
    ),
    **dict.fromkeys(("flaubert", "xlm"), _XLM),
}

_TWO_STACKS: Mapping[str, tuple[Anatomy, Anatomy]] = {
    **dict.fromkeys(("t5", "mt5"), (_T5_ENCODER, _T5_DECODER)),
    **dict.fromkeys(("mbart", "pegasus"), (_MBART_ENCODER, _MBART_DECODER)),
    **dict.fromkeys(
        ("bart", "marian", "plbart"),
        (
            replace(_MBART_ENCODER, post_norm=True),
            replace(_MBART_DECODER, post_norm=True),
        ),
    ),
}

FAMILIES: dict[tuple[str, Stack | None], Anatomy] = {
    **{(family, None): anatomy for family, anatomy in _ONE_STACK.items()},
    **{(family, "encoder"): pair[0] for family, pair in _TWO_STACKS.items()},
    **{(family, "decoder"): pair[1] for family, pair in _TWO_STACKS.items()},
    ("pegasus_x", "encoder"): Anatomy(
        "encoder.layers",
        reason="every second block shifts the tokens inside of its attention",
    ),
}

#: Anatomies of families where an attribute of the configuration has a value.
VARIANTS: dict[tuple[str, Stack | None], tuple[tuple[str, object, Anatomy], ...]] = {
    ("opt", None): (("do_layer_norm_before", False, replace(_OPT, post_norm=True)),),
    ("granitemoehybrid", None): (
        ("num_local_experts", 0, replace(_GRANITE_HYBRID, mlp=("shared_mlp",))),
    ),
    ("bloom", None): (
        (
            "slow_but_exact",
            True,
            Anatomy("h", reason="slow_but_exact computes them outside of any module"),
        ),
        (
            "apply_residual_connection_post_layernorm",
            True,
            replace(_BLOOM, post_norm=True),
        ),
    ),
}
