"""What the docstrings of both estimators say alike."""

from typing import TypeVar

MEMBERS = """\
n_members : int, default=5
    Networks that train side by side, on batches of their own, and whose probabilities
    are averaged. Each holds out rows of its own to stop on: with five, each row trains
    four of them. 1: one network.
linear_path : bool, default=True
    Put a linear function of the standardised input, zero to begin with, beside each
    network. An MLP's is added to its logits: the network learns what it misses. A CNN
    has one of each layer, and predicts by a mixture of all.
input_dropout : float, default=0.2
    Probability of dropping an input in training, in [0, 1).
"""

TRAINING = """\
max_epochs : int, default=200
    Most passes over the training rows.
lr : float, default={lr}
    Learning rate of AdamW.
weight_decay : float, default={weight_decay}
    Weight decay of AdamW.
linear_lr : float, default={linear_lr}
    Learning rate of the linear path, divided by the number of inputs of a logit: the
    most that a step changes it, for inputs of size 1. The rate of an input is at most
    ``lr``{limit}.
linear_decay : float, default=0.0003
    Part of the linear path's weights that a step takes away, below 1.
batch_size : int, default=64
    Rows of a training batch of each member, 2 at least.
early_stopping : bool, default=True
    Hold out rows, stop when they are predicted no better, and keep the weights of the
    best epoch. Otherwise all rows are trained on for ``max_epochs``.
validation_fraction : float, default=0.2
    Fraction of the samples that each member holds out for validation, stratified by
    class. Members hold out different samples where possible. Equal samples are held out
    together, whatever their labels: a sample that several annotators labelled
    differently, or a soft label given as two weighted rows, is never in both training
    and validation. With ``groups``, whole groups are held out instead. No rows are held
    out if there are fewer than 20 distinct samples, or if every choice of groups would
    leave a class without training rows: training is then as without early stopping.
patience : int, default={patience}
    Epochs to wait for a better one.
min_delta : float, default=0.002
    Differences of score and of loss up to this count as none.
monitor : str or callable, default={monitor}
    What the best epoch is best in, on the held-out rows, each predicted by the members
    that hold it out: ``"roc_auc"``, the area under the ROC curve of each class against
    the rest, averaged, or the loss where a class has no held-out row; ``"loss"``; the
    name of a scikit-learn scorer; or a scorer, ``scorer(estimator, X, y)``, whose mean
    over members counts. Rows that are the same in features and label are one row of
    their summed weight. ``"roc_auc"``, the loss, and scorers that take a
    ``sample_weight`` count weights; other scorers count each row once. Among epochs
    that score alike, the one of lowest loss is best.
calibrate : bool, default=True
    Divide the logits by a temperature: the most probable one by the held-out rows, with
    a log-normal prior around 1. Where no rows are held out, there is none.
class_weight : dict or str, default=None
    Factors of the rows' weights by label, 1 for those not named; ``"balanced"``, such
    that all classes weigh the same in each fit; None, all 1.
callbacks : list, default=None
    Callbacks of skorch, or (name, callback). They are not copied. To them, labels are
    positions in ``classes_``, and the rows of all members are rows of one batch. A
    KeyboardInterrupt out of one of them ends training, as skorch's do; from elsewhere,
    it gets out of ``fit``. At the end of training they see the network that is kept:
    the best epoch, calibrated. Weights that they load then are not kept.
device : str, default="auto"
    ``"auto"``: CUDA, then MPS, then the CPU; or a torch device, such as ``"cpu"``,
    ``"cuda:1"`` or ``"xpu"``. An absent accelerator warns and becomes the CPU.
random_state : int or RandomState, default=None
    Decides held-out rows, initial weights, batches and dropout. The same one gives the
    same probabilities, bit by bit, on the same device with the same number of threads:
    another ``torch.get_num_threads()`` sums in another order and rounds differently.
verbose : bool or int, default=False
    Print a line an epoch.
"""

ATTRIBUTES = """\
classes_ : ndarray of shape (n_classes,)
    Labels, in the order of the columns of probabilities.
n_features_in_ : int
    Length of axis 1 of the ``X`` seen in ``fit``.
feature_names_in_ : ndarray of str
    Names of the columns of ``X``, where it is a frame.
input_shape_ : tuple of int
    Shape of a sample.
n_parameters_ : int
    Trainable parameters of all members.
history_ : list of dict
    By epoch: ``epoch``, ``train_loss``, and where rows are held out ``valid_loss`` and
    ``valid_score``, what ``monitor`` scores; and what callbacks record. As a table:
    ``pandas.DataFrame(classifier.history_)``.
n_iter_ : int
    Epochs trained.
best_epoch_ : int
    Epoch whose weights were kept, counted from 1.
monitor_ : str, callable or None
    What was monitored; None where no rows were held out.
net_ : skorch.NeuralNetClassifier
    The trained net, without what only training needs.
"""

SECTIONS = {"members": MEMBERS, "training": TRAINING, "attributes": ATTRIBUTES}

Class = TypeVar("Class", bound=type)


def share_documentation(estimator: Class) -> Class:
    """Put the shared sections into a class's docstring, at lines such as ``{members}``.

    Parameters
    ----------
    estimator : type
        A class. Defaults that differ are read from its signature.

    Returns
    -------
    type
        The same class.
    """
    defaults = vars(estimator)["__init__"].__kwdefaults__
    quoted = {
        name: f'"{value}"' if isinstance(value, str) else repr(value)
        for name, value in defaults.items()
    }
    least = vars(estimator).get("_least_linear_inputs", 1)
    quoted["limit"] = ""
    if least > 1:
        quoted["limit"] = f", or, with d < {least} inputs, {least} / d times ``lr``"
    text = estimator.__doc__ or ""
    for name, section in SECTIONS.items():
        lines = section.rstrip().format(**quoted).splitlines()
        text = text.replace(f"{{{name}}}", "\n    ".join(lines))
    estimator.__doc__ = text
    return estimator
