import io
import sys

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from plug_sklearn import (
    HFEmbeddingTransformer,
    LayerAggregator,
    compare_probes,
    cross_validation_report,
    probe_controls,
    transfer_matrix,
)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "shown"), [(Terminal, True), (io.StringIO, False)])
def test_a_bar_is_shown_on_a_terminal_alone(
    llama: str,
    stream: type[io.StringIO],
    shown: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    embedder = HFEmbeddingTransformer(llama, device="cpu", verbose=True)
    embedder.fit(["Lima"])
    monkeypatch.setattr("plug_sklearn.embedding._transformer._QUICK", 0.0)
    monkeypatch.setattr(sys, "stderr", stream())
    embedder.transform(["Lima", "Paris"])
    assert ("Embedding: 100%" in sys.stderr.getvalue()) is shown


@pytest.mark.parametrize("verbose", [True, False])
@pytest.mark.parametrize("backend", ["loky", "threading", "multiprocessing"])
def test_jobs_give_their_results_in_order_with_and_without_a_bar(
    backend: str, verbose: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    X = np.random.default_rng(0).normal(size=(40, 3))
    y = np.arange(40) % 2
    datasets = {name: (X + shift, y) for shift, name in enumerate("abcd")}
    expected = transfer_matrix(LogisticRegression(), datasets, cv=2)
    monkeypatch.setattr(sys, "stderr", Terminal())
    with joblib.parallel_config(backend=backend):
        found = transfer_matrix(
            LogisticRegression(), datasets, cv=2, n_jobs=2, verbose=verbose
        )
    pd.testing.assert_frame_equal(found, expected)
    assert ("Fitting: 100%" in sys.stderr.getvalue()) is verbose


def test_quick_transforms_show_no_bar(
    llama: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = HFEmbeddingTransformer(llama, device="cpu", verbose=True)
    embedder.fit(["Lima"])
    monkeypatch.setattr("plug_sklearn.embedding._transformer._QUICK", 60.0)
    monkeypatch.setattr(sys, "stderr", Terminal())
    embedder.transform(["Lima", "Paris"])
    assert sys.stderr.getvalue() == ""


def test_reports_comparisons_controls_and_transfers_show_how_far_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    y = np.arange(40) % 2
    X = rng.normal(size=(40, 3)) + y[:, None]
    probe = LogisticRegression()
    for run, unit in (
        (lambda: cross_validation_report(probe, X, y, cv=2, verbose=True), "fold"),
        (lambda: compare_probes(probe, probe, X, y, cv=2, verbose=True), "probe"),
        (
            lambda: transfer_matrix(
                probe, {"a": (X, y), "b": (X + 1, y)}, cv=2, verbose=True
            ),
            "data set",
        ),
        (
            lambda: probe_controls(
                make_pipeline(LayerAggregator(), probe),
                X.reshape(40, 1, 1, 3),
                y,
                cv=2,
                controls=["majority"],
                verbose=True,
            ),
            "control",
        ),
    ):
        monkeypatch.setattr(sys, "stderr", Terminal())
        run()
        shown = sys.stderr.getvalue()
        assert "Fitting: 100%" in shown
        assert f"{unit}/s" in shown or f"s/{unit}" in shown
