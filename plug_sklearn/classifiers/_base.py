"""The base class of the classifiers that train networks."""

from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import get_scorer_names
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from plug_sklearn._sklearn import Interval, StrOptions
from plug_sklearn.classifiers._data import draw_seeds
from plug_sklearn.classifiers._fitting import FitsNetwork
from plug_sklearn.classifiers._prediction import PredictsLabels


class BasePlugClassifier(PredictsLabels, FitsNetwork):
    """A classifier whose network is sized by the data and trained by skorch.

    A subclass names its network, how it is sized, and its parameters.
    """

    # Under scikit-learn's metadata routing, a search passes its groups on to ``fit``.
    __metadata_request__fit: ClassVar[dict[str, bool]] = {"groups": True}

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "target_ratio": [Interval(Real, 0, None, closed="neither")],
        "sizing": [StrOptions({"budget", "heuristic"})],
        "n_members": [Interval(Integral, 1, None, closed="left")],
        "linear_path": ["boolean"],
        "input_dropout": [Interval(Real, 0, 1, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "linear_lr": [Interval(Real, 0, None, closed="neither")],
        "linear_decay": [Interval(Real, 0, 1, closed="left")],
        "batch_size": [Interval(Integral, 2, None, closed="left")],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "patience": [Interval(Integral, 1, None, closed="left")],
        "min_delta": [Interval(Real, 0, None, closed="left")],
        "monitor": [StrOptions({"loss", *get_scorer_names()}), callable],
        "calibrate": ["boolean"],
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "callbacks": [list, tuple, None],
        "device": [str],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        X_val: ArrayLike | None = None,
        y_val: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> Self:
        """Size the network, train it, and keep the weights of its best epoch.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Samples. They are converted to float32.
        y : array-like of shape (n_samples,)
            Labels, numbers or strings.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights in the training and validation losses. Samples of weight 0 are
            dropped first. Samples with equal features, label and group are merged into
            one sample with the sum of their weights: a sample given twice is a sample
            of weight 2.
        X_val, y_val : array-like, default=None
            Samples and labels to validate on, instead of some of ``X``.
        groups : array-like of shape (n_samples,), default=None
            Groups of samples. No group is both in training and in validation. If None,
            equal samples form a group.

        Returns
        -------
        Self
            This estimator.

        Raises
        ------
        ValueError
            If a parameter is invalid; if ``X`` is not numeric, not finite, or has an
            unsuitable shape; if there is only one class; if all weights are 0; or if
            training diverges.

        Warns
        -----
        UserWarning
            If the device is absent; if no network has the number of parameters that
            ``sizing="budget"`` asks for; or if ``target_ratio`` is not the default,
            but the smallest or largest width decides the size.
        """
        self._validate_params()
        seeds = draw_seeds(self.random_state)
        training = self._prepare(X, y, sample_weight, groups, seeds, X_val, y_val)
        training.net.fit(training.rows, None)
        self._keep(training)
        return self

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Predict the probability of each class.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Samples of the shape seen in ``fit``.

        Returns
        -------
        ndarray of shape (n_samples, n_classes), float64
            Rows sum to 1; columns follow ``classes_``.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If ``fit`` has not been called.
        ValueError
            If ``X`` is not finite, or its shape differs from that in ``fit``.
        """
        check_is_fitted(self, "net_")
        probabilities: NDArray[np.float64] = self.net_.compute_probabilities(
            self._read_samples(X)
        )
        return probabilities

    def __sklearn_tags__(self) -> Tags:
        tags: Tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags
