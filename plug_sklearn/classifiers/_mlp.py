"""Features → probabilities, by an MLP."""

from collections.abc import Sequence
from math import prod
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from sklearn.utils._param_validation import Interval
from torch import nn

from plug_sklearn.classifiers._classifiers import BasePlugClassifier
from plug_sklearn.classifiers._labels import ClassWeight
from plug_sklearn.classifiers._networks import MLPNetwork
from plug_sklearn.classifiers._scoring import Scorer
from plug_sklearn.classifiers._sizing import size_mlp


class PlugMLPClassifier(BasePlugClassifier):
    """Features → probabilities: an MLP with a residual block, sized by the data.

    With n rows that differ and d features, the first layer has ``target_ratio`` n / d
    units, at least 16 and at most ``width_cap``; the second, a half; the last, an
    eighth. Each is a linear layer, batch norm, ReLU and dropout. Arrays of more axes
    are flattened. Features are standardised within the network, by their weighted mean
    and deviation over the rows trained on.

    Parameters
    ----------
    target_ratio : float, default=5.0
        Parameters of the first layer to aim at, per training row.
    width_cap : int, default=128
        Most units of a layer, 16 at least.
    out_floor : int, default=16
        Fewest units before the logits.
    sizing : {"heuristic"}, default="heuristic"
        How widths are chosen: by the formula above.
    dropout : float, default=0.3
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
    PlugCNNClassifier : Reads layers and parts together.
    LayerAggregator : Gives features.

    Examples
    --------
    >>> import numpy as np
    >>> from plug_sklearn import PlugMLPClassifier
    >>> X = np.random.default_rng(0).normal(size=(400, 8))
    >>> y = np.where(X[:, 0] > 0, "true", "false")
    >>> probe = PlugMLPClassifier(random_state=0).fit(X[:300], y[:300])
    >>> probe.predict_proba(X[300:]).shape
    (100, 2)
    >>> bool(probe.score(X[300:], y[300:]) > 0.85)
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BasePlugClassifier._parameter_constraints,
        "width_cap": [Interval(Integral, 16, None, closed="left")],
        "out_floor": [Interval(Integral, 1, None, closed="left")],
    }
    _evaluation_rows = 1024

    def __init__(
        self,
        *,
        target_ratio: float = 5.0,
        width_cap: int = 128,
        out_floor: int = 16,
        sizing: str = "heuristic",
        dropout: float = 0.3,
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
        self.target_ratio = target_ratio
        self.width_cap = width_cap
        self.out_floor = out_floor
        self.sizing = sizing
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

    def _describe_network(
        self, n_samples: int
    ) -> tuple[type[nn.Module], dict[str, object]]:
        n_features = prod(self.input_shape_)
        widths = size_mlp(
            n_samples,
            n_features,
            target_ratio=self.target_ratio,
            width_cap=self.width_cap,
            out_floor=self.out_floor,
        )
        return MLPNetwork, {
            "n_features": n_features,
            "n_classes": len(self.classes_),
            "dropout": self.dropout,
            **vars(widths),
        }
