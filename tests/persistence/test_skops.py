from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import skops.io
from _fitted import X, Y, fit_cnn, fit_mlp, fit_pipeline, fit_stack, fit_token
from skops.io.exceptions import UntrustedTypesFoundException

from plug_sklearn import LayerAggregator
from plug_sklearn.persistence import SKOPS_TRUSTED


@pytest.mark.parametrize("fit", [fit_mlp, fit_cnn, fit_stack, fit_pipeline])
def test_a_fitted_probe_predicts_the_same(fit: Callable[[], Any]) -> None:
    fitted = fit()
    loaded = skops.io.loads(skops.io.dumps(fitted), trusted=list(SKOPS_TRUSTED))
    assert np.array_equal(loaded.predict_proba(X), fitted.predict_proba(X))
    assert np.array_equal(loaded.predict(X), fitted.predict(X))
    loaded.fit(X, Y)


def test_each_type_is_needed_and_no_other() -> None:
    aggregator = LayerAggregator([0, -1], method="mean").fit(X)
    needed: set[str] = set()
    cnn = fit_cnn(class_weight={"true": 2.0})
    for fitted in (fit_mlp(), cnn, fit_stack(), fit_token(), aggregator):
        dumped = skops.io.dumps(fitted)
        needed |= set(skops.io.get_untrusted_types(data=dumped))
        with pytest.raises(UntrustedTypesFoundException):
            skops.io.loads(dumped)
    loaded = skops.io.loads(skops.io.dumps(aggregator), trusted=list(SKOPS_TRUSTED))
    assert np.array_equal(loaded.transform(X), aggregator.transform(X))
    assert needed == set(SKOPS_TRUSTED)


def test_trusted_names_are_public() -> None:
    for name in SKOPS_TRUSTED:
        module, _, kind = name.rpartition(".")
        assert not any(part.startswith("_") for part in name.split("."))
        assert getattr(import_module(module), kind).__module__ == module
