"""Tiny tokenizers of each kind, with special tokens that strip what is beside them."""

from collections.abc import Callable

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import PreTrainedTokenizerFast

_CORPUS = [
    "user\n\nHello there.\n\nThe city of Paris (in France) is big.\n\n\n",
    "Q: is it? A: yes.\n[INST] hello [/INST]  two  spaces  \n\nassistant\n",
]
_LETTERS = list("abcdefghijklmnopqrstuvwxyzHTPFQAINS0123456789<|>/[]?:.()\n\t")
# The split of GPT-4 and its kin: punctuation takes in the line break after it.
_GPT4 = (
    r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _train(tokenizer: Tokenizer, trainer: type, **options: object) -> Tokenizer:
    tokenizer.train_from_iterator(_CORPUS, trainer(show_progress=False, **options))
    return tokenizer


def _build_bytes(split: str | None = None, prefix: bool = False) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=split is None)
    steps = (
        [bytes_]
        if split is None
        else [
            pre_tokenizers.Split(Regex(split), "isolated"),
            bytes_,
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return _train(
        tokenizer, trainers.BpeTrainer, vocab_size=400, initial_alphabet=alphabet
    )


def _build_metaspace(scheme: str) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme=scheme)
    return _train(
        tokenizer,
        trainers.BpeTrainer,
        vocab_size=200,
        special_tokens=["<unk>"],
        initial_alphabet=[*_LETTERS, "▁"],
    )


def _build_llama() -> Tokenizer:
    """A normalizer that puts a space in front, as in the first Llama's tokenizer."""
    tokenizer = _build_metaspace("first")
    tokenizer.pre_tokenizer = None
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


def _build_wordpiece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return _train(
        tokenizer,
        trainers.WordPieceTrainer,
        vocab_size=200,
        special_tokens=["<unk>"],
        initial_alphabet=_LETTERS,
    )


def _build_unigram() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Nmt(),
            normalizers.NFKC(),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace()
    return _train(
        tokenizer,
        trainers.UnigramTrainer,
        vocab_size=120,
        special_tokens=["<unk>"],
        unk_token="<unk>",
        initial_alphabet=[*_LETTERS, "▁"],
    )


KINDS: dict[str, Callable[[], Tokenizer]] = {
    "bytes": _build_bytes,
    "bytes, prefix space": lambda: _build_bytes(prefix=True),
    "bytes, split as in GPT-4": lambda: _build_bytes(_GPT4),
    "metaspace first": lambda: _build_metaspace("first"),
    "metaspace always": lambda: _build_metaspace("always"),
    "metaspace never": lambda: _build_metaspace("never"),
    "llama": _build_llama,
    "wordpiece": _build_wordpiece,
    "unigram": _build_unigram,
}


def build_tokenizer(kind: str, **strips: bool) -> PreTrainedTokenizerFast:
    """Build a tokenizer with ``<|user|>`` and ``<|end|>``, which strip as is said."""
    backend = KINDS[kind]()
    backend.add_special_tokens(
        [
            AddedToken(spelling, special=True, normalized=False, **strips)
            for spelling in ("<|user|>", "<|end|>")
        ]
    )
    unknown = {} if backend.token_to_id("<unk>") is None else {"unk_token": "<unk>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|end|>", **unknown
    )
