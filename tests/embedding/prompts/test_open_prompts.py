from collections.abc import Callable

import pytest
from transformers import PreTrainedTokenizerFast

from plug_sklearn.embedding.prompts import (
    Conversation,
    OpenPromptReader,
    PromptOptions,
    PromptReader,
    RefusedTextError,
    render_turn,
)

OPENING = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
CONVERSATION = Conversation.from_messages(
    [
        {"role": "user", "content": "Gold"},
        {"role": "assistant", "content": "Au"},
        {"role": "user", "content": "Iron"},
    ]
)


@pytest.fixture
def tokenizer(
    byte_tokenizer: Callable[..., PreTrainedTokenizerFast],
) -> PreTrainedTokenizerFast:
    found = byte_tokenizer()
    found.chat_template += OPENING
    return found


@pytest.mark.parametrize("text", ["Gold", CONVERSATION])
@pytest.mark.parametrize("roles", [None, ("assistant",), ("user",)])
@pytest.mark.parametrize("is_open", [False, True])
@pytest.mark.parametrize("pool_over", ["auto", "prompt", "text"])
def test_a_prompt_ends_with_the_opening_and_pools_what_the_text_does(
    tokenizer: PreTrainedTokenizerFast,
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
    (prompt,) = OpenPromptReader(tokenizer, chosen, None).open([text])
    closed = PromptReader(tokenizer, chosen, None).read([text])
    opening = tokenizer("<|im_start|>assistant\n")["input_ids"]
    n_opening = 0 if is_open else len(opening)
    assert prompt.ids.tolist() == [*closed.ids, *(opening if n_opening else [])]
    expected = closed.kept.tolist()
    pools_all = roles is None and pool_over == "prompt"
    assert prompt.own.tolist() == [*expected, *[pools_all] * n_opening]
    assert prompt.owns_answer == (roles != ("user",))


def test_the_turn_of_fit_is_opened_as_it_was(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    fitted = render_turn(tokenizer)
    tokenizer.chat_template = "Today. " + tokenizer.chat_template
    options = PromptOptions(chat_template=True)
    (prompt,) = OpenPromptReader(tokenizer, options, None, fitted).open(["Gold"])
    written = "<|im_start|>user\nGold<|im_end|>\n<|im_start|>assistant\n"
    assert prompt.ids.tolist() == tokenizer(written)["input_ids"]


def test_a_text_of_which_nothing_is_ever_pooled_is_refused(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    options = PromptOptions(roles=("system",))
    with pytest.raises(RefusedTextError, match=r"token of roles=\('system',\)"):
        OpenPromptReader(tokenizer, options, None).open([CONVERSATION])
    with pytest.raises(RefusedTextError, match="at least one token"):
        OpenPromptReader(tokenizer, PromptOptions(), None).open([""])
