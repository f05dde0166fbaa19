"""Tokenizers that come as Mistral's own file, ``tekken.json``."""

from pathlib import Path

from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerBase

_SPECIAL = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
}


def complete_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    """Tell a tokenizer that was made from ``tekken.json`` what the file leaves out.

    The file has no names for the special tokens. Mistral's models expect ``<s>`` at
    the beginning of every text.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        Any tokenizer; others are left as they are.
    """
    file = getattr(tokenizer, "vocab_file", None)
    if Path(str(file)).name != "tekken.json" or tokenizer.bos_token is not None:
        return
    vocabulary = tokenizer.get_vocab()
    for name, text in _SPECIAL.items():
        if text in vocabulary:
            setattr(tokenizer, name, text)
    begin = tokenizer.bos_token
    if begin is not None:
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=f"{begin} $A", special_tokens=[(begin, vocabulary[begin])]
        )
