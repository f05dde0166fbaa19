from pathlib import Path

import joblib
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from plug_sklearn import PlugTokenClassifier, load_artifacts, save_artifacts

RNG = np.random.default_rng(0)
X = np.empty(40, dtype=object)
for number in range(40):
    X[number] = RNG.normal(size=(1 + number % 7, 6)).astype(np.float32)
    X[number][0, 0] = 4 * (number % 2)
Y = np.array(["false", "true"])[np.arange(40) % 2]
TOKEN_LABELS = [[label] * len(text) for text, label in zip(X, Y, strict=True)]


@pytest.mark.parametrize(
    ("y", "parameters"),
    [
        (Y, {}),
        (Y, {"aggregation": "rolling", "window": 2, "linear_path": False}),
        (Y, {"sizing": "budget", "target_ratio": 4.0}),
        (np.arange(40) % 3, {"aggregation": "max"}),
        (TOKEN_LABELS, {}),
    ],
)
def test_saved_probe_predicts_the_same(
    tmp_path: Path, y: object, parameters: dict[str, object]
) -> None:
    probe = PlugTokenClassifier(
        max_epochs=3, n_members=2, random_state=0, device="cpu", **parameters
    ).fit(X, y)
    save_artifacts(probe, tmp_path / "probe")
    joblib.dump(probe, tmp_path / "probe.joblib")
    for loaded in (
        load_artifacts(tmp_path / "probe"),
        joblib.load(tmp_path / "probe.joblib"),
    ):
        assert_array_equal(loaded.predict(X), probe.predict(X))
        assert_array_equal(loaded.predict_proba(X), probe.predict_proba(X))
        assert loaded.labels_tokens_ == probe.labels_tokens_
        for running in (False, True):
            pairs = zip(
                loaded.predict_token_proba(X, running=running),
                probe.predict_token_proba(X, running=running),
                strict=True,
            )
            for found, expected in pairs:
                assert_array_equal(found, expected)
