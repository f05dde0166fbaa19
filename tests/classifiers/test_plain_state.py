import pickle

import numpy as np
import pytest
import torch
from _activations import X, Y

from plug_sklearn.classifiers._classifiers import BasePlugClassifier


def test_a_pickle_holds_no_class_of_torch_or_skorch(
    probe: BasePlugClassifier,
) -> None:
    probe.fit(X, Y)
    pickled = pickle.dumps(probe)
    assert b"torch._utils" not in pickled
    assert b"skorch" not in pickled
    loaded = pickle.loads(pickled)
    assert np.array_equal(loaded.predict_proba(X), probe.predict_proba(X))
    assert loaded.history_ == probe.history_
    assert loaded.n_parameters_ == probe.n_parameters_


def test_pickling_leaves_the_probe_as_it_is(probe: BasePlugClassifier) -> None:
    probe.fit(X, Y)
    net, expected = probe.net_, probe.predict_proba(X)
    state = probe.__getstate__()
    for weights in state["net_"]["weights"].values():
        weights.fill(0)
    assert probe.net_ is net
    assert np.array_equal(probe.predict_proba(X), expected)


def test_a_probe_loads_onto_the_device_it_names_or_the_cpu(
    probe: BasePlugClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    expected = probe.fit(X, Y).predict_proba(X)
    pickled = pickle.dumps(probe.set_params(device="cuda"))
    with pytest.warns(UserWarning, match="runs on the CPU instead"):
        loaded = pickle.loads(pickled)
    assert (loaded.device, loaded.net_.device) == ("cuda", "cpu")
    assert np.array_equal(loaded.predict_proba(X), expected)
