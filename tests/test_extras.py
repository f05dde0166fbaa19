import re
import tomllib
from collections.abc import Callable
from importlib.metadata import requires
from pathlib import Path

import numpy as np
import pytest

from plug_sklearn import HFEmbeddingTransformer, ReliabilityDisplay

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
    monkeypatch.setattr("plug_sklearn._extras.find_spec", lambda name: None)
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
