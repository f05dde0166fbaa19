from collections.abc import Callable

import numpy as np
import pytest
import torch
import transformers
from _families import FAMILIES
from transformers import PreTrainedTokenizerFast

from plug_sklearn import HFEmbeddingTransformer

TEXTS = ["The city of Paris is in France.", "Gold", "One, two, three: 1 2 3"]
Save = Callable[[transformers.PreTrainedConfig, PreTrainedTokenizerFast], str]


def save_family(name: str, save_model: Save, tokenizer: PreTrainedTokenizerFast) -> str:
    config = FAMILIES[name].config()
    for part in (config, *(getattr(config, s, None) for s in ("encoder", "decoder"))):
        if part is not None:
            part.vocab_size = 330
    return save_model(config, tokenizer)


@pytest.mark.parametrize(
    ("name", "list_path", "stack"),
    [
        ("t5gemma, encoder", "encoder.layers", "encoder"),
        ("t5gemma, decoder", "decoder.layers", "decoder"),
        ("hrm_text", "H_module.layers", "auto"),
        ("longcat_flash", "layers", "auto"),
    ],
)
def test_last_layer_is_the_last_call_of_a_block(
    save_model: Save,
    byte_tokenizer: Callable[..., PreTrainedTokenizerFast],
    name: str,
    list_path: str,
    stack: str,
) -> None:
    """In each stack of T5Gemma, in HRM's rounds, and where a block counts twice."""
    tokenizer = byte_tokenizer()
    folder = save_family(name, save_model, tokenizer)
    embedder = HFEmbeddingTransformer(folder, layers=-1, stack=stack, device="cpu")
    found = embedder.fit_transform(TEXTS)[:, 0, 0]
    model = transformers.AutoModel.from_pretrained(folder).eval()
    for text, states in zip(TEXTS, found, strict=True):
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        inputs = {"input_ids": ids}
        if model.config.is_encoder_decoder:
            start = torch.full((1, 1), 1)
            inputs["decoder_input_ids"] = torch.cat([start, ids], dim=1)
        given: list[torch.Tensor] = []
        model.get_submodule(list_path)[-1].register_forward_hook(
            lambda _, __, output, given=given: given.append(output)
        )
        with torch.no_grad():
            model(**inputs)
        output = given[-1][0] if isinstance(given[-1], tuple) else given[-1]
        np.testing.assert_allclose(states, output[0, -1], rtol=1e-3, atol=1e-5)


def test_model_that_runs_other_blocks_than_its_configuration_tells_is_an_error(
    llama: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = {"llama": lambda config: 5}
    monkeypatch.setattr("plug_sklearn.embedding.models._geometry._CALLS", calls)
    embedder = HFEmbeddingTransformer(llama, device="cpu").fit(TEXTS)
    with pytest.raises(ValueError, match=r"5 blocks on a text.* Got .* runs 3"):
        embedder.transform(TEXTS)
