"""The classifier on activations of several layers."""

from collections.abc import Sequence
from numbers import Integral, Real
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from plug_sklearn._sklearn import Interval, StrOptions
from plug_sklearn.classifiers._base import BasePlugClassifier
from plug_sklearn.classifiers._data import ClassWeight, read_geometry, read_samples
from plug_sklearn.classifiers._monitoring import Scorer
from plug_sklearn.classifiers._networks import CNNNetwork
from plug_sklearn.classifiers._sizing import size_cnn, size_cnn_by_budget


class PlugCNNClassifier(
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, BasePlugClassifier
):
    """Classifier on activations of several layers: an ensemble of small CNNs.

    The network maps the hidden units of each layer and all its parts to a few channels,
    with the same linear map for all layers, and applies convolutions along the layers.
    The mean over layers is the projection z, which a head with two hidden layers
    classifies. There is also a linear probe of each layer. The network and the probes
    are trained with separate losses: the training loss is the mean of the network's
    loss and the probes' mean loss. The logits are a weighted mean of the logits of the
    network and of the probes. The weights are computed before each validation from the
    held-out samples: a classifier with a lower loss has a larger weight, so that
    informative layers dominate without being selected. Without held-out samples, all
    weights are equal. With n distinct samples, each layer is mapped to
    sqrt(``target_ratio`` n / 10) channels, at least 8 and at most ``width_cap``, and
    the first convolution has twice as many. The network standardises each hidden unit
    of each layer and part by its weighted mean and standard deviation over the samples
    of ``fit``.

    ``PlugCNNClassifier(conv_over="units", n_members=1, linear_path=False,
    input_dropout=0.0, calibrate=False, patience=20, contrastive_weight=0.1)`` is the
    plain network that this classifier extends. Layers are its channels, and it
    convolves along the hidden units, and across parts if there are several.

    Parameters
    ----------
    n_layers : int, default=None
        Number of layers in a sample if ``X`` is 2-D; None: 1.
    n_parts : int, default=None
        Number of parts in a sample if ``X`` is 2-D; None: 1. If both are None, 2-D
        ``X`` is read as features of one layer and part. Layer norm is then not applied:
        with two features, it would keep nothing but which of them is larger.
    target_ratio : float, default=5.0
        Target number of trainable parameters per training sample: roughly for each
        member, or, with ``sizing="budget"``, for all members together. With few
        samples, ``sizing="heuristic"`` uses the smallest width instead, and a warning
        is issued if ``target_ratio`` is not the default.
    width_cap : int, default=64
        Largest number of channels that a layer is mapped to (with
        ``conv_over="units"``, of the first convolution), at least 8.
    proj_mult : int, default=2
        Length of z as a multiple of the number of these channels. z has at least 32
        units.
    sizing : {"budget", "heuristic"}, default="heuristic"
        How widths are chosen. ``"heuristic"``: by the formula above, whatever the
        number of channels. ``"budget"``: such that all members together have
        ``target_ratio`` n trainable parameters, within 10%. The networks then read the
        first principal components of the channels, which are not trained and not
        counted. A warning is issued if the smallest network has more parameters.
    conv_over : {"layers", "units"}, default="layers"
        Axis of the convolutions. ``"layers"``: the channels are the hidden units of
        each part. ``"units"``: the channels are the layers, and layer norm is applied
        to each layer and part.
    n_members : int, default=5
        Number of networks in the ensemble, whose probabilities are averaged. Each is
        trained on its own batches and holds out its own samples: with five members,
        each sample is used to train four of them. 1: a single network.
    linear_path : bool, default=True
        Predict with a mixture of the network and a linear probe of each layer, which
        reads standardised hidden units and is initialised to zero.
    input_dropout : float, default=0.2
        Probability of dropping an input in training, in [0, 1).
    contrastive_weight : float, default=0.0
        Factor of the contrastive loss, which makes projections z of the same class more
        similar. In the benchmarks it does not improve the probabilities.
    temperature : float, default=0.07
        Temperature of the contrastive loss. The lower it is, the more the loss depends
        on near neighbours.
    dropout : float, default=0.1
        Probability of dropping a unit of z and of the head in training, in [0, 1).
    max_epochs : int, default=200
        Largest number of passes over the training samples.
    lr : float, default=0.002
        Learning rate of AdamW.
    weight_decay : float, default=0.01
        Weight decay of AdamW.
    linear_lr : float, default=1.2
        The learning rate of the linear path is ``linear_lr`` divided by the number of
        inputs of a logit, so ``linear_lr`` is how much a step can change a logit whose
        inputs have size 1. The learning rate is at most ``lr``, or, with d < 64 inputs,
        at most 64 / d times ``lr``.
    linear_decay : float, default=0.0003
        Fraction of the linear path's weights that each step removes, below 1.
    batch_size : int, default=64
        Number of samples in a training batch of each member, at least 2.
    early_stopping : bool, default=True
        Hold out samples, stop when their predictions no longer improve, and keep the
        weights of the best epoch. Otherwise, train on all samples for ``max_epochs``.
    validation_fraction : float, default=0.2
        Fraction of the samples that each member holds out for validation, as in
        :class:`PlugMLPClassifier`.
    patience : int, default=8
        Number of epochs without improvement after which training stops.
    min_delta : float, default=0.002
        Changes in the score and in the loss of up to this size are ignored.
    monitor : str or callable, default="roc_auc"
        Score of the held-out samples that selects the best epoch: ``"roc_auc"``,
        ``"loss"``, or a scorer of scikit-learn, as in :class:`PlugMLPClassifier`.
    calibrate : bool, default=True
        Apply temperature scaling: divide the logits by the temperature that is most
        probable given the held-out samples and a log-normal prior around 1. Without
        held-out samples, the temperature is 1.
    class_weight : dict or str, default=None
        A factor for each label, by which the weights of its samples are multiplied; 1
        for labels that are not in the dict. ``"balanced"``: factors that give all
        classes the same total weight in each fit. None: all 1.
    callbacks : list, default=None
        Callbacks of skorch, or pairs (name, callback), as in
        :class:`PlugMLPClassifier`.
    device : str, default="auto"
        ``"auto"``: CUDA if available, then MPS, then the CPU. Otherwise a torch device,
        such as ``"cpu"``, ``"cuda:1"`` or ``"xpu"``. If this device is not available, a
        warning is issued and the CPU is used.
    random_state : int or RandomState, default=None
        Determines held-out samples, initial weights, batches and dropout, as in
        :class:`PlugMLPClassifier`.
    verbose : bool or int, default=False
        Print a line for each epoch.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels, in the order of the columns of probabilities.
    n_features_in_ : int
        Length of axis 1 of the ``X`` seen in ``fit``.
    feature_names_in_ : ndarray of str
        Names of the columns of ``X``, if it is a data frame.
    input_shape_ : tuple of int
        Shape of a sample.
    n_parameters_ : int
        Number of trainable parameters of all members.
    history_ : list of dict
        For each epoch: ``epoch`` and ``train_loss``; if samples are held out,
        ``valid_loss`` and ``valid_score``, the score that ``monitor`` names; and what
        callbacks record. ``pandas.DataFrame(classifier.history_)`` makes a table of it.
    n_iter_ : int
        Number of epochs trained.
    best_epoch_ : int
        Epoch whose weights were kept, counted from 1.
    monitor_ : str, callable or None
        What was monitored; None if no samples were held out.
    net_ : skorch.NeuralNetClassifier
        The trained network, without what only training needs.

    See Also
    --------
    PlugMLPClassifier : Reads one vector of features for each sample.
    LayerAggregator : Selects layers and parts with ``method="stack"``.

    References
    ----------
    The contrastive loss: Khosla et al., "Supervised Contrastive Learning", 2020,
    equation 2. Separate losses of layers: Lee et al., "Deeply-supervised nets", 2015.
    The weights of the mixture: Dalalyan and Tsybakov, "Aggregation by exponential
    weighting, sharp PAC-Bayesian bounds and sparsity", 2008.

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
            Projections, which are not negative.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If ``fit`` has not been called.
        ValueError
            If ``X`` is not finite, or its shape differs from that in ``fit``.
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

    def _choose_sizes(
        self, given: SimpleNamespace, n_samples: int
    ) -> dict[str, object]:
        n_layers, n_parts, hidden_size = read_geometry(
            self.input_shape_, given.n_layers, given.n_parts, type(self).__name__
        )
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
            widths, n_kept = size_cnn_by_budget(
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
            "normalise": not is_bare and given.conv_over == "units",
            "affine": given.sizing == "heuristic",
            **vars(widths),
        }
