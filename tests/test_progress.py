import io
import sys

import joblib
import pytest
from sklearn.utils.parallel import delayed

from plug_sklearn import HFEmbeddingTransformer
from plug_sklearn._progress import run_jobs, show_progress


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
    monkeypatch.setattr(sys, "stderr", Terminal())
    with joblib.parallel_config(backend=backend):
        found = run_jobs(
            (delayed(abs)(-number) for number in range(5)),
            n_jobs=2,
            total=5,
            description="Fitting",
            unit="fold",
            verbose=verbose,
        )
    assert found == [0, 1, 2, 3, 4]
    assert ("Fitting: 100%" in sys.stderr.getvalue()) is verbose


def test_a_bar_with_a_delay_is_not_shown_for_what_is_quick(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    with show_progress(2, "Embedding", "text", delay=60) as bar:
        bar.update(2)
    assert sys.stderr.getvalue() == ""
