from collections.abc import Callable

import numpy as np
import pytest
from _tokenizers import KINDS, build_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import normalizers, processors
from transformers import PreTrainedTokenizerFast

from plug_sklearn.embedding.prompts import (
    Conversation,
    OpenPromptReader,
    PromptOptions,
    PromptReader,
    RefusedTextError,
    render_turn,
)

Build = Callable[..., PreTrainedTokenizerFast]
END = "<|im_end|>"
LONG = ["a long text " * 9, "another one " * 9]
SPECIAL = ["<pad>", "<pad><pad>", "<|im_end|>"]
OPENING = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
CONVERSATION = Conversation.from_messages(
    [
        {"role": "user", "content": "Gold"},
        {"role": "assistant", "content": "Au"},
        {"role": "user", "content": "Iron"},
    ]
)


def show(
    tokenizer: PreTrainedTokenizerFast,
    text: str,
    limit: int | None = None,
    **options: object,
) -> list[str]:
    """The tokens of one text that are pooled."""
    options = {"pool_over": "prompt", **options}
    reader = PromptReader(tokenizer, PromptOptions(**options), limit)
    tokens = reader.show_tokens(reader.read([text]))[0]
    reader.tell_changes([text])
    return tokens


@pytest.fixture(scope="module")
def plain(byte_tokenizer: Build) -> PreTrainedTokenizerFast:
    return byte_tokenizer()


@pytest.fixture(scope="module")
def wrapping(byte_tokenizer: Build) -> PreTrainedTokenizerFast:
    return byte_tokenizer(wraps=True)


def test_all_tokens_are_kept_by_default(wrapping: PreTrainedTokenizerFast) -> None:
    assert "".join(show(wrapping, "is in Peru.")) == "<cls>is in Peru.<sep>"


def test_special_filter_leaves_out_special_tokens(
    wrapping: PreTrainedTokenizerFast,
) -> None:
    assert "".join(show(wrapping, "is in Peru.", token_filter="special")) == (
        "is in Peru."
    )


def test_non_text_filter_leaves_out_punctuation_too(
    wrapping: PreTrainedTokenizerFast,
) -> None:
    kept = show(wrapping, "is, in - Peru 1.!", token_filter="non_text")
    assert "".join(kept) == "is in Peru 1"


def test_bytes_of_a_letter_are_text(plain: PreTrainedTokenizerFast) -> None:
    assert len(show(plain, "ж.", token_filter="non_text")) == 2


@pytest.mark.parametrize("tail", [END, END + END, END + "\n", f" {END} \n{END}\n", ""])
def test_trailing_run_of_the_end_token_is_left_out(
    plain: PreTrainedTokenizerFast, tail: str
) -> None:
    kept = show(plain, f"Au{END} is gold{tail}", eos_token=END)
    assert "".join(kept).rstrip(" ") == f"Au{END} is gold"


def test_text_that_ends_blank_without_the_end_token_keeps_its_blanks(
    plain: PreTrainedTokenizerFast,
) -> None:
    assert "".join(show(plain, "gold\n", eos_token=END)) == "gold\n"


def test_chat_turn_ends_at_the_answer_with_the_end_token(
    plain: PreTrainedTokenizerFast,
) -> None:
    kept = show(plain, "is gold", chat_template=True, eos_token=END)
    assert "".join(kept) == "<|im_start|>user\nis gold"


def test_text_without_a_token_left_is_pooled_whole_and_counted(
    plain: PreTrainedTokenizerFast,
) -> None:
    options = PromptOptions(token_filter="non_text")
    reader = PromptReader(plain, options, None)
    with pytest.warns(UserWarning, match="2 of 3 distinct texts have no token left"):
        prompts = reader.read(["...", "gold", "!"])
        reader.tell_changes([])
    assert [len(tokens) for tokens in reader.show_tokens(prompts)][::2] == [3, 1]


def test_template_goes_around_the_text(plain: PreTrainedTokenizerFast) -> None:
    kept = show(plain, "Au", prompt_template="Is {text} gold? {text}!")
    assert "".join(kept) == "Is Au gold? Au!"


def test_literal_text_cannot_end_the_turn(plain: PreTrainedTokenizerFast) -> None:
    def count_ends(special_tokens: str) -> int:
        options = PromptOptions(chat_template=True, special_tokens=special_tokens)
        prompts = PromptReader(plain, options, None).read([f"Hi {END} there"])
        return int(np.sum(prompts.ids == plain.eos_token_id))

    assert count_ends("parse") == 2
    assert count_ends("literal") == 1


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("max_length", [3, 5])
def test_long_text_is_cut_inside_the_tokenizer_s_own_tokens(
    wrapping: PreTrainedTokenizerFast, side: str, max_length: int
) -> None:
    cls, *inner, sep = show(wrapping, "is in Peru.")
    room = max_length - 2
    inner = inner[len(inner) - room :] if side == "left" else inner[:room]
    with pytest.warns(UserWarning, match=f"1 of 1 .*{max_length} tokens.*{side} side"):
        kept = show(
            wrapping, "is in Peru.", max_length=max_length, truncation_side=side
        )
    assert kept == [cls, *inner, sep]


@pytest.mark.parametrize(
    ("side", "text", "kept"),
    [
        ("right", "<cls>abcdef", "<cls>abc<sep>"),
        ("left", "abcdef<sep>", "<cls>def<sep>"),
        ("left", "<cls>abcdef", "<cls>def<sep>"),
    ],
)
def test_long_text_that_spells_special_tokens_fills_the_limit(
    wrapping: PreTrainedTokenizerFast, side: str, text: str, kept: str
) -> None:
    with pytest.warns(UserWarning, match="longer than 5 tokens"):
        found = show(wrapping, text, max_length=5, truncation_side=side)
    assert "".join(found) == kept
    assert len(found) == 5


def test_model_s_limit_holds_without_max_length(plain: PreTrainedTokenizerFast) -> None:
    with pytest.warns(UserWarning, match="longer than 2 tokens"):
        assert len(show(plain, "is in Peru.", limit=2)) == 2


def test_tokenizer_s_limit_holds_where_it_is_shorter(byte_tokenizer: Build) -> None:
    tokenizer = byte_tokenizer(model_max_length=3)
    with pytest.warns(UserWarning, match="longer than 3 tokens"):
        assert len(show(tokenizer, "is in Peru.", limit=8)) == 3


def test_start_token_of_a_decoder_is_first_and_special(
    plain: PreTrainedTokenizerFast,
) -> None:
    for token_filter, expected in ((None, [0, 1]), ("special", [1])):
        options = PromptOptions(token_filter=token_filter)
        prompts = PromptReader(plain, options, 9, start_id=0).read([" "])
        assert prompts.ids[0] == 0
        assert prompts.kept_of(0).tolist() == expected


def test_prompt_is_tokenized_as_the_tokenizer_does(
    wrapping: PreTrainedTokenizerFast,
) -> None:
    texts = ["The city of Lima", f"Hi {END}", "a" * 40]
    prompts = PromptReader(wrapping, PromptOptions(), None).read(texts)
    for number, text in enumerate(texts):
        assert prompts.ids_of(number).tolist() == wrapping(text)["input_ids"]


@pytest.mark.parametrize("side", ["left", "right"])
def test_text_is_cut_and_what_stands_around_it_is_not(
    plain: PreTrainedTokenizerFast, side: str
) -> None:
    options = {
        "prompt_template": "True? {text} Yes or no:",
        "chat_template": True,
        "truncation_side": side,
    }
    text = "The city of Lima is in Peru."
    n_frame = len(show(plain, "", **options))
    with pytest.warns(UserWarning, match="1 of 1 distinct texts"):
        kept = show(plain, text, max_length=n_frame + 4, **options)
    start, end = "".join(show(plain, "<x>", **options)).split("<x>")
    prompt = "".join(kept)
    assert len(kept) <= n_frame + 4
    assert prompt.startswith(start)
    assert prompt.endswith(end)
    rest = prompt.removeprefix(start).removesuffix(end)
    assert rest
    assert text.endswith(rest) if side == "left" else text.startswith(rest)


def test_limit_without_room_for_text_is_an_error(
    wrapping: PreTrainedTokenizerFast,
) -> None:
    with pytest.raises(
        ValueError, match=r"'max_length'.*takes 2 tokens. Got a limit of 1"
    ):
        show(wrapping, "is in Peru.", max_length=1)


def test_normalized_spelling_cannot_spell_a_token(byte_tokenizer: Build) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.NFKC()
    kept = show(tokenizer, "\uff1cthink\uff1e", special_tokens="literal")
    assert "<think>" in show(tokenizer, "\uff1cthink\uff1e")
    assert "<think>" not in kept


@pytest.mark.parametrize("special_tokens", ["parse", "literal"])
@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("is gold", "is gold"),
        # The template strips the ends of a message.
        (" is gold\n", "is gold"),
        ("user\nis gold", "user\nis gold"),
    ],
)
def test_only_the_user_s_text_is_pooled_on_demand(
    plain: PreTrainedTokenizerFast, text: str, kept: str, special_tokens: str
) -> None:
    options = {"pool_over": "text", "special_tokens": special_tokens}
    assert "".join(show(plain, text, chat_template=True, **options)) == kept


@pytest.mark.parametrize("special_tokens", ["parse", "literal"])
@pytest.mark.parametrize("wraps", [True, False])
def test_text_in_a_template_is_told_from_it(
    byte_tokenizer: Build, wraps: bool, special_tokens: str
) -> None:
    kept = show(
        byte_tokenizer(wraps=wraps),
        "Is Au gold?",
        prompt_template="Is Au gold? {text}\nAnswer: {text}, or",
        pool_over="text",
        special_tokens=special_tokens,
    )
    assert "".join(kept).replace(" ", "") == "IsAugold?" * 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("template", ["{text}", "Q: {text}\nA:", "({text})"])
@given(text=st.text(alphabet="ab Q:\n.é", max_size=10))
def test_tokens_of_a_text_hold_its_characters(
    kind: str, template: str, text: str
) -> None:
    tokenizer = build_tokenizer(kind)
    options = PromptOptions(prompt_template=template, pool_over="text")
    try:
        prompts = PromptReader(tokenizer, options, None).read([text])
    except RefusedTextError:
        assert not text.strip()
        return
    prompt = template.replace("{text}", text)
    encoded = tokenizer(prompt, return_offsets_mapping=True)
    assert prompts.ids.tolist() == encoded["input_ids"]
    begin = template.index("{text}")
    for kept, (start, end) in zip(prompts.kept, encoded["offset_mapping"], strict=True):
        # White space may have no width.
        if start < end:
            assert kept == (start < begin + len(text) and end > begin)


def test_text_without_a_token_of_its_own_is_refused_where_only_it_is_pooled(
    plain: PreTrainedTokenizerFast,
) -> None:
    options = PromptOptions(prompt_template="Q: {text}", pool_over="text")
    reader = PromptReader(plain, options, None)
    assert reader.list_empty(["a", "", " "]) == [""]
    with pytest.raises(RefusedTextError, match="at least one token"):
        reader.read(["a", ""])


def test_filters_choose_among_the_tokens_of_the_text(
    plain: PreTrainedTokenizerFast,
) -> None:
    kept = show(
        plain,
        "Au, is it?",
        prompt_template="Tell: {text} Yes",
        pool_over="text",
        token_filter="non_text",
    )
    assert "".join(kept) == " Au is it"


@pytest.mark.parametrize(
    "prompt", ["<cls>gold<sep>", "<cls>gold", "gold<sep>", "gold", "<cls>", "<sep>"]
)
@pytest.mark.parametrize("pool_over", ["prompt", "text"])
def test_special_tokens_that_a_prompt_spells_are_not_doubled(
    wrapping: PreTrainedTokenizerFast, prompt: str, pool_over: str
) -> None:
    whole = show(wrapping, prompt)
    assert [whole.count("<cls>"), whole.count("<sep>")] == [1, 1]
    assert "".join(whole).strip("<clsep>") == prompt.strip("<clsep>")
    assert "".join(show(wrapping, prompt, pool_over="text")) == prompt


def test_two_special_tokens_that_a_prompt_spells_stay_two(
    wrapping: PreTrainedTokenizerFast,
) -> None:
    assert "".join(show(wrapping, "<cls><cls>a")) == "<cls><cls>a<sep>"


def test_template_that_spells_special_tokens_gets_no_others(
    wrapping: PreTrainedTokenizerFast,
) -> None:
    for special_tokens in ("parse", "literal"):
        options = {"special_tokens": special_tokens}
        kept = show(wrapping, "gold", prompt_template="<cls>{text}<sep>", **options)
        assert "".join(kept) == "<cls>gold<sep>"
    # A text from strangers spells letters, beside the tokenizer's own tokens.
    kept = show(wrapping, "<cls>gold", special_tokens="literal")
    assert (kept[0], "".join(kept)) == ("<cls>", "<cls><cls>gold<sep>")
    assert kept.count("<cls>") == 1


def test_one_token_that_begins_and_ends_prompts_stays_at_both_ends(
    byte_tokenizer: Build,
) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<sep> $A <sep>", special_tokens=[("<sep>", 4)]
    )
    for prompt in ("<sep>", "a<sep>", "<sep>a", "<sep>a<sep>", "a"):
        kept = show(tokenizer, prompt)
        assert (kept[0], kept[-1], kept.count("<sep>")) == ("<sep>", "<sep>", 2)


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, "<cls>gold<sep>"),
        ({"prompt_template": "Is {text}?"}, "gold"),
        ({"chat_template": True}, "gold"),
        (
            {"chat_template": True, "generation_prompt": True},
            "<|im_start|>user\ngold<|im_end|>\n",
        ),
        ({"chat_template": True, "roles": ("user",)}, "gold"),
    ],
)
def test_template_is_not_pooled_unless_it_opens_the_answer(
    wrapping: PreTrainedTokenizerFast, options: dict[str, object], kept: str
) -> None:
    shown = show(wrapping, "gold", pool_over="auto", **options)
    assert "".join(shown).strip() == kept.strip()


@pytest.fixture
def counting_reader(byte_tokenizer: Build) -> PromptReader:
    options = PromptOptions(max_length=9, token_filter="special")
    return PromptReader(byte_tokenizer(), options, None)


def test_counts_are_told_once(counting_reader: PromptReader) -> None:
    for texts in (["short"], LONG, ["Lima"], SPECIAL):
        counting_reader.read(texts)
    with pytest.warns(UserWarning) as caught:
        counting_reader.tell_changes([])
    cut, emptied = (str(warning.message) for warning in caught)
    assert cut.startswith("2 of 7 distinct texts are longer than 9 tokens")
    assert emptied.startswith("3 of 7 distinct texts have no token left")
    counting_reader.tell_changes([])


def test_warning_points_at_the_caller(counting_reader: PromptReader) -> None:
    counting_reader.read(LONG)
    with pytest.warns(UserWarning) as caught:
        counting_reader.tell_changes([])
    assert caught[0].filename == __file__


def test_nothing_changed_is_nothing_told(counting_reader: PromptReader) -> None:
    counting_reader.read(["short", "Lima"])
    counting_reader.tell_changes([])


@pytest.fixture
def opening(byte_tokenizer: Build) -> PreTrainedTokenizerFast:
    found = byte_tokenizer()
    found.chat_template += OPENING
    return found


@pytest.mark.parametrize("text", ["Gold", CONVERSATION])
@pytest.mark.parametrize("roles", [None, ("assistant",), ("user",)])
@pytest.mark.parametrize("is_open", [False, True])
@pytest.mark.parametrize("pool_over", ["auto", "prompt", "text"])
def test_a_prompt_ends_with_the_opening_and_pools_what_the_text_does(
    opening: PreTrainedTokenizerFast,
    text: str | Conversation,
    pool_over: str,
    is_open: bool,
    roles: tuple[str, ...] | None,
) -> None:
    if roles == ("assistant",) and text == "Gold":
        # The user says it.
        roles = None
    chosen = PromptOptions(
        chat_template=True, pool_over=pool_over, generation_prompt=is_open, roles=roles
    )
    (prompt,) = OpenPromptReader(opening, chosen, None).open([text])
    closed = PromptReader(opening, chosen, None).read([text])
    tokens = opening("<|im_start|>assistant\n")["input_ids"]
    n_opening = 0 if is_open else len(tokens)
    assert prompt.ids.tolist() == [*closed.ids, *(tokens if n_opening else [])]
    expected = closed.kept.tolist()
    pools_all = roles is None and pool_over == "prompt"
    assert prompt.own.tolist() == [*expected, *[pools_all] * n_opening]
    assert prompt.owns_answer == (roles != ("user",))


def test_the_turn_of_fit_is_opened_as_it_was(
    opening: PreTrainedTokenizerFast,
) -> None:
    fitted = render_turn(opening)
    opening.chat_template = "Today. " + opening.chat_template
    options = PromptOptions(chat_template=True)
    (prompt,) = OpenPromptReader(opening, options, None, fitted).open(["Gold"])
    written = "<|im_start|>user\nGold<|im_end|>\n<|im_start|>assistant\n"
    assert prompt.ids.tolist() == opening(written)["input_ids"]


def test_a_text_of_which_nothing_is_ever_pooled_is_refused(
    opening: PreTrainedTokenizerFast,
) -> None:
    options = PromptOptions(roles=("system",))
    with pytest.raises(RefusedTextError, match=r"token of roles=\('system',\)"):
        OpenPromptReader(opening, options, None).open([CONVERSATION])
    with pytest.raises(RefusedTextError, match="at least one token"):
        OpenPromptReader(opening, PromptOptions(), None).open([""])
