"""What stands around a text: the user's template inside the model's chat turn."""

from dataclasses import dataclass, field

from plug_sklearn.embedding.prompts._turns import ChatTurn

SLOT = "{text}"


@dataclass(frozen=True)
class PromptFrame:
    """The fixed strings around a text.

    Attributes
    ----------
    template : str
        Holds ``{text}`` at least once.
    turn : ChatTurn
        What a chat template writes around the filled template; nothing by default.
    """

    template: str = SLOT
    turn: ChatTurn = field(default_factory=ChatTurn)

    def fill(self, text: str) -> str:
        """Give the prompt that the chat template renders for a text."""
        message = self.template.replace(SLOT, text)
        message = self.turn.strip_right(self.turn.strip_left(message))
        return f"{self.turn.start}{message}{self.turn.end}"

    @property
    def fixed(self) -> list[str]:
        """The strings before, between and after the slots, the same for every text.

        White space that the chat template strips is not among them. Where the text
        stands at an end of the message, that end is the text's alone: a text without
        characters leaves the string beside it as it is.
        """
        fixed = self.template.split(SLOT)
        first, last = self.turn.strip_left(fixed[0]), self.turn.strip_right(fixed[-1])
        return [self.turn.start + first, *fixed[1:-1], last + self.turn.end]

    def list_texts(self, text: str) -> list[str]:
        """Give what goes into each slot: at the ends of the message it is stripped."""
        fixed = self.template.split(SLOT)
        texts = [text] * (len(fixed) - 1)
        if not self.turn.strip_left(fixed[0]):
            texts[0] = self.turn.strip_left(texts[0])
        if not self.turn.strip_right(fixed[-1]):
            texts[-1] = self.turn.strip_right(texts[-1])
        return texts
