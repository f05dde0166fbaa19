"""Scores of epochs → the epoch whose weights are kept."""

import numpy as np
from skorch import NeuralNet
from skorch.callbacks import Callback
from torch import Tensor

from plug_sklearn.classifiers._rows import MemberRows, Rows


class StopTraining(Exception):
    """End training here, as planned."""


class KeepBestEpoch(Callback):
    """Stop when no epoch is better any more, and restore the weights of the best.

    The best epoch is, among those whose score is within ``min_delta`` of the highest,
    the one of lowest validation loss, by at least ``min_delta``: on a few rows the
    ranking is soon as good as it gets, long before the probabilities are.

    Parameters
    ----------
    use_score : bool
        Compare ``valid_score``; otherwise ``valid_loss`` alone.
    patience : int
        Epochs to wait for a better one.
    min_delta : float
        Differences up to this count as none.
    calibration_rows : Rows or MemberRows, default=None
        Held-out rows to calibrate the best epoch on; None: it is not calibrated.

    Attributes
    ----------
    best_epoch_ : int
        Number of the best epoch, from 1; 0 where every loss was NaN.
    best_weights_ : dict of Tensor
        State of the network at the best epoch, calibrated once training has ended.
    """

    def __init__(
        self,
        use_score: bool,
        patience: int,
        min_delta: float,
        calibration_rows: Rows | MemberRows | None = None,
    ) -> None:
        self.use_score = use_score
        self.patience = patience
        self.min_delta = min_delta
        self.calibration_rows = calibration_rows

    def on_train_begin(self, net: NeuralNet, **kwargs: object) -> None:
        """Forget earlier training."""
        self.best_epoch_ = 0
        self.highest_score_ = -np.inf
        self.best_score_, self.best_loss_ = -np.inf, np.inf
        self.best_weights_: dict[str, Tensor] = {}

    def on_epoch_end(self, net: NeuralNet, **kwargs: object) -> None:
        """Keep the weights if they are better, or stop if they have not been.

        Raises
        ------
        StopTraining
            If none was better for ``patience`` epochs.
        """
        epoch = net.history[-1]
        score = epoch["valid_score"] if self.use_score else 0.0
        if self._is_better(score, epoch["valid_loss"]):
            self.best_epoch_ = epoch["epoch"]
            self.best_score_, self.best_loss_ = score, epoch["valid_loss"]
            self._copy_weights(net)
        elif epoch["epoch"] - self.best_epoch_ >= self.patience:
            raise StopTraining

    def on_train_end(self, net: NeuralNet, **kwargs: object) -> None:
        """Restore the weights of the best epoch, and calibrate them."""
        self.restore(net)
        if self.best_epoch_ and self.calibration_rows is not None:
            net.calibrate(self.calibration_rows)
            self._copy_weights(net)

    def restore(self, net: NeuralNet) -> None:
        """Load the weights of the best epoch, if there is one."""
        if self.best_epoch_:
            net.module_.load_state_dict(self.best_weights_)

    def _copy_weights(self, net: NeuralNet) -> None:
        state = net.module_.state_dict()
        self.best_weights_ = {name: value.clone() for name, value in state.items()}

    def _is_better(self, score: float, loss: float) -> bool:
        if np.isnan(loss):
            return False
        self.highest_score_ = max(self.highest_score_, score)
        acceptable = self.highest_score_ - self.min_delta
        improves = loss < self.best_loss_ - self.min_delta
        return score >= acceptable and (improves or self.best_score_ < acceptable)
