"""Epochs → scores on the validation rows."""

from collections.abc import Callable
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

from plug_sklearn.classifiers._inputs import LabelledRows

Scorer = Callable[[Any, NDArray[np.float32], NDArray[Any]], float]


def choose_scoring(
    monitor: str | Scorer,
    validation: LabelledRows,
    classes: NDArray[Any],
    owner: str,
) -> tuple[str | Scorer, list[tuple[str, Callback]]]:
    """Choose what is monitored and the callbacks that record it.

    Parameters
    ----------
    monitor : str or callable
        ``"loss"``, ``"roc_auc"``, the name of a scorer, or a scorer.
    validation : LabelledRows
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
    codes, weight = validation.codes, validation.weight
    if monitor == "roc_auc":
        if len(np.unique(codes)) < len(classes):
            return "loss", []
        return monitor, [("valid_score", ScoreRocAuc(codes, weight))]
    if monitor == "loss":
        return monitor, []
    scorer = get_scorer(monitor)
    callback = ScoreWithScorer(scorer, validation.X, classes[codes], classes, owner)
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
            self.logits_.append(outputs[0] if isinstance(outputs, tuple) else outputs)

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
        Called with an estimator that predicts as the network does now, ``X`` and ``y``.
    X : ndarray of shape (n, ...), float32
        Validation samples.
    y : ndarray of shape (n,)
        Their labels.
    classes : ndarray of shape (n_classes,)
        All labels.
    owner : str
        Name of the estimator, for messages.
    """

    def __init__(
        self,
        scorer: Scorer,
        X: NDArray[np.float32],
        y: NDArray[Any],
        classes: NDArray[Any],
        owner: str,
    ) -> None:
        self.scorer = scorer
        self.X = X
        self.y = y
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
        score = self.scorer(NetInTraining(net, self.classes), self.X, self.y)
        if not isinstance(score, Real) or np.isnan(score):
            raise ValueError(
                f"The 'monitor' parameter of {self.owner} must be a scorer that gives "
                f"a number for the validation rows. Got {score!r} from it instead."
            )
        net.history.record("valid_score", float(score))


class NetInTraining(ClassifierMixin, BaseEstimator):
    """What a scorer sees of a network that is still training.

    Parameters
    ----------
    net : ProbeNet
        The network.
    classes : ndarray of shape (n_classes,)
        Labels, in the order of the logits.
    """

    def __init__(self, net: Any, classes: NDArray[Any]) -> None:  # noqa: ANN401 - a cycle
        self.net = net
        self.classes = classes
        self.classes_ = classes

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Predict probabilities, (n, n_classes)."""
        probabilities: NDArray[np.float64] = self.net.compute_probabilities(X)
        return probabilities

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Predict labels, (n,)."""
        labels: NDArray[Any] = self.classes_[self.predict_proba(X).argmax(axis=1)]
        return labels
