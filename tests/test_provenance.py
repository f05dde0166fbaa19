import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from plug_sklearn import HFEmbeddingTransformer, LayerAggregator, PlugMLPClassifier
from plug_sklearn.persistence import ProvenanceWarning

X = np.random.default_rng(0).normal(size=(8, 3))


@pytest.fixture
def newer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The versions that are found here, from when it is used on."""
    changed = {**LayerAggregator().__getstate__()["_versions"], "torch": "99.0"}
    monkeypatch.setattr("plug_sklearn._provenance.list_versions", lambda: changed)


def record_warnings(load: Callable[[], Any]) -> list[warnings.WarningMessage]:
    """The warnings that a user's filters, which are Python's own, let through."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        load()
    return caught


@pytest.mark.parametrize(
    "estimator", [HFEmbeddingTransformer(), LayerAggregator(), PlugMLPClassifier()]
)
def test_one_warning_names_what_differs(
    estimator: object, request: pytest.FixtureRequest
) -> None:
    pickled = pickle.dumps(estimator)
    pickle.loads(pickled)
    request.getfixturevalue("newer")
    with pytest.warns(ProvenanceWarning, match=r"torch .* \(here 99\.0\)") as caught:
        loaded = pickle.loads(pickled)
    assert len(caught) == 1
    assert "scikit-learn" not in str(caught[0].message)
    assert loaded.get_params() == estimator.get_params()


def test_a_pipeline_warns_once(request: pytest.FixtureRequest) -> None:
    pipe = make_pipeline(LayerAggregator(), PlugMLPClassifier())
    pickled = pickle.dumps(pipe)
    request.getfixturevalue("newer")
    caught = record_warnings(lambda: pickle.loads(pickled))
    assert [item.category for item in caught] == [ProvenanceWarning]


def test_builds_of_one_version_are_the_same() -> None:
    script = """
from importlib import metadata
metadata.version = lambda package: "2.9.0+cu130"
from plug_sklearn import LayerAggregator
print(*set(LayerAggregator().__getstate__()["_versions"].values()))
"""
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert ran.stdout.split() == ["2.9.0"]


def test_scikit_learn_s_own_warning_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    pickled = pickle.dumps(make_pipeline(StandardScaler(), LayerAggregator()).fit(X))
    monkeypatch.setattr("sklearn.base.__version__", "99.0")
    caught = record_warnings(lambda: pickle.loads(pickled))
    assert {item.category for item in caught} == {InconsistentVersionWarning}
    assert any("StandardScaler" in str(item.message) for item in caught)


def test_clones_and_copies_are_as_before() -> None:
    fitted = LayerAggregator().fit(X)
    assert "_versions" not in vars(pickle.loads(pickle.dumps(fitted)))
    assert "_versions" not in vars(clone(fitted))
