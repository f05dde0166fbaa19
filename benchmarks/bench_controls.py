"""Time all controls of a probe beside the cross-validation of the probe alone.

Goal: ``probe_controls`` takes at most 2.5 times the time of the probe's own
cross-validation, reading of the texts included, plus one pass of the model with random
weights. Run ``python benchmarks/bench_controls.py --probe mlp``; it exits with 1 if the
goal is missed.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from time import perf_counter

from packaged_models import save_smollm2
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from plug_sklearn import (
    HFEmbeddingTransformer,
    LayerAggregator,
    PlugMLPClassifier,
    probe_controls,
)
from plug_sklearn.embedding import release_models, with_random_weights
from plug_sklearn.evaluation._folds import CrossValidation

sys.path.append(str(Path(__file__).parents[1] / "examples"))
from facts import make_statements

GOAL = 2.5
PROBES = {
    "mlp": [PlugMLPClassifier(random_state=0)],
    "linear": [StandardScaler(), LogisticRegression(C=0.01, max_iter=1000)],
}


def main(probe: str, model: str, n_texts: int) -> bool:
    """Time both sides, print a row, and tell whether the goal is met."""
    statements = make_statements().iloc[:n_texts]
    texts, y = list(statements["statement"]), statements["label"].to_numpy()
    groups = statements["group"].to_numpy()
    embedder = HFEmbeddingTransformer(model, layers=[14], device="cpu")
    pipeline = make_pipeline(embedder, LayerAggregator(), *PROBES[probe])
    folds = list(StratifiedGroupKFold(5).split(texts, y, groups))

    start = perf_counter()
    activations = clone(embedder).fit_transform(texts)
    validation = CrossValidation(y, folds, groups, scoring="roc_auc")
    validation.score(pipeline[1:], activations)
    alone = perf_counter() - start

    start = perf_counter()
    with with_random_weights(embedder, 0) as untrained:
        untrained.fit_transform(texts)
    second_pass = perf_counter() - start

    release_models()
    start = perf_counter()
    probe_controls(
        pipeline, texts, y, cv=folds, groups=groups, scoring="roc_auc", random_state=0
    )
    together = perf_counter() - start
    limit = GOAL * alone + second_pass
    is_met = together <= limit
    print(
        f"| {len(texts)} texts, all controls, {probe} probe | {together:.1f} s | "
        f"alone {alone:.1f} s, second model {second_pass:.1f} s | limit {limit:.1f} s "
        f"| {'met' if is_met else 'MISSED'} |"
    )
    return is_met


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--probe", choices=sorted(PROBES), default="linear")
    parser.add_argument("--model", help="folder of a model; by default SmolLM2")
    parser.add_argument("--texts", type=int, default=1000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(1, "blas"):
        model = arguments.model or save_smollm2(Path(folder))
        sys.exit(not main(arguments.probe, model, arguments.texts))
