import pytest
import torch
from _families import HYBRID, POST_NORM, PRE_NORM, build_model
from _toy import build_toy

from plug_sklearn.embedding.anatomy import _anatomy
from plug_sklearn.embedding.anatomy._anatomy import Anatomy, anatomy_of
from plug_sklearn.embedding.anatomy._discovery import discover_anatomy

#: Their blocks scale what is added, which no module's output shows.
SCALED = {"granite", "granitemoe", "granitemoehybrid", "granitemoehybrid, dense"}


@pytest.fixture
def known(request: pytest.FixtureRequest) -> Anatomy:
    return anatomy_of(*build_model(request.param))


@pytest.fixture
def empty_table(known: Anatomy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_anatomy, "FAMILIES", {})
    monkeypatch.setattr(_anatomy, "VARIANTS", {})


def by_name(names: set[str]) -> pytest.MarkDecorator:
    cases = [pytest.param(name, name, id=name) for name in sorted(names)]
    return pytest.mark.parametrize(("name", "known"), cases, indirect=["known"])


@pytest.mark.usefixtures("empty_table")
@by_name((PRE_NORM.keys() | HYBRID.keys()) - SCALED - {"mamba"})
def test_parts_found_are_those_of_the_table(name: str, known: Anatomy) -> None:
    assert anatomy_of(*build_model(name)) == known


@pytest.mark.usefixtures("empty_table")
@by_name(POST_NORM.keys() | SCALED | {"mamba"})
def test_blocks_are_found_where_parts_do_not_add_up(name: str, known: Anatomy) -> None:
    found = anatomy_of(*build_model(name))
    # The one group of layers of ALBERT returns what its one layer does.
    assert found.blocks == known.blocks.removesuffix(".*.albert_layers")
    assert (found.attn, found.mlp) == ((), ())
    assert found.reason is not None
    assert found.reason.startswith("no modules were found that add up")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", ["gemma2", "gptj", "llama"])
def test_parts_are_found_in_any_precision(name: str, dtype: torch.dtype) -> None:
    model, stack = build_model(name)
    copy = type(model)(model.config).eval()
    copy.load_state_dict(model.state_dict())
    known = anatomy_of(model, stack)
    assert discover_anatomy(copy.to(dtype), "", stack) == known


def test_modules_not_named_for_attention_are_no_parts() -> None:
    assert discover_anatomy(build_toy(), "", None).reason is not None


@pytest.mark.parametrize("mode", ["unlinked", "flat"])
def test_blocks_that_hand_on_no_residual_stream_are_an_error(mode: str) -> None:
    with pytest.raises(ValueError, match=r"modules in 'steps' do not.*register_anat"):
        anatomy_of(build_toy(mode=mode), None)


def test_a_model_without_a_list_of_blocks_is_an_error() -> None:
    model = build_toy()
    model.steps = torch.nn.Sequential(*model.steps)
    with pytest.raises(ValueError, match="must name a model with a list of blocks"):
        anatomy_of(model, None)
