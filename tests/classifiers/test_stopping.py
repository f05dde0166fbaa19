from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from plug_sklearn.classifiers._stopping import KeepBestEpoch, StopTraining


class FakeNet:
    """Epochs of given scores and losses; each sets the weight to its number."""

    def __init__(self) -> None:
        self.module_ = nn.Linear(1, 1, bias=False)
        self.history: list[dict[str, float]] = []

    def run(
        self, keeper: KeepBestEpoch, scores: Sequence[float], losses: Sequence[float]
    ) -> float:
        keeper.on_train_begin(self)
        for number, (score, loss) in enumerate(zip(scores, losses, strict=True), 1):
            with torch.no_grad():
                self.module_.weight.fill_(number)
            self.history.append(
                {"epoch": number, "valid_score": score, "valid_loss": loss}
            )
            try:
                keeper.on_epoch_end(self)
            except StopTraining:
                break
        keeper.on_train_end(self)
        return self.module_.weight.item()


CASES = SimpleNamespace(
    highest=([0.5, 0.7, 0.6, 0.6], [1.0, 1.0, 0.1, 0.1], 2),
    tie_by_loss=([0.7, 0.7, 0.7, 0.7], [1.0, 0.8, 0.5, 0.6], 3),
    near_tie_by_loss=([0.700, 0.705, 0.698, 0.5], [1.0, 0.9, 0.5, 0.1], 3),
    near_tie_of_higher_loss=([0.700, 0.705, 0.705, 0.705], [0.5, 0.9, 0.9, 0.9], 1),
    no_slow_slide=([0.70, 0.695, 0.685, 0.68], [1.0, 0.9, 0.8, 0.7], 2),
    nan_loss=([0.7, 0.9, 0.6, 0.6], [1.0, np.nan, 1.0, 1.0], 1),
    nan_score=([np.nan, 0.5, 0.4, 0.4], [1.0, 1.0, 1.0, 1.0], 2),
)


@pytest.mark.parametrize("name", vars(CASES))
def test_weights_of_the_best_epoch_are_restored(name: str) -> None:
    scores, losses, best = getattr(CASES, name)
    keeper = KeepBestEpoch(use_score=True, patience=10, min_delta=0.01)
    assert FakeNet().run(keeper, scores, losses) == best
    assert keeper.best_epoch_ == best


def test_loss_alone_decides_without_a_score() -> None:
    keeper = KeepBestEpoch(use_score=False, patience=10, min_delta=0.0)
    assert FakeNet().run(keeper, [0.9, 0.8, 0.7], [1.0, 0.5, 0.6]) == 2


def test_training_ends_after_patience_epochs_without_a_better_one() -> None:
    net = FakeNet()
    keeper = KeepBestEpoch(use_score=True, patience=3, min_delta=0.0)
    net.run(keeper, [0.5, 0.6, *[0.55] * 20], [1.0] * 22)
    assert len(net.history) == 5


def test_smaller_improvements_than_min_delta_do_not_prolong_training() -> None:
    net = FakeNet()
    keeper = KeepBestEpoch(use_score=False, patience=3, min_delta=0.01)
    net.run(keeper, [0.0] * 20, [1 - 0.001 * i for i in range(20)])
    assert len(net.history) == 4
