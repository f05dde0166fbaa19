"""The classifier that combines linear probes of all layers, parts and poolings."""

from collections.abc import Sequence
from math import prod
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, softmax
from sklearn.base import BaseEstimator
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from plug_sklearn._blas import use_one_blas_thread
from plug_sklearn._packages import RecordsVersions
from plug_sklearn._sklearn import Interval, StrOptions
from plug_sklearn._warnings import warn_user
from plug_sklearn.classifiers._data import (
    ClassWeight,
    compute_class_factors,
    draw_seeds,
    read_geometry,
    read_rows,
    read_samples,
)
from plug_sklearn.classifiers._prediction import PredictsLabels
from plug_sklearn.classifiers._stack_probes import (
    ProbeChoice,
    StackWeights,
    Training,
    choose_penalty,
    choose_weights,
    fit_probe,
    hold_out_repeatedly,
)

#: Values of C to choose from by default.
DEFAULT_CS = (0.1, 0.4, 1.6, 6.4, 25.6, 102.4)
#: The C that is used if no samples can be held out.
UNTUNED_C = 1.6
#: Samples whose logits are computed at once.
ROWS_AT_ONCE = 512


class PlugStackClassifier(RecordsVersions, PredictsLabels, BaseEstimator):
    r"""Weighted mean of linear probes of all layers, parts and poolings.

    A logistic regression with a ridge penalty is fitted to each layer and each part or
    pooling of the activations. For each, the ``C`` with the lowest log loss on held-out
    samples is chosen. Each probe then gets a weight from its held-out predictions. The
    weight falls exponentially with the loss, unless the probe corrects errors of other
    probes. If the losses are similar, as is common with few samples, layers in the
    middle get larger weights. A part or pooling whose probes do not help is left out as
    a whole. Probes with a low weight are dropped, and the others are fitted again to
    all samples. The logits are the weighted mean of their logits, divided by a
    temperature. The temperature has a prior around 1, which keeps a fit on few samples
    from being overconfident. The result is itself a linear classifier.

    Each fit is a convex problem, so there are no epochs and no learning rates to
    choose. This is the recommended classifier on activations of all layers with the
    poolings ``("last", "mean")``. If you already know the best layer and have many
    labels, ``LogisticRegression`` on that layer is about as good.

    Parameters
    ----------
    n_layers : int, default=None
        Number of layers in a sample if ``X`` is 2-D; None: 1.
    n_parts : int, default=None
        Number of parts in a sample if ``X`` is 2-D; None: 1. With several poolings,
        each part counts once for each pooling.
    Cs : sequence of float, default=None
        Inverse strengths of the penalty to choose from, as in scikit-learn's
        ``LogisticRegressionCV``. They apply to standardised hidden units divided by the
        square root of their number, so that the same values suit every hidden size:
        ``C`` here is ``hidden_size`` times the ``C`` of a ``LogisticRegression`` after
        a ``StandardScaler``. None: 0.1, 0.4, 1.6, 6.4, 25.6 and 102.4. The search
        begins at the middle value and moves up or down as long as the held-out loss
        falls.
    n_folds : int, default=5
        Number of folds of the inner cross-validation. They are stratified by class.
        Equal samples are in the same fold. With ``groups``, each group is in one fold.
    n_repeats : int or "auto", default="auto"
        Number of times that the cross-validation is repeated, each time with different
        folds. ``"auto"``: as often as needed for about 1,000 held-out predictions in
        total, between one and ten times.
    class_weight : dict or str, default=None
        A factor for each label, by which the weights of its samples are multiplied; 1
        for labels that are not in the dict. ``"balanced"``: factors that give all
        classes the same total weight. None: all 1.
    random_state : int or RandomState, default=None
        Determines the folds. Results with the same value are equal bit for bit on the
        same machine. The folds depend on the values of ``X`` and not on the order of
        the samples. Activations that were computed in other batches differ by about
        1e-6: the folds then differ, and scores may differ in the third decimal. With a
        ``store``, activations are the same in all runs that read it.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels, in the order of the columns of probabilities.
    weights_ : ndarray of shape (n_layers, n_parts)
        Weights of the probes; 0 for dropped probes. A constant predictor, which gives
        the class frequencies for every sample, also has a weight. The weights of the
        probes sum to 1 minus that weight, which is near 0 unless the probes are hardly
        better than chance.
    C_ : ndarray of shape (n_layers, n_parts)
        Chosen ``C`` of each probe.
    held_out_log_loss_ : ndarray of shape (n_layers, n_parts)
        Log loss of each probe on held-out samples, at its ``C`` and after its logits
        were scaled to suit these samples. It shows from which layers the classes can be
        read. NaN if no samples were held out.
    temperature_ : float
        Temperature by which the mean of the logits is divided.
    coef_ : ndarray of shape (1, n_features) or (n_classes, n_features)
        Coefficients of all hidden units of a sample, in the order of
        ``X.reshape(n, -1)``; 0 for dropped probes. With two classes, there is one row.
    intercept_ : ndarray of shape (1,) or (n_classes,)
        Intercepts.
    n_features_in_ : int
        Length of axis 1 of the ``X`` seen in ``fit``.
    feature_names_in_ : ndarray of str
        Names of the columns of ``X``, if it is a data frame.
    input_shape_ : tuple of int
        Shape of a sample.

    See Also
    --------
    PlugCNNClassifier : Adds convolutions over the layers, and takes longer to fit.
    layer_sweep : Scores any probe on each layer.

    Notes
    -----
    The weights and the temperature are found in six steps. Here, :math:`n` is the
    number of held-out samples, :math:`L` the log loss on them, and :math:`KL` the
    Kullback-Leibler divergence.

    1. The logits of each probe are multiplied by the factor that gives the lowest log
       loss, under a log-normal prior around 1 with a standard deviation of 0.5.
    2. The probes are put into groups: one for each part, and one of all probes if there
       are several parts. A further group has a single predictor, which gives the class
       frequencies. In the group of a part, the weight of probe i is
       :math:`q_i \propto u_i \exp(-0.4 n L_i)`. Before the losses are taken into
       account, it is :math:`u_i \propto \exp(-12.5 (d_i - 0.5)^2)`, where
       :math:`d_i = (l + 0.5) / N` for layer :math:`l` of :math:`N`. The weights in the
       group of all probes are the means of these weights over the parts.
    3. Each group gets a weight that is proportional to
       :math:`\pi \exp(-n L(q) - KL(q, u))`. :math:`L(q)` is the loss of the group's
       weighted mean of logits at its own temperature. :math:`\pi` is one half for the
       class frequencies, and the other groups share the other half equally.
    4. The prior weight of a probe is the sum of its weights in the groups, each times
       the weight of the group. Prior weights below :math:`e^{-9}` are raised to this
       value, so that weak probes can get weight if they correct errors of better ones.
       The result is normalised to :math:`p`.
    5. The weights :math:`w` and the temperature :math:`t` are those that minimise
       :math:`n L(w, t) + 6 KL(w, p) + 50 \log^2 t`.
    6. Weights below a hundredth of the largest are set to 0, and the temperature is
       computed again.

    With more than two classes, the loss is multinomial. Hidden units are standardised
    by their weighted mean and standard deviation over the samples of ``fit``. In each
    regression, sample weights are scaled to a mean of 1, so only their ratios matter.
    No samples are held out if there are fewer than 20 distinct ones, or if every choice
    of groups would leave a class without training samples. All probes then have the
    same weight and a ``C`` of 1.6, and the temperature is 1. The probabilities are then
    not calibrated: after a fit on two samples, they are often close to 0 or 1.

    References
    ----------
    Combining models by held-out predictions: Wolpert, "Stacked generalization", 1992,
    and Caruana et al., "Ensemble selection from libraries of models", 2004. The
    weights: Dalalyan and Tsybakov, "Aggregation by exponential weighting, sharp
    PAC-Bayesian bounds and sparsity", 2008. Middle layers: Skean et al., "Layer by
    layer: uncovering hidden representations in language models", 2025.

    Examples
    --------
    >>> import numpy as np
    >>> from plug_sklearn import PlugStackClassifier
    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(2, size=200)
    >>> X = rng.normal(size=(200, 3, 2, 16))  # samples, layers, parts, hidden units
    >>> X[:, 1, 0, :8] += y[:, None]
    >>> probe = PlugStackClassifier(random_state=0).fit(X, y)
    >>> probe.weights_.round(2)
    array([[0., 0.],
           [1., 0.],
           [0., 0.]])
    >>> bool(probe.score(X, y) > 0.9)
    True
    """

    # Under scikit-learn's metadata routing, a search passes its groups on to ``fit``.
    __metadata_request__fit: ClassVar[dict[str, bool]] = {"groups": True}

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_layers": [Interval(Integral, 1, None, closed="left"), None],
        "n_parts": [Interval(Integral, 1, None, closed="left"), None],
        "Cs": ["array-like", None],
        "n_folds": [Interval(Integral, 2, None, closed="left")],
        "n_repeats": [
            Interval(Integral, 1, None, closed="left"),
            StrOptions({"auto"}),
        ],
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        *,
        n_layers: int | None = None,
        n_parts: int | None = None,
        Cs: Sequence[float] | None = None,
        n_folds: int = 5,
        n_repeats: int | str = "auto",
        class_weight: ClassWeight = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.n_layers = n_layers
        self.n_parts = n_parts
        self.Cs = Cs
        self.n_folds = n_folds
        self.n_repeats = n_repeats
        self.class_weight = class_weight
        self.random_state = random_state

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> Self:
        """Fit a probe to each layer and part, and combine the best of them.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_layers, n_parts, hidden_size)
            Activations, with layers in the order of the model, converted to float32.
            Three axes are read as (n_samples, n_layers, hidden_size). Two axes are read
            as one layer and part, unless ``n_layers`` or ``n_parts`` is given.
        y : array-like of shape (n_samples,)
            Labels, numbers or strings.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples; only their ratios matter. Samples of weight 0 are
            dropped first. Samples with equal features, label and group are merged into
            one sample with the sum of their weights.
        groups : array-like of shape (n_samples,), default=None
            Groups of samples. The samples of a group are all held out together or not
            at all. If None, equal samples form a group. A warning is issued if no
            groups can be held out.

        Returns
        -------
        Self
            This estimator.

        Raises
        ------
        ValueError
            If a parameter is invalid; if ``X`` is not numeric, not finite, or has an
            unsuitable shape; if there is only one class; or if all weights are 0.
        """
        self._validate_params()
        grid = self._read_grid()
        seed, _ = draw_seeds(self.random_state)
        owner = type(self).__name__
        rows = read_rows(self, X, y, sample_weight, groups)
        geometry = read_geometry(self.input_shape_, self.n_layers, self.n_parts, owner)
        factors = compute_class_factors(self.class_weight, self.classes_, rows, owner)
        samples = rows.X.reshape(-1, *geometry)
        places = slice(None) if rows.places is None else rows.places
        n_repeats = None if self.n_repeats == "auto" else int(self.n_repeats)
        folds = hold_out_repeatedly(rows, int(self.n_folds), n_repeats, seed)
        if folds is None and groups is not None:
            warn_user(
                "PlugStackClassifier can hold out no groups: there are fewer than 20 "
                "distinct samples, or every choice of groups would leave a class "
                "without training samples. All probes get the same weight, and a C of "
                f"{UNTUNED_C}."
            )
        training = Training.make(rows, factors, folds)
        with use_one_blas_thread():
            combination = self._choose_weights(samples, places, training, grid)
            self._fit_chosen(samples, places, training, combination)
        return self

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Compute the logits.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Samples of the shape seen in ``fit``.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_classes), float64
            With two classes, the logit of the second; with more, a logit for each
            class.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If ``fit`` has not been called.
        ValueError
            If ``X`` is not finite, or its shape differs from that in ``fit``.
        """
        logits = self._compute_logits(X)
        return logits[:, 0] if logits.shape[1] == 1 else logits

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
        logits = self._compute_logits(X)
        if logits.shape[1] == 1:
            return np.asarray(expit(np.hstack([-logits, logits])))
        return np.asarray(softmax(logits, axis=1))

    @property
    def coef_(self) -> NDArray[np.float64]:
        """Coefficients of all hidden units of a sample."""
        check_is_fitted(self, "intercept_")
        n_logits, hidden_size = self._coefficients.shape[1:]
        full = np.zeros((n_logits, *self.weights_.shape, hidden_size))
        for position, own in zip(self._list_chosen(), self._coefficients, strict=True):
            full[:, *position] = own
        return full.reshape(n_logits, -1)

    def __sklearn_tags__(self) -> Tags:
        tags: Tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def _read_grid(self) -> list[float]:
        if self.Cs is None:
            return list(DEFAULT_CS)
        given = list(self.Cs)
        is_numbers = all(
            isinstance(C, Real) and not isinstance(C, bool | np.bool_) for C in given
        )
        if not given or not is_numbers or not all(0 < C < np.inf for C in given):
            raise ValueError(
                "The 'Cs' parameter of PlugStackClassifier must be None or one or more "
                f"finite numbers above 0. Got {self.Cs!r} instead."
            )
        return sorted({float(C) for C in given})

    def _choose_weights(
        self,
        samples: NDArray[np.float32],
        places: Any,  # noqa: ANN401 - an index of rows
        training: Training,
        grid: list[float],
    ) -> StackWeights:
        """Choose the C of each probe, and the weights of the probes."""
        shape = samples.shape[1:3]
        if training.held_out is None:
            n_probes = prod(shape)
            weights = np.full(n_probes, 1 / n_probes)
            combination = StackWeights(weights, weights, np.zeros(1), 1.0)
            choices = [ProbeChoice(UNTUNED_C, np.nan, 1.0)] * n_probes
        else:
            choices, logits = [], []
            for layer, part in np.ndindex(shape):
                units = samples[:, layer, part][places]
                choice, own = choose_penalty(units, training, training.held_out, grid)
                choices.append(choice)
                logits.append(own)
            scales = np.array([choice.scale for choice in choices])
            layers, parts = np.indices(shape).reshape(2, -1)
            depths = (layers + 0.5) / shape[0]
            combination = choose_weights(
                logits, scales, depths, parts, training.held_out
            )
        self.C_ = np.array([choice.C for choice in choices]).reshape(shape)
        losses = np.array([choice.loss for choice in choices])
        self.held_out_log_loss_ = losses.reshape(shape)
        self.weights_ = combination.weights.reshape(shape)
        self.temperature_ = combination.temperature
        return combination

    def _fit_chosen(
        self,
        samples: NDArray[np.float32],
        places: Any,  # noqa: ANN401 - as above
        training: Training,
        combination: StackWeights,
    ) -> None:
        """Fit the probes with a weight above 0 to all samples."""
        slopes, intercepts = [], []
        factors = combination.factors.reshape(self.weights_.shape)
        for position in self._list_chosen():
            own = samples[:, *position][places]
            coefficients, intercept = fit_probe(own, training, self.C_[position])
            slopes.append(factors[position] * coefficients)
            intercepts.append(factors[position] * intercept)
        self._coefficients = np.stack(slopes)
        self.intercept_ = combination.constant + np.sum(intercepts, axis=0)

    def _list_chosen(self) -> list[tuple[int, int]]:
        """List the layers and parts of probes with a weight above 0."""
        return [(int(i), int(j)) for i, j in np.argwhere(self.weights_)]

    def _compute_logits(self, X: ArrayLike) -> NDArray[np.float64]:
        check_is_fitted(self, "intercept_")
        samples = read_samples(self, X)
        samples = samples.reshape(len(samples), *self.weights_.shape, -1)
        layers, parts = np.argwhere(self.weights_).T
        n_logits = len(self.intercept_)
        matrix = self._coefficients.swapaxes(0, 1).reshape(n_logits, -1).T
        logits = np.empty((len(samples), n_logits))
        for start in range(0, len(samples), ROWS_AT_ONCE):
            stop = start + ROWS_AT_ONCE
            own = samples[start:stop][:, layers, parts].astype(np.float64)
            logits[start:stop] = own.reshape(len(own), -1) @ matrix
        return np.asarray(logits + self.intercept_)
