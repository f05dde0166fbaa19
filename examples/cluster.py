"""Embed texts on a cluster: workers run the model, this process writes the store.

Run ``python examples/cluster.py`` to start two worker processes on this machine. With
``--scheduler tcp://HOST:8786``, it uses a running cluster, whose workers must all be
able to load the model. It needs the extra ``[cluster]``.
"""

import argparse
from pathlib import Path
from time import perf_counter

import joblib
import numpy as np
from facts import make_statements
from setting import find_model

from plug_sklearn import HFEmbeddingTransformer

try:
    from distributed import Client
except ImportError as error:
    raise SystemExit(f"{error}. Run: pip install -e '.[cluster]'") from error


def main(model: str, out: Path, scheduler: str | None) -> None:
    """Embed statements on the cluster, then read them back without it."""
    texts = make_statements()["statement"].head(300)
    embedder = HFEmbeddingTransformer(model, store=out / "activations", verbose=True)
    embedder.fit(texts)
    here = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with Client(scheduler, **({} if scheduler else here)) as client:
        print(f"{len(client.ncores())} workers, {len(texts)} statements")
        start = perf_counter()
        with joblib.parallel_config("dask"):
            activations = embedder.transform(texts)
        print(f"Computed by the workers in {perf_counter() - start:.1f} s.")
    start = perf_counter()
    again = embedder.transform(texts)
    same = "the same" if np.array_equal(activations, again) else "OTHERS"
    print(f"Read from the store in {perf_counter() - start:.1f} s: {same}.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scheduler", default=None)
    parser.add_argument("--model", default=None)
    parser.add_argument("--out", type=Path, default=Path("cluster_output"))
    options = parser.parse_args()
    main(options.model or str(find_model()), options.out, options.scheduler)
