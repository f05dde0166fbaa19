import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from unittest import SkipTest

import pytest
from sklearn.base import BaseEstimator
from sklearn.neural_network import MLPClassifier
from sklearn.utils.estimator_checks import estimator_checks_generator

from plug_sklearn.classifiers import (
    PlugCNNClassifier,
    PlugMLPClassifier,
    PlugStackClassifier,
)

CLASSIFIERS = [PlugMLPClassifier, PlugCNNClassifier, PlugStackClassifier]
#: Of scikit-learn's MLPClassifier, for what ours do not claim to do.
MULTILABEL_OR_SPARSE = {
    "check_sample_weight_equivalence_on_sparse_data",
    "check_classifiers_multilabel_representation_invariance",
    "check_classifiers_multilabel_output_format_predict",
    "check_classifiers_multilabel_output_format_predict_proba",
    "check_classifiers_multilabel_output_format_decision_function",
}
# scikit-learn skips one check unless this is set before scipy is imported.
RUN_ARRAY_API_CHECK = """
from sklearn.utils.estimator_checks import estimator_checks_generator
from plug_sklearn.classifiers import {name}
for estimator, check in estimator_checks_generator({name}()):
    if check.func.__name__ == "check_array_api_input":
        check(estimator)
        print("ran")
"""


def count_checks(estimator: BaseEstimator) -> Counter[str]:
    return Counter(
        check.func.__name__ for _, check in estimator_checks_generator(estimator)
    )


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_every_check_of_scikit_learn_passes(
    classifier: type[BaseEstimator], tell: Callable[..., None]
) -> None:
    # Some checks are there twice, and the last is the strictest: on float32 in memory
    # that cannot be written to.
    checks = {
        check.func.__name__: (estimator, check)
        for estimator, check in estimator_checks_generator(classifier())
    }
    skipped = []
    for name, (estimator, check) in checks.items():
        try:
            check(estimator)
        except SkipTest:
            skipped.append(name)
    tell(f"{classifier.__name__}: {len(checks)} checks, {len(skipped)} skipped")
    assert skipped == ["check_array_api_input"]


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_checks_are_those_of_scikit_learns_own_network(
    classifier: type[BaseEstimator],
) -> None:
    missing = count_checks(MLPClassifier()) - count_checks(classifier())
    assert set(missing) <= MULTILABEL_OR_SPARSE


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_array_api_check_passes(
    classifier: type[BaseEstimator], monkeypatch: pytest.MonkeyPatch
) -> None:
    n_checks = count_checks(classifier())["check_array_api_input"]
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")
    script = RUN_ARRAY_API_CHECK.format(name=classifier.__name__)
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True
    )
    assert run.stdout == "ran\n" * n_checks, run.stderr
