"""Conversations, rendered as prompts by a chat template."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from os.path import commonprefix
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from plug_sklearn.embedding.prompts._templates import RenderedPrompt
from plug_sklearn.embedding.prompts._texts import (
    Conversation,
    Message,
    RefusedTextError,
)

# Stands for a message's content while a template is rendered. The characters are from
# Unicode's private use area, so that no template spells them.
_PLACEHOLDER = "\ue000{}\ue001"
_PLACEHOLDERS = re.compile("\ue000([0-9]+)\ue001")
# How templates ask for the time.
_CLOCK = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")
#: Outlines of conversations that are kept: one for each order of roles.
_MOST_OUTLINES = 1024


@dataclass(frozen=True)
class ChatTemplate:
    """What the prompts that a chat template renders depend on.

    ``digest`` is the SHA-256 of the template, in hexadecimal digits, after the time
    was written into it. ``time`` is what it takes for the present time, in ISO 8601;
    None for a template that does not ask for it.
    """

    digest: str
    time: str | None


def describe_chat_template(
    tokenizer: PreTrainedTokenizerBase, time: str | None = None
) -> ChatTemplate:
    """Describe the chat template of a tokenizer at some time, by default now."""
    template = tokenizer.get_chat_template() if tokenizer.chat_template else ""
    if _CLOCK.search(template) is None:
        time = None
    elif time is None:
        time = datetime.now().astimezone().isoformat()
    # A template that writes the date is the same one all day.
    written = _write_time(template, time)
    return ChatTemplate(sha256(written.encode()).hexdigest(), time)


def _write_time(template: str, time: str | None) -> str:
    """Replace the places where a template asks for the time by what it would write."""
    if time is None:
        return template
    now = datetime.fromisoformat(time)
    return _CLOCK.sub(lambda found: repr(now.strftime(found[2])), template)


class ConversationRenderer:
    """Renders conversations with a tokenizer's chat template.

    With ``generation_prompt``, prompts end with the template's opening of the answer.
    ``time`` is what a template that prints the date takes for the present time, in ISO
    8601; None is the present time.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        generation_prompt: bool,
        time: str | None,
    ) -> None:
        self.tokenizer = tokenizer
        self.generation_prompt = generation_prompt
        self.template: str | None = None
        if tokenizer.chat_template:
            self.template = _write_time(tokenizer.get_chat_template(), time)
        self._outlines: dict[str, str | None] = {}

    def render(self, conversations: Sequence[Conversation]) -> list[str]:
        """Return the prompts of conversations.

        Raises a ValueError if the tokenizer has no chat template. Raises a
        RefusedTextError if the template does not take some conversations.
        """
        if self.template is None:
            raise ValueError(
                "X given to HFEmbeddingTransformer must hold strings for a model whose "
                "tokenizer has no chat template. Got conversations instead."
            )
        try:
            return self._apply([one.messages for one in conversations])
        except TemplateError:
            prompts, errors = [], {}
            for one in conversations:
                try:
                    prompts += self._apply([one.messages])
                except TemplateError as error:
                    errors[one] = error
            if not errors:
                return prompts
            first, *others = errors
            raise RefusedTextError(
                first,
                "X given to HFEmbeddingTransformer must hold conversations that the "
                f"model's chat template accepts. Its error is: {errors[first]}",
                [one for one in others if str(errors[one]) == str(errors[first])],
            ) from errors[first]

    def split(self, conversation: Conversation, prompt: str) -> RenderedPrompt:
        """Find what each message became in the prompt of a conversation.

        The conversation is rendered with a placeholder for each content. Where the
        contents, or the contents without the white space around them, fill these
        placeholders to the prompt, each is found. Otherwise each content is rendered
        among the placeholders of the others: some templates leave out a section of it.

        Raises a RefusedTextError if the template does not write each message once,
        independently of the others.
        """
        messages = conversation.messages
        # Some templates write nothing at all for a blank content.
        contents = [message["content"] for message in messages]
        empty, blank = ([not c for c in contents], [not c.strip() for c in contents])
        for stay in (empty, blank):
            rendered = self._fill_outline(messages, prompt, stay)
            if rendered is not None:
                return rendered
        raise RefusedTextError(
            conversation,
            "X given to HFEmbeddingTransformer must hold conversations whose messages "
            "the model's chat template writes exactly once, because 'roles', "
            "pool_over='text' and special_tokens='literal' need to tell messages and "
            f"template apart. Got {prompt!r} from the template",
        )

    def _fill_outline(
        self, messages: list[Message], prompt: str, stay: Sequence[bool]
    ) -> RenderedPrompt | None:
        """Find the contents of a prompt, but for those that stay in its outline."""
        outlined = [
            message if stays else message | {"content": _PLACEHOLDER.format(number)}
            for number, (message, stays) in enumerate(zip(messages, stay, strict=True))
        ]
        outline = self._render_outline(outlined)
        if outline is None:
            return None
        owners = tuple(int(found[1]) for found in _PLACEHOLDERS.finditer(outline))
        if len(set(owners)) < len(owners):
            return None
        fixed = _PLACEHOLDERS.split(outline)[::2]
        written = [messages[owner]["content"] for owner in owners]
        for contents in (written, [content.strip() for content in written]):
            rendered = RenderedPrompt(tuple(fixed), tuple(contents), owners)
            if rendered.text == prompt:
                return rendered
        contents = []
        for field, owner in enumerate(owners):
            one = [*outlined[:owner], messages[owner], *outlined[owner + 1 :]]
            found = self._find_content(one, outline, owner)
            if found is None:
                return None
            fixed[field], content = found
            contents.append(content)
        rendered = RenderedPrompt(tuple(fixed), tuple(contents), owners)
        return rendered if rendered.text == prompt else None

    def _render_outline(self, outlined: list[Message]) -> str | None:
        """Render messages most of which are placeholders, once for each outline."""
        key = json.dumps(outlined)
        if key not in self._outlines:
            if len(self._outlines) >= _MOST_OUTLINES:
                self._outlines.clear()
            try:
                self._outlines[key] = self._apply([outlined])[0]
            except TemplateError:
                self._outlines[key] = None
        return self._outlines[key]

    def _find_content(
        self, messages: list[Message], outline: str, owner: int
    ) -> tuple[str, str] | None:
        """Find what one content becomes among placeholders, or None if they change.

        Gives the template's words before it, and what it became. Some templates write
        a section of a content, such as the thoughts of an answer, into these words.
        """
        try:
            (prompt,) = self._apply([messages])
        except TemplateError:
            return None
        before, after = outline.split(_PLACEHOLDER.format(owner))
        if not prompt.endswith(after):
            return None
        prompt = prompt.removesuffix(after)
        begin = max(
            (found.end() for found in _PLACEHOLDERS.finditer(before)), default=0
        )
        start = len(commonprefix([before, prompt]))  # noqa: RUF071 - of characters
        if start < begin:
            return None
        if start < len(before):
            said = _squeeze(messages[owner]["content"])
            changed = _squeeze(prompt[start:])
            if not changed or changed not in said:
                return None
            # The words that begin a thought may be the content's, too.
            while start > begin and _squeeze(prompt[start - 1 :]) in said:
                start -= 1
            start = len(prompt) - len(prompt[start:].lstrip())
        return prompt[begin:start], prompt[start:]

    def _apply(self, conversations: list[list[Message]]) -> list[str]:
        prompts: Any = self.tokenizer.apply_chat_template(
            conversations,
            chat_template=self.template,
            tokenize=False,
            add_generation_prompt=self.generation_prompt,
        )
        return list(prompts)


def _squeeze(text: str) -> str:
    """Leave out white space, which templates change."""
    return "".join(text.split())
