import numpy as np
import pytest
import torch
import transformers
from sklearn.linear_model import LogisticRegression

from plug_sklearn import HFEmbeddingTransformer
from plug_sklearn.embedding import register_model, unregister_model, with_random_weights

TEXTS = ["Paris is in France.", "Lima is in Peru.", "Gold has the symbol Au."]


def read(embedder: HFEmbeddingTransformer, seed: int | None) -> np.ndarray:
    with with_random_weights(embedder, seed) as untrained:
        activations: np.ndarray = untrained.fit_transform(TEXTS)
    return activations


def test_weights_are_those_that_the_architecture_draws_from_the_seed(
    llama: str,
) -> None:
    embedder = HFEmbeddingTransformer(llama, device="cpu", parts=("rs", "mlp"))
    found = read(embedder, 3)
    seed = int(np.random.RandomState(3).randint(2**31))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = transformers.AutoConfig.from_pretrained(llama)
        model = transformers.AutoModel.from_config(config)
    tokenizer = transformers.AutoTokenizer.from_pretrained(llama)
    register_model("by hand", model, tokenizer)
    try:
        by_hand = HFEmbeddingTransformer("by hand", parts=("rs", "mlp"))
        assert np.array_equal(found, by_hand.fit_transform(TEXTS))
    finally:
        unregister_model("by hand")


def test_seeds_decide_and_global_generators_are_left_alone(llama: str) -> None:
    embedder = HFEmbeddingTransformer(llama, device="cpu")
    before = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002 - the global one is what is tested
    first, again, other = read(embedder, 0), read(embedder, 0), read(embedder, 1)
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)
    assert not np.allclose(first, embedder.fit_transform(TEXTS))
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002 - as above


def test_what_belongs_to_the_trained_weights_is_left_out(
    llama: str, tmp_path: object
) -> None:
    embedder = HFEmbeddingTransformer(
        llama,
        device="cpu",
        dtype="float32",
        layers=[-1],
        pooling=("last", "mean"),
        attn_implementation="eager",
        store=f"{tmp_path}/store",
    )
    with with_random_weights(embedder, 0) as untrained:
        assert untrained.store is None
        assert untrained.fit_transform(TEXTS).shape == (3, 1, 2, 16)
        name = untrained.model_name
    assert embedder.store is not None
    # The weights are gone.
    with pytest.raises(OSError, match="or the name of a model in memory"):
        HFEmbeddingTransformer(name, model_kwargs={"local_files_only": True}).fit(["a"])


def test_the_name_is_forgotten_after_an_error(llama: str) -> None:
    with pytest.raises(RuntimeError, match="stop"):
        with with_random_weights(HFEmbeddingTransformer(llama), 0) as untrained:
            name = untrained.model_name
            raise RuntimeError("stop")
    with pytest.raises(KeyError):
        unregister_model(name)


def test_other_estimators_are_refused() -> None:
    with (
        pytest.raises(TypeError, match="Got LogisticRegression instead"),
        with_random_weights(LogisticRegression()),  # type: ignore[arg-type]  # what is tested
    ):
        pass
