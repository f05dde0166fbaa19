"""Choose a layer by cross-validation: as a table, and within a pipeline."""

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import Tags, column_or_1d
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from plug_sklearn._sklearn import HasMethods, StrOptions
from plug_sklearn.evaluation._folds import (
    Scoring,
    check_table,
    collect_fit_params,
    find_score,
)
from plug_sklearn.evaluation._inputs import check_rows
from plug_sklearn.evaluation._layer_fits import sweep_layers
from plug_sklearn.features import LayerAggregator

COLUMNS = ("layer", "part", "fold", "fit_time")


def summarize_layers(sweep: pd.DataFrame, *, score: str | None = None) -> pd.DataFrame:
    """Summarize a sweep over the folds, and choose a layer.

    Which layer has the highest mean is partly a matter of luck, because many layers are
    compared. The one-standard-error rule instead chooses the first layer whose mean is
    within one standard error of the best.

    Parameters
    ----------
    sweep : DataFrame
        What :func:`layer_sweep` returns.
    score : str, default=None
        The score to compare, a column of ``sweep``; None: the first.

    Returns
    -------
    DataFrame
        A row for each layer and part. Columns: ``layer``; ``part``; over the folds, the
        ``mean`` and standard deviation ``std`` of the score, and the
        ``standard_error`` of the mean; ``is_best``, whether the mean is the highest;
        and ``is_chosen``, whether the one-standard-error rule chooses the row. If
        several parts of that layer qualify, the one with the highest mean is chosen.

    Raises
    ------
    ValueError
        If ``sweep`` is not such a table, or ``score`` is not one of its scores.

    See Also
    --------
    BestLayerClassifier : Chooses the layer within a pipeline.

    References
    ----------
    Breiman, Friedman, Olshen and Stone, "Classification and Regression Trees", 1984:
    the one-standard-error rule is in section 3.4.3.

    Examples
    --------
    >>> import numpy as np
    >>> from plug_sklearn import layer_sweep, summarize_layers
    >>> from sklearn.linear_model import LogisticRegression
    >>> y = np.arange(100) % 2
    >>> X = np.random.default_rng(0).normal(size=(100, 3, 1, 8))
    >>> X[:, 1:, 0, 0] += 9 * y[:, None]
    >>> sweep = layer_sweep(LogisticRegression(), X, y, scoring="roc_auc")
    >>> summary = summarize_layers(sweep)
    >>> summary.loc[summary["is_chosen"], "layer"].tolist()
    [1]
    """
    check_table(sweep, COLUMNS, "sweep", "summarize_layers", "layer_sweep")
    name = find_score(sweep, score, "sweep", "summarize_layers")
    grouped = sweep.groupby(["layer", "part"], sort=False)[name]
    summary = grouped.agg(["mean", "std"]).reset_index()
    summary["standard_error"] = summary["std"] / np.sqrt(grouped.count().to_numpy())
    best = int(summary["mean"].fillna(-np.inf).to_numpy().argmax())
    # A single fold has no standard error, so that the best layer is chosen.
    margin = summary["standard_error"].fillna(0)[best]
    good = summary[summary["mean"] >= summary["mean"][best] - margin]
    chosen = good.sort_values(["layer", "mean"], ascending=[True, False]).index[0]
    summary["is_best"] = summary.index == best
    summary["is_chosen"] = summary.index == chosen
    return summary


def _choose_probe(estimator: BaseEstimator | None) -> BaseEstimator:
    if estimator is not None:
        return estimator
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))


def _refuse_one_class(y: ArrayLike) -> None:
    labels = column_or_1d(y)
    if labels.dtype.kind in "biuU" and len(np.unique(labels)) == 1:
        raise ValueError(
            "The labels given to BestLayerClassifier must be of at least two classes. "
            f"Got one class, {labels[:1].tolist()[0]!r}, instead."
        )


def _predicts(method: str) -> Any:  # noqa: ANN401 - a condition of available_if
    def check(chooser: Any) -> bool:  # noqa: ANN401 - a BestLayerClassifier
        fitted = getattr(chooser, "estimator_", None)
        return hasattr(fitted or _choose_probe(chooser.estimator), method)

    return check


class BestLayerClassifier(ClassifierMixin, MetaEstimatorMixin, BaseEstimator):
    """Classifier on the layer that an inner cross-validation chooses.

    It is the last step of a pipeline. ``fit`` runs :func:`layer_sweep`, chooses a layer
    and a part, and fits the estimator on them. When the pipeline is cross-validated,
    each fold chooses the layer on its own training samples, so the score evaluates the
    whole procedure. In contrast, the highest score of a sweep is too high on average,
    because it is the maximum of many.

    Parameters
    ----------
    estimator : classifier, default=None
        The probe. None: ``LogisticRegression(C=0.01, max_iter=1000)`` on standardised
        features.
    layers : "all", int or sequence of int, default="all"
        Layers to choose from, as in :class:`LayerAggregator`.
    parts : "all", int, str or sequence of int or str, default="all"
        Parts to choose from, as in :class:`LayerAggregator`.
    rule : {"one_standard_error", "best"}, default="one_standard_error"
        Whether to choose the first layer within one standard error of the best, as
        :func:`summarize_layers` does, or the best.
    cv : int, splitter or iterable, default=None
        The inner folds, as in :func:`layer_sweep`.
    scoring : str or callable, default=None
        The score that selects the layer; None: the estimator's own.
    n_jobs : int, default=None
        Number of joblib workers, over layers and parts.

    Attributes
    ----------
    layer_ : int
        The chosen layer, as the model numbers it, or its position along axis 1.
    part_ : str or int
        The chosen part, or its position along axis 2.
    summary_ : DataFrame
        Table of the layers' scores, from :func:`summarize_layers`.
    estimator_ : Pipeline
        A :class:`LayerAggregator` of the layer and part, and the fitted estimator.
    classes_ : ndarray of shape (n_classes,)
        Labels.
    n_features_in_ : int
        Length of axis 1 of the ``X`` seen in ``fit``.

    See Also
    --------
    PlugStackClassifier : Combines the probes of all layers instead of choosing one.

    Examples
    --------
    >>> import numpy as np
    >>> from plug_sklearn import BestLayerClassifier
    >>> y = np.arange(100) % 2
    >>> X = np.random.default_rng(0).normal(size=(100, 3, 1, 8))
    >>> X[:, 1, 0, 0] += 3 * y
    >>> BestLayerClassifier().fit(X, y).layer_
    1
    """

    # Under scikit-learn's metadata routing, a search passes its groups on to ``fit``.
    __metadata_request__fit: ClassVar[dict[str, bool]] = {"groups": True}

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "estimator": [HasMethods(["fit", "predict"]), None],
        "rule": [StrOptions({"one_standard_error", "best"})],
    }

    def __init__(
        self,
        estimator: BaseEstimator | None = None,
        *,
        layers: str | int | Sequence[int] = "all",
        parts: str | int | Sequence[int | str] = "all",
        rule: str = "one_standard_error",
        cv: Any = None,  # noqa: ANN401 - as scikit-learn's functions take it
        scoring: Scoring | None = None,
        n_jobs: int | None = None,
    ) -> None:
        self.estimator = estimator
        self.layers = layers
        self.parts = parts
        self.rule = rule
        self.cv = cv
        self.scoring = scoring
        self.n_jobs = n_jobs

    def fit(self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None) -> Self:
        """Choose a layer and a part, and fit the estimator on them.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_layers, n_parts, hidden_size)
            Activations. Three axes are read as (n_samples, n_layers, hidden_size).
        y : array-like of shape (n_samples,)
            Labels.
        groups : array-like of shape (n_samples,), default=None
            Groups for the inner folds. They are also passed to the ``fit`` of an
            estimator that takes them.

        Returns
        -------
        BestLayerClassifier
            This estimator.

        Raises
        ------
        ValueError
            If a parameter or ``X`` is invalid, or if there is only one class.
        """
        self._validate_params()
        check_rows(X, y, groups, type(self).__name__)
        _refuse_one_class(y)
        estimator = _choose_probe(self.estimator)
        sweep = sweep_layers(
            estimator,
            X,
            y,
            layers=self.layers,
            parts=self.parts,
            cv=self.cv,
            scoring=self.scoring,
            groups=groups,
            n_jobs=self.n_jobs,
            owner=type(self).__name__,
        )
        self.summary_ = summarize_layers(sweep)
        column = "is_best" if self.rule == "best" else "is_chosen"
        (chosen,) = self.summary_[self.summary_[column]].to_dict("records")
        self.layer_, self.part_ = chosen["layer"], chosen["part"]
        probe = make_pipeline(
            LayerAggregator(layers=[self.layer_], parts=[self.part_]),
            clone(estimator),
        )
        self.estimator_ = probe.fit(X, y, **collect_fit_params(probe, None, groups))
        self.classes_ = self.estimator_.classes_
        self.n_features_in_ = self.estimator_.n_features_in_
        return self

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Predict labels.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_layers, n_parts, hidden_size)
            Activations with the same layers and parts as in ``fit``.

        Returns
        -------
        ndarray of shape (n_samples,)
            Labels.
        """
        check_is_fitted(self)
        labels: NDArray[Any] = self.estimator_.predict(X)
        return labels

    @available_if(_predicts("predict_proba"))  # type: ignore[untyped-decorator]  # scikit-learn's
    def predict_proba(self, X: ArrayLike) -> NDArray[np.floating]:
        """Predict the probability of each class.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_layers, n_parts, hidden_size)
            Activations with the same layers and parts as in ``fit``.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Probabilities; columns follow ``classes_``.
        """
        check_is_fitted(self)
        probabilities: NDArray[np.floating] = self.estimator_.predict_proba(X)
        return probabilities

    @available_if(_predicts("decision_function"))  # type: ignore[untyped-decorator]  # scikit-learn's
    def decision_function(self, X: ArrayLike) -> NDArray[np.floating]:
        """Compute the decision values of the estimator.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_layers, n_parts, hidden_size)
            Activations with the same layers and parts as in ``fit``.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_classes)
            Decision values of the estimator.
        """
        check_is_fitted(self)
        values: NDArray[np.floating] = self.estimator_.decision_function(X)
        return values

    def __sklearn_tags__(self) -> Tags:
        tags: Tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.two_d_array = False
        return tags
