import pickle
import re
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Callable
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from plug_sklearn import (
    HFEmbeddingTransformer,
    LayerAggregator,
    PlugMLPClassifier,
    ReliabilityDisplay,
)
from plug_sklearn.persistence import ProvenanceWarning

X = np.random.default_rng(0).normal(size=(8, 3))
PROJECT = Path(__file__).parents[1] / "pyproject.toml"
#: Parameters of an embedder that need an extra.
PARAMETERS = {
    "adapters": {"adapter": "some/adapter"},
    "gguf": {"model_kwargs": {"gguf_file": "model.gguf"}},
    "multi-gpu": {"model_kwargs": {"device_map": "auto"}},
    "quantization": {"quantization": "8bit"},
}
EXTRAS = ["plots", *PARAMETERS]


@pytest.fixture
def newer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The versions that are found here, from when it is used on."""
    changed = {**LayerAggregator().__getstate__()["_versions"], "torch": "99.0"}
    monkeypatch.setattr("plug_sklearn._packages.list_versions", lambda: changed)


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


@pytest.fixture
def use(llama: str) -> Callable[[str], object]:
    """Do what needs an extra."""

    def use(extra: str) -> object:
        if extra == "plots":
            return ReliabilityDisplay.from_predictions([0, 1], np.array([0.2, 0.7]))
        embedder = HFEmbeddingTransformer(llama, device="cpu", **PARAMETERS[extra])
        return embedder.fit_transform(["Lima"])

    return use


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_error_names_the_extra_and_the_packages_that_it_brings(
    extra: str, use: Callable[[str], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plug_sklearn._packages.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r" needs .* not installed\. Run") as raised:
        use(extra)
    message = str(raised.value)
    assert message.endswith(f"or install plug_sklearn with its extra [{extra}].")
    (named,) = re.findall(r" needs (.*), which (?:is|are) not installed", message)
    declared = tomllib.loads(PROJECT.read_text())["project"]["optional-dependencies"]
    packages = {re.split("[<>=]", requirement)[0] for requirement in declared[extra]}
    assert set(named.split(" and ")) == packages


def test_what_is_installed_is_no_error(use: Callable[[str], object]) -> None:
    assert use("plots")


def test_the_installed_package_declares_its_extras() -> None:
    declared = " ".join(requires("plug_sklearn") or []).replace("'", '"')
    assert all(f'extra == "{extra}"' in declared for extra in EXTRAS)
