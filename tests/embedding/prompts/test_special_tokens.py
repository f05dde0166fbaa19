from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from _tokenizers import KINDS, build_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from plug_sklearn.embedding.prompts import PromptOptions, PromptReader, RefusedTextError

Build = Callable[..., PreTrainedTokenizerFast]
STRIPS = [{}, {"rstrip": True}, {"lstrip": True}, {"lstrip": True, "rstrip": True}]
CHATS = {
    "as it is": "<|user|>\n{{ messages[0].content }}<|end|>\n",
    "trimmed": "<|user|>\n{{ messages[0].content | trim }}<|end|>\n",
    "right stripped": "<|user|>\n{{ messages[0].content.rstrip() }}<|end|>\n",
    "left stripped": "<|user|> {{ messages[0].content.lstrip() }} <|end|>",
    "in brackets": "[INST] {{ messages[0].content | trim }} [/INST]",
    "nothing between": "<|user|>{{ messages[0].content }}<|end|>",
    "no special tokens": "user\n{{ messages[0].content }}\n\nassistant\n",
}
TEMPLATES = ["{text}", "Q: {text}\nA:", "({text})", "is it {text} or {text}? "]
HOSTILE = [
    " hello",
    "hello ",
    "\nhello",
    "hello\n\n",
    "\n\n\n",
    "  ",
    "\t",
    "",
    "<|end|>",
    "hello <|end|> there",
    " <|user|> hello",
    "<|end|>\n",
    "hello<|end|><|end|>there",
    "|end|>",
    "<",
    "INST]",
    "hello.",
    "é漢🙂",
    " \n <|end|> \n ",
]


@cache
def tokenizer_of(kind: str, strip: int, chat: str) -> PreTrainedTokenizerFast:
    tokenizer = build_tokenizer(kind, **STRIPS[strip])
    tokenizer.chat_template = CHATS[chat]
    return tokenizer


def encode(
    tokenizer: PreTrainedTokenizerFast, texts: list[str], **options: object
) -> list[list[int]]:
    reader = PromptReader(tokenizer, PromptOptions(**options), None)
    return [ids.tolist() for ids in reader.encoder.encode(texts, needs_owners=False)[0]]


def list_steering(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> list[int]:
    """List the ids of special and added tokens in a prompt."""
    return [i for i in ids if i in tokenizer.added_tokens_decoder]


def measure_common(prompts: list[list[int]]) -> int:
    """Count the tokens that all prompts begin with."""
    n = 0
    while (
        all(len(ids) > n for ids in prompts) and len({ids[n] for ids in prompts}) == 1
    ):
        n += 1
    return n


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("strip", range(len(STRIPS)))
@pytest.mark.parametrize("kind", KINDS)
def test_hostile_texts_stand_in_the_tokens_around_ordinary_ones(
    kind: str, strip: int, chat: str
) -> None:
    tokenizer = tokenizer_of(kind, strip, chat)
    for template in TEMPLATES:
        options = {"prompt_template": template, "chat_template": True}
        # What the tokenizer itself puts around texts that no one could take amiss.
        ordinary = encode(tokenizer, ["hello", "7", "there"], **options)
        backwards = [ids[::-1] for ids in ordinary]
        n_before, n_after = measure_common(ordinary), measure_common(backwards)
        # Where they have white space in common before or after the text, it is theirs.
        found = encode(
            tokenizer, ["hello", *HOSTILE], special_tokens="literal", **options
        )
        for text, ids in zip(["hello", *HOSTILE], found, strict=True):
            before, after = strip_white_space(
                tokenizer, ordinary[0][:n_before], backwards[0][:n_after]
            )
            assert ids[: len(before)] == before, (template, text)
            assert ids[::-1][: len(after)] == after, (template, text)


def strip_white_space(
    tokenizer: PreTrainedTokenizerFast, before: list[int], after: list[int]
) -> tuple[list[int], list[int]]:
    """Leave out blank tokens next to the text, which may be its own."""
    stripped = []
    for ids in (before, after):
        ids = list(ids)
        while ids and not tokenizer.decode(ids[-1:]).strip():
            ids.pop()
        stripped.append(ids)
    return stripped[0], stripped[1]


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("strip", range(len(STRIPS)))
@pytest.mark.parametrize("kind", KINDS)
def test_the_template_has_the_same_tokens_around_every_text(
    kind: str, strip: int, chat: str
) -> None:
    tokenizer = tokenizer_of(kind, strip, chat)
    for template in TEMPLATES:
        options = PromptOptions(template, chat_template=True, special_tokens="literal")
        reader = PromptReader(tokenizer, options, None)
        fixed_ids = reader.encoder.find_literal_ids()
        first, *_, last = fixed_ids
        texts = ["hello", *HOSTILE]
        for ids in reader.encoder.encode(texts, needs_owners=False)[0]:
            prompt = ids.tolist()
            assert prompt[: len(first)] == first
            assert prompt[len(prompt) - len(last) :] == last
            special = set(reader.special.steering.tolist())
            in_template = [i for ids in fixed_ids for i in ids if i in special]
            assert [i for i in prompt if i in special] == in_template


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("strip", range(len(STRIPS)))
@pytest.mark.parametrize("kind", KINDS)
def test_ordinary_texts_are_read_as_when_parsed(
    kind: str, strip: int, chat: str
) -> None:
    tokenizer = tokenizer_of(kind, strip, chat)
    texts = ["hello", "7", "two spaces", "Paris is big"]
    for template in ("{text}", "Q: {text}\nA:", "({text})"):
        options = {"prompt_template": template, "chat_template": True}
        literal = encode(tokenizer, texts, special_tokens="literal", **options)
        assert literal == encode(tokenizer, texts, **options)


@pytest.mark.parametrize(
    "kind", ["bytes", "metaspace first", "metaspace never", "llama"]
)
@given(text=st.text(alphabet="ab <|>ednusr\n", max_size=12))
def test_literal_text_is_all_there(kind: str, text: str) -> None:
    tokenizer = tokenizer_of(kind, 0, "as it is")
    for spelled in (text, f"{text}<|end|>{text}", f"<|user|>{text}"):
        ids = encode(tokenizer, [spelled], special_tokens="literal")[0]
        decoded = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        # Metaspace puts a space in front of a text, and takes it off again.
        assert decoded.lstrip(" ") == spelled.lstrip(" ")


def test_special_token_of_one_character_is_refused(byte_tokenizer: Build) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["§"], special_tokens=True)
    with pytest.raises(RefusedTextError, match="of this model, in 'a § b'") as caught:
        encode(tokenizer, ["fine", "a § b"], special_tokens="literal")
    assert caught.value.texts == ["a § b"]


def test_overlapping_spellings_cannot_spell_a_token(byte_tokenizer: Build) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["[[A]", "A]]"])
    (ids,) = encode(tokenizer, ["[[A]]"], special_tokens="literal")
    assert not list_steering(tokenizer, ids)
    assert tokenizer.decode(ids) == "[[A]]"


def test_template_and_text_cannot_spell_a_token_together(byte_tokenizer: Build) -> None:
    tokenizer = byte_tokenizer()
    options = {"prompt_template": "Is it <{text}", "special_tokens": "literal"}
    for text in ("think>", "|im_end|>"):
        (ids,) = encode(tokenizer, [text], **options)
        assert not list_steering(tokenizer, ids)
        assert tokenizer.decode(ids) == f"Is it <{text}"


@pytest.mark.parametrize("spelling", ["<|im_start|>", "<|im_end|>", "<pad>", "<think>"])
def test_text_cannot_spell_a_token(byte_tokenizer: Build, spelling: str) -> None:
    tokenizer = byte_tokenizer(wraps=True)
    text = f"a {spelling}{spelling} b"
    (parsed,) = encode(tokenizer, [text])
    assert len(list_steering(tokenizer, parsed)) == 4
    ((first, *ids, last),) = encode(tokenizer, [text], special_tokens="literal")
    assert (first, last) == (3, 4)
    assert not list_steering(tokenizer, ids)
    assert tokenizer.decode(ids) == text


def test_template_s_own_tokens_stay_special(byte_tokenizer: Build) -> None:
    tokenizer = byte_tokenizer()
    template = "<|im_start|>user\n{text}<|im_end|>"
    (ids,) = encode(
        tokenizer, ["<|im_start|>"], prompt_template=template, special_tokens="literal"
    )
    own = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    assert list_steering(tokenizer, ids) == own == [ids[0], ids[-1]]


def special_tokens_of(tokenizer: PreTrainedTokenizerFast) -> Any:  # noqa: ANN401
    return PromptReader(tokenizer, PromptOptions(), None).special


def test_special_and_added_tokens_are_counted(byte_tokenizer: Build) -> None:
    tokenizer = byte_tokenizer(wraps=True)
    ids = tokenizer("a <|im_end|> b <think>")["input_ids"]
    assert special_tokens_of(tokenizer).count(ids) == 4


def test_tokens_that_the_tokenizer_adds_are_known(byte_tokenizer: Build) -> None:
    assert special_tokens_of(byte_tokenizer(wraps=True)).added == ([3], [4])
    assert special_tokens_of(byte_tokenizer()).added == ([], [])


def test_spellings_are_found_in_any_case(byte_tokenizer: Build) -> None:
    found = special_tokens_of(byte_tokenizer()).spelling.findall("a <PAD><|im_end|>")
    assert found == ["<PAD>", "<|im_end|>"]


def test_context_begins_at_the_last_special_token(byte_tokenizer: Build) -> None:
    special = special_tokens_of(byte_tokenizer())
    assert special.find_context("<pad>a<|im_start|>user\n") == "<|im_start|>user\n"
    assert special.find_context("user\n") == "user\n"


def test_tokens_that_strip_what_is_beside_them_are_known() -> None:
    right = special_tokens_of(build_tokenizer("bytes", rstrip=True))
    assert right.strips_right_of("a <|user|>\n")
    assert not right.strips_right_of("<|user|> a")
    assert not right.strips_left_of("<|end|>")
    left = special_tokens_of(build_tokenizer("bytes", lstrip=True))
    assert left.strips_left_of("\n<|end|> a")
    assert not left.strips_right_of("<|user|>")
