"""Print the peak memory of one generation, in MiB: a process of its own for each.

``bench_generation.py`` runs it: ``python generation_memory.py FOLDER TOKENS PROBED``.
"""

import resource
import sys
import warnings

import torch
import transformers
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from plug_sklearn import (
    HFEmbeddingTransformer,
    LayerAggregator,
    generate_with_probes,
)
from plug_sklearn.embedding import register_model


def main(folder: str, n_tokens: str, probed: str) -> None:
    """Write one answer, with a probe of all layers or without."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    register_model("writer", model, tokenizer)
    embedder = HFEmbeddingTransformer("writer", pooling=("mean", "last"))
    probe = make_pipeline(embedder, LayerAggregator(), LogisticRegression())
    probe.fit(["a", "b"], [0, 1])
    options = {"min_new_tokens": int(n_tokens), "do_sample": False}
    if probed == "yes":
        generate_with_probes(
            ["Gold"], probe, max_new_tokens=int(n_tokens), generation_kwargs=options
        )
    else:
        ids = tokenizer("Gold", return_tensors="pt")
        model.generate(**ids, max_new_tokens=int(n_tokens), **options)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


if __name__ == "__main__":
    main(*sys.argv[1:])
