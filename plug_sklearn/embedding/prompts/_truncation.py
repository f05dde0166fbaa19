"""Cut prompts to the length limit: what users wrote, not what templates write."""

import sys
from collections.abc import Callable, Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from plug_sklearn.embedding.prompts._encoding import TEMPLATE, Owners, PromptEncoder
from plug_sklearn.embedding.prompts._texts import Conversation, RefusedTextError
from plug_sklearn.embedding.prompts._tokens import Ids


def decide_limit(
    tokenizer: PreTrainedTokenizerBase, model_limit: int | None, max_length: int | None
) -> int | None:
    """Return how many tokens a prompt may have; None for no limit.

    Raises a ValueError if ``max_length`` is more than the model takes.
    """
    limits = [tokenizer.model_max_length, model_limit]
    # Tokenizers without a limit of their own say a huge number.
    known = [limit for limit in limits if limit is not None and limit < 10**9]
    model_limit = min(known, default=None)
    if max_length is None:
        return model_limit
    if model_limit is not None and max_length > model_limit:
        raise ValueError(
            "The 'max_length' parameter of HFEmbeddingTransformer must be at most "
            f"{model_limit} tokens, the model's own limit. Got {max_length} instead."
        )
    return max_length


class PromptCutter:
    """Cuts the prompts of one encoder to a limit of tokens, on one ``side``.

    ``limit`` is None where there is none. Raises a ValueError if the limit leaves no
    room for text.
    """

    def __init__(self, encoder: PromptEncoder, limit: int | None, side: str) -> None:
        self.encoder = encoder
        self.limit = sys.maxsize if limit is None else limit
        self.side = side

    def cut_string(self, text: str, *, needs_owners: bool) -> tuple[str, Ids, Owners]:
        """Cut a text; gives what stays of it, its tokens and whose they are."""
        limit, n_slots = self.limit, self.encoder.template.n_slots
        n_template = self.encoder.count_template_tokens()
        room = (limit - n_template) // n_slots
        pieces = self.encoder.cut_spellings(text)
        keep = make_cutter(self.encoder.tokenizer, pieces, self.side)
        # Tokens merge otherwise where a text was cut: a few may be too many still.
        while room > 0:
            kept = keep(room)
            (ids,), (owners,) = self.encoder.encode([kept], needs_owners=needs_owners)
            if len(ids) > limit:
                room -= max(1, len(ids) - limit)
                continue
            # A text that spells the tokenizer's own special tokens gets no second ones.
            more = (limit - len(ids)) // n_slots
            if more > 0:
                longer = keep(room + more)
                (its_ids,), (its_owners,) = self.encoder.encode(
                    [longer], needs_owners=needs_owners
                )
                if len(ids) < len(its_ids) <= limit:
                    return longer, its_ids, its_owners
            return kept, ids, owners
        raise self._refuse_limit(n_template)

    def cut_conversation(
        self, conversation: Conversation, messages: Sequence[int]
    ) -> tuple[Ids, Owners, bool]:
        """Cut a conversation, and say whether all of some messages was kept.

        ``messages`` are the numbers of those that may be pooled; others are cut first.
        """
        try:
            (ids,), (owners,) = self.encoder.encode([conversation], needs_owners=True)
        except RefusedTextError as error:
            # It was encoded before without a need to tell its messages apart.
            raise RefusedTextError(
                conversation,
                "X given to HFEmbeddingTransformer must hold conversations that fit "
                f"into {self.limit} tokens where the model's chat template does not "
                "write each message once: what to cut could not be told from the "
                f"template's own words. Got {conversation!r}",
            ) from error
        wanted = np.isin(owners, messages)
        kept = keep_tokens(owners, wanted, self.limit, self.side)
        if not kept[wanted].any():
            refused = self._refuse_limit(int((owners == TEMPLATE).sum()))
            raise RefusedTextError(
                conversation, f"{str(refused).rstrip('.')} for {conversation!r}"
            )
        return ids[kept], owners[kept], bool(kept[wanted].all())

    def _refuse_limit(self, n_template: int) -> ValueError:
        return ValueError(
            "The 'max_length' parameter of HFEmbeddingTransformer must leave room for "
            f"text: the template around it takes {n_template} tokens. Got a limit of "
            f"{self.limit} instead."
        )


def make_cutter(
    tokenizer: PreTrainedTokenizerBase, pieces: Sequence[str], side: str
) -> Callable[[int], str]:
    """Make a function of n that keeps n tokens of a text, at its beginning or end.

    ``pieces`` are the sections of the text that are tokenized separately. The function
    takes a number above 0. The text that it returns has as many tokens if they are the
    same where it was cut.
    """
    encoded = tokenizer(
        list(pieces),
        add_special_tokens=False,
        return_offsets_mapping=tokenizer.is_fast,
        verbose=False,
    )
    if not tokenizer.is_fast:
        ids = [token_id for found in encoded["input_ids"] for token_id in found]
        return lambda n: str(tokenizer.decode(ids[-n:] if side == "left" else ids[:n]))
    text = "".join(pieces)
    begins = accumulate((len(piece) for piece in pieces), initial=0)
    spans = [
        (begin + start, begin + end)
        for begin, found in zip(begins, encoded["offset_mapping"], strict=False)
        for start, end in found
    ]
    if side == "left":
        return lambda n: text[spans[-n:][0][0] :]
    return lambda n: text[: spans[:n][-1][1]]


def keep_tokens(
    owners: Owners, wanted: NDArray[np.bool_], limit: int, side: str
) -> NDArray[np.bool_]:
    """Choose the tokens of a conversation that stay when it is cut to a limit.

    The template's tokens stay. Those that are not wanted go first, and on one side.

    ``owners`` (n_tokens,) are the messages of the tokens, or ``TEMPLATE``; ``wanted``
    (n_tokens,) says which may be pooled. At most ``limit`` tokens stay, if the
    template's are no more. The result (n_tokens,) says which do.
    """
    said = owners != TEMPLATE
    places = [np.flatnonzero(said & ~wanted), np.flatnonzero(said & wanted)]
    in_order = np.concatenate(places if side == "left" else [p[::-1] for p in places])
    kept = np.ones(len(owners), dtype=bool)
    kept[in_order[: max(0, len(owners) - limit)]] = False
    return kept
