"""Features → probabilities, by an MLP."""

from collections.abc import Sequence
from math import prod
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from sklearn.utils._param_validation import Interval

from plug_sklearn.classifiers._budget import fit_mlp_to_budget
from plug_sklearn.classifiers._classifiers import BasePlugClassifier
from plug_sklearn.classifiers._documentation import share_documentation
from plug_sklearn.classifiers._labels import ClassWeight
from plug_sklearn.classifiers._monitors import Scorer
from plug_sklearn.classifiers._networks import MLPNetwork
from plug_sklearn.classifiers._sizing import size_mlp


@share_documentation
class PlugMLPClassifier(BasePlugClassifier):
    """Features → probabilities: MLPs beside a linear probe, sized by the data.

    Each member is a linear function of the features plus an MLP with a residual block.
    With n rows that differ and d features, the first layer has ``target_ratio`` n / d
    units, at least 16 and at most ``width_cap``; the second, a half; the last, an
    eighth. Each is a linear layer, batch norm, ReLU and dropout. Arrays of more axes
    are flattened. Features are standardised within the network, by their weighted mean
    and deviation over the rows of ``fit``.

    ``PlugMLPClassifier(n_members=1, linear_path=False, input_dropout=0.0, lr=0.002,
    weight_decay=0.01, calibrate=False)`` is the plain network that this one descends
    from.

    Parameters
    ----------
    target_ratio : float, default=5.0
        Parameters to aim at, per training row: of the first layer of each member, or,
        with ``sizing="budget"``, of all members in all.
    width_cap : int, default=128
        Most units of a layer, 16 at least. Of ``sizing="heuristic"`` alone, as is
        ``out_floor``.
    out_floor : int, default=16
        Fewest units before the logits.
    sizing : {"budget", "heuristic"}, default="heuristic"
        How widths are chosen: by the formula above, which with many features exceeds
        ``target_ratio`` n by far; or such that all members together have
        ``target_ratio`` n trainable parameters, within 10 %. Before the networks then
        stands a fixed projection to the directions of most variance; it is not trained,
        and does not count. Where the classes alone take more, a warning says so.
    {members}
    dropout : float, default=0.3
        Probability of dropping a unit in training, in [0, 1).
    {training}

    Attributes
    ----------
    {attributes}

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
    _network = MLPNetwork
    _evaluation_rows = 1024

    def __init__(
        self,
        *,
        target_ratio: float = 5.0,
        width_cap: int = 128,
        out_floor: int = 16,
        sizing: str = "heuristic",
        n_members: int = 5,
        linear_path: bool = True,
        input_dropout: float = 0.2,
        dropout: float = 0.3,
        max_epochs: int = 200,
        lr: float = 3e-3,
        weight_decay: float = 0.1,
        linear_lr: float = 0.17,
        linear_decay: float = 3e-4,
        batch_size: int = 64,
        early_stopping: bool = True,
        validation_fraction: float = 0.2,
        patience: int = 20,
        min_delta: float = 0.002,
        monitor: str | Scorer = "roc_auc",
        calibrate: bool = True,
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
        self.n_members = n_members
        self.linear_path = linear_path
        self.input_dropout = input_dropout
        self.dropout = dropout
        self.max_epochs = max_epochs
        self.lr = lr
        self.weight_decay = weight_decay
        self.linear_lr = linear_lr
        self.linear_decay = linear_decay
        self.batch_size = batch_size
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.min_delta = min_delta
        self.monitor = monitor
        self.calibrate = calibrate
        self.class_weight = class_weight
        self.callbacks = callbacks
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def _size_network(self, n_samples: int) -> dict[str, object]:
        given = self._read_parameters()
        n_features = prod(self.input_shape_)
        n_classes, n_kept = len(self.classes_), None
        if given.sizing == "budget":
            widths, n_kept = fit_mlp_to_budget(
                n_samples,
                n_features,
                n_classes,
                target_ratio=given.target_ratio,
                n_members=given.n_members,
                linear_path=given.linear_path,
            )
        else:
            widths = size_mlp(
                n_samples,
                n_features,
                target_ratio=given.target_ratio,
                width_cap=given.width_cap,
                out_floor=given.out_floor,
            )
        return {
            "n_features": n_features,
            "n_classes": n_classes,
            "dropout": given.dropout,
            "n_members": given.n_members,
            "linear_path": given.linear_path,
            "input_dropout": given.input_dropout,
            "n_kept": None if n_kept == n_features else n_kept,
            **vars(widths),
        }
