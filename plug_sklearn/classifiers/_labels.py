"""Labels and log-probabilities, from the probabilities of any classifier here."""

from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin


class PredictsLabels(ClassifierMixin):
    """A classifier that predicts by the probabilities of ``classes_``."""

    classes_: NDArray[Any]

    @abstractmethod
    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Predict the probability of each class, (n_samples, n_classes)."""

    def predict_log_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Predict the natural logarithm of the probability of each class.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Samples of the shape seen in ``fit``.

        Returns
        -------
        ndarray of shape (n_samples, n_classes), float64
            Logarithms of ``predict_proba(X)``; ``-inf`` where a probability is 0.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If ``fit`` has not been called.
        ValueError
            If ``X`` is not finite, or its shape differs from that in ``fit``.
        """
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Predict labels: the most probable class of each sample.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Samples of the shape seen in ``fit``.

        Returns
        -------
        ndarray of shape (n_samples,)
            Labels, from ``classes_``.
        """
        winners = self.predict_proba(X).argmax(axis=1)
        labels: NDArray[Any] = self.classes_[winners]
        return labels
