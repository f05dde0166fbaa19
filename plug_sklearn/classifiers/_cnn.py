"""Activations → probabilities, by a CNN."""

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted
from torch import nn

from plug_sklearn.classifiers._classifiers import BasePlugClassifier
from plug_sklearn.classifiers._inputs import read_samples
from plug_sklearn.classifiers._labels import ClassWeight
from plug_sklearn.classifiers._networks import CNNNetwork
from plug_sklearn.classifiers._scoring import Scorer
from plug_sklearn.classifiers._sizing import size_cnn


class PlugCNNClassifier(
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, BasePlugClassifier
):
    """Activations → probabilities: convolutions over layers, sized by the data.

    Layers are the channels of convolutions along the hidden units, and across parts
    where there are several; their mean over units is the projection z, which a head of
    two hidden layers classifies. With n rows that differ, the first convolution has
    sqrt(``target_ratio`` n / 10) channels, at least 8 and at most ``width_cap``, and
    the second twice that. The loss is the cross-entropy plus ``contrastive_weight``
    times the supervised contrastive loss of z. Each unit of each layer and part is
    standardised within the network, by its weighted mean and deviation over the rows
    trained on.

    Parameters
    ----------
    n_layers : int, default=None
        Layers of a sample of 2-D ``X``; None: 1.
    n_parts : int, default=None
        Parts of a sample of 2-D ``X``; None: 1. With neither given, 2-D ``X`` is read
        as one layer and one part of features that are no hidden state, and is not layer
        normalised: of two features that would leave the order alone.
    target_ratio : float, default=5.0
        Trainable parameters to aim at, per training row.
    width_cap : int, default=64
        Most channels of the first convolution, 8 at least.
    proj_mult : int, default=2
        Length of z, in channels of the first convolution; at least 32 units in all.
    sizing : {"heuristic"}, default="heuristic"
        How widths are chosen: by the formula above.
    contrastive_weight : float, default=0.1
        Factor of the contrastive loss.
    temperature : float, default=0.07
        Temperature of the contrastive loss: the lower, the more near neighbours count.
    dropout : float, default=0.1
        Probability of dropping a unit in training, in [0, 1).
    max_epochs : int, default=200
        Most passes over the training rows.
    lr : float, default=0.002
        Learning rate of AdamW.
    weight_decay : float, default=0.01
        Weight decay of AdamW.
    batch_size : int, default=64
        Rows of a training batch, 2 at least.
    early_stopping : bool, default=True
        Hold out rows, stop when they are predicted no better, and keep the weights of
        the best epoch. Otherwise all rows are trained on for ``max_epochs``.
    validation_fraction : float, default=0.2
        Part of the rows to hold out, of each class alike. No rows are held out of fewer
        than 20, nor where groups allow no choice that leaves rows of every class to
        train on: training then is as without early stopping.
    patience : int, default=20
        Epochs to wait for a better one.
    min_delta : float, default=0.002
        Differences of score and of loss up to this count as none.
    monitor : str or callable, default="roc_auc"
        What the best epoch is best in, on the held-out rows: ``"roc_auc"``, the area
        under the ROC curve of each class against the rest, averaged, or the loss where
        a class has no held-out row; ``"loss"``; the name of a scikit-learn scorer; or a
        scorer, ``scorer(estimator, X, y)``. Scorers see the held-out rows without
        weights, and those that are the same once; ``"roc_auc"`` and the loss count
        weights. Among epochs that score alike, the one of lowest loss is best.
    class_weight : dict or str, default=None
        Factors of the rows' weights by label, 1 for those not named; ``"balanced"``,
        such that all classes weigh the same in each fit; None, all 1.
    callbacks : list, default=None
        Callbacks of skorch, or (name, callback). They are not copied. To them, labels
        are positions in ``classes_``. A KeyboardInterrupt out of one of them ends
        training, as skorch's do; from elsewhere, it gets out of ``fit``.
    device : str, default="auto"
        ``"auto"``: CUDA, then MPS, then the CPU; or ``"cpu"``, ``"cuda"``, ``"mps"``.
        A device that is not there warns and becomes the CPU.
    random_state : int or RandomState, default=None
        Decides held-out rows, initial weights, batches and dropout: the same one gives
        the same probabilities, bit by bit, on one device.
    verbose : bool or int, default=False
        Print a line an epoch.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels, in the order of the columns of probabilities.
    n_features_in_ : int
        Length of axis 1 of the ``X`` seen in ``fit``.
    feature_names_in_ : ndarray of str
        Names of the columns of ``X``, where it is a frame.
    input_shape_ : tuple of int
        Shape of a sample.
    n_parameters_ : int
        Trainable parameters of the network.
    history_ : list of dict
        By epoch: ``epoch``, ``train_loss``, and where rows are held out ``valid_loss``
        and ``valid_score``, what ``monitor`` scores; and what callbacks record. As a
        table: ``pandas.DataFrame(classifier.history_)``.
    n_iter_ : int
        Epochs trained.
    best_epoch_ : int
        Epoch whose weights were kept, counted from 1.
    monitor_ : str, callable or None
        What was monitored; None where no rows were held out.
    net_ : skorch.NeuralNetClassifier
        The trained net, without what only training needs.

    See Also
    --------
    PlugMLPClassifier : Reads features as they come.
    LayerAggregator : With ``method="stack"``, chooses layers and parts.

    References
    ----------
    Khosla et al., "Supervised Contrastive Learning", 2020, equation 2.

    Examples
    --------
    >>> import numpy as np
    >>> from plug_sklearn import PlugCNNClassifier
    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(2, size=200)
    >>> X = rng.normal(size=(200, 3, 2, 16))  # samples, layers, parts, hidden units
    >>> X[:, 1, 0, :8] += 2 * y[:, None]
    >>> probe = PlugCNNClassifier(random_state=0).fit(X, y)
    >>> probe.transform(X).shape
    (200, 32)
    >>> bool(probe.score(X, y) > 0.9)
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BasePlugClassifier._parameter_constraints,
        "n_layers": [Interval(Integral, 1, None, closed="left"), None],
        "n_parts": [Interval(Integral, 1, None, closed="left"), None],
        "width_cap": [Interval(Integral, 8, None, closed="left")],
        "proj_mult": [Interval(Integral, 1, None, closed="left")],
        "contrastive_weight": [Interval(Real, 0, None, closed="left")],
        "temperature": [Interval(Real, 0, None, closed="neither")],
    }
    _evaluation_rows = 64

    def __init__(
        self,
        *,
        n_layers: int | None = None,
        n_parts: int | None = None,
        target_ratio: float = 5.0,
        width_cap: int = 64,
        proj_mult: int = 2,
        sizing: str = "heuristic",
        contrastive_weight: float = 0.1,
        temperature: float = 0.07,
        dropout: float = 0.1,
        max_epochs: int = 200,
        lr: float = 2e-3,
        weight_decay: float = 1e-2,
        batch_size: int = 64,
        early_stopping: bool = True,
        validation_fraction: float = 0.2,
        patience: int = 20,
        min_delta: float = 0.002,
        monitor: str | Scorer = "roc_auc",
        class_weight: ClassWeight = None,
        callbacks: Sequence[Any] | None = None,
        device: str = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: bool | int = False,
    ) -> None:
        self.n_layers = n_layers
        self.n_parts = n_parts
        self.target_ratio = target_ratio
        self.width_cap = width_cap
        self.proj_mult = proj_mult
        self.sizing = sizing
        self.contrastive_weight = contrastive_weight
        self.temperature = temperature
        self.dropout = dropout
        self.max_epochs = max_epochs
        self.lr = lr
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.min_delta = min_delta
        self.monitor = monitor
        self.class_weight = class_weight
        self.callbacks = callbacks
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def transform(self, X: ArrayLike) -> NDArray[np.float64]:
        """Compute the projections z that the head classifies.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Samples of the shape seen in ``fit``.

        Returns
        -------
        ndarray of shape (n_samples, n_units), float64
            Not negative.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If ``fit`` has not been called.
        ValueError
            If ``X`` is not finite, or of another shape than in ``fit``.
        """
        check_is_fitted(self, "net_")
        z: NDArray[np.float64] = self.net_.compute(
            read_samples(self, X), CNNNetwork.project
        )
        return z

    @property
    def _n_features_out(self) -> int:
        return int(self.net_.module__projection)

    def _describe_network(
        self, n_samples: int
    ) -> tuple[type[nn.Module], dict[str, object]]:
        n_layers, n_parts, hidden_size = self._read_geometry()
        is_bare = len(self.input_shape_) == 1 and self.n_layers is self.n_parts is None
        widths = size_cnn(
            n_samples,
            target_ratio=self.target_ratio,
            width_cap=self.width_cap,
            proj_mult=self.proj_mult,
        )
        return CNNNetwork, {
            "n_layers": n_layers,
            "n_parts": n_parts,
            "hidden_size": hidden_size,
            "n_classes": len(self.classes_),
            "dropout": self.dropout,
            "normalise": not is_bare,
            **vars(widths),
        }

    def _describe_loss(self) -> dict[str, float]:
        return {
            "contrastive_weight": self.contrastive_weight,
            "temperature": self.temperature,
        }

    def _read_geometry(self) -> tuple[int, int, int]:
        if len(self.input_shape_) == 1:
            return self._unflatten(self.input_shape_[0])
        if len(self.input_shape_) > 3:
            raise ValueError(
                "X given to PlugCNNClassifier must be (n, layers, parts, hidden), "
                "(n, layers, hidden) or (n, features). Got samples of shape "
                f"{self.input_shape_} instead."
            )
        n_layers, *parts, hidden_size = self.input_shape_
        n_parts = parts[0] if parts else 1
        for name, found in {"n_layers": n_layers, "n_parts": n_parts}.items():
            given = getattr(self, name)
            if given not in (None, found):
                raise ValueError(
                    f"The {name!r} parameter of PlugCNNClassifier must be None or, as "
                    f"X has it, {found}. Got {given} instead."
                )
        return n_layers, n_parts, hidden_size

    def _unflatten(self, n_features: int) -> tuple[int, int, int]:
        n_layers, n_parts = self.n_layers or 1, self.n_parts or 1
        if n_features % (n_layers * n_parts):
            raise ValueError(
                "The 'n_layers' and 'n_parts' parameters of PlugCNNClassifier must "
                f"divide the {n_features} features of X. Got {n_layers} and {n_parts} "
                "instead."
            )
        return n_layers, n_parts, n_features // (n_layers * n_parts)
