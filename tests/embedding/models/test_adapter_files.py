import shutil
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers
from _hub import fill_cache
from numpy.testing import assert_allclose

from plug_sklearn import HFEmbeddingTransformer, load_artifacts, save_artifacts
from plug_sklearn.embedding.models import require_safetensors

TEXTS = ["Paris is in France.", "Gold is a gas."]
REFUSED = r"'adapter' parameter of HFEmbeddingTransformer must .* safetensors"


def make_adapter(llama: str, folder: Path, *, pickled: bool) -> str:
    """Save an adapter that changes activations; as a pickle, as older releases do."""
    lora = peft.LoraConfig(r=2, target_modules=["q_proj"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.AutoModel.from_pretrained(llama)
        adapted = peft.get_peft_model(model, lora)
        for name, weight in adapted.named_parameters():
            if "lora_" in name:
                weight.data.normal_()
    adapted.save_pretrained(folder)
    if pickled:
        torch.save(
            peft.get_peft_model_state_dict(adapted), folder / "adapter_model.bin"
        )
        (folder / "adapter_model.safetensors").unlink()
    return str(folder)


def embed(llama: str, **parameters: Any) -> np.ndarray:  # noqa: ANN401
    embedder = HFEmbeddingTransformer(llama, device="cpu", **parameters)
    return embedder.fit_transform(TEXTS)


def test_pickled_adapter_is_read_only_where_the_user_says_so(
    llama: str, tmp_path: Path
) -> None:
    adapter = make_adapter(llama, tmp_path / "pickled", pickled=True)
    with pytest.raises(ValueError, match=REFUSED):
        embed(llama, adapter=adapter)
    trusted = embed(llama, adapter=adapter, model_kwargs={"use_safetensors": None})
    safe = make_adapter(llama, tmp_path / "safe", pickled=False)
    assert_allclose(trusted, embed(llama, adapter=safe))
    assert not np.allclose(trusted, embed(llama))


def test_artifact_that_names_a_pickled_adapter_is_not_loaded(
    llama: str, tmp_path: Path
) -> None:
    adapter = make_adapter(llama, tmp_path / "adapter", pickled=False)
    fitted = HFEmbeddingTransformer(llama, adapter=adapter, device="cpu").fit(TEXTS)
    save_artifacts(fitted, tmp_path / "probe")
    expected = fitted.transform(TEXTS)
    assert_allclose(load_artifacts(tmp_path / "probe").transform(TEXTS), expected)
    safe = Path(adapter) / "adapter_model.safetensors"
    torch.save({}, safe.with_suffix(".bin"))
    # PEFT takes the safetensors of both.
    load_artifacts(tmp_path / "probe")
    safe.unlink()
    with pytest.raises(ValueError, match=rf"probe\.json cannot be loaded: .*{REFUSED}"):
        load_artifacts(tmp_path / "probe")
    with pytest.raises(ValueError, match=REFUSED):
        save_artifacts(fitted, tmp_path / "again")


def test_pickle_in_an_adapter_that_another_mixes_is_refused(
    llama: str, tmp_path: Path
) -> None:
    mixed = make_adapter(llama, tmp_path / "mixed", pickled=True)
    whole = tmp_path / "whole"
    make_adapter(llama, whole, pickled=False)
    (whole / "adapter_config.json").write_text(f'{{"adapters": {{"0": "{mixed}"}}}}')
    with pytest.raises(ValueError, match=r"Got '.*mixed' instead"):
        require_safetensors(str(whole), "whole")


def test_pickled_adapter_of_the_hub_is_refused_by_its_name(
    llama: str, tmp_path: Path
) -> None:
    make_adapter(llama, tmp_path / "pickled", pickled=True)
    cached = fill_cache(tmp_path / "cache", "someone/adapter", tmp_path / "pickled")
    with pytest.raises(ValueError, match="Got 'someone/adapter' instead"):
        embed(llama, adapter="someone/adapter", model_kwargs=cached)


def test_pickled_adapter_in_a_model_s_own_folder_is_refused(
    llama: str, tmp_path: Path
) -> None:
    shutil.copytree(llama, tmp_path / "model")
    make_adapter(llama, tmp_path / "adapter", pickled=True)
    for file in (tmp_path / "adapter").iterdir():
        shutil.copy(file, tmp_path / "model")
    with pytest.raises(ValueError, match=REFUSED):
        embed(str(tmp_path / "model"))
