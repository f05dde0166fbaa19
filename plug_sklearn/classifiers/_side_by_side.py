"""Probes on other features of the same rows → trained at once, each as alone."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from copy import deepcopy
from typing import cast

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from plug_sklearn._devices import resolve_device
from plug_sklearn.classifiers._classifiers import Training
from plug_sklearn.classifiers._inputs import draw_seeds
from plug_sklearn.classifiers._layers import Dropout
from plug_sklearn.classifiers._losses import weigh_losses
from plug_sklearn.classifiers._members import MemberLinear, MemberNorm
from plug_sklearn.classifiers._mlp import PlugMLPClassifier
from plug_sklearn.classifiers._networks import MLPNetwork
from plug_sklearn.classifiers._rows import Batches, MemberRows, join_probes
from plug_sklearn.classifiers._sizing import MLPWidths, size_mlp
from plug_sklearn.classifiers._stopping import StopTraining
from plug_sklearn.classifiers._training import Batch, ProbeNet

#: Bounds the rows and networks that are in memory at once.
MOST_BYTES = 2**26


def fit_side_by_side(
    probes: Sequence[PlugMLPClassifier],
    X: Sequence[ArrayLike],
    y: ArrayLike,
    sample_weight: ArrayLike | None = None,
    groups: ArrayLike | None = None,
) -> None:
    """Fit probes that differ in their features alone.

    Each becomes what its own ``fit`` would make of it; but without a ``random_state``,
    all draw from one seed.

    Parameters
    ----------
    probes : sequence of PlugMLPClassifier
        Of the same parameters, of which ``can_fit_side_by_side``.
    X : sequence of array-like of shape (n_samples, n_features)
        What each is to learn from.
    y, sample_weight, groups : array-like of shape (n_samples,)
        Of the samples, as ``fit`` takes them.
    """
    shared_seeds = draw_seeds(None)
    alike: dict[object, list[tuple[PlugMLPClassifier, Training]]] = defaultdict(list)
    for probe, samples in zip(probes, X, strict=True):
        probe._validate_params()
        is_random = probe.random_state is None
        seeds = shared_seeds if is_random else draw_seeds(probe.random_state)
        training = probe._prepare(samples, y, sample_weight, groups, seeds)
        # Layers on which rows are the same in all have fewer rows, and other widths.
        shape = str(training.net.get_params_for("module"))
        alike[training.net.seed, shape, training.rows.y.shape].append((probe, training))
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
    """Count the probes whose rows, networks and batches take 64 MB.

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
    first = size_mlp(
        n_samples,
        n_features,
        target_ratio=probe.target_ratio,
        width_cap=probe.width_cap,
        out_floor=probe.out_floor,
    ).first
    rows_at_once = probe._evaluation_rows // probe.n_members
    held_out = min(int(probe.validation_fraction * n_samples), rows_at_once)
    # Weights, gradients and two moments; rows of a batch, with and without a mask.
    of_member = 4 * first + 2 * max(probe.batch_size, held_out)
    n_numbers = n_features * (2 * n_samples + probe.n_members * of_member)
    return max(1, MOST_BYTES // (4 * n_numbers))


def _is_exact(net: ProbeNet) -> bool:
    # MKL rounds otherwise where a member's rows or weights begin elsewhere within the
    # 64 bytes that a processor reads at once; and torch's norms, what is left over when
    # 16 units are taken at a time.
    sizes = net.get_params_for("module")
    return not any(
        sizes[name] % 16 for name in ("n_features", *MLPWidths.__annotations__)
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
    leader, running = trainings[0].net, list(trainings)
    optimizer = _join_optimizers(running)
    convoy = Convoy(running, leader)
    for _ in range(leader.max_epochs):
        convoy.train_epoch(optimizer)
        convoy.validate_epoch()
        stopped = [training for training in running if _ends_here(training.net)]
        if not stopped:
            continue
        convoy.release(stopped)
        running = [training for training in running if training not in stopped]
        if not running:
            return
        _leave_out_stopped(optimizer, running)
        convoy = Convoy(running, leader)
    convoy.release(running)


class Convoy:
    """Nets that take their steps as one network, whose weights theirs are views of.

    Parameters
    ----------
    trainings : sequence of Training
        What has nets of the same shape.
    leader : ProbeNet
        The net whose steps and draws are those of all; it may have stopped itself.
    """

    def __init__(self, trainings: Sequence[Training], leader: ProbeNet) -> None:
        self.nets = [training.net for training in trainings]
        self.leader = leader
        modules = [net.module_ for net in self.nets]
        self.network = join_modules(modules)
        for layer, own in zip(
            self.network.modules(), leader.module_.modules(), strict=True
        ):
            if isinstance(layer, Dropout):
                layer.generator = own.generator
        # Once, where a net alone would in each of its batches.
        features = torch.cat(
            [
                module.read_features(training.rows.rows.put_in_order())[:, 0]
                for module, training in zip(modules, trainings, strict=True)
            ]
        )
        self.rows = join_probes([training.rows for training in trainings], features)
        self.validation = None
        held_out = [training.validation for training in trainings]
        if isinstance(held_out[0], MemberRows):
            self.validation = join_probes(cast(list[MemberRows], held_out), features)

    def train_epoch(self, optimizer: torch.optim.Optimizer) -> None:
        """Take a step on each batch."""
        for net in self.nets:
            net.notify("on_epoch_begin")
        self.network.train()
        batch_size, order = self.leader.batch_size, self.leader.order_generator_
        for batch in cast(Iterable[Batch], Batches(self.rows, batch_size, order)):
            self.leader.begin_step(self.network)
            losses, _ = self._compute_losses(batch)
            for parameter in self.network.parameters():
                cast(Tensor, parameter.grad).zero_()
            torch.autograd.backward(losses.sum())
            optimizer.step()
            self._record_batch("train", losses, batch)
        for net in self.nets:
            for layer in net.module_.modules():
                if isinstance(layer, MemberNorm):
                    cast(Tensor, layer.num_batches_tracked).fill_(self.leader.n_steps_)

    def validate_epoch(self) -> None:
        """Compute the losses of the validation rows, for those who score them."""
        if self.validation is None:
            return
        self.network.eval()
        batches = self.leader.get_iterator(self.validation)
        for batch in cast(Iterable[Batch], batches):
            with torch.no_grad():
                losses, logits = self._compute_losses(batch)
            self._record_batch("valid", losses, batch)
            _, targets = batch
            of_nets = [each.chunk(len(self.nets), dim=1) for each in (logits, *targets)]
            for net, y_pred, *own in zip(self.nets, *of_nets, strict=True):
                net.notify("on_batch_end", batch=(None, own), y_pred=y_pred)

    def release(self, trainings: Sequence[Training]) -> None:
        """Give nets weights of their own, those of their best epochs."""
        for training in trainings:
            module = training.net.module_
            for value in module.state_dict(keep_vars=True).values():
                value.data, value.grad = value.data.clone(), None
            training.net.notify("on_train_end", X=training.rows, y=None)

    def _compute_losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        x, (codes, weights) = batch
        logits = self.network.compute_logits(x)
        losses = weigh_losses(logits, codes, weights)
        by_net = losses.view(len(x), len(self.nets), -1).mean(dim=(0, 2))
        return by_net, logits

    def _record_batch(self, prefix: str, losses: Tensor, batch: Batch) -> None:
        for net, loss in zip(self.nets, losses.tolist(), strict=True):
            net.history.new_batch()
            net.history.record_batch(f"{prefix}_loss", loss)
            net.history.record_batch(f"{prefix}_batch_size", len(batch[0]))


def join_modules(modules: Sequence[MLPNetwork]) -> MLPNetwork:
    """Join networks of one shape to one of all their members.

    Parameters
    ----------
    modules : sequence of MLPNetwork
        Their weights, running statistics and gradients become views of those of the
        network returned.

    Returns
    -------
    MLPNetwork
        Does not standardise, nor scale logits: each of them does so its own way.
    """
    joined = deepcopy(modules[0])
    for layer in joined.modules():
        if isinstance(layer, Dropout | MemberLinear):
            layer.n_probes = len(modules)
    states = [module.state_dict(keep_vars=True) for module in modules]
    for name, value in joined.state_dict(keep_vars=True).items():
        if value.ndim == 0 or name.startswith("standardise."):
            continue
        own = [state[name] for state in states]
        value.data = torch.cat([each.data for each in own])
        for each, view in zip(own, value.data.chunk(len(modules)), strict=True):
            each.data = view
        if isinstance(value, nn.Parameter):
            value.grad = torch.zeros_like(value)
            for each, view in zip(own, value.grad.chunk(len(modules)), strict=True):
                each.grad = view
    return joined


def _join_optimizers(trainings: Sequence[Training]) -> torch.optim.Optimizer:
    groups = zip(*(each.net.optimizer_.param_groups for each in trainings), strict=True)
    return torch.optim.AdamW(
        [
            {**of_nets[0], "params": [p for group in of_nets for p in group["params"]]}
            for of_nets in groups
        ],
        fused=True,
    )


def _leave_out_stopped(
    optimizer: torch.optim.Optimizer, running: Sequence[Training]
) -> None:
    groups = zip(*(each.net.optimizer_.param_groups for each in running), strict=True)
    for joined, of_nets in zip(optimizer.param_groups, groups, strict=True):
        joined["params"] = [p for group in of_nets for p in group["params"]]


def _ends_here(net: ProbeNet) -> bool:
    try:
        net.notify("on_epoch_end")
    except StopTraining:
        return True
    return False
