import pytest
import transformers
from _families import FAMILIES, build_model, shake_weights

from plug_sklearn.embedding import _exactness
from plug_sklearn.embedding._capture import Request
from plug_sklearn.embedding._exactness import explain_padding
from plug_sklearn.embedding._families import PACKABLE
from plug_sklearn.embedding._forward import ForwardPass
from plug_sklearn.embedding._models import LoadedModel

#: Their tiny configurations look only a few tokens back.
NARROW = {
    "cohere2",
    "gemma2",
    "gemma3, multimodal",
    "gemma3, text",
    "gpt_oss",
    "mistral",
    "olmo3",
}
REFUSING = {"falcon, alibi"}


def explain(
    model: transformers.PreTrainedModel, stack: str | None = None
) -> str | None:
    request = Request((0,), ("rs",), "last", stack)
    return explain_padding(ForwardPass(LoadedModel(model), request))


def widen_window(name: str) -> transformers.PreTrainedModel:
    """Build a family's tiny model with a window that all its positions fit in."""
    config = FAMILIES[name].config()
    config.get_text_config().sliding_window = 64
    model = transformers.AutoModel.from_config(config)
    shake_weights(model)
    return model.eval()


@pytest.mark.parametrize("name", FAMILIES)
def test_each_family_takes_its_path(name: str) -> None:
    model, stack = build_model(name)
    reason = explain(model, stack)
    family = model.config.get_text_config().model_type
    if family not in PACKABLE:
        assert reason == f"token tries are not known to be exact for {family}"
    elif name in NARROW:
        assert reason == f"{family} sees too few tokens back"
    elif name in REFUSING:
        assert f"{family} refuses token tries" in str(reason)
    else:
        assert reason is None


@pytest.mark.parametrize("name", sorted(NARROW))
def test_wider_window_takes_tries(name: str) -> None:
    assert explain(widen_window(name)) is None


@pytest.mark.parametrize("name", ["bert", "mpt", "bloom", "mamba", "qwen3_next"])
def test_family_that_is_listed_wrongly_is_found_out(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    model, _ = build_model(name)
    family = model.config.model_type
    monkeypatch.setattr(_exactness, "PACKABLE", PACKABLE | {family})
    assert family in str(explain(model))


def test_model_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    try_tries = _exactness._try_tries
    monkeypatch.setattr(
        _exactness, "_try_tries", lambda forward: tried.append(1) or try_tries(forward)
    )
    loaded = LoadedModel(build_model("llama")[0])
    for layer in (0, 1):
        explain_padding(ForwardPass(loaded, Request((layer,), ("rs",), "last")))
    assert len(tried) == 1
