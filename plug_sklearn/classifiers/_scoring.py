"""Epochs → scores on the validation rows."""

from numbers import Real
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import get_scorer
from skorch import NeuralNet
from skorch.callbacks import Callback
from torch import Tensor

from plug_sklearn.classifiers._inputs import LabelledRows, ValidationRows
from plug_sklearn.classifiers._monitors import Scorer, takes_sample_weight
from plug_sklearn.classifiers._rows import NO_CLASS, Batch


def choose_scoring(
    monitor: str | Scorer,
    validation: ValidationRows,
    classes: NDArray[Any],
    owner: str,
) -> tuple[str | Scorer, list[tuple[str, Callback]]]:
    """Choose what is monitored and the callbacks that record it.

    Parameters
    ----------
    monitor : str or callable
        ``"loss"``, ``"roc_auc"``, the name of a scorer, or a scorer.
    validation : ValidationRows
        Validation rows.
    classes : ndarray of shape (n_classes,)
        All labels.
    owner : str
        Name of the estimator, for messages.

    Returns
    -------
    monitored : str or callable
        ``monitor``; or ``"loss"`` for ``"roc_auc"`` where it is undefined, since a
        class has no validation row.
    callbacks : list of (str, Callback)
        At most one.
    """
    if monitor == "roc_auc":
        codes, weight = validation.count()
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
    """Score the area under the ROC curve, each class against the rest, averaged.

    Parameters
    ----------
    codes : ndarray of shape (n,)
        Class codes; each of them must be there.
    probabilities : ndarray of shape (n, n_classes)
        Rows sum to 1.
    weight : ndarray of shape (n,)
        Weights of the rows.

    Returns
    -------
    float
        In [0, 1]; NaN where a probability is.

    References
    ----------
    Fawcett, "An introduction to ROC analysis", 2006, section 7: the area is the
    probability that a row of the class scores above a row of the rest.
    """
    if np.isnan(probabilities).any():
        return float("nan")
    areas = [
        _measure_area(codes == code, scores, weight)
        for code, scores in enumerate(probabilities.T)
    ]
    return float(np.mean(areas))


def _measure_area(
    positive: NDArray[np.bool_],
    scores: NDArray[np.float64],
    weight: NDArray[np.float64],
) -> float:
    values, ranks = np.unique(scores, return_inverse=True)
    above = np.bincount(ranks, weight * positive, minlength=len(values))
    below = np.bincount(ranks, weight * ~positive, minlength=len(values))
    # Half of the ties count, as if each were decided by a coin.
    won = above * (below.cumsum() - below / 2)
    return float(won.sum() / (above.sum() * below.sum()))


class ScoreRocAuc(Callback):
    """Record ``valid_score``, the macro area under the ROC curve, after each epoch.

    Parameters
    ----------
    codes, weight : ndarray of shape (n,)
        Class codes and weights of the validation rows, in the order of their batches.
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
        """Keep the logits of the validation batches, which the loss had computed."""
        if not training:
            outputs = cast(Tensor | tuple[Tensor, Tensor], kwargs["y_pred"])
            logits = outputs[0] if isinstance(outputs, tuple) else outputs
            _, (codes, _) = cast(Batch, kwargs["batch"])
            self.logits_.append(logits.reshape(*codes.shape, -1)[codes != NO_CLASS])

    def on_epoch_end(self, net: NeuralNet, **kwargs: object) -> None:
        """Score them."""
        logits = torch.cat(self.logits_).cpu().double()
        probabilities = logits.softmax(dim=1).numpy()
        score = score_macro_auc(self.codes, probabilities, self.weight)
        net.history.record("valid_score", score)


class ScoreWithScorer(Callback):
    """Record ``valid_score``, what a scikit-learn scorer says, after each epoch.

    Parameters
    ----------
    scorer : callable
        Called with an estimator that predicts as the network does now, ``X`` and ``y``,
        and with ``sample_weight`` where the scorer, or the metric it is made of, takes
        one.
    validation : ValidationRows
        Validation rows. Where each member has rows of its own, it is scored on these,
        and the score is the mean over members, weighted by their rows.
    classes : ndarray of shape (n_classes,)
        All labels.
    owner : str
        Name of the estimator, for messages.
    """

    def __init__(
        self,
        scorer: Scorer,
        validation: ValidationRows,
        classes: NDArray[Any],
        owner: str,
    ) -> None:
        self.scorer = scorer
        self.takes_weight = takes_sample_weight(scorer)
        self.parts = validation.split()
        self.classes = classes
        self.owner = owner

    def on_epoch_end(self, net: NeuralNet, **kwargs: object) -> None:
        """Score the network as it is.

        Raises
        ------
        ValueError
            If the score is not a number, or NaN.
        """
        if not np.isfinite(net.history[-1]["valid_loss"]):
            # The network has diverged, and its probabilities are NaN.
            net.history.record("valid_score", float("nan"))
            return
        scores = [
            self._score(NetInTraining(net, self.classes, member), rows)
            for member, rows in self.parts
        ]
        shares = [
            rows.weight.sum() if self.takes_weight else len(rows.codes)
            for _, rows in self.parts
        ]
        net.history.record("valid_score", float(np.average(scores, weights=shares)))

    def _score(self, estimator: "NetInTraining", rows: LabelledRows) -> float:
        weight = {"sample_weight": rows.weight} if self.takes_weight else {}
        score = self.scorer(estimator, rows.X, self.classes[rows.codes], **weight)
        if not isinstance(score, Real) or np.isnan(score):
            raise ValueError(
                f"The 'monitor' parameter of {self.owner} must be a scorer that gives "
                f"a number for the validation rows. Got {score!r} from it instead."
            )
        return float(score)


class NetInTraining(ClassifierMixin, BaseEstimator):
    """What a scorer sees of a network that is still training.

    Parameters
    ----------
    net : ProbeNet
        The network.
    classes : ndarray of shape (n_classes,)
        Labels, in the order of the logits.
    member : int, default=None
        Whose predictions they are; None: the mean of all.
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
        """Predict probabilities, (n, n_classes)."""
        probabilities: NDArray[np.float64] = self.net.compute_probabilities(
            X, self.member
        )
        return probabilities

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Predict labels, (n,)."""
        labels: NDArray[Any] = self.classes_[self.predict_proba(X).argmax(axis=1)]
        return labels
