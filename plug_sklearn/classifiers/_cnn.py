"""Activations → probabilities, by a CNN."""

from collections.abc import Sequence
from numbers import Integral, Real
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from plug_sklearn.classifiers._budget import fit_cnn_to_budget
from plug_sklearn.classifiers._classifiers import BasePlugClassifier
from plug_sklearn.classifiers._cnn_network import CNNNetwork
from plug_sklearn.classifiers._documentation import share_documentation
from plug_sklearn.classifiers._inputs import read_samples
from plug_sklearn.classifiers._labels import ClassWeight
from plug_sklearn.classifiers._monitors import Scorer
from plug_sklearn.classifiers._sizing import size_cnn


@share_documentation
class PlugCNNClassifier(
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, BasePlugClassifier
):
    """Activations → probabilities: convolutions over depth, sized by the data.

    The network maps each layer's hidden units, of all parts, to a few channels, by the
    same linear map, and convolves these along the layers; their mean over layers is the
    projection z, which a head of two hidden layers classifies. Beside it is a linear
    probe of each layer. Each of these classifiers is trained by a loss of its own, of
    which the network's is half; the logits are a weighted mean of theirs. The weights
    are found before each validation, from the held-out rows: the less a classifier
    loses there, the more it weighs, so that the layers that know the classes decide
    without being chosen. Where no rows are held out, all weigh the same. With n rows
    that differ, each layer is mapped to sqrt(``target_ratio`` n / 10) channels, at
    least 8 and at most ``width_cap``, and the convolution has twice that. Each unit of
    each layer and part is standardised within the network, by its weighted mean and
    deviation over the rows of ``fit``.

    ``PlugCNNClassifier(conv_over="units", n_members=1, linear_path=False,
    input_dropout=0.0, calibrate=False, patience=20, contrastive_weight=0.1)`` is the
    plain network that this one descends from: layers are its channels, it convolves
    along the hidden units, and across parts where there are several.

    Parameters
    ----------
    n_layers : int, default=None
        Layers of a sample of 2-D ``X``; None: 1.
    n_parts : int, default=None
        Parts of a sample of 2-D ``X``; None: 1. With neither given, 2-D ``X`` is read
        as one layer and one part of features that are no hidden state, and is not layer
        normalised: of two features that would leave the order alone.
    target_ratio : float, default=5.0
        Trainable parameters to aim at, per training row: of each member, roughly, or,
        with ``sizing="budget"``, of all members in all.
    width_cap : int, default=64
        Most channels of the first convolution, 8 at least.
    proj_mult : int, default=2
        Length of z, in channels of the first convolution; at least 32 units in all.
    sizing : {"budget", "heuristic"}, default="heuristic"
        How widths are chosen: by the formula above, whatever the number of channels; or
        such that all members together have ``target_ratio`` n trainable parameters,
        within 10 %. Before the networks then stands a fixed projection of the channels
        to the directions of most variance; it is not trained, and does not count. Where
        the smallest network has more, a warning says so.
    conv_over : {"layers", "units"}, default="layers"
        What the convolutions run along. Their channels are the hidden units of each
        part, or the layers. Over units, each layer and part is layer normalised.
    {members}
    contrastive_weight : float, default=0.0
        Factor of the contrastive loss, which draws the projections of a class
        together. In the benchmarks it does not improve the probabilities.
    temperature : float, default=0.07
        Temperature of the contrastive loss, where it has a weight: the lower, the more
        near neighbours count.
    dropout : float, default=0.1
        Probability of dropping a unit in training, in [0, 1).
    {training}

    Attributes
    ----------
    {attributes}

    See Also
    --------
    PlugMLPClassifier : Reads features as they come.
    LayerAggregator : With ``method="stack"``, chooses layers and parts.

    References
    ----------
    Khosla et al., "Supervised Contrastive Learning", 2020, equation 2, of the
    contrastive loss. Lee et al., "Deeply-supervised nets", 2015, of losses of layers.
    Dalalyan and Tsybakov, "Aggregation by exponential weighting, sharp PAC-Bayesian
    bounds and sparsity", 2008, of the mixture.

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
    (200, 160)
    >>> bool(probe.score(X, y) > 0.9)
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BasePlugClassifier._parameter_constraints,
        "n_layers": [Interval(Integral, 1, None, closed="left"), None],
        "n_parts": [Interval(Integral, 1, None, closed="left"), None],
        "width_cap": [Interval(Integral, 8, None, closed="left")],
        "proj_mult": [Interval(Integral, 1, None, closed="left")],
        "conv_over": [StrOptions({"layers", "units"})],
        "contrastive_weight": [Interval(Real, 0, None, closed="left")],
        "temperature": [Interval(Real, 0, None, closed="neither")],
    }
    _network = CNNNetwork
    _evaluation_rows = 64
    # With few inputs and few rows, an epoch has two steps. At ``lr`` itself the linear
    # probes would need hundreds of epochs, and training would stop long before.
    _least_linear_inputs = 64

    def __init__(
        self,
        *,
        n_layers: int | None = None,
        n_parts: int | None = None,
        target_ratio: float = 5.0,
        width_cap: int = 64,
        proj_mult: int = 2,
        sizing: str = "heuristic",
        conv_over: str = "layers",
        n_members: int = 5,
        linear_path: bool = True,
        input_dropout: float = 0.2,
        contrastive_weight: float = 0.0,
        temperature: float = 0.07,
        dropout: float = 0.1,
        max_epochs: int = 200,
        lr: float = 2e-3,
        weight_decay: float = 1e-2,
        linear_lr: float = 1.2,
        linear_decay: float = 3e-4,
        batch_size: int = 64,
        early_stopping: bool = True,
        validation_fraction: float = 0.2,
        patience: int = 8,
        min_delta: float = 0.002,
        monitor: str | Scorer = "roc_auc",
        calibrate: bool = True,
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
        self.conv_over = conv_over
        self.n_members = n_members
        self.linear_path = linear_path
        self.input_dropout = input_dropout
        self.contrastive_weight = contrastive_weight
        self.temperature = temperature
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
        # Of the fitted net: the parameters may have been set anew since.
        sizes = self.net_.get_params_for("module")
        return int(sizes["n_members"] * sizes["projection"])

    def _size_network(self, n_samples: int) -> dict[str, object]:
        given = self._read_parameters()
        n_layers, n_parts, hidden_size = self._read_geometry(given)
        is_bare = (
            len(self.input_shape_) == 1 and given.n_layers is given.n_parts is None
        )
        n_classes, n_kept = len(self.classes_), None
        if given.sizing == "budget":
            n_channels, n_positions = n_parts * hidden_size, n_layers
            kernels = 1, 3
            if given.conv_over == "units":
                n_channels, n_positions = n_positions, n_channels
                kernels = (5, 3) if n_parts == 1 else (5 * min(n_parts, 3), 1)
            widths, n_kept = fit_cnn_to_budget(
                n_samples,
                n_channels,
                n_classes,
                kernels=kernels,
                n_positions=n_positions if given.linear_path else 0,
                target_ratio=given.target_ratio,
                n_members=given.n_members,
            )
            n_kept = None if n_kept == n_channels else n_kept
        else:
            widths = size_cnn(
                n_samples,
                target_ratio=given.target_ratio,
                width_cap=given.width_cap,
                proj_mult=given.proj_mult,
            )
        return {
            "n_layers": n_layers,
            "n_parts": n_parts,
            "hidden_size": hidden_size,
            "n_classes": n_classes,
            "n_kept": n_kept,
            "dropout": given.dropout,
            "normalise": not is_bare and given.conv_over == "units",
            "affine": given.sizing == "heuristic",
            "conv_over": given.conv_over,
            "n_members": given.n_members,
            "linear_path": given.linear_path,
            "input_dropout": given.input_dropout,
            **vars(widths),
        }

    def _describe_loss(self, given: SimpleNamespace) -> dict[str, float]:
        return {
            "contrastive_weight": given.contrastive_weight,
            "temperature": given.temperature,
        }

    def _read_geometry(self, given: SimpleNamespace) -> tuple[int, int, int]:
        if len(self.input_shape_) == 1:
            return self._unflatten(given, self.input_shape_[0])
        if len(self.input_shape_) > 3:
            raise ValueError(
                "X given to PlugCNNClassifier must be (n, layers, parts, hidden), "
                "(n, layers, hidden) or (n, features). Got samples of shape "
                f"{self.input_shape_} instead."
            )
        n_layers, *parts, hidden_size = self.input_shape_
        n_parts = parts[0] if parts else 1
        for name, found in {"n_layers": n_layers, "n_parts": n_parts}.items():
            wanted = getattr(given, name)
            if wanted not in (None, found):
                raise ValueError(
                    f"The {name!r} parameter of PlugCNNClassifier must be None or, as "
                    f"X has it, {found}. Got {wanted} instead."
                )
        return n_layers, n_parts, hidden_size

    def _unflatten(
        self, given: SimpleNamespace, n_features: int
    ) -> tuple[int, int, int]:
        n_layers, n_parts = given.n_layers or 1, given.n_parts or 1
        if n_features % (n_layers * n_parts):
            raise ValueError(
                "The 'n_layers' and 'n_parts' parameters of PlugCNNClassifier must "
                f"divide the {n_features} features of X. Got {n_layers} and {n_parts} "
                "instead."
            )
        return n_layers, n_parts, n_features // (n_layers * n_parts)
