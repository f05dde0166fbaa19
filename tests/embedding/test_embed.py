"""The embedder with a store, in one process and in several."""

import shutil
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
from _adapted import LORA, train_adapter
from _hub import COMMIT, fill_cache
from _in_process import forget_texts, record_computed
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from plug_sklearn import HFEmbeddingTransformer, LayerAggregator
from plug_sklearn.embedding import ActivationStore, release_models
from plug_sklearn.embedding.passes import Request

NAMES = ("gold", "iron", "neon", "argon", "zinc", "tin", "lead", "helium")
TEXTS = [f"{name} is a {kind}" for name in NAMES for kind in ("metal", "gas")]


def embed(
    folder: str, store: Path | None, texts: Sequence[str] = TEXTS, **parameters: object
) -> np.ndarray:
    embedder = HFEmbeddingTransformer(folder, device="cpu", store=store, **parameters)
    return embedder.fit_transform(texts)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Request]]:
    """Texts that the model computes from now on, each with what is read of it."""
    return record_computed(monkeypatch)


def test_store_changes_nothing_but_the_work(
    llama: str, tmp_path: Path, computed: list[Any]
) -> None:
    expected = embed(llama, None)
    computed.clear()
    for _ in range(3):
        assert_allclose(embed(llama, tmp_path), expected, rtol=1e-5, atol=1e-5)
    assert sorted(text for text, _ in computed) == sorted(TEXTS)


def test_other_batches_and_rows_are_read_from_the_store(
    llama: str, tmp_path: Path, computed: list[Any]
) -> None:
    expected = embed(llama, tmp_path)
    computed.clear()
    texts = [TEXTS[3], TEXTS[1], TEXTS[3]]
    found = embed(llama, tmp_path, texts, batch_tokens=7, layers=[2])
    assert_array_equal(found, expected[[3, 1, 3]][:, [2]])
    assert not computed


def test_conversations_do_not_change_where_strings_are_stored(
    llama: str, tmp_path: Path, computed: list[Any]
) -> None:
    embed(llama, tmp_path)
    computed.clear()
    conversation = [{"role": "user", "content": "gold"}]
    mixed = [*TEXTS[:2], conversation, *TEXTS[2:]]
    expected = embed(llama, None, mixed)
    computed.clear()
    assert_allclose(embed(llama, tmp_path, mixed), expected, rtol=1e-5, atol=1e-5)
    assert len(computed) == 1


def test_numpy_numbers_name_the_same_settings_as_others(
    llama: str, tmp_path: Path, computed: list[Any]
) -> None:
    embed(llama, tmp_path, max_length=20)
    computed.clear()
    embed(llama, tmp_path, max_length=np.int64(20), layers=np.arange(3))
    assert not computed


def test_more_layers_compute_the_missing_ones_only(
    llama: str, tmp_path: Path, computed: list[Any]
) -> None:
    embed(llama, tmp_path, layers=[0])
    computed.clear()
    found = embed(llama, tmp_path)
    assert {asked.layers for _, asked in computed} == {(1, 2)}
    assert_allclose(found, embed(llama, None), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "parameters",
    [
        {"token_filter": "special"},
        {"eos_token": "<|im_end|>"},
        {"prompt_template": "{text}."},
        {"chat_template": True},
        {"special_tokens": "literal"},
        {"max_length": 60},
        {"truncation_side": "right"},
        {"dtype": "bfloat16"},
        {"attn_implementation": "eager"},
        {"model_kwargs": {"rms_norm_eps": 10.0}},
        {"quantization": "8bit"},
    ],
)
def test_what_changes_activations_never_meets_in_the_store(
    llama: str, tmp_path: Path, parameters: dict[str, Any]
) -> None:
    embed(llama, tmp_path)
    embed(llama, tmp_path, **parameters)
    with ActivationStore(tmp_path) as store:
        assert len(store) == 2 * len(TEXTS)


def test_a_later_way_of_reading_never_meets_an_earlier_one_in_the_store(
    llama: str, tmp_path: Path
) -> None:
    embed(llama, tmp_path)
    with ActivationStore(tmp_path) as store:
        (held,) = store.contents()
        number = held.settings["reading"]
        current = store.register(held.model, **held.settings)
        later = store.register(held.model, **{**held.settings, "reading": number + 1})
        assert current != later


@pytest.mark.parametrize(
    "parameters", [{"model_kwargs": {"rms_norm_eps": 10.0}}, {"quantization": "8bit"}]
)
def test_stored_states_are_those_of_the_weights_as_they_are_loaded(
    llama: str, tmp_path: Path, parameters: dict[str, Any]
) -> None:
    plain = embed(llama, tmp_path)
    expected = embed(llama, None, **parameters)
    assert not np.allclose(plain, expected, atol=0.01)
    assert_allclose(embed(llama, tmp_path, **parameters), expected, rtol=1e-5)
    assert_array_equal(embed(llama, tmp_path), plain)


@pytest.mark.parametrize("first", ["encoder", "decoder"])
def test_stacks_of_one_model_never_meet_in_the_store(
    t5: str, tmp_path: Path, first: str
) -> None:
    expected = {s: embed(t5, None, stack=s, layers=[0]) for s in ("encoder", "decoder")}
    assert not np.allclose(expected["encoder"], expected["decoder"], atol=0.01)
    for stack in (first, "encoder", "decoder"):
        found = embed(t5, tmp_path, stack=stack, layers=[0])
        assert_allclose(found, expected[stack], rtol=1e-5)


def test_adapters_never_meet_in_the_store(llama: str, tmp_path: Path) -> None:
    store = tmp_path / "store"
    adapters: list[str | None] = [None]
    for rank in (1, 2):
        folder = tmp_path / f"rank_{rank}"
        train_adapter("AutoModel", llama, folder, peft.LoraConfig(**LORA | {"r": rank}))
        adapters.append(str(folder))
    expected = [embed(llama, None, adapter=adapter) for adapter in adapters]
    for other in (1, 2):
        assert not np.allclose(expected[other], expected[other - 1], atol=0.1)
    for _ in range(2):
        for adapter, states in zip(adapters, expected, strict=True):
            found = embed(llama, store, adapter=adapter)
            assert_allclose(found, states, rtol=1e-5, atol=1e-5)
    with ActivationStore(store) as opened:
        assert len(opened) == len(adapters) * len(TEXTS)


def test_texts_of_a_failed_transform_are_free_while_the_store_stays_open(
    llama: str, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(llama, folder)
    embedder = HFEmbeddingTransformer(
        str(folder), device="cpu", store=tmp_path / "store"
    ).fit(TEXTS)
    # The store then knows the model without its weights.
    embedder.transform(TEXTS[:1])
    release_models()
    weights = (folder / "model.safetensors").rename(tmp_path / "away")
    with ActivationStore(tmp_path / "store"):
        with pytest.raises(OSError, match=r"model\.safetensors"):
            embedder.transform(TEXTS)
        weights.rename(folder / "model.safetensors")
        # Claims that were kept would be waited for as long as the store is open.
        found: list[np.ndarray] = []
        again = threading.Thread(
            target=lambda: found.append(embedder.transform(TEXTS)), daemon=True
        )
        again.start()
        again.join(timeout=60)
        assert found, "the texts are still claimed"
    assert_allclose(found[0], embed(llama, None), rtol=1e-5, atol=1e-5)


def test_poolings_stand_side_by_side_in_the_store(
    llama: str, tmp_path: Path, computed: list[Any]
) -> None:
    poolings = ("last", "mean", "max", "first")
    expected = {pooling: embed(llama, None, pooling=pooling) for pooling in poolings}
    for pooling in poolings:
        found = embed(llama, tmp_path, pooling=pooling)
        assert_allclose(found, expected[pooling], rtol=1e-5, atol=1e-5)
    computed.clear()
    for pooling in poolings:
        found = embed(llama, tmp_path, pooling=pooling)
        assert_allclose(found, expected[pooling], rtol=1e-5, atol=1e-5)
    assert not computed
    with ActivationStore(tmp_path) as store:
        assert len(store) == len(TEXTS)


def test_other_weights_never_meet_in_the_store(
    llama: str, bert: str, tmp_path: Path, computed: list[Any]
) -> None:
    embed(llama, tmp_path)
    computed.clear()
    embed(bert, tmp_path)
    assert len(computed) == len(TEXTS)
    with ActivationStore(tmp_path) as store:
        assert len(store.contents()) == 2


def test_stored_texts_need_no_weights(llama: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(llama, folder)
    expected = embed(str(folder), tmp_path / "store")
    release_models()
    (folder / "model.safetensors").unlink()
    assert_array_equal(embed(str(folder), tmp_path / "store"), expected)


def test_store_that_cannot_be_a_folder_is_an_error(llama: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = f"'store' parameter .* Got '{tmp_path / 'file'}' instead, which is a file"
    with pytest.raises(ValueError, match=found):
        embed(llama, tmp_path / "file")


def test_grid_search_in_two_processes_reads_each_text_once(
    llama: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"

    class Counting(HFEmbeddingTransformer):
        """Writes every text that its model computes to a file, in any process."""

        def _describe_model(self) -> Any:  # noqa: ANN401 - a private class
            model = super()._describe_model()
            compute = type(model).compute

            def count(texts: Sequence[str], *asked: object) -> Iterator[Any]:
                with log.open("a") as lines:
                    lines.write("".join(f"{text}\n" for text in texts))
                return compute(model, texts, *asked)

            object.__setattr__(model, "compute", count)
            return model

    pipe = make_pipeline(
        Counting(llama, device="cpu", store=tmp_path / "store"),
        LayerAggregator(),
        LogisticRegression(max_iter=1000),
    )
    grid = {
        "layeraggregator__layers": [[0], [1], [2]],
        "logisticregression__C": [0.1, 1.0],
    }
    labels = [name in NAMES[:4] for name in NAMES for _ in range(2)]
    search = GridSearchCV(pipe, grid, cv=5, n_jobs=2).fit(TEXTS, labels)
    assert search.cv_results_["mean_test_score"].shape == (6,)
    assert Counter(log.read_text().splitlines()) == Counter(TEXTS)


def test_second_reading_without_a_store_hints_at_it_once(
    llama: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_texts(monkeypatch)
    embed(llama, None)
    with pytest.warns(UserWarning, match="store='some/folder'"):
        embed(llama, None)
    embed(llama, None)


def test_store_that_names_no_folder_is_refused(llama: str) -> None:
    with pytest.raises(ValueError, match=r"'store'.*Got 3 instead"):
        embed(llama, 3)
    with pytest.raises(ValueError, match=r"'store'.*Got '' instead"):
        embed(llama, "")


@pytest.mark.parametrize("local", [True, False])
def test_adapter_of_the_hub_needs_no_configuration_of_a_model(
    llama: str, tmp_path: Path, local: bool
) -> None:
    train_adapter("AutoModel", llama, tmp_path / "a", peft.LoraConfig(**LORA))
    assert not (tmp_path / "a" / "config.json").exists()
    cached = fill_cache(tmp_path / "cache", "org/adapter", tmp_path / "a")
    fill_cache(tmp_path / "cache", "org/model", llama)
    found = embed(
        llama if local else "org/model",
        tmp_path / "store",
        adapter="org/adapter",
        model_kwargs=cached,
    )
    assert_array_equal(found, embed(llama, None, adapter=str(tmp_path / "a")))
    with ActivationStore(tmp_path / "store") as store:
        (stored,) = store.contents()
    assert stored.settings["adapter"] == f"org/adapter@{COMMIT}"


def test_adapter_in_a_model_s_folder_is_part_of_the_key(
    llama: str, tmp_path: Path
) -> None:
    folder, store = str(tmp_path / "both"), tmp_path / "store"
    shutil.copytree(llama, folder)
    before = embed(folder, store)
    train_adapter("AutoModel", llama, Path(folder), peft.LoraConfig(**LORA))
    adapted = embed(folder, store)
    assert not np.allclose(adapted, before, atol=0.1)
    assert_array_equal(embed(folder, store, adapter=folder), adapted)
    with ActivationStore(store) as opened:
        keys = {"adapter" in stored.settings for stored in opened.contents()}
    assert keys == {True, False}


def test_how_files_are_fetched_is_no_part_of_the_key(
    llama: str, tmp_path: Path, computed: list[Any]
) -> None:
    for name in ("one", "other"):
        cached = fill_cache(tmp_path / name, "org/model", llama)
        embed("org/model", tmp_path / "store", model_kwargs=cached)
    assert len(computed) == len(TEXTS)


def test_subfolder_is_part_of_the_key(llama: str, bert: str, tmp_path: Path) -> None:
    for name, folder in {"one": llama, "other": bert}.items():
        shutil.copytree(folder, tmp_path / "models" / name)
        inner = {"subfolder": name}
        found = embed(str(tmp_path / "models"), tmp_path / "store", model_kwargs=inner)
        assert_array_equal(found, embed(folder, None))
