"""Tiny random models, saved as a user's local folders would be, and quick probes."""

import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedConfig, PreTrainedTokenizerFast

from plug_sklearn import PlugCNNClassifier, PlugMLPClassifier
from plug_sklearn.embedding.passes import _trial_memory

# How long an example takes is no claim of a test, and differs between machines. The
# same examples each time, unless --hypothesis-profile=default is given.
hypothesis.settings.register_profile("suite", deadline=None, derandomize=True)
hypothesis.settings.load_profile("suite")

# Networks as small as these run faster on one thread, and alike on any machine.
torch.set_num_threads(1)

CORPUS = [
    "The city of Paris is in France. The city of Lima is in Peru.",
    "Gold has the symbol Au, and iron has the symbol Fe; is that true?",
    "One, two, three: 1 2 3 4 5 6 7 8 9 10!",
]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{{ message.content | trim }}<|im_end|>\n{% endfor %}"
)
SPECIAL = ["<pad>", "<|im_start|>", "<|im_end|>", "<cls>", "<sep>"]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Seed the global generators: a test that draws from them passes again."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - the generator of code that takes no other
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def forgets_trials(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let nothing be remembered of tiny models: a file is where the cache would be."""
    file = tmp_path_factory.mktemp("cache") / "file"
    file.touch()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(_trial_memory, "CACHE", file)
        yield


@pytest.fixture(scope="session")
def byte_tokenizer() -> Callable[..., PreTrainedTokenizerFast]:
    """A byte-level BPE tokenizer; ``wraps`` adds <cls> and <sep> as BERT does."""

    def build(wraps: bool = False, **settings: object) -> PreTrainedTokenizerFast:
        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=320,
            special_tokens=SPECIAL,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        backend.train_from_iterator(CORPUS, trainer)
        backend.add_tokens(["<think>"])
        if wraps:
            backend.post_processor = processors.TemplateProcessing(
                single="<cls> $A <sep>", special_tokens=[("<cls>", 3), ("<sep>", 4)]
            )
        return PreTrainedTokenizerFast(
            tokenizer_object=backend,
            pad_token="<pad>",
            eos_token="<|im_end|>",
            cls_token="<cls>",
            sep_token="<sep>",
            additional_special_tokens=["<|im_start|>"],
            chat_template=CHAT_TEMPLATE,
            **settings,
        )

    return build


@pytest.fixture(scope="session")
def save_model(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[PreTrainedConfig, PreTrainedTokenizerFast], str]:
    """Save a random model of a configuration with its tokenizer; gives the folder."""

    def save(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerFast) -> str:
        folder: Path = tmp_path_factory.mktemp(config.model_type)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = transformers.AutoModel.from_config(config).eval()
            for parameter in model.parameters():
                # The default scale is so small that wrong states would look right.
                parameter.data.normal_(0, 0.3).add_(parameter.dim() == 1)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return str(folder)

    return save


def _llama_config() -> PreTrainedConfig:
    return transformers.LlamaConfig(
        vocab_size=330,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        pad_token_id=0,
    )


@pytest.fixture(scope="session")
def llama(save_model: Callable[..., str], byte_tokenizer: Callable[..., object]) -> str:
    """Folder of a 3-layer decoder, hidden size 16, 64 positions."""
    return save_model(_llama_config(), byte_tokenizer())


@pytest.fixture(scope="session")
def left_padding_llama(
    save_model: Callable[..., str], byte_tokenizer: Callable[..., object]
) -> str:
    """The same weights, with a tokenizer that pads on the left."""
    return save_model(_llama_config(), byte_tokenizer(padding_side="left"))


@pytest.fixture(scope="session")
def bert(save_model: Callable[..., str], byte_tokenizer: Callable[..., object]) -> str:
    """Folder of a 2-layer encoder, hidden size 16, 32 positions."""
    config = transformers.BertConfig(
        vocab_size=330,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=32,
    )
    return save_model(config, byte_tokenizer(wraps=True))


@pytest.fixture(scope="session")
def t5(save_model: Callable[..., str], byte_tokenizer: Callable[..., object]) -> str:
    """Folder of an encoder-decoder: 2 encoder and 3 decoder layers, hidden size 16."""
    config = transformers.T5Config(
        vocab_size=330,
        d_model=16,
        d_kv=8,
        d_ff=24,
        num_layers=2,
        num_decoder_layers=3,
        num_heads=2,
        decoder_start_token_id=0,
    )
    return save_model(config, byte_tokenizer())


@pytest.fixture(params=[PlugMLPClassifier, PlugCNNClassifier])
def probe(request: pytest.FixtureRequest) -> PlugMLPClassifier | PlugCNNClassifier:
    """An estimator that has not been fitted, and trains for a handful of epochs."""
    classifier: PlugMLPClassifier | PlugCNNClassifier = request.param(
        max_epochs=4, random_state=0, device="cpu"
    )
    return classifier


@pytest.fixture
def tell(
    record_property: Callable[[str, object], None],
) -> Callable[..., None]:
    """What a test found, in lines that are printed when all tests have run."""
    return lambda *lines: record_property("told", lines)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests told, whichever process they ran in."""
    for report in terminalreporter.getreports("passed"):
        for name, lines in report.user_properties:
            if name == "told":
                terminalreporter.write("\n".join(["", *lines, ""]))


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt: a job in the background is started without."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
