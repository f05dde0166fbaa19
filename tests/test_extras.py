import re
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest

from plug_sklearn import _extras

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


@pytest.mark.parametrize("extra", _extras.EXTRAS)
def test_the_error_names_the_extra_and_what_is_missing(
    extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_extras, "find_spec", lambda name: None)
    packages = " and ".join(_extras.EXTRAS[extra])
    with pytest.raises(ImportError, match=f"^It needs {packages}, .* not installed"):
        _extras.require_extra(extra, "It")
    with pytest.raises(ImportError, match=re.escape(f"with its extra [{extra}].")):
        _extras.require_extra(extra, "It")


@pytest.mark.parametrize("extra", _extras.EXTRAS)
def test_what_is_installed_is_no_error(extra: str) -> None:
    _extras.require_extra(extra, "It")


@pytest.mark.parametrize("extra", _extras.EXTRAS)
def test_an_extra_brings_what_is_asked_for(extra: str) -> None:
    declared = tomllib.loads(PROJECT.read_text())["project"]["optional-dependencies"]
    names = {re.split("[<>=]", requirement)[0] for requirement in declared[extra]}
    assert names == set(_extras.EXTRAS[extra])


def test_the_installed_package_declares_its_extras() -> None:
    declared = " ".join(requires("plug_sklearn") or [])
    assert all(
        f'extra == "{extra}"' in declared.replace("'", '"') for extra in _extras.EXTRAS
    )
