import pytest
import torch
from _families import CHANNELS, FAMILIES, build_model
from _toy import build_toy
from test_anatomy import record_calls

from plug_sklearn.embedding.anatomy import _anatomy
from plug_sklearn.embedding.anatomy._anatomy import Anatomy, anatomy_of, find_blocks
from plug_sklearn.embedding.anatomy._discovery import discover_anatomy


@pytest.fixture
def known(request: pytest.FixtureRequest) -> Anatomy:
    return anatomy_of(*build_model(request.param))


@pytest.fixture
def empty_table(known: Anatomy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_anatomy, "FAMILIES", {})
    monkeypatch.setattr(_anatomy, "VARIANTS", {})


@pytest.mark.usefixtures("empty_table")
@pytest.mark.parametrize(
    ("name", "known"),
    [(n, n) for n in sorted(FAMILIES.keys() - CHANNELS.keys())],
    indirect=["known"],
)
def test_parts_found_are_those_of_the_table(name: str, known: Anatomy) -> None:
    model, stack = build_model(name)
    found = anatomy_of(model, stack)
    assert (found.post_norm, found.reason) == (known.post_norm, None)
    both = [record_calls(model, find_blocks(model, one)) for one in (found, known)]
    for call, expected in zip(*both, strict=True):
        assert torch.equal(call.given, expected.given)
        for part in ("attn", "mlp", "others"):
            tensors = [sum(getattr(one, part)) for one in (call, expected)]
            assert torch.equal(*map(torch.as_tensor, tensors))


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
