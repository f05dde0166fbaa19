"""Probes on other features or rows → trained at once, each as alone."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import compress
from typing import Any

from plug_sklearn._devices import resolve_device
from plug_sklearn.classifiers._classifiers import Training
from plug_sklearn.classifiers._convoy import NUMBERS_AT_ONCE, gather_convoy
from plug_sklearn.classifiers._inputs import draw_seeds
from plug_sklearn.classifiers._mlp import PlugMLPClassifier
from plug_sklearn.classifiers._sizing import MLPWidths, size_mlp
from plug_sklearn.classifiers._stopping import StopTraining
from plug_sklearn.classifiers._training import ProbeNet

#: Bounds the rows and networks that are in memory at once.
MOST_BYTES = 2**28


def fit_side_by_side(
    probes: Sequence[PlugMLPClassifier], arguments: Sequence[Mapping[str, Any]]
) -> None:
    """Fit probes that differ in what they learn from alone.

    Each becomes what its own ``fit`` would make of it; but without a ``random_state``,
    all draw from one seed.

    Parameters
    ----------
    probes : sequence of PlugMLPClassifier
        Of the same parameters, of which ``can_fit_side_by_side``.
    arguments : sequence of dict
        For each, ``X`` and ``y``, and if there are any ``sample_weight`` and
        ``groups``, as ``fit`` takes them.
    """
    shared_seeds = draw_seeds(None)
    alike: dict[object, list[tuple[PlugMLPClassifier, Training]]] = defaultdict(list)
    for probe, own in zip(probes, arguments, strict=True):
        probe._validate_params()
        is_random = probe.random_state is None
        seeds = shared_seeds if is_random else draw_seeds(probe.random_state)
        given = {"sample_weight": None, "groups": None, **own}
        training = probe._prepare(**given, seeds=seeds)
        alike[_describe(training)].append((probe, training))
    for prepared in alike.values():
        trainings = [training for _, training in prepared]
        if len(prepared) > 1 and _is_exact(trainings[0].net):
            train_side_by_side(trainings)
        else:
            for training in trainings:
                training.net.fit(training.rows, None)
        for probe, training in prepared:
            probe._keep(training)


def can_fit_side_by_side(probe: PlugMLPClassifier) -> bool:
    """Tell whether probes of these parameters can be fitted at once.

    Parameters
    ----------
    probe : PlugMLPClassifier
        One of them.

    Returns
    -------
    bool
        Not where callbacks are to see each net, or what is printed is each net's; nor
        on an accelerator, which rounds otherwise; nor with a projection to a budget,
        which takes more time than all else.
    """
    return (
        type(probe) is PlugMLPClassifier
        and not probe.callbacks
        and not probe.verbose
        and probe.sizing == "heuristic"
        and probe.device in ("auto", "cpu")
        and resolve_device(probe.device, "PlugMLPClassifier").type == "cpu"
    )


def count_side_by_side(
    probe: PlugMLPClassifier, n_samples: int, n_features: int
) -> int:
    """Count the probes whose rows, networks and batches take 256 MB.

    Parameters
    ----------
    probe : PlugMLPClassifier
        One of them.
    n_samples, n_features : int
        Shape of the features of one.

    Returns
    -------
    int
        At least 1.
    """
    given = probe._read_parameters()
    first = size_mlp(
        n_samples,
        n_features,
        target_ratio=given.target_ratio,
        width_cap=given.width_cap,
        out_floor=given.out_floor,
    ).first
    rows_at_once = probe._evaluation_rows // given.n_members
    held_out = min(int(given.validation_fraction * n_samples), rows_at_once)
    batch = max(min(given.batch_size, n_samples), held_out)
    # Weights, gradients and two moments, those of fewer beside them when some stop, and
    # the best weights; rows of a batch, with and without a mask.
    of_member = 9 * first + 2 * batch
    # Rows of a fold, which may be in double precision, and standardised.
    n_numbers: int = n_features * (3 * n_samples + given.n_members * of_member)
    return max(1, MOST_BYTES // (4 * n_numbers))


def _describe(training: Training) -> tuple[object, ...]:
    # Where rows are the same in all there are fewer, and so other widths; folds may
    # differ by a row, or hold out none; and nets of constant features take no steps.
    net, held_out = training.net, training.validation
    shape = str(net.get_params_for("module"))
    n_held_out = None if held_out is None else len(held_out)
    is_constant = training.rows.rows.are_equal()
    return net.seed, shape, training.rows.y.shape, n_held_out, is_constant


def _is_exact(net: ProbeNet) -> bool:
    # MKL rounds otherwise where a member's rows or weights begin elsewhere within the
    # 64 bytes that a processor reads at once; and torch's norms, what is left over when
    # so many units are taken at a time.
    sizes = net.get_params_for("module")
    return not any(
        sizes[name] % NUMBERS_AT_ONCE
        for name in ("n_features", *MLPWidths.__annotations__)
    )


def train_side_by_side(trainings: Sequence[Training]) -> None:
    """Train nets of one shape and seed, a step of all at a time.

    Parameters
    ----------
    trainings : sequence of Training
        What their nets learn from and are validated on.
    """
    for training in trainings:
        training.net.initialize()
        training.net.notify("on_train_begin", X=training.rows, y=None)
    convoy = gather_convoy(trainings)
    for _ in range(convoy.leader.max_epochs):
        convoy.train_epoch()
        convoy.validate_epoch()
        runs = [not _ends_here(training.net) for training in convoy.trainings]
        if all(runs):
            continue
        stopped = [not one_runs for one_runs in runs]
        convoy.release(list(compress(convoy.trainings, stopped)))
        if not any(runs):
            return
        convoy = convoy.go_on_with(runs)
    convoy.release(convoy.trainings)


def _ends_here(net: ProbeNet) -> bool:
    try:
        net.notify("on_epoch_end")
    except StopTraining:
        return True
    return False
