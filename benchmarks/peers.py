"""Run the peers of ``bench_embedding.py``, in an environment of their own.

``python peers.py TASK`` reads JSON and prints JSON: the seconds that the task took
without loading its model, and the file of its results.
"""

import json
import sys
from pathlib import Path
from time import perf_counter

import numpy as np


def pingkit(model: str, texts: list[str], folder: str) -> dict[str, object]:
    """Embed, stack and load a feature matrix of all layers and parts."""
    import pandas as pd
    from pingkit import embedding, extraction

    loaded = embedding.load_model_and_tokenizer(model, device_map="cpu")
    embedding.load_model_and_tokenizer = lambda *args, **kwargs: loaded
    table = pd.DataFrame({"id": [f"r{n:05d}" for n in range(len(texts))]})
    table["text"] = texts
    csv, npz = f"{folder}/csv", f"{folder}/features.npz"
    start = perf_counter()
    embedding.embed_dataset(table, input_col="text", output_dir=csv, device="cpu")
    extraction.extract_token_vectors(csv, output_file=npz, save_csv=False)
    stacked = np.load(npz, allow_pickle=True)
    features = stacked["data"].T
    seconds = perf_counter() - start
    order = np.argsort(stacked["columns"].astype(str))
    # Theirs is part by part, then layer by layer; ours the other way round.
    parts = features[order].reshape(len(texts), 3, 30, -1)
    names = [str(part) for part in stacked["parts"]]
    wanted = [names.index(part) for part in ("rs", "attn", "mlp")]
    path = f"{folder}/pingkit.npy"
    np.save(path, parts[:, wanted].transpose(0, 2, 1, 3).astype(np.float32))
    return {"seconds": seconds, "features": path}


def sentence_transformers(
    model: str, texts: list[str], folder: str
) -> dict[str, object]:
    """Encode sentences."""
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(model, device="cpu")
    encoder.encode(texts[:8])
    start = perf_counter()
    embeddings = encoder.encode(texts)
    seconds = perf_counter() - start
    path = f"{folder}/embeddings.npy"
    np.save(path, np.asarray(embeddings, dtype=np.float32))
    return {"seconds": seconds, "embeddings": path}


if __name__ == "__main__":
    task = {"pingkit": pingkit, "sentence_transformers": sentence_transformers}
    arguments = json.load(sys.stdin)
    Path(arguments["folder"]).mkdir(exist_ok=True)
    print(json.dumps(task[sys.argv[1]](**arguments)))
