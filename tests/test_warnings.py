import subprocess
import sys
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path

import joblib
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

import plug_sklearn
from plug_sklearn import HFEmbeddingTransformer, LayerAggregator, PlugMLPClassifier

TEXTS = ["The city of Paris is in France."] * 4
Y = [0, 1, 0, 1]


def lines_warned(call: Callable[[], object], match: str) -> set[str]:
    """The files that the warnings of a call point at."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return {w.filename for w in caught if match in str(w.message)}


def test_counts_of_cut_texts_point_here_from_a_pipeline(llama: str) -> None:
    embedder = HFEmbeddingTransformer(llama, device="cpu", max_length=3)
    pipeline = make_pipeline(embedder, LayerAggregator(), LogisticRegression())
    assert lines_warned(lambda: embedder.fit_transform(TEXTS), "were cut") == {__file__}
    assert lines_warned(lambda: pipeline.fit(TEXTS, Y), "were cut") == {__file__}
    predict = lambda: pipeline.predict(TEXTS)  # noqa: E731 - a call to make
    assert lines_warned(predict, "were cut") == {__file__}
    assert lines_warned(lambda: embedder.selected_tokens(TEXTS), "were cut") == {
        __file__
    }


def test_counts_of_cut_texts_point_here_from_a_search(llama: str) -> None:
    embedder = HFEmbeddingTransformer(llama, device="cpu", max_length=3)
    pipeline = make_pipeline(embedder, LayerAggregator(), LogisticRegression())
    search = GridSearchCV(pipeline, {"logisticregression__C": [1, 2]}, cv=2)
    assert lines_warned(lambda: search.fit(TEXTS, Y), "were cut") == {__file__}


def test_an_absent_accelerator_points_here() -> None:
    probe = PlugMLPClassifier(device="cuda:99", max_epochs=1, random_state=0)
    X = np.arange(16.0).reshape(8, 2)
    assert lines_warned(lambda: probe.fit(X, [0, 1] * 4), "not available") == {__file__}


def test_other_versions_point_here_from_joblib_load(tmp_path: Path) -> None:
    aggregator = LayerAggregator()
    state = aggregator.__getstate__()
    state["_versions"] = {"torch": "0.1"}
    aggregator.__getstate__ = lambda: state  # type: ignore[method-assign]  # another release's
    joblib.dump(aggregator, tmp_path / "old.joblib")
    load = lambda: joblib.load(tmp_path / "old.joblib")  # noqa: E731 - a call to make
    found = lines_warned(load, "Pickled with")
    assert found <= {__file__}


def test_a_warning_of_a_script_points_at_its_line(tmp_path: Path) -> None:
    script = tmp_path / "user.py"
    script.write_text(
        textwrap.dedent(
            """
            import numpy as np
            from plug_sklearn import PlugMLPClassifier
            probe = PlugMLPClassifier(device="cuda:99", max_epochs=1)
            probe.fit(np.arange(16.0).reshape(8, 2), [0, 1] * 4)
            """
        )
    )
    run = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=True
    )
    assert f"{script}:5: UserWarning" in run.stderr


def test_without_a_line_of_the_user_the_outermost_frame_is_shown() -> None:
    script = """
from warnings import catch_warnings
from plug_sklearn import PlugMLPClassifier
with catch_warnings(record=True) as caught:
    PlugMLPClassifier(device="cuda:99", max_epochs=1).fit([[0], [1]] * 4, [0, 1] * 4)
(warning,) = caught
print(warning.message)
"""
    # All frames of that process seem to belong to a library.
    namespace = "{'__name__': 'sklearn.fake'}"
    outer = f"__name__ = 'sklearn.main'\nexec({script!r}, {namespace})"
    ran = subprocess.run(
        [sys.executable, "-c", outer], capture_output=True, text=True, check=True
    )
    assert "not available" in ran.stdout


def test_no_warning_of_the_package_has_a_level_of_its_own() -> None:
    package = Path(plug_sklearn.__file__).parent
    others = [path for path in package.rglob("*.py") if path.name != "_warnings.py"]
    assert [p.name for p in others if "warnings.warn(" in p.read_text()] == []
