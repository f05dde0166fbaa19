"""Both estimators: seeds, threads and global state."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from _activations import X, Y
from sklearn.base import ClassifierMixin, clone
from skorch.callbacks import Callback


def test_same_seed_gives_the_same_bits_and_another_seed_others(
    probe: ClassifierMixin,
) -> None:
    one = probe.fit(X, Y).predict_proba(X)
    same = clone(probe).fit(X, Y).predict_proba(X)
    other = clone(probe).set_params(random_state=1).fit(X, Y).predict_proba(X)
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_fits_in_parallel_threads_give_the_bits_of_fits_one_by_one(
    probe: ClassifierMixin,
) -> None:
    def fit(seed: int) -> np.ndarray:
        fitted = clone(probe).set_params(random_state=seed).fit(X, Y)
        probabilities: np.ndarray = fitted.predict_proba(X)
        return probabilities

    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(fit, range(4)))
    assert np.array_equal(together, [fit(seed) for seed in range(4)])


class Fails(Callback):
    """Fails in the middle of training."""

    def on_epoch_end(self, net: object, **kwargs: object) -> None:
        raise RuntimeError("in training")


@pytest.mark.parametrize("random_state", [None, 0])
@pytest.mark.parametrize("callbacks", [None, [Fails()]])
def test_global_state_is_untouched(
    probe: ClassifierMixin,
    random_state: int | None,
    callbacks: list[Callback] | None,
) -> None:
    def read_state() -> list[object]:
        numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002 - what is tested
        keys = numpy_state["state"]
        threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
        return [
            keys["key"].tolist(),
            keys["pos"],
            torch.get_rng_state().tolist(),
            threads,
            dtype,
        ]

    before = read_state()
    probe.set_params(random_state=random_state, callbacks=callbacks)
    if callbacks:
        with pytest.raises(RuntimeError, match="in training"):
            probe.fit(X, Y)
    else:
        probe.fit(X, Y).predict_proba(X)
    assert read_state() == before
