"""Score each epoch on the validation rows, and keep the weights of the best one."""

from collections import Counter
from collections.abc import Callable, Sequence
from inspect import signature
from numbers import Real
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.metrics import get_scorer
from skorch import NeuralNet
from skorch.callbacks import Callback
from torch import Tensor

from plug_sklearn.classifiers._batches import NO_CLASS, Batch, MemberRows, Rows
from plug_sklearn.classifiers._prediction import Outputs, PredictsLabels, take_logits

Scorer = Callable[..., float]

#: Names of the callbacks that training always has.
OWN_CALLBACKS = frozenset(
    ["train_loss", "valid_loss", "print_log", "valid_score", "keep_best_epoch"]
)


class StopTraining(Exception):
    """End training here, as planned."""


def check_monitor(monitor: str | Scorer, owner: str) -> None:
    """Raise a ValueError if ``monitor`` is a metric, not a scorer."""
    if isinstance(monitor, str):
        return
    try:
        bound = signature(monitor).bind(None, None, None)
    except TypeError:
        is_scorer = False
    except ValueError:
        # A callable written in C has no signature.
        is_scorer = True
    else:
        is_scorer = next(iter(bound.arguments)) not in ("y", "y_true", "y_pred")
    if not is_scorer:
        name = getattr(monitor, "__name__", "metric")
        raise ValueError(
            f"The 'monitor' parameter of {owner} must be 'loss', the name of a "
            "scikit-learn scorer such as 'roc_auc', or a scorer, which is called as "
            f"scorer(estimator, X, y). Got {monitor!r} instead. To use a metric, make "
            f"a scorer from it: sklearn.metrics.make_scorer({name})."
        )


def takes_sample_weight(scorer: Scorer) -> bool:
    """Return whether a scorer, or the metric it calls, takes ``sample_weight``."""
    metric = getattr(scorer, "_score_func", scorer)
    try:
        return "sample_weight" in signature(metric).parameters
    except (TypeError, ValueError):
        return False


def choose_scoring(
    monitor: str | Scorer, validation: Rows, classes: NDArray[Any], owner: str
) -> tuple[str | Scorer, list[tuple[str, Callback]]]:
    """Choose what is monitored, and the callback that records it, if any.

    ``"roc_auc"`` is undefined if a class has no validation sample, and then becomes
    ``"loss"``.
    """
    if monitor == "roc_auc":
        codes, weight = validation.list_validated()
        if len(np.unique(codes)) < len(classes):
            return "loss", []
        return monitor, [("valid_score", ScoreRocAuc(codes, weight))]
    if monitor == "loss":
        return monitor, []
    callback = ScoreWithScorer(get_scorer(monitor), validation, classes, owner)
    return monitor, [("valid_score", callback)]


def score_macro_auc(
    codes: NDArray[np.intp],
    probabilities: NDArray[np.float64],
    weight: NDArray[np.float64],
) -> float:
    """Compute the one-vs-rest ROC-AUC, averaged over classes.

    ``codes`` and ``weight`` have the shape (n,), ``probabilities`` (n, n_classes). All
    classes must occur. The result is NaN if a probability is.

    References
    ----------
    Fawcett, "An introduction to ROC analysis", 2006, section 7: the ROC-AUC is the
    probability that a sample of the class scores above a sample of the rest.
    """
    if np.isnan(probabilities).any():
        return float("nan")
    by_class = [
        _measure_auc(codes == code, scores, weight)
        for code, scores in enumerate(probabilities.T)
    ]
    return float(np.mean(by_class))


def _measure_auc(
    positive: NDArray[np.bool_],
    scores: NDArray[np.float64],
    weight: NDArray[np.float64],
) -> float:
    values, ranks = np.unique(scores, return_inverse=True)
    above = np.bincount(ranks, weight * positive, minlength=len(values))
    below = np.bincount(ranks, weight * ~positive, minlength=len(values))
    # Ties count half.
    won = above * (below.cumsum() - below / 2)
    return float(won.sum() / (above.sum() * below.sum()))


class ScoreRocAuc(Callback):
    """Record ``valid_score``, the macro ROC-AUC, after each epoch.

    ``codes`` and ``weight`` are those of the validation rows, in the order of batches.
    """

    def __init__(self, codes: NDArray[np.intp], weight: NDArray[np.float64]) -> None:
        self.codes = codes
        self.weight = weight

    def on_epoch_begin(self, net: NeuralNet, **kwargs: object) -> None:
        """Forget the epoch before."""
        self.logits_: list[Tensor] = []

    def on_batch_end(
        self, net: NeuralNet, training: bool = False, **kwargs: object
    ) -> None:
        """Keep the logits of a validation batch, computed for the loss."""
        if not training:
            logits = take_logits(cast(Outputs, kwargs["y_pred"]))
            _, (codes, _) = cast(Batch, kwargs["batch"])
            self.logits_.append(logits.reshape(*codes.shape, -1)[codes != NO_CLASS])

    def on_epoch_end(self, net: NeuralNet, **kwargs: object) -> None:
        """Score them."""
        logits = torch.cat(self.logits_).cpu().double()
        probabilities = logits.softmax(dim=1).numpy()
        score = score_macro_auc(self.codes, probabilities, self.weight)
        net.history.record("valid_score", score)


class ScoreWithScorer(Callback):
    """Record ``valid_score``, the result of a scikit-learn scorer, after each epoch.

    If each member has its own validation rows, it is scored on these, and the score is
    the mean over members, weighted by their rows. The scorer is given sample weights if
    it takes them.
    """

    def __init__(
        self, scorer: Scorer, validation: Rows, classes: NDArray[Any], owner: str
    ) -> None:
        self.scorer = scorer
        self.takes_weight = takes_sample_weight(scorer)
        self.by_member = validation.split_by_member()
        self.classes = classes
        self.owner = owner

    def on_epoch_end(self, net: NeuralNet, **kwargs: object) -> None:
        """Score the network; raises a ValueError if the score is no number."""
        if not np.isfinite(net.history[-1]["valid_loss"]):
            # Training has diverged, and the probabilities are NaN.
            net.history.record("valid_score", float("nan"))
            return
        scores = [
            self._score(NetInTraining(net, self.classes, member), rows)
            for member, rows in self.by_member
        ]
        shares = [
            rows.weight.sum() if self.takes_weight else len(rows.codes)
            for _, rows in self.by_member
        ]
        net.history.record("valid_score", float(np.average(scores, weights=shares)))

    def _score(self, estimator: "NetInTraining", rows: Rows) -> float:
        weight = {"sample_weight": rows.weight} if self.takes_weight else {}
        score = self.scorer(estimator, rows.X, self.classes[rows.codes], **weight)
        if not isinstance(score, Real) or np.isnan(score):
            raise ValueError(
                f"The 'monitor' parameter of {self.owner} must be a scorer that gives "
                f"a number for the validation samples. Got {score!r} from it instead."
            )
        return float(score)


class NetInTraining(PredictsLabels, BaseEstimator):
    """The classifier that a scorer is given: one member, or None for all, in training.

    ``classes`` are the labels, in the order of the logits.
    """

    def __init__(
        self,
        net: Any,  # noqa: ANN401 - ProbeNet, which imports this
        classes: NDArray[Any],
        member: int | None = None,
    ) -> None:
        self.net = net
        self.classes = classes
        self.classes_ = classes
        self.member = member

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Predict probabilities (n, n_classes)."""
        probabilities: NDArray[np.float64] = self.net.compute_probabilities(
            X, self.member
        )
        return probabilities


class KeepBestEpoch(Callback):
    """Stop if no epoch has been better for ``patience`` epochs, and keep the best one.

    Among the epochs whose score is within ``min_delta`` of the highest, the best one
    has the lowest validation loss, by at least ``min_delta``: with few rows, the
    ranking is best long before the probabilities are. Without ``use_score``, only the
    loss counts. The kept weights are calibrated on ``calibration_rows``, if any.

    ``best_epoch_`` counts from 1, and is 0 if every loss was NaN; ``best_weights_`` is
    the state of the network then.
    """

    def __init__(
        self,
        use_score: bool,
        patience: int,
        min_delta: float,
        calibration_rows: MemberRows | None = None,
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
        """Keep the weights if they are better, or raise StopTraining."""
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


def read_callbacks(callbacks: Sequence[Any] | None, owner: str) -> list[Any]:
    """Check that callbacks are skorch's, or (name, callback) with new, unique names."""
    items = list(callbacks or [])
    for item in items:
        named = isinstance(item, tuple | list) and len(item) == 2
        callback = item[1] if named else item
        kind = callback if isinstance(callback, type) else type(callback)
        if not issubclass(kind, Callback) or (named and not isinstance(item[0], str)):
            raise ValueError(
                f"The 'callbacks' parameter of {owner} must hold callbacks of skorch, "
                f"or (name, callback). Got {item!r} instead."
            )
    names = Counter(item[0] for item in items if isinstance(item, tuple | list))
    taken = [name for name, n in names.items() if n > 1 or name in OWN_CALLBACKS]
    if taken:
        raise ValueError(
            f"The 'callbacks' parameter of {owner} must have distinct names that are "
            f"not among {sorted(OWN_CALLBACKS)}. Got {taken} instead."
        )
    return items


def hide_members(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Convert the arguments of our callbacks to those that users' callbacks expect.

    Ours are given a ``batch`` with weights, and with rows of each member, some without
    a class. Users' are given the rows of all members as one batch, without weights.
    """
    if "batch" not in kwargs:
        return kwargs
    x, (codes, _) = cast(Batch, kwargs["batch"])
    counts = codes != NO_CLASS
    shown = kwargs | {"batch": (x[counts], codes[counts])}
    if "y_pred" in kwargs:
        outputs = kwargs["y_pred"]
        shown["y_pred"] = (
            tuple(output.reshape(*codes.shape, -1)[counts] for output in outputs)
            if isinstance(outputs, tuple)
            else outputs.reshape(*codes.shape, -1)[counts]
        )
    return shown
