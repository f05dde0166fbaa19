from collections.abc import Callable

import numpy as np
import pytest
from tokenizers import normalizers
from transformers import PreTrainedTokenizerFast

from plug_sklearn.embedding.prompts._prompts import PromptOptions, PromptReader

Build = Callable[..., PreTrainedTokenizerFast]
END = "<|im_end|>"


def show(
    tokenizer: PreTrainedTokenizerFast,
    text: str,
    limit: int | None = None,
    **options: object,
) -> list[str]:
    """The tokens of one text that are pooled."""
    reader = PromptReader(tokenizer, PromptOptions(**options), limit)
    tokens = reader.show_tokens(reader.read([text]))[0]
    reader.tell_changes()
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
        reader.tell_changes()
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
