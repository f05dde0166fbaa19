"""Write artifacts of this release, with the probabilities they give.

python tests/data/write_artifacts.py FORMAT

Files of a format that releases have written are kept as they are: the script refuses to
overwrite them. A new format is a new folder, such as ``tests/data/format_2``.
"""

import json
import sys
from pathlib import Path

import numpy as np
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from plug_sklearn import (
    LayerAggregator,
    PlugCNNClassifier,
    PlugMLPClassifier,
    PlugTokenClassifier,
    save_artifacts,
)


def main(folder: Path) -> None:
    """Fit four small estimators and write their files."""
    rng = np.random.default_rng(0)
    y = np.array(["false", "true"])[np.arange(60) % 2]
    X = rng.normal(size=(60, 3, 2, 4)).astype(np.float32)
    X[:, 1, 0] += (y == "true")[:, None]
    small = {"max_epochs": 5, "n_members": 2, "random_state": 0, "device": "cpu"}
    fitted = {
        "mlp": PlugMLPClassifier(sizing="budget", **small).fit(X, y),
        "cnn": PlugCNNClassifier(sizing="budget", **small).fit(X, np.arange(60) % 3),
        "pipeline": make_pipeline(
            LayerAggregator([0, -1], method="mean").set_output(transform="pandas"),
            StandardScaler(),
            PlugMLPClassifier(n_members=1, max_epochs=5, random_state=0, device="cpu"),
        ).fit(X, y),
        # A sample holds three tokens with eight features.
        "token": PlugTokenClassifier(**small).fit(X.reshape(60, 3, 8), y),
    }
    samples = {name: X[:8] for name in fitted}
    samples["token"] = X[:8].reshape(8, 3, 8)
    expected = {}
    for name, estimator in fitted.items():
        save_artifacts(estimator, folder / name)
        expected[name] = {
            "classes": estimator.classes_.tolist(),
            "probabilities": estimator.predict_proba(samples[name]).tolist(),
        }
    written = {"samples": X[:8].tolist(), "expected": expected}
    (folder / "expected.json").write_text(json.dumps(written) + "\n")


if __name__ == "__main__":
    target = Path(__file__).parent / f"format_{int(sys.argv[1])}"
    if target.exists():
        sys.exit(f"{target} is there, and is what later releases are held to.")
    main(target)
