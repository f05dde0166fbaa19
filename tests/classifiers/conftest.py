"""Both estimators, each on a handful of epochs."""

import pytest

from plug_sklearn.classifiers import PlugCNNClassifier, PlugMLPClassifier
from plug_sklearn.classifiers._classifiers import BasePlugClassifier


@pytest.fixture(params=[PlugMLPClassifier, PlugCNNClassifier])
def probe(request: pytest.FixtureRequest) -> BasePlugClassifier:
    """An estimator that has not been fitted."""
    classifier: BasePlugClassifier = request.param(
        max_epochs=4, random_state=0, device="cpu"
    )
    return classifier
