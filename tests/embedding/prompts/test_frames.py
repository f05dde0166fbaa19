import pytest
from hypothesis import given
from hypothesis import strategies as st

from plug_sklearn.embedding.prompts._frames import PromptFrame
from plug_sklearn.embedding.prompts._turns import WHITE_SPACE, ChatTurn

TRIMS = ChatTurn("<", ">", WHITE_SPACE, WHITE_SPACE)


@given(st.text(), st.text().filter(lambda template: "{text}" not in template))
def test_every_slot_is_filled_and_nothing_else(text: str, fixed: str) -> None:
    template = f"{{text}}{fixed}{{text}}"
    assert PromptFrame(template).fill(text) == text + fixed + text


@given(st.text(alphabet="a \n"), st.sampled_from(["{text}", " {text}", "Q {text}\n"]))
def test_message_is_stripped_at_its_ends_only(text: str, template: str) -> None:
    message = template.replace("{text}", text).strip()
    assert PromptFrame(template, TRIMS).fill(text) == f"<{message}>"


@given(
    st.text(alphabet="ab \n", min_size=1).filter(str.strip),
    st.sampled_from(
        ["{text}", " {text}", "Q: {text}\nA:", "{text}, {text}", "{text} "]
    ),
    st.sampled_from([ChatTurn("<", ">"), TRIMS, ChatTurn("<", ">", "", "\n")]),
)
def test_fixed_strings_and_texts_make_the_prompt(
    text: str, template: str, turn: ChatTurn
) -> None:
    frame = PromptFrame(template, turn)
    first, *others = frame.fixed
    texts = frame.list_texts(text)
    prompt = first + "".join(a + b for a, b in zip(texts, others, strict=True))
    assert prompt == frame.fill(text)


@pytest.mark.parametrize("text", ["", " ", "\n\n"])
def test_blank_text_leaves_the_fixed_strings_as_they_are(text: str) -> None:
    frame = PromptFrame("{text} is it?", TRIMS)
    assert frame.fixed == ["<", " is it?>"]
    assert frame.list_texts(text) == [""]
