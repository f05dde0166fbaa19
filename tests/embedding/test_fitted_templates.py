"""What a chat template writes around texts: rendered in ``fit``, and kept."""

import datetime
import pickle
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from _in_process import record_computed
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from sklearn.base import clone
from transformers.utils import chat_template_utils

from plug_sklearn import HFEmbeddingTransformer, load_artifacts, save_artifacts
from plug_sklearn.embedding import ActivationStore
from plug_sklearn.persistence import ProvenanceWarning

TEXTS = ["gold", "iron is a metal"]
DATED = (
    "{% for message in messages %}<|im_start|>On {{ strftime_now('%d %b %Y') }}\n"
    "{{ message.content }}<|im_end|>\n{% endfor %}"
)
RANDOM = "{{ range(99999) | random }}: {{ messages[0].content }}"


class Clock:
    """A stand-in for ``datetime.datetime`` that tells the day it was set to."""

    def __init__(self) -> None:
        self.day = 26

    def now(self) -> datetime.datetime:
        return datetime.datetime(2024, 7, self.day)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of chat templates."""
    clock = Clock()
    monkeypatch.setattr(chat_template_utils, "datetime", clock)
    monkeypatch.setattr("plug_sklearn.embedding._language_model._TOLD", set())
    return clock


@pytest.fixture
def save_with_template(llama: str, tmp_path: Path) -> Callable[[str], str]:
    """Save the small model with a chat template of one's own; gives the folder."""

    def save(template: str) -> str:
        folder = tmp_path / "model"
        shutil.copytree(llama, folder)
        (folder / "chat_template.jinja").write_text(template)
        return str(folder)

    return save


@pytest.fixture
def dated(save_with_template: Callable[[str], str]) -> str:
    """Folder of a model whose chat template writes today's date."""
    return save_with_template(DATED)


def read_alone(folder: str, prompts: list[str]) -> NDArray[np.float32]:
    """The last hidden states before the final norm of prompts, each run alone."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    states = []
    for prompt in prompts:
        ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
        with torch.no_grad():
            output = model(**ids, output_hidden_states=True)
        states.append(output.hidden_states[2][0, -1].numpy())
    return np.array(states)


def write_prompts(day: int) -> list[str]:
    return [f"<|im_start|>On {day} Jul 2024\n{text}<|im_end|>\n" for text in TEXTS]


def fit(folder: str, **parameters: object) -> HFEmbeddingTransformer:
    embedder = HFEmbeddingTransformer(
        folder,
        layers=1,
        chat_template=True,
        pool_over="prompt",
        device="cpu",
        **parameters,
    )
    return embedder.fit(TEXTS)


def transform_quietly(embedder: HFEmbeddingTransformer) -> NDArray[np.float32]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ProvenanceWarning)
        return embedder.transform(TEXTS)[:, 0, 0]


def test_texts_are_read_with_the_date_of_fit(dated: str, clock: Clock) -> None:
    embedder = fit(dated)
    expected = read_alone(dated, write_prompts(26))
    assert_allclose(embedder.transform(TEXTS)[:, 0, 0], expected, rtol=1e-4, atol=1e-5)
    clock.day = 27
    assert_allclose(transform_quietly(embedder), expected, rtol=1e-4, atol=1e-5)
    expected = read_alone(dated, write_prompts(27))
    assert_allclose(
        clone(embedder).fit_transform(TEXTS)[:, 0, 0], expected, rtol=1e-4, atol=1e-5
    )


def test_copies_keep_the_date_of_fit(dated: str, clock: Clock, tmp_path: Path) -> None:
    embedder = fit(dated)
    expected = transform_quietly(embedder)
    save_artifacts(embedder, tmp_path / "embedder")
    pickled = pickle.dumps(embedder)
    clock.day = 27
    for copy in (pickle.loads(pickled), load_artifacts(tmp_path / "embedder")):
        assert_array_equal(transform_quietly(copy.set_params(device="cpu")), expected)


def test_change_of_the_date_since_fit_is_told_once(dated: str, clock: Clock) -> None:
    embedder = fit(dated)
    embedder.transform(TEXTS)
    clock.day = 27
    with pytest.warns(ProvenanceWarning, match="26 Jul 2024.*27 Jul 2024") as caught:
        embedder.transform(TEXTS)
    assert caught[0].filename == __file__
    embedder.transform(TEXTS)
    embedder.selected_tokens(TEXTS)


def test_change_is_told_where_tokens_are_shown(dated: str, clock: Clock) -> None:
    embedder = fit(dated, pooling="mean")
    expected = embedder.selected_tokens(TEXTS)
    clock.day = 27
    with pytest.warns(ProvenanceWarning, match="chat template"):
        assert embedder.selected_tokens(TEXTS) == expected


@pytest.mark.parametrize("stored", [True, False])
def test_template_that_draws_at_random_is_rendered_once(
    save_with_template: Callable[[str], str], tmp_path: Path, stored: bool
) -> None:
    store = tmp_path / "store" if stored else None
    embedder = fit(save_with_template(RANDOM), store=store)
    expected = embedder.transform(TEXTS)
    assert_array_equal(embedder.transform(TEXTS[::-1])[::-1], expected)
    assert_array_equal(pickle.loads(pickle.dumps(embedder)).transform(TEXTS), expected)


def test_other_dates_never_meet_in_the_store(
    dated: str, clock: Clock, tmp_path: Path
) -> None:
    for day in (26, 27, 26):
        clock.day = day
        found = fit(dated, store=tmp_path / "store").transform(TEXTS)[:, 0, 0]
        expected = read_alone(dated, write_prompts(day))
        assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    with ActivationStore(tmp_path / "store") as store:
        starts = {held.settings["turn"]["start"] for held in store.contents()}
    assert starts == {f"<|im_start|>On {day} Jul 2024\n" for day in (26, 27)}


def test_conversations_of_one_day_share_a_store(
    dated: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Today(datetime.datetime):
        days, seconds = 0, 0

        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> "Today":
            cls.seconds += 1
            return cls(2024, 7, 26, 12) + datetime.timedelta(cls.days, cls.seconds)

    monkeypatch.setattr("plug_sklearn.embedding.prompts._conversations.datetime", Today)
    computed = record_computed(monkeypatch)
    conversations = [[{"role": "user", "content": text}] for text in TEXTS]
    embedder = HFEmbeddingTransformer(dated, device="cpu", store=tmp_path / "store")
    expected = embedder.fit_transform(conversations)
    computed.clear()
    assert_array_equal(clone(embedder).fit_transform(conversations), expected)
    assert not computed
    Today.days = 1
    assert not np.array_equal(clone(embedder).fit_transform(conversations), expected)
    assert len(computed) == len(TEXTS)


def test_change_of_the_template_of_conversations_is_told_once(
    save_with_template: Callable[[str], str],
) -> None:
    folder = save_with_template(DATED.replace("On", "Since"))
    conversations = [[{"role": "user", "content": text}] for text in TEXTS]
    embedder = HFEmbeddingTransformer(folder, layers=1, device="cpu")
    embedder.fit(conversations)
    Path(folder, "chat_template.jinja").write_text(DATED)
    with pytest.warns(ProvenanceWarning, match="Conversations are rendered with the"):
        embedder.transform(conversations)
    embedder.transform(conversations)
    embedder.transform(TEXTS)


def test_stored_texts_are_read_with_the_date_of_fit(
    dated: str, clock: Clock, tmp_path: Path
) -> None:
    embedder = fit(dated, store=tmp_path / "store")
    expected = transform_quietly(embedder)
    clock.day = 27
    assert_array_equal(transform_quietly(embedder), expected)
    with ActivationStore(tmp_path / "store") as store:
        assert len(store) == len(TEXTS)


def test_stored_texts_need_no_tokenizer(
    dated: str, clock: Clock, tmp_path: Path
) -> None:
    embedder = fit(dated, store=tmp_path / "store")
    expected = embedder.transform(TEXTS)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (Path(dated) / name).unlink()
    assert_array_equal(embedder.transform(TEXTS), expected)


def test_pickle_of_an_earlier_release_renders_the_template_anew(
    dated: str, clock: Clock
) -> None:
    embedder = fit(dated)
    expected = embedder.transform(TEXTS)
    del embedder._turn
    assert_array_equal(embedder.transform(TEXTS), expected)


@pytest.mark.parametrize("method", ["transform", "selected_tokens"])
def test_error_about_a_text_names_its_position(llama: str, method: str) -> None:
    embedder = HFEmbeddingTransformer(llama, device="cpu").fit(TEXTS)
    said = r"one token\. Got 3 of 6 texts without one, at positions \[3, 4, 5\]; .* ''"
    with pytest.raises(ValueError, match=said):
        getattr(embedder, method)(["gold", "iron", "gold", "", "", ""])


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("n_jobs", [None, 2])
def test_refused_character_is_named_by_its_position(
    llama: str, tmp_path: Path, stored: bool, n_jobs: int | None
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(llama, folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(llama)
    tokenizer.add_tokens(["§"], special_tokens=True)
    tokenizer.save_pretrained(folder)
    embedder = HFEmbeddingTransformer(
        str(folder),
        special_tokens="literal",
        prompt_template="Is it {text}?",
        device="cpu",
        store=tmp_path / "store" if stored else None,
        n_jobs=n_jobs,
    )
    texts = ["b", "a", "a § b", "b", "c"]
    with pytest.raises(ValueError, match=r"in 'a § b', at position 2"):
        embedder.fit_transform(texts)
