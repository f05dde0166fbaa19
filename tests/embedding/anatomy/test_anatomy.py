from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest
import torch
import transformers
from _families import (
    CHANNELS,
    FAMILIES,
    FOUND,
    HYBRID,
    POST_NORM,
    PRE_NORM,
    build_model,
    run_tokens,
    shake_weights,
)
from _toy import build_toy
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedConfig, PreTrainedModel

from plug_sklearn.embedding.anatomy import FAMILIES as KNOWN
from plug_sklearn.embedding.anatomy import (
    Anatomy,
    Block,
    Stack,
    anatomy_of,
    find_blocks,
    register_anatomy,
    require_parts,
)

#: Where a family's norms are: one after each module of a block that adds something.
NORMS = {
    "albert": ("attention.LayerNorm", "full_layer_layer_norm"),
    "distilbert": ("sa_layer_norm", "output_layer_norm"),
    "mpnet": ("attention.LayerNorm", "output.LayerNorm"),
    "nomic_bert": ("post_attention_layernorm", "post_mlp_layernorm"),
    "opt, post-norm": ("self_attn_layer_norm", "final_layer_norm"),
    **dict.fromkeys(
        ("bart, decoder", "marian, decoder", "plbart, decoder"),
        ("self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm"),
    ),
    **dict.fromkeys(
        ("bart, encoder", "marian, encoder", "plbart, encoder"),
        ("self_attn_layer_norm", "final_layer_norm"),
    ),
}
NORMS["albert, groups"] = NORMS["albert"]
#: Built like a family that is tested, or known by their residual stream alone.
LIKE_OTHERS = {
    (family, None)
    for family in (
        *(
            family
            for (family, stack), known in KNOWN.items()
            if known.reason and stack is None
        ),
        "deepseek_v4",
        "doge",
        "flaubert",
        "glm5_next_text",
        "hy_v4_vl_text",
        "inkling2_loop_text",
        "inkling2_text",
        "squeezebert",
        "xlm",
        "xmod",
    )
} | {("pegasus_x", "encoder")}
BERT_NORMS = ("attention.output.LayerNorm", "output.LayerNorm")


@dataclass
class Call:
    """What a block took and gave in one call, and what its parts gave, in order."""

    block: Block
    taken: Tensor
    given: Tensor = field(default_factory=Tensor)
    attn: list[Tensor] = field(default_factory=list)
    mlp: list[Tensor] = field(default_factory=list)
    others: list[Tensor] = field(default_factory=list)

    def identity_error(self) -> float:
        error = self.given - self.taken - sum(self.attn + self.mlp + self.others)
        return float(error.norm() / self.given.norm())


def tensor_of(output: Any) -> Tensor:  # noqa: ANN401 - modules return what they like
    return (output if isinstance(output, Tensor) else output[0]).clone()


class Recorder:
    """Plain hooks on a model's blocks; each call of a block is a layer."""

    def __init__(self, blocks: list[Block]) -> None:
        self.calls: list[Call] = []
        self.handles: list[RemovableHandle] = []
        for block in blocks:
            self.listen_to_block(block)
            parts = {"attn": block.attn, "mlp": block.mlp, "others": block.others}
            for part, modules in parts.items():
                for module in modules:
                    self.listen_to_part(part, module)

    def listen_to_block(self, block: Block) -> None:
        def begin(_: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            taken = args[0] if args else kwargs["hidden_states"]
            self.calls.append(Call(block, taken.clone()))

        def end(_: object, __: object, output: object) -> None:
            self.calls[-1].given = tensor_of(output)

        self.handles += [
            block.module.register_forward_pre_hook(begin, with_kwargs=True),
            block.module.register_forward_hook(end),
        ]

    def listen_to_part(self, part: str, module: torch.nn.Module) -> None:
        def keep(_: object, __: object, output: object) -> None:
            call = self.calls[-1]
            states = tensor_of(output).reshape(call.taken.shape)
            getattr(call, part).append(states * call.block.scale_of(module))

        self.handles.append(module.register_forward_hook(keep))


def record_calls(model: PreTrainedModel, blocks: list[Block]) -> list[Call]:
    recorder = Recorder(blocks)
    run_tokens(model)
    for handle in recorder.handles:
        handle.remove()
    return recorder.calls


@cache
def calls_of(name: str) -> list[Call]:
    model, stack = build_model(name)
    return record_calls(model, find_blocks(model, anatomy_of(model, stack)))


@pytest.fixture
def clean_register(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plug_sklearn.embedding.anatomy._anatomy._REGISTERED", {})


@pytest.mark.parametrize("name", FOUND)
def test_parts_of_a_family_that_no_table_knows_add_up_with_what_else_it_adds(
    name: str,
) -> None:
    for call in calls_of(name):
        assert call.attn or call.mlp
        assert call.identity_error() < 1e-5
    assert any(call.others for call in calls_of(name)) is (name == "gemma4, text")


def test_scale_of_a_whole_block_follows_its_additions() -> None:
    """Trained Gemma 4 scales what each block puts out; new ones do so by 1."""
    config = FAMILIES["gemma4, text"].config()
    with torch.random.fork_rng(devices=[]):
        model = transformers.AutoModel.from_config(config).eval()
    shake_weights(model)
    for layer in model.layers:
        layer.layer_scalar.fill_(0.25)
    anatomy = anatomy_of(model, None)
    assert anatomy.post_norm
    known = anatomy_of(*build_model("gemma4, text"))
    assert (anatomy.attn, anatomy.mlp) == (known.attn, known.mlp)
    for call in record_calls(model, find_blocks(model, anatomy)):
        whole = call.taken + sum(call.attn + call.mlp + call.others)
        torch.testing.assert_close(call.given, 0.25 * whole, rtol=1e-4, atol=1e-5)


def test_what_runs_beside_attention_belongs_to_the_token_mixer() -> None:
    model, _ = build_model("falcon_h1")
    for block in find_blocks(model, anatomy_of(model, None)):
        assert set(block.attn) == {block.module.mamba, block.module.self_attn}
        assert block.mlp == (block.module.feed_forward,)


def test_a_part_is_told_by_its_class_where_all_have_one_name() -> None:
    model, _ = build_model("nemotron_h")
    blocks = find_blocks(model, anatomy_of(model, None))
    kinds = ["attn" if block.attn else "mlp" for block in blocks]
    assert kinds == ["attn", "mlp", "attn", "mlp"]


@pytest.mark.parametrize("name", PRE_NORM)
def test_blocks_add_attention_and_mlp_to_the_residual_stream(name: str) -> None:
    for call in calls_of(name):
        assert call.attn
        assert call.mlp
        assert call.identity_error() < 1e-5


@pytest.mark.parametrize("name", PRE_NORM)
def test_neither_part_alone_explains_a_block(name: str) -> None:
    for call in calls_of(name):
        for part in (sum(call.attn), sum(call.mlp)):
            rest = call.given - call.taken - part
            assert rest.norm() > 1e-2 * call.given.norm()


@pytest.mark.parametrize("name", sorted(POST_NORM.keys() - {"bloom, late residual"}))
def test_post_norm_blocks_are_their_parts_each_added_and_normed(name: str) -> None:
    for call in calls_of(name):
        state = call.taken
        parts = call.attn + call.mlp
        for part, path in zip(parts, NORMS.get(name, BERT_NORMS), strict=True):
            with torch.no_grad():
                state = call.block.module.get_submodule(path)(state + part)
        torch.testing.assert_close(state, call.given, rtol=1e-4, atol=1e-5)


def test_late_residual_of_bloom_is_normed_before_a_part_is_added() -> None:
    for call in calls_of("bloom, late residual"):
        block = call.block.module
        with torch.no_grad():
            state = block.input_layernorm(call.taken) + call.attn[0]
            state = block.post_attention_layernorm(state) + call.mlp[0]
        torch.testing.assert_close(state, call.given, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", HYBRID)
def test_blocks_of_a_hybrid_add_their_token_mixer_and_their_mlp(name: str) -> None:
    calls = calls_of(name)
    for call in calls:
        assert call.attn or call.mlp
        assert call.identity_error() < 1e-5
    kinds = {type(module).__name__ for call in calls for module in call.block.attn}
    assert len(kinds) > 1 or name in ("mamba", "falcon_mamba")


@pytest.mark.parametrize("name", [*HYBRID, "falcon_h1", "nemotron_h"])
def test_parts_of_a_hybrid_are_told_apart_by_what_they_do(name: str) -> None:
    """A token mixer carries a change of the first token to the last; no MLP does."""
    model, _ = build_model(name)
    for block in find_blocks(model, anatomy_of(model, None)):
        for part, mixes in (("attn", True), ("mlp", False)):
            for module in getattr(block, part):
                assert carries_forward(model, module) is mixes


def carries_forward(model: PreTrainedModel, module: torch.nn.Module) -> bool:
    """Run a module again with another first token; tell whether later ones change."""
    kept: dict[str, Any] = {}

    def keep(_: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        kept.update(args=args, kwargs=dict(kwargs))

    handle = module.register_forward_pre_hook(keep, with_kwargs=True)
    run_tokens(model, use_cache=False)
    handle.remove()
    args, kwargs = list(kept["args"]), kept["kwargs"]
    holder, key = (args, 0) if args else (kwargs, next(iter(kwargs)))
    states = holder[key]
    # Some MLPs take the tokens of all texts in one row.
    states = states.reshape(2, -1, states.shape[-1])
    outputs = []
    for change in (0.0, 1.0):
        changed = states.clone()
        changed[:, 0] += change
        holder[key] = changed.reshape(holder[key].shape)
        with torch.no_grad():
            output = tensor_of(module(*args, **kwargs))
        outputs.append(output.reshape(2, -1, output.shape[-1])[:, 1:])
    return not torch.allclose(*outputs, rtol=1e-5, atol=1e-6)


def hidden_states_of(name: str) -> list[Tensor]:
    """List what the model calls its hidden states after each block."""
    model, stack = build_model(name)
    output = run_tokens(model, output_hidden_states=True)
    states = output[f"{stack}_hidden_states" if stack else "hidden_states"]
    # Mamba's begin with the first block, the others' with the embeddings.
    return list(states[:-1] if name == "mamba" else states[1:])


@pytest.mark.parametrize(
    "name", sorted(FAMILIES.keys() - CHANNELS.keys() - {"deberta_v2, convolution"})
)
def test_block_outputs_are_the_hidden_states_but_for_the_last(name: str) -> None:
    calls = calls_of(name)
    states = hidden_states_of(name)
    assert len(calls) == len(states)
    for call, state in zip(calls[:-1], states[:-1], strict=True):
        torch.testing.assert_close(call.given, state, rtol=1e-5, atol=1e-5)


def test_convolution_of_deberta_comes_after_the_output_of_its_first_block() -> None:
    calls = calls_of("deberta_v2, convolution")
    states = hidden_states_of("deberta_v2, convolution")
    assert not torch.allclose(calls[0].given, states[0], rtol=1e-2)
    torch.testing.assert_close(calls[1].taken, states[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(calls[1].given, states[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", POST_NORM)
def test_post_norm_is_told(name: str) -> None:
    assert anatomy_of(*build_model(name)).post_norm


def test_falcon_adds_attention_to_the_mlp_output_in_place() -> None:
    model, stack = build_model("falcon")
    block = find_blocks(model, anatomy_of(model, stack))[0]
    seen: list[tuple[Tensor, Tensor]] = []
    handle = block.mlp[0].register_forward_hook(
        lambda _, __, output: seen.append((output, output.clone()))
    )
    run_tokens(model)
    handle.remove()
    later, at_once = seen[0]
    assert not torch.equal(later, at_once)
    torch.testing.assert_close(at_once, calls_of("falcon")[0].mlp[0])


def test_a_shared_block_is_listed_once_and_serves_every_layer() -> None:
    assert len({id(call.block.module) for call in calls_of("albert")}) == 1
    assert len(calls_of("albert")) == 3
    blocks = [id(call.block.module) for call in calls_of("albert, groups")]
    assert [blocks.index(block) for block in blocks] == [0, 0, 2, 2]


def test_blocks_inside_a_multimodal_model_are_those_of_its_text_model() -> None:
    model, stack = build_model("gemma3, multimodal")
    blocks = find_blocks(model, anatomy_of(model, stack))
    assert [block.module for block in blocks] == list(model.language_model.layers)


@pytest.mark.parametrize(
    ("name", "stack", "wanted"),
    [("t5, encoder", None, "'encoder' or 'decoder'"), ("llama", "decoder", "'auto'")],
)
def test_a_stack_that_does_not_suit_the_model_is_an_error(
    name: str,
    stack: Stack | None,
    wanted: str,
) -> None:
    with pytest.raises(ValueError, match=f"'stack' parameter of .* must be {wanted}"):
        anatomy_of(build_model(name)[0], stack)


def test_exact_but_slow_bloom_has_no_parts() -> None:
    model, _ = build_model("bloom, slow")
    anatomy = anatomy_of(model, None)
    assert len(find_blocks(model, anatomy)) == 3
    with pytest.raises(ValueError, match="slow_but_exact computes them outside"):
        require_parts(model, anatomy, ("mlp",))


def test_an_unknown_family_has_its_residual_stream_only_and_says_what_to_do() -> None:
    model = build_toy(decay=0.5)
    anatomy = anatomy_of(model, None)
    assert anatomy.blocks == "steps"
    calls = record_calls(model, find_blocks(model, anatomy))
    assert torch.equal(calls[1].taken, calls[0].given)
    require_parts(model, anatomy, ("rs",))
    with pytest.raises(ValueError) as caught:
        require_parts(model, anatomy, ("attn",))
    message = str(caught.value)
    assert "must be ('rs',) for toy" in message
    assert "'steps', 3 modules ToyBlock of ['dropout', 'look', 'think']" in message
    assert "register_anatomy('toy', Anatomy('steps', attn=(...,), mlp=" in message


@pytest.mark.usefixtures("clean_register")
def test_a_registered_anatomy_makes_an_unknown_family_work() -> None:
    model = build_toy()
    register_anatomy("toy", Anatomy("steps", attn=("look",), mlp=("think",)))
    anatomy = anatomy_of(model, None)
    require_parts(model, anatomy, ("attn", "mlp"))
    calls = record_calls(model, find_blocks(model, anatomy))
    assert len(calls) == 3
    assert max(call.identity_error() for call in calls) < 1e-5


@pytest.mark.usefixtures("clean_register")
def test_a_registered_anatomy_goes_before_the_table() -> None:
    model, stack = build_model("t5, decoder")
    mine = Anatomy("decoder.block", attn=("layer.0.SelfAttention",))
    register_anatomy("t5", mine, stack="decoder")
    assert anatomy_of(model, stack) == mine
    assert anatomy_of(model, "encoder") == KNOWN["t5", "encoder"]


@pytest.mark.usefixtures("clean_register")
def test_a_part_that_was_not_registered_is_an_error() -> None:
    model = build_toy()
    register_anatomy("toy", Anatomy("steps", attn=("look",)))
    with pytest.raises(ValueError, match=r"anatomy of 'toy' has\. Got 'mlp'"):
        require_parts(model, anatomy_of(model, None), ("rs", "attn", "mlp"))


@pytest.mark.usefixtures("clean_register")
@pytest.mark.parametrize(
    "anatomy", [Anatomy("stages"), Anatomy("steps", attn=("lock",))]
)
def test_a_registered_path_that_is_not_there_is_an_error(anatomy: Anatomy) -> None:
    register_anatomy("toy", anatomy)
    with pytest.raises(ValueError, match="registered for 'toy' must give paths"):
        anatomy_of(build_toy(), None)


def test_one_path_in_place_of_a_tuple_is_an_error() -> None:
    with pytest.raises(TypeError, match="'attn' parameter of Anatomy must be a tuple"):
        register_anatomy("toy", Anatomy("steps", attn="look"))


def list_rows() -> Iterator[str]:
    yield f"{'family':26}{'blocks':32}{'parts':14}{'identity error':>16}"
    for name in sorted(FAMILIES.keys() - CHANNELS.keys()):
        calls = calls_of(name)
        anatomy = anatomy_of(*build_model(name))
        parts = ["rs"] + [
            part if all(getattr(call.block, part) for call in calls) else f"({part})"
            for part in ("attn", "mlp")
            if any(getattr(call.block, part) for call in calls)
        ]
        error = f"{max(call.identity_error() for call in calls):.1e}"
        if anatomy.post_norm:
            error = "post-norm"
        blocks = anatomy.blocks.removeprefix("encoder.albert_layer_groups.*.")
        yield f"{name:26}{blocks:32}{' '.join(parts):14}{error:>16}"


def test_every_family_of_the_table_is_tested(tell: Callable[..., None]) -> None:
    tested = set()
    for name in FAMILIES:
        model, stack = build_model(name)
        tested.add((model.config.get_text_config().model_type, stack))
    tell(*list_rows())
    assert KNOWN.keys() - tested == LIKE_OTHERS


def list_blocks(root: nn.Module, path: str) -> list[nn.Module]:
    return [block.module for block in find_blocks(root, Anatomy(path))]


def test_paths_lead_to_modules_and_lists_to_their_items() -> None:
    root = nn.ModuleDict(
        {
            "blocks": nn.ModuleList([nn.ReLU(), nn.Tanh()]),
            "groups": nn.ModuleList(
                nn.ModuleDict({"layers": nn.ModuleList([nn.GELU(), nn.SiLU()])})
                for _ in range(2)
            ),
        }
    )
    root.config = PreTrainedConfig(hidden_size=8)
    relu, tanh = root["blocks"]
    assert list_blocks(root, "blocks") == [relu, tanh]
    assert list_blocks(root, "blocks.1") == [tanh]
    names = [type(m).__name__ for m in list_blocks(root, "groups.*.layers")]
    assert names == ["GELU", "SiLU", "GELU", "SiLU"]


def test_a_path_that_leads_nowhere_gives_nothing() -> None:
    block = nn.ReLU()
    block.register_module("attention", None)
    for path in ("attention", "attention.output", "absent"):
        assert list_blocks(block, path) == []
