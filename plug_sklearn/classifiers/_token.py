"""The classifier on the features of all tokens of a text."""

from collections.abc import Sequence
from numbers import Integral, Real
from types import SimpleNamespace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plug_sklearn._sklearn import Interval, StrOptions
from plug_sklearn.classifiers._base import BasePlugClassifier
from plug_sklearn.classifiers._data import ClassWeight
from plug_sklearn.classifiers._monitoring import Scorer
from plug_sklearn.classifiers._sizing import size_tokens, size_tokens_by_budget
from plug_sklearn.classifiers._token_data import (
    read_text_rows,
    read_text_validation_rows,
    read_texts,
)
from plug_sklearn.classifiers._token_network import (
    N_RECENT,
    WITH_QUERIES,
    TokenNetwork,
)
from plug_sklearn.classifiers._token_predictions import PredictsTokens
from plug_sklearn.classifiers._token_stream import POOLS
from plug_sklearn.classifiers._token_training import TokenNet

#: Learning rate of the biases of the logits, and of those of the last tokens.
BIAS_RATE = 0.01
#: The learning rate is divided by the number of inputs, but by no less than this.
LEAST_INPUTS = 50
#: Parameters of the base class that this classifier does not have.
_OF_OTHERS = ("dropout",)


class PlugTokenClassifier(PredictsTokens, BasePlugClassifier):
    """Ensemble of probes that read the features of all tokens of a text.

    Each sample is an array of token features, with any number of tokens. Each member of
    the ensemble has a few heads. A head scores every token by a linear function of its
    features, and aggregates the scores of a text into one number. The logits are the
    sums over the heads. With ``linear_path``, linear probes of the mean of all tokens
    and of the last token are trained together with the heads. Held-out texts determine
    how the logits are mixed.

    In many models, the first token of a text has activations far larger than all
    others. The norms of tokens are therefore limited to twice the median norm of the
    tokens of ``fit``, not counting tokens that are all zero: larger tokens are scaled
    down. The features are then standardised by their mean and standard deviation over
    the tokens of ``fit``. In these statistics, a text counts by its weight, whatever
    its length.

    Parameters
    ----------
    aggregation : str, default="attention"
        How the scores of a text's tokens are combined into one.

        - ``"attention"``: their weighted mean. The weights are the softmax of a second
          score of each token: a second linear function, the query, plus a learned bias
          for each of the last eight tokens [1]_ [2]_.
        - ``"softmax"``: their mean, weighted by their own softmax [2]_.
        - ``"rolling"``: the largest mean of ``window`` neighbouring scores, weighted
          by attention [3]_. Best, without ``linear_path``, if the probe will read
          texts that are much longer than those of ``fit``.
        - ``"max"``: the largest score [3]_. ``"max"`` and ``"rolling"`` are trained
          with a soft maximum, so that every token has a gradient, and predict with the
          exact maximum.
        - ``"mean"``: their mean.
    window : int, default=8
        Number of tokens in a window. Only used with ``aggregation="rolling"``.
    target_ratio : float, default=5.0
        Target number of parameters per training text. Only the weights that map
        features to scores in one member are counted; with ``sizing="budget"``, all
        trainable parameters of all members.
    head_cap : int, default=8
        Largest number of heads of a member.
    sizing : {"budget", "heuristic"}, default="heuristic"
        How the number of heads is chosen. ``"heuristic"``: ``target_ratio * n / d`` for
        n texts and d features, at least four and at most ``head_cap``. ``"budget"``:
        the number that gives all members together ``target_ratio * n`` trainable
        parameters, within 10%. The heads then read the first principal components of
        the features, which are not trained and not counted. A warning is issued if no
        network is that close to the budget. With ``aggregation="mean"``, or labels of
        tokens, there is one head, since more would be the same function.
    n_members : int, default=5
        Number of probes in the ensemble, whose probabilities are averaged. Each holds
        out different texts: with five members, each text is used to train four of them.
    linear_path : bool, default=True
        Mix the heads with linear probes of the mean of all tokens and of the last
        token. The weights of the mixture are chosen by the losses on held-out texts.
        This helps on short texts. Set it to False if the probe will read texts that are
        much longer than those of ``fit``: the two linear probes fail on such texts.
        ``aggregation="rolling"`` is recommended then.
    input_dropout : float, default=0.2
        Probability of dropping a feature in a training step, in [0, 1).
    max_epochs : int, default=100
        Largest number of passes over the training texts.
    lr : float, default=0.2
        AdamW's learning rate is ``lr`` divided by the number of inputs of a head, or by
        50 if there are fewer. So ``lr`` is about how much a step can change a score
        whose inputs have size 1.
    weight_decay : float, default=0.001
        Fraction of the heads' weights that each step removes, below 1.
    linear_lr : float, default=0.17
        As ``lr``, for the linear path.
    linear_decay : float, default=0.0003
        As ``weight_decay``, for the linear path.
    batch_size : int, default=32
        Largest number of texts in a training batch, at least 2. With fewer than
        ``16 * batch_size`` texts, batches are smaller, so that an epoch has about 16
        steps, but hold at least 4 texts. A batch also ends earlier if its features
        would take more than 64 MB, but holds at least one text.
    early_stopping : bool, default=True
        Hold out texts, stop when their predictions no longer improve, and keep the
        weights of the best epoch. Otherwise, train on all texts for ``max_epochs``.
    validation_fraction : float, default=0.2
        Fraction of the texts that each member holds out for validation, as in
        :class:`PlugMLPClassifier`.
    patience : int, default=30
        Number of epochs without improvement after which training stops. On long texts,
        the first improvement may take more than 20 epochs.
    min_delta : float, default=0.002
        Changes in the score and in the loss of up to this size are ignored.
    monitor : str or callable, default="roc_auc"
        Score of the held-out texts that selects the best epoch, as in
        :class:`PlugMLPClassifier`. With labels of tokens, it must be ``"roc_auc"`` or
        ``"loss"``, and is computed over tokens.
    calibrate : bool, default=True
        Apply temperature scaling: divide the logits by the temperature that is most
        probable given the held-out texts and a log-normal prior around 1. Without
        held-out texts, the temperature is 1.
    span_max_weight : float, default=0.0
        Only used with labels of tokens. Weight, in [0, 1], of the strongest token of a
        span in the losses [4]_. A span is a run of neighbouring tokens with the same
        label, other than the first of ``classes_``. With 0, each token must show
        its label; with 1, at least one token of each span must. The ROC-AUC that
        ``monitor`` asks for is that of all held-out tokens, whatever the weight.
    class_weight : dict or str, default=None
        A factor for each label, by which the weights of its texts (or of its tokens,
        with labels of tokens) are multiplied; 1 for labels that are not in the dict.
        ``"balanced"``: factors that give all classes the same total weight in each fit.
        None: all 1.
    callbacks : list, default=None
        Callbacks of skorch, or pairs (name, callback), as in
        :class:`PlugMLPClassifier`. They get the samples of a batch as a list of
        tensors.
    device : str, default="auto"
        ``"auto"``: CUDA if available, then MPS, then the CPU. Otherwise a torch device,
        such as ``"cpu"``, ``"cuda:1"`` or ``"xpu"``. If this device is not available, a
        warning is issued and the CPU is used.
    random_state : int or RandomState, default=None
        Determines held-out texts, initial weights, batches and dropout. Results with
        the same value are equal bit for bit on the same device with the same number of
        threads.
    verbose : bool or int, default=False
        Print a line for each epoch.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels, in the order of the columns of probabilities.
    n_features_in_ : int
        Number of features of a token.
    feature_names_in_ : ndarray of str
        Names of the columns of ``X``, if it is a data frame.
    input_shape_ : tuple of int
        Shape of a token's features, ``(n_features_in_,)``.
    labels_tokens_ : bool
        Whether ``y`` held labels of tokens.
    n_parameters_ : int
        Number of trainable parameters of all members.
    history_ : list of dict
        For each epoch: ``epoch`` and ``train_loss``; if texts are held out,
        ``valid_loss`` and ``valid_score``, the score that ``monitor`` names; and what
        callbacks record.
    n_iter_ : int
        Number of epochs trained.
    best_epoch_ : int
        Epoch whose weights were kept, counted from 1.
    monitor_ : str, callable or None
        What was monitored; None if no texts were held out.
    net_ : skorch.NeuralNetClassifier
        The trained network, without what only training needs.

    See Also
    --------
    PlugMLPClassifier : Reads one feature vector for each text.
    HFEmbeddingTransformer : Computes activations of all tokens with ``pooling=None``.

    Notes
    -----
    The features of a batch are joined without padding, and only the scores are padded.
    A fit needs little memory beyond ``X``, which may hold float16.

    With labels of tokens, :meth:`score` is the accuracy over tokens. scikit-learn's
    stratified splitters and its metrics refuse such labels. So cross-validate with
    ``cross_val_score(probe, X, y, cv=KFold(5))``. Other metrics need the tokens of all
    texts in one array: ``np.concatenate(y)`` and
    ``np.concatenate(probe.predict_token_proba(X))``. Leave out the tokens without a
    label.

    References
    ----------
    .. [1] EleutherAI, "Attention probes", 2025,
       https://blog.eleuther.ai/attention-probes.
    .. [2] McKenzie et al., "Detecting high-stakes interactions with activation probes",
       2025, arXiv 2506.10805.
    .. [3] Kramár et al., "Building production-ready probes for Gemini", 2026,
       arXiv 2601.11516.
    .. [4] Obeso et al., "Real-time detection of hallucinated entities in long-form
       generation", 2025, arXiv 2509.03531.

    Examples
    --------
    >>> import numpy as np
    >>> from plug_sklearn import PlugTokenClassifier
    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(80) % 2
    >>> X = np.empty(80, dtype=object)  # texts of 3 to 9 tokens with 8 features
    >>> for i in range(80):
    ...     X[i] = rng.normal(size=(3 + i % 7, 8))
    ...     X[i][i % 3, :2] += 4, 8 * y[i] - 4  # one token tells the class
    >>> probe = PlugTokenClassifier(random_state=0).fit(X, y)
    >>> probe.predict_proba(X).shape
    (80, 2)
    >>> probe.predict_token_proba(X)[0].shape  # each token's own evidence
    (3, 2)
    >>> int(probe.token_weights(X)[1].argmax())
    1
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **{
            name: allowed
            for name, allowed in BasePlugClassifier._parameter_constraints.items()
            if name not in _OF_OTHERS
        },
        "weight_decay": [Interval(Real, 0, 1, closed="left")],
        "aggregation": [StrOptions(set(POOLS))],
        "window": [Interval(Integral, 1, None, closed="left")],
        "head_cap": [Interval(Integral, 1, None, closed="left")],
        "span_max_weight": [Interval(Real, 0, 1, closed="both")],
    }
    _network = TokenNetwork
    _net = TokenNet
    _evaluation_rows = 256
    _read_rows = read_text_rows
    _read_validation_rows = read_text_validation_rows
    _read_samples = read_texts

    def __init__(
        self,
        *,
        aggregation: str = "attention",
        window: int = 8,
        target_ratio: float = 5.0,
        head_cap: int = 8,
        sizing: str = "heuristic",
        n_members: int = 5,
        linear_path: bool = True,
        input_dropout: float = 0.2,
        max_epochs: int = 100,
        lr: float = 0.2,
        weight_decay: float = 1e-3,
        linear_lr: float = 0.17,
        linear_decay: float = 3e-4,
        batch_size: int = 32,
        early_stopping: bool = True,
        validation_fraction: float = 0.2,
        patience: int = 30,
        min_delta: float = 0.002,
        monitor: str | Scorer = "roc_auc",
        calibrate: bool = True,
        span_max_weight: float = 0.0,
        class_weight: ClassWeight = None,
        callbacks: Sequence[Any] | None = None,
        device: str = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: bool | int = False,
    ) -> None:
        self.aggregation = aggregation
        self.window = window
        self.target_ratio = target_ratio
        self.head_cap = head_cap
        self.sizing = sizing
        self.n_members = n_members
        self.linear_path = linear_path
        self.input_dropout = input_dropout
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
        self.span_max_weight = span_max_weight
        self.class_weight = class_weight
        self.callbacks = callbacks
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def fit(
        self,
        X: Any,  # noqa: ANN401 - validated in it
        y: Any,  # noqa: ANN401 - validated in it
        sample_weight: ArrayLike | None = None,
        X_val: Any = None,  # noqa: ANN401 - as X
        y_val: Any = None,  # noqa: ANN401 - as y
        groups: ArrayLike | None = None,
    ) -> Self:
        """Choose the number of heads, train, and keep the weights of the best epoch.

        Parameters
        ----------
        X : array-like of shape (n_samples,) of arrays
            For each text, an array of shape (n_tokens, n_features); further axes, as in
            (n_tokens, n_layers, n_parts, hidden_size), are flattened. Texts may have
            any number of tokens above 0, and equal texts may share one array. One array
            (n_samples, n_tokens, n_features) holds texts of equal lengths, and one of
            shape (n_samples, n_features) holds texts of one token each. The features
            may be float16, and are not copied.
        y : array-like of shape (n_samples,)
            Labels of texts, numbers or strings. Or labels of tokens: for each text, a
            sequence with a label for each token; for texts of equal lengths, also one
            array (n_samples, n_tokens). These labels are whole numbers, with
            -1 for tokens without a label, or strings, with ``""`` for such tokens; None
            stands for no label in both. The loss is then computed for each labelled
            token by itself, and ``aggregation`` and ``linear_path`` have no effect.
            Texts without labelled tokens are dropped.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of texts in the training and validation losses, as in
            :class:`PlugMLPClassifier`.
        X_val, y_val : array-like, default=None
            Texts and labels to validate on, instead of some of ``X``.
        groups : array-like of shape (n_samples,), default=None
            Groups of texts. No group is both in training and in validation. If None,
            equal texts form a group.

        Returns
        -------
        Self
            This estimator.

        Raises
        ------
        ValueError
            If a parameter is invalid; if ``X`` or ``y`` is not as described, or ``X``
            is not finite; if there is only one class; if all weights are 0; or if
            training diverges.

        Warns
        -----
        UserWarning
            If the device is absent; if no network has the number of parameters that
            ``sizing="budget"`` asks for; or if ``X`` has two axes.
        """
        return super().fit(X, y, sample_weight, X_val, y_val, groups)

    def predict_proba(self, X: Any) -> NDArray[np.float64]:  # noqa: ANN401 - as in fit
        """Predict the probability of each class for each text.

        After a fit on labels of tokens, the logit of each class, relative to the first
        of ``classes_``, is the largest over the tokens of the text, in each member.

        Parameters
        ----------
        X : array-like of shape (n_samples,) of arrays
            Token features, as in :meth:`fit`.

        Returns
        -------
        ndarray of shape (n_samples, n_classes), float64
            Rows sum to 1; columns follow ``classes_``.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If ``fit`` has not been called.
        ValueError
            If ``X`` is not as described, or the number of features differs from that in
            ``fit``.
        """
        return super().predict_proba(X)

    def _choose_sizes(
        self, given: SimpleNamespace, n_samples: int
    ) -> dict[str, object]:
        (n_features,) = self.input_shape_
        n_classes, n_kept = len(self.classes_), None
        aggregation = "max" if self.labels_tokens_ else given.aggregation
        n_outputs = 1 if n_classes == 2 else n_classes
        n_heads = 1
        if given.sizing == "budget":
            n_heads, n_kept = size_tokens_by_budget(
                n_samples,
                n_features,
                n_outputs,
                has_queries=aggregation in WITH_QUERIES,
                n_recent=N_RECENT if aggregation == "attention" else 0,
                linear_path=given.linear_path and not self.labels_tokens_,
                target_ratio=given.target_ratio,
                head_cap=1 if self._has_one_head() else given.head_cap,
                n_members=given.n_members,
            )
        elif not self._has_one_head():
            n_heads = size_tokens(
                n_samples,
                n_features,
                target_ratio=given.target_ratio,
                head_cap=given.head_cap,
            )
        return {
            "n_features": n_features,
            "n_classes": n_classes,
            "n_heads": n_heads,
            "aggregation": aggregation,
            "window": given.window if aggregation == "rolling" else 1,
            "linear_path": given.linear_path and not self.labels_tokens_,
            "n_kept": None if n_kept == n_features else n_kept,
            "strongest": self.labels_tokens_,
        }

    def _has_one_head(self) -> bool:
        """Return whether more heads would add up to the same function as one."""
        return self.labels_tokens_ or self.aggregation == "mean"

    def _describe_optimizer(
        self,
        given: SimpleNamespace,
        skeleton: Any,  # noqa: ANN401 - a TokenNetwork
    ) -> dict[str, Any]:
        # AdamW changes each weight by about as much as the others, so that a score
        # changes in proportion to the number of its inputs.
        n_inputs = max(skeleton.output.weight.shape[1], LEAST_INPUTS)
        lr, linear_lr = given.lr / n_inputs, given.linear_lr / n_inputs
        groups = [("output.bias", {"lr": BIAS_RATE, "weight_decay": 0.0})]
        if skeleton.queries is not None:
            groups.append(("queries.recency", groups[0][1]))
        if skeleton.linear is not None:
            decay = given.linear_decay / linear_lr
            groups.append(("linear.*", {"lr": linear_lr, "weight_decay": decay}))
        return {
            "lr": lr,
            "optimizer__weight_decay": given.weight_decay / lr,
            "optimizer__param_groups": groups,
        }
