import subprocess
import sys

import pytest

import plug_sklearn

SLOW_TO_IMPORT = ("matplotlib", "pandas", "skorch", "torch", "transformers")


def modules_after(statement: str) -> set[str]:
    """The modules in a fresh process after a statement."""
    script = f"{statement}\nimport sys\nprint(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(run.stdout.split())


def test_import_loads_no_heavy_package() -> None:
    assert not modules_after("import plug_sklearn") & set(SLOW_TO_IMPORT)


def test_classifiers_load_little_beyond_torch_and_skorch() -> None:
    loaded = modules_after("from plug_sklearn import PlugMLPClassifier")
    assert not loaded & {"transformers", "matplotlib", "pydantic", "torch._dynamo"}


@pytest.mark.parametrize("name", plug_sklearn.__all__)
def test_public_names_are_there(name: str) -> None:
    assert getattr(plug_sklearn, name).__name__ == name
    assert name in dir(plug_sklearn)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'PlugClassifier'"):
        plug_sklearn.PlugClassifier  # noqa: B018 - the access is what is tested


def test_version_is_the_distribution_s() -> None:
    from importlib.metadata import version

    assert plug_sklearn.__version__ == version("plug_sklearn")
