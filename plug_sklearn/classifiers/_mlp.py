"""The classifier on one vector of features for each sample."""

from collections.abc import Sequence
from math import prod
from numbers import Integral
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np

from plug_sklearn._sklearn import Interval
from plug_sklearn.classifiers._base import BasePlugClassifier
from plug_sklearn.classifiers._data import ClassWeight
from plug_sklearn.classifiers._monitoring import Scorer
from plug_sklearn.classifiers._networks import MLPNetwork
from plug_sklearn.classifiers._sizing import size_mlp, size_mlp_by_budget


class PlugMLPClassifier(BasePlugClassifier):
    """Classifier on feature vectors: an ensemble of small MLPs, sized by the data.

    Each member of the ensemble is the sum of a linear function of the features and an
    MLP with a residual block. With n distinct samples and d features, the first layer
    has ``target_ratio`` n / d units, at least 16 and at most ``width_cap``; the second
    has half as many, but at least 16; the last has a quarter of those, but at least
    ``out_floor``. Each is a linear layer, followed by batch norm, ReLU and dropout.
    Samples with more than one axis are flattened. The network standardises the features
    by their weighted mean and standard deviation over the samples of ``fit``.

    ``PlugMLPClassifier(n_members=1, linear_path=False, input_dropout=0.0, lr=0.002,
    weight_decay=0.01, calibrate=False)`` is the plain network that this classifier
    extends.

    Parameters
    ----------
    target_ratio : float, default=5.0
        Target number of parameters per training sample: for the first layer of each
        member, or, with ``sizing="budget"``, for all members together. With few samples
        for the number of features, ``sizing="heuristic"`` uses the smallest width
        instead, and a warning is issued if ``target_ratio`` is not the default.
    width_cap : int, default=128
        Largest number of units in a layer, at least 16. Only used with
        ``sizing="heuristic"``.
    out_floor : int, default=16
        Smallest number of units before the logits. Only used with
        ``sizing="heuristic"``.
    sizing : {"budget", "heuristic"}, default="heuristic"
        How widths are chosen. ``"heuristic"``: by the formula above, which can far
        exceed ``target_ratio`` n if there are many features. ``"budget"``: such that
        all members together have ``target_ratio`` n trainable parameters, within 10%.
        The networks then read the first principal components of the features, which are
        not trained and not counted. A warning is issued if the logits alone have more
        parameters.
    n_members : int, default=5
        Number of networks in the ensemble, whose probabilities are averaged. Each is
        trained on its own batches and holds out its own samples: with five members,
        each sample is used to train four of them. 1: a single network.
    linear_path : bool, default=True
        Add a linear function of the standardised features, initialised to zero, to the
        logits. The MLP then learns what the linear function misses.
    input_dropout : float, default=0.2
        Probability of dropping an input in training, in [0, 1).
    dropout : float, default=0.3
        Probability of dropping a unit in training, in [0, 1).
    max_epochs : int, default=200
        Largest number of passes over the training samples.
    lr : float, default=0.003
        Learning rate of AdamW.
    weight_decay : float, default=0.1
        Weight decay of AdamW.
    linear_lr : float, default=0.17
        The learning rate of the linear path is ``linear_lr`` divided by the number of
        inputs of a logit, so ``linear_lr`` is how much a step can change a logit whose
        inputs have size 1. The learning rate is at most ``lr``.
    linear_decay : float, default=0.0003
        Fraction of the linear path's weights that each step removes, below 1.
    batch_size : int, default=64
        Number of samples in a training batch of each member, at least 2.
    early_stopping : bool, default=True
        Hold out samples, stop when their predictions no longer improve, and keep the
        weights of the best epoch. Otherwise, train on all samples for ``max_epochs``.
    validation_fraction : float, default=0.2
        Fraction of the samples that each member holds out for validation, stratified by
        class. Members hold out different samples where possible. Samples with equal
        features are held out together, whatever their labels: a text that several
        annotators labelled differently, or a soft label given as two weighted samples,
        is never in both training and validation. With ``groups``, whole groups are held
        out instead. No samples are held out if there are fewer than 20 distinct ones,
        or if every choice of groups would leave a class without training samples:
        training then proceeds as without early stopping.
    patience : int, default=20
        Number of epochs without improvement after which training stops.
    min_delta : float, default=0.002
        Changes in the score and in the loss of up to this size are ignored.
    monitor : str or callable, default="roc_auc"
        Score of the held-out samples that selects the best epoch. Each sample is
        predicted by the members that hold it out.

        - ``"roc_auc"``: the one-vs-rest ROC-AUC (area under the ROC curve), averaged
          over classes, or the loss if a class has no held-out sample.
        - ``"loss"``: the log loss.
        - The name of a scikit-learn scorer, or ``scorer(estimator, X, y)``: its mean
          over members.

        Samples that are equal in features and label count as one sample with the sum of
        their weights. ``"roc_auc"``, ``"loss"``, and scorers that take
        ``sample_weight`` use the weights; other scorers count each sample once. Among
        epochs with equal scores, the one with the lowest loss is best.
    calibrate : bool, default=True
        Apply temperature scaling: divide the logits by the temperature that is most
        probable given the held-out samples and a log-normal prior around 1. Without
        held-out samples, the temperature is 1.
    class_weight : dict or str, default=None
        A factor for each label, by which the weights of its samples are multiplied; 1
        for labels that are not in the dict. ``"balanced"``: factors that give all
        classes the same total weight in each fit. None: all 1.
    callbacks : list, default=None
        Callbacks of skorch, or pairs (name, callback). They are not copied. They are
        given labels as positions in ``classes_``, and the samples of all members as one
        batch. A KeyboardInterrupt that a callback raises during training ends it, as in
        skorch; one from elsewhere, such as Ctrl-C, propagates. At the end of training,
        callbacks are given the network that is kept: the best epoch, calibrated.
        Weights that they load then are discarded.
    device : str, default="auto"
        ``"auto"``: CUDA if available, then MPS, then the CPU. Otherwise a torch device,
        such as ``"cpu"``, ``"cuda:1"`` or ``"xpu"``. If this device is not available, a
        warning is issued and the CPU is used.
    random_state : int or RandomState, default=None
        Determines held-out samples, initial weights, batches and dropout. Results with
        the same value are equal bit for bit on the same device with the same number of
        threads. Another value of ``torch.get_num_threads()`` changes the order of sums,
        and therefore their rounding. Activations that were computed in other batches,
        in this process or in another one, also differ, by about 1e-6; scores may then
        differ in the third decimal. With a ``store``, activations are the same in all
        runs that read it.
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
    PlugCNNClassifier : Reads several layers and parts together.
    LayerAggregator : Computes features from activations.

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

    def _choose_sizes(
        self, given: SimpleNamespace, n_samples: int
    ) -> dict[str, object]:
        n_features = prod(self.input_shape_)
        n_classes, n_kept = len(self.classes_), None
        if given.sizing == "budget":
            widths, n_kept = size_mlp_by_budget(
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
            "n_kept": None if n_kept == n_features else n_kept,
            **vars(widths),
        }
