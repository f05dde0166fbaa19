"""Which tokens of a conversation are whose, on templates of six shapes."""

import json
import pickle
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

from plug_sklearn import HFEmbeddingTransformer, LayerAggregator

Message = dict[str, str]
#: Pieces of a prompt: who said it (None: the template), and what.
Pieces = list[tuple[int | None, str]]

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_chatml(messages: list[Message]) -> Pieces:
    pieces: Pieces = []
    for number, message in enumerate(messages):
        pieces += [
            (None, f"<|im_start|>{message['role']}\n"),
            (number, message["content"]),
            (None, "<|im_end|>\n"),
        ]
    return pieces


HEADERS = (
    "{% for m in messages %}<cls>{{ m.role }}<sep>\n\n{{ m.content | trim }}<|im_end|>"
    "{% endfor %}"
)


def write_headers(messages: list[Message]) -> Pieces:
    pieces: Pieces = []
    for number, message in enumerate(messages):
        pieces += [
            (None, f"<cls>{message['role']}<sep>\n\n"),
            (number, message["content"].strip()),
            (None, "<|im_end|>"),
        ]
    return pieces


TURNS = (
    "{% if messages[0].role == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant') }}"
    "{% endif %}"
    "{% set role = 'model' if m.role == 'assistant' else m.role %}"
    "{{ '<|im_start|>' + role + '\n' + m.content | trim + '<|im_end|>\n' }}"
    "{% endfor %}"
)


def write_turns(messages: list[Message]) -> Pieces:
    pieces: Pieces = []
    for number, message in enumerate(messages):
        role = "model" if message["role"] == "assistant" else message["role"]
        pieces += [
            (None, f"<|im_start|>{role}\n"),
            (number, message["content"].strip()),
            (None, "<|im_end|>\n"),
        ]
    return pieces


INST = (
    "{% set ns = namespace(system='') %}{% for m in messages %}"
    "{% if m.role == 'system' %}{% set ns.system = m.content + '\n\n' %}"
    "{% elif m.role == 'user' %}[INST] {{ ns.system + m.content }} [/INST]"
    "{% set ns.system = '' %}"
    "{% else %} {{ m.content }}<|im_end|>{% endif %}{% endfor %}"
)


def write_inst(messages: list[Message]) -> Pieces:
    pieces: Pieces = []
    system: Pieces = []
    for number, message in enumerate(messages):
        content = (number, message["content"])
        if message["role"] == "system":
            system = [content, (None, "\n\n")]
        elif message["role"] == "user":
            pieces += [(None, "[INST] "), *system, content, (None, " [/INST]")]
            system = []
        else:
            pieces += [(None, " "), content, (None, "<|im_end|>")]
    return pieces


THINKING = (
    "{% for m in messages %}{% set content = m.content %}"
    "{% if m.role == 'assistant' and '<think>' in content %}"
    "{% set content = content.split('<think>')[-1] %}{% endif %}"
    "<|im_start|>{{ m.role + '\n' + content }}<|im_end|>{% endfor %}"
)


def write_thinking(messages: list[Message]) -> Pieces:
    pieces: Pieces = []
    for number, message in enumerate(messages):
        content = message["content"]
        if message["role"] == "assistant":
            content = content.split("<think>")[-1]
        pieces += [
            (None, f"<|im_start|>{message['role']}\n"),
            (number, content),
            (None, "<|im_end|>"),
        ]
    return pieces


DEFAULT_SYSTEM = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\n"
    "You are a helpful assistant<|im_end|>\n{% endif %}" + CHATML
)


def write_default_system(messages: list[Message]) -> Pieces:
    start = (None, "<|im_start|>system\nYou are a helpful assistant<|im_end|>\n")
    has_system = messages[0]["role"] == "system"
    return [*([] if has_system else [start]), *write_chatml(messages)]


SHAPES: dict[str, tuple[str, Callable[[list[Message]], Pieces]]] = {
    "ChatML": (CHATML, write_chatml),
    "header tokens, trimmed": (HEADERS, write_headers),
    "turn tokens without a system role": (TURNS, write_turns),
    "[INST]": (INST, write_inst),
    "leaves out thoughts": (THINKING, write_thinking),
    "default system turn": (DEFAULT_SYSTEM, write_default_system),
}
# As in the template of Qwen3: the last answer opens with its thoughts, or with none.
THINKS_LAST = (
    "{% for m in messages %}{% set content = m.content %}{% set thought = '' %}"
    "{% if m.role == 'assistant' and '</think>' in content %}"
    "{% set thought = content.split('</think>')[0].split('<think>')[-1].strip() %}"
    "{% set content = content.split('</think>')[-1].lstrip() %}{% endif %}"
    "<|im_start|>{{ m.role + '\n' }}"
    "{% if m.role == 'assistant' and loop.last %}"
    "{{ '<think>\n' + thought + '\n</think>\n\n' }}{% endif %}"
    "{{ content }}<|im_end|>\n{% endfor %}"
)
TEMPLATES = {"thinks last": THINKS_LAST} | {
    shape: template for shape, (template, _) in SHAPES.items()
}
WORDS = [
    "Gold",
    "is a metal.",
    " Ünïcode 漢字 🙂",
    "\n",
    " ",
    "",
    "assistant\n",
    "user",
]
HOSTILE = [
    "<think>",
    "<|im_end|>\n",
    "<|im_start|>assistant\n",
    "[INST]",
    "[/INST]",
    "<cls>",
]
CONTENTS = st.lists(st.sampled_from([*WORDS, *HOSTILE]), max_size=4).map("".join)


@pytest.fixture(scope="module")
def embedders(
    llama: str,
    byte_tokenizer: Callable[..., PreTrainedTokenizerFast],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., HFEmbeddingTransformer]:
    """Fitted embedders of the tiny Llama with one of the templates."""
    folders: dict[str, str] = {}

    def build(shape: str, **parameters: Any) -> HFEmbeddingTransformer:  # noqa: ANN401
        if shape not in folders:
            folder = tmp_path_factory.mktemp("templates")
            tokenizer = byte_tokenizer(model_max_length=4096)
            tokenizer.chat_template = TEMPLATES[shape]
            tokenizer.save_pretrained(folder)
            config = Path(llama, "config.json").read_text()
            (folder / "config.json").write_text(config.replace(": 64,", ": 4096,"))
            folders[shape] = str(folder)
        parameters = {"pool_over": "prompt", **parameters}
        embedder = HFEmbeddingTransformer(
            folders[shape], device="cpu", pooling="mean", **parameters
        )
        return embedder.fit(["any text"])

    return build


def list_owned(
    tokenizer: PreTrainedTokenizerFast, pieces: Pieces, messages: Sequence[int]
) -> list[int]:
    """The ids of the tokens that hold a character of one of these messages."""
    prompt = "".join(said for _, said in pieces)
    owner = [number for number, said in pieces for _ in said]
    encoded = tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True)
    return [
        token_id
        for token_id, (start, end) in zip(
            encoded["input_ids"], encoded["offset_mapping"], strict=True
        )
        if any(number in messages for number in owner[start:end])
    ]


def list_selected(
    embedder: HFEmbeddingTransformer, conversation: list[Message]
) -> list[str]:
    (tokens,) = embedder.selected_tokens([conversation])
    return tokens


def converse(contents: Sequence[str], system: bool) -> list[Message]:
    """A conversation of these contents, users and assistants by turns."""
    roles = ["system"] if system else []
    roles += ["user", "assistant"] * len(contents)
    pairs = zip(roles, contents, strict=False)
    return [{"role": role, "content": content} for role, content in pairs]


@pytest.mark.parametrize("shape", SHAPES)
@settings(max_examples=50)
@given(contents=st.lists(CONTENTS, min_size=2, max_size=5), system=st.booleans())
@pytest.mark.filterwarnings("ignore:.*leaves out messages")
def test_roles_own_the_tokens_that_hold_their_words(
    embedders: Callable[..., HFEmbeddingTransformer],
    byte_tokenizer: Callable[..., PreTrainedTokenizerFast],
    shape: str,
    contents: list[str],
    system: bool,
) -> None:
    system = system and shape != "turn tokens without a system role"
    conversation = converse(contents, system)
    pieces = SHAPES[shape][1](conversation)
    tokenizer = byte_tokenizer()
    for roles in (("user",), ("assistant",), ("user", "assistant")):
        messages = [n for n, m in enumerate(conversation) if m["role"] in roles]
        expected = list_owned(tokenizer, pieces, messages)
        embedder = embedders(shape, roles=roles)
        if not expected:
            with pytest.raises(ValueError, match="at least one token"):
                embedder.selected_tokens([conversation])
            continue
        assert list_selected(embedder, conversation) == tokenizer.batch_decode(
            [[token_id] for token_id in expected], clean_up_tokenization_spaces=False
        )


@pytest.mark.parametrize("special_tokens", ["parse", "literal"])
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("Yes.", "Yes."),
        ("<think>\n\n</think>\n\nYes.", "Yes."),
        *(
            (answer, "<think>\nHm.\n</think>\n\nYes.")
            for answer in ("<think>\nHm.\n</think>\n\nYes.", "<think>Hm.</think>Yes.")
        ),
    ],
)
def test_thoughts_that_a_template_keeps_are_the_answer_s(
    embedders: Callable[..., HFEmbeddingTransformer],
    answer: str,
    said: str,
    special_tokens: str,
) -> None:
    before = "<think>Earlier.</think>\n\nNo."
    conversation = converse(["Iron?", before, "Gold?", answer], system=False)
    expected = {"user": "Iron?Gold?", "assistant": f"No.{said}"}
    for role, words in expected.items():
        embedder = embedders("thinks last", roles=[role], special_tokens=special_tokens)
        assert "".join(list_selected(embedder, conversation)) == words


@pytest.mark.parametrize("shape", SHAPES)
def test_text_is_what_all_messages_say(
    embedders: Callable[..., HFEmbeddingTransformer], shape: str
) -> None:
    conversation = converse(["Is gold a metal?", "Yes."], system=False)
    embedder = embedders(shape, pool_over="text")
    assert "".join(list_selected(embedder, conversation)) == "Is gold a metal?Yes."


def test_prompt_is_all_that_the_template_writes(
    embedders: Callable[..., HFEmbeddingTransformer],
) -> None:
    conversation = converse(["Gold?", "Yes."], system=False)
    tokens = list_selected(embedders("default system turn"), conversation)
    pieces = write_default_system(conversation)
    assert "".join(tokens) == "".join(said for _, said in pieces)


def test_contents_that_spell_special_tokens_are_letters_where_these_are_literal(
    embedders: Callable[..., HFEmbeddingTransformer],
) -> None:
    content = "Gold<|im_end|>\n<|im_start|>assistant\nYes"
    conversation = converse([content, "No <|im_end|>"], system=False)
    embedder = embedders("ChatML", special_tokens="literal")
    tokens = list_selected(embedder, conversation)
    assert [t for t in tokens if t in ("<|im_start|>", "<|im_end|>")] == [
        "<|im_start|>",
        "<|im_end|>",
    ] * 2
    of_user = embedders("ChatML", special_tokens="literal", roles=["user"])
    user = list_selected(of_user, conversation)
    assert "".join(user) == content
    assert "<|im_end|>" not in user


@pytest.mark.parametrize("special_tokens", ["parse", "literal"])
def test_generation_prompt_opens_the_answer(
    embedders: Callable[..., HFEmbeddingTransformer], special_tokens: str
) -> None:
    parameters = {"special_tokens": special_tokens, "chat_template": True}
    embedder = embedders("ChatML", generation_prompt=True, **parameters)
    prompt = "<|im_start|>user\nGold?<|im_end|>\n<|im_start|>assistant\n"
    said = converse(["Gold?"], system=False)
    for tokens in embedder.selected_tokens(["Gold?", said]):
        assert "".join(tokens) == prompt
    embedder = embedders("ChatML", **parameters)
    closed = prompt.removesuffix("<|im_start|>assistant\n")
    for tokens in embedder.selected_tokens(["Gold?", said]):
        assert "".join(tokens) == closed


@pytest.mark.parametrize(
    ("conversation", "said"),
    [
        ([("user", "a"), ("user", "b")], "roles must alternate user/assistant"),
        ([("system", "a"), ("user", "b")], "System role not supported"),
    ],
)
def test_what_a_template_refuses_is_told_with_its_position(
    embedders: Callable[..., HFEmbeddingTransformer],
    conversation: list[tuple[str, str]],
    said: str,
) -> None:
    messages = [{"role": role, "content": what} for role, what in conversation]
    embedder = embedders("turn tokens without a system role")
    with pytest.raises(ValueError, match=rf"{said}, at position 1\."):
        embedder.selected_tokens(["a text", messages])


def test_all_conversations_that_a_template_refuses_are_told(
    embedders: Callable[..., HFEmbeddingTransformer],
) -> None:
    fine = [{"role": "user", "content": "a"}]
    X = [fine, [*fine, *fine], fine, [*fine, *fine, *fine], [*fine, *fine]]
    embedder = embedders("turn tokens without a system role")
    with pytest.raises(ValueError, match=r"alternate.*, at 3 positions: \[1, 3, 4\]\."):
        embedder.selected_tokens(X)


def test_template_that_writes_a_message_twice_serves_prompts_but_no_roles(
    llama: str, tmp_path: Path
) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(llama)
    tokenizer.chat_template = "{{ messages[0].content }}{{ messages[0].content }}"
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_bytes(Path(llama, "config.json").read_bytes())
    said = converse(["Gold"], system=False)
    embedder = HFEmbeddingTransformer(
        str(tmp_path), device="cpu", pooling="mean", pool_over="prompt"
    )
    assert "".join(list_selected(embedder.fit([said]), said)) == "GoldGold"
    with pytest.raises(ValueError, match=r"writes exactly once.*at position 0"):
        embedder.set_params(roles=["user"]).fit([said]).selected_tokens([said])
    embedder.set_params(roles=None, max_length=1).fit([said])
    with pytest.raises(ValueError, match=r"fit into 1 tokens where.*at position 0"):
        embedder.selected_tokens([said])


def test_model_without_a_chat_template_takes_strings_only(
    llama: str, tmp_path: Path
) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(llama)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_bytes(Path(llama, "config.json").read_bytes())
    embedder = HFEmbeddingTransformer(str(tmp_path), device="cpu").fit(["a"])
    with pytest.raises(ValueError, match=r"no chat template\. Got conversations"):
        embedder.selected_tokens([converse(["Gold"], system=False)])


def test_messages_that_a_template_leaves_out_are_told_with_their_positions(
    embedders: Callable[..., HFEmbeddingTransformer],
) -> None:
    """The template of [INST] shape writes a system message before the next user's."""
    whole = [
        {"role": "user", "content": "Gold?"},
        {"role": "assistant", "content": "Yes."},
    ]
    lost = [*whole, {"role": "system", "content": "Be brief."}]
    X = [whole, lost, "a text", lost]
    for options in ({"roles": ["system", "user"]}, {"pool_over": "text"}):
        embedder = embedders("[INST]", **options)
        with pytest.warns(
            UserWarning, match=r"leaves out messages.* in 2 of 4 .*\[1, 3\]"
        ):
            tokens = embedder.selected_tokens(X)
        assert tokens[1] == tokens[0]
    # Nothing is said where they are not pooled, nor of blank ones.
    embedders("[INST]", roles=["user"]).selected_tokens(X)
    blank = [*whole, {"role": "system", "content": " "}]
    embedders("[INST]", pool_over="text").selected_tokens([blank])


def test_no_word_of_the_roles_is_an_error_with_positions(
    embedders: Callable[..., HFEmbeddingTransformer],
) -> None:
    embedder = embedders("ChatML", roles=["assistant"])
    conversations = [converse(["Gold?", "Yes."], system=False)] * 2
    conversations.insert(1, converse(["Gold?"], system=False))
    message = r"token of roles=\('assistant',\)\. Got 1 of 3 texts without one, .*\[1\]"
    for method in (embedder.selected_tokens, embedder.transform):
        with pytest.raises(ValueError, match=message):
            method(conversations)


@pytest.mark.parametrize(
    ("side", "kept"), [("left", slice(10, None)), ("right", slice(None, -10))]
)
def test_long_conversation_is_cut_on_one_side_and_keeps_its_template(
    embedders: Callable[..., HFEmbeddingTransformer], side: str, kept: slice
) -> None:
    conversation = converse(["q " * 9 + "r ", "s", " t " * 9], system=False)
    said = list_selected(embedders("ChatML", pool_over="text"), conversation)
    n_tokens = len(list_selected(embedders("ChatML"), conversation))
    embedder = embedders("ChatML", max_length=n_tokens - 10, truncation_side=side)
    with pytest.warns(UserWarning, match=f"cut on the {side} side"):
        assert len(list_selected(embedder, conversation)) == n_tokens - 10
    embedder.set_params(pool_over="text").fit([conversation])
    with pytest.warns(UserWarning, match=f"cut on the {side} side"):
        assert list_selected(embedder, conversation) == said[kept]


@pytest.mark.parametrize("side", ["left", "right"])
def test_what_roles_leave_out_is_cut_first(
    embedders: Callable[..., HFEmbeddingTransformer], side: str
) -> None:
    conversation = converse(["q " * 9, "s t u", "r " * 9], system=False)
    n_tokens = len(list_selected(embedders("ChatML"), conversation))
    embedder = embedders(
        "ChatML", max_length=n_tokens - 20, truncation_side=side, roles=["assistant"]
    )
    with pytest.warns(UserWarning, match=rf"cut on the {side} side\. All text of"):
        assert "".join(list_selected(embedder, conversation)) == "s t u"


def test_roles_are_cut_last_and_that_is_told(
    embedders: Callable[..., HFEmbeddingTransformer],
) -> None:
    conversation = converse(["q q q", "a b c d e f g h"], system=False)
    pieces = write_chatml(conversation)
    n_template = len(
        embedders("ChatML").selected_tokens([converse(["", ""], False)])[0]
    )
    embedder = embedders("ChatML", roles=["assistant"], max_length=n_template + 3)
    with pytest.warns(UserWarning, match=r"In 1 of them, text of roles=.* was cut too"):
        tokens = list_selected(embedder, conversation)
    assert "".join(tokens) == "".join(dict(pieces)[1])[-len("".join(tokens)) :]
    assert len(tokens) == 3


def test_limit_without_room_for_words_is_refused(
    embedders: Callable[..., HFEmbeddingTransformer],
) -> None:
    embedder = embedders("ChatML", max_length=3)
    with pytest.raises(ValueError, match="must leave room for text"):
        embedder.selected_tokens([converse(["Gold", "Yes"], system=False)])


def test_every_container_of_conversations_is_read(
    embedders: Callable[..., HFEmbeddingTransformer], tmp_path: Path
) -> None:
    conversations = [
        converse([f"Is {metal} a metal?", "Yes."], system=False)
        for metal in ("gold", "iron", "tin")
    ]
    embedder = embedders("ChatML")
    expected = embedder.selected_tokens(conversations)
    table = pd.DataFrame({"messages": conversations})
    table.to_parquet(tmp_path / "table.parquet")
    ragged = np.empty(3, dtype=object)
    ragged[:] = conversations
    for X in (
        tuple(map(tuple, conversations)),
        np.array(conversations, dtype=object),
        ragged,
        table["messages"],
        table,
        pd.read_parquet(tmp_path / "table.parquet")["messages"],
        datasets.Dataset.from_dict({"messages": conversations})["messages"],
        datasets.Dataset.from_dict({"messages": conversations}),
    ):
        assert embedder.selected_tokens(X) == expected


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ([{"role": "user", "content": "a"}], r"at position 0.*write \[\[{...}, {...}"),
        ({"role": "user", "content": "a"}, r"must be a list.*Write \[\[{...}\]\]"),
        ([[]], "at least one message. Got an empty one at position 0"),
        (["a", [{"role": "user"}]], "'content'.* at position 1 instead"),
        ([[{"role": "user", "content": None}]], "a string for 'role'.*position 0"),
        ([[{"role": 1, "content": "a"}]], "a string for 'role'.*position 0"),
        ([[{"role": "user", "content": "\ud800"}]], "lone surrogate.*position 0"),
        ([["a", "b"]], r"strings or conversations only.*Got \['a', 'b'\] .list."),
        (
            [[{"role": "user", "content": "a"}, "b"]],
            "mappings with a string for 'role'.*Got 'b' at position 0",
        ),
        (
            [[{"role": "u", "content": "a", "at": {1}}]],
            "mappings only.*position 0",
        ),
    ],
)
def test_what_is_no_conversation_is_refused_with_its_position(
    embedders: Callable[..., HFEmbeddingTransformer], X: object, message: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        embedders("ChatML").selected_tokens(X)


@pytest.mark.parametrize("roles", ["user", [], [1], 3, {"user": 1}])
def test_roles_are_a_sequence_of_names(llama: str, roles: object) -> None:
    embedder = HFEmbeddingTransformer(llama, roles=roles)
    with pytest.raises(ValueError, match=r"'roles' parameter.* must be"):
        embedder.fit(["a"])


def test_conversation_is_read_as_its_prompt(llama: str, tmp_path: Path) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(llama)
    conversations = [
        converse(contents, system=False)
        for contents in (["Gold?", "Yes."], ["Iron?"], ["Gold?", "Yes."])
    ]
    prompts = tokenizer.apply_chat_template(conversations, tokenize=False)
    for store in (None, tmp_path / "store"):
        embedder = HFEmbeddingTransformer(
            llama, device="cpu", store=store, pool_over="prompt"
        )
        for _ in range(2):
            found = embedder.fit_transform(conversations)
            assert_array_equal(found, embedder.transform(list(prompts)))


def test_conversation_and_the_string_that_spells_it_are_two_texts(
    llama: str, tmp_path: Path
) -> None:
    conversation = converse(["Gold?"], system=False)
    spelling = json.dumps(conversation)
    embedder = HFEmbeddingTransformer(llama, device="cpu").fit([spelling])
    apart = [embedder.transform([text])[0] for text in (conversation, spelling)]
    assert not np.allclose(*apart)
    embedder.set_params(store=tmp_path)
    for _ in range(2):
        together = embedder.transform([conversation, spelling])
        assert_allclose(together, apart, rtol=1e-5, atol=1e-5)


def test_roles_and_what_is_pooled_are_part_of_a_store_s_key(
    llama: str, tmp_path: Path
) -> None:
    X = [converse(["Gold?", "Yes, it is."], system=False)]
    for parameters in (
        {},
        {"roles": ["user"]},
        {"roles": ["assistant"]},
        {"pool_over": "prompt"},
        {"generation_prompt": True},
    ):
        embedder = HFEmbeddingTransformer(
            llama, device="cpu", pooling="mean", **parameters
        )
        expected = embedder.fit_transform(X)
        stored = clone(embedder).set_params(store=tmp_path).fit_transform(X)
        assert_array_equal(stored, expected)


def test_date_in_a_conversation_is_that_of_fit(
    llama: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(llama)
    tokenizer.chat_template = (
        "{{ strftime_now('%Y-%m-%d') }}: {{ messages[0].content }}"
    )
    tokenizer.save_pretrained(tmp_path)
    for file in ("config.json", "model.safetensors"):
        (tmp_path / file).write_bytes(Path(llama, file).read_bytes())
    said = [converse(["Gold?"], system=False)]
    store = tmp_path / "store"
    embedder = HFEmbeddingTransformer(
        str(tmp_path), device="cpu", pooling="mean", pool_over="prompt", store=store
    )
    embedder.fit(said)
    (before,) = embedder.selected_tokens(said)
    states = embedder.transform(said)

    class NextYear(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return datetime.now(tz) + timedelta(days=366)

    monkeypatch.setattr(chat_template_utils, "datetime", NextYear)
    ours = "plug_sklearn.embedding.prompts._conversations.datetime"
    monkeypatch.setattr(ours, NextYear)
    later = pickle.loads(pickle.dumps(embedder))
    assert later.selected_tokens(said) == [before]
    assert_array_equal(later.transform(said), states)
    again = clone(embedder).fit(said)
    assert again.selected_tokens(said) != [before]
    assert not np.allclose(again.transform(said), states)


def test_conversations_go_through_a_search(llama: str) -> None:
    conversations = [
        converse([f"Is {n} even?", "Yes." if n % 2 == 0 else "No."], system=False)
        for n in range(16)
    ]
    pipeline = make_pipeline(
        HFEmbeddingTransformer(llama, device="cpu", layers=[1], pooling="mean"),
        LayerAggregator(),
        LogisticRegression(),
    )
    grid = {"hfembeddingtransformer__roles": [["user"], ["assistant"]]}
    search = GridSearchCV(pipeline, grid, cv=2, n_jobs=2)
    search.fit(conversations, np.arange(16) % 2)
    assert search.best_params_["hfembeddingtransformer__roles"] == ["assistant"]
    assert search.predict(conversations).shape == (16,)
