"""What the service loads, and what it says of a file that it cannot serve."""

import importlib
from pathlib import Path
from types import ModuleType

import joblib
import pytest
from _fitted import fit_pipeline
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import LinearSVC

from plug_sklearn import LayerAggregator, PlugMLPClassifier, save_artifacts

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def serve() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        return importlib.import_module("serve")


def test_artifacts_are_loaded_onto_the_device_asked_for(
    serve: ModuleType, tmp_path: Path
) -> None:
    save_artifacts(fit_pipeline(), tmp_path / "probe")
    for name in ("probe", "probe.json", "probe.safetensors"):
        loaded = serve.load_probe(str(tmp_path / name), "auto")
        assert (loaded[-1].device, list(loaded.classes_)) == ("auto", ["false", "true"])


@pytest.mark.parametrize("name", ["no.joblib", "no", "folder/no"])
def test_a_missing_file_is_told_with_what_could_be_there(
    serve: ModuleType, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = f"^{name} cannot be served: there is no such file, nor {name}.json"
    with pytest.raises(SystemExit, match=said):
        serve.main([name])


@pytest.mark.parametrize("option", ["--texts=-3", "--body-seconds=nan", "--answers=x"])
def test_limits_that_are_no_numbers_from_0_are_refused_by_name(
    serve: ModuleType, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        serve.main(["probe", option])
    assert f"argument {option.split('=')[0]}: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "kind"), [("table.csv", "a file of joblib.dump"), (".", "files of save_")]
)
def test_what_cannot_be_loaded_is_told_in_a_line(
    serve: ModuleType,
    name: str,
    kind: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("table.csv").write_text("a,b\n1,2\n")
    said = f"^{name} cannot be served: it could not be read as {kind}.*Error: "
    with pytest.raises(SystemExit, match=said):
        serve.main([name])


def test_pipeline_that_is_not_fitted_is_refused(
    serve: ModuleType, tmp_path: Path
) -> None:
    joblib.dump(make_pipeline(LayerAggregator(), PlugMLPClassifier()), tmp_path / "p")
    with pytest.raises(SystemExit, match="must hold a fitted pipeline"):
        serve.load_probe(str(tmp_path / "p"))


def test_pipeline_without_probabilities_is_refused_at_the_start(
    serve: ModuleType, tmp_path: Path
) -> None:
    texts = FunctionTransformer(lambda texts: [[len(text)] for text in texts])
    (tmp_path / "probe.json").touch()
    for last in (RidgeClassifier(), LinearSVC()):
        fitted = make_pipeline(texts, last).fit(["a", "bb"], [0, 1])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(serve, "load_artifacts", lambda *_, fitted=fitted: fitted)
            with pytest.raises(SystemExit, match=f"Got {type(last).__name__} instead"):
                serve.load_probe(str(tmp_path / "probe"))


def test_what_is_no_pipeline_is_refused_by_name(
    serve: ModuleType, tmp_path: Path
) -> None:
    joblib.dump(LogisticRegression(), tmp_path / "probe.joblib")
    with pytest.raises(SystemExit, match="Got LogisticRegression instead"):
        serve.load_probe(str(tmp_path / "probe.joblib"))
