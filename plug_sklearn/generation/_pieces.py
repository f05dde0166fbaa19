"""Decode token ids one by one into the pieces of text that they add."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

#: The decoder writes this for bytes that do not form a character yet.
_INCOMPLETE = "\ufffd"


class PieceDecoder:
    """Decodes an answer token by token. The pieces, joined, are its text.

    Some tokens are parts of a character, and some tokenizers leave out the space before
    a first word. So each token is decoded after those before it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        # The tokens of the last complete piece, and the tokens after it.
        self._before: list[int] = []
        self._after: list[int] = []

    def add(self, token_id: int) -> str:
        """Return the text that a token adds: none while a character is incomplete."""
        before = self._decode(self._before)
        self._after.append(token_id)
        text = self._decode([*self._before, *self._after])
        if text.endswith(_INCOMPLETE):
            return ""
        if text != before:
            self._before, self._after = self._after, []
        return text[len(before) :]

    def finish(self) -> str:
        """Return the incomplete rest at the end of an answer."""
        before = self._decode(self._before)
        return self._decode([*self._before, *self._after])[len(before) :]

    def _decode(self, ids: list[int]) -> str:
        if not ids:
            return ""
        return str(
            self.tokenizer.decode(
                ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )


def split_answer(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    """Return the piece of text that each token of an answer adds."""
    decoder = PieceDecoder(tokenizer)
    pieces = [decoder.add(token_id) for token_id in ids]
    if pieces:
        pieces[-1] += decoder.finish()
    return pieces
