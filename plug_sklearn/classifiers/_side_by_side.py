"""Probes on other features or rows → trained at once, each as alone."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from itertools import compress
from typing import Any, cast

import torch
from torch import Tensor, nn

from plug_sklearn._devices import resolve_device
from plug_sklearn.classifiers._classifiers import Training
from plug_sklearn.classifiers._inputs import draw_seeds
from plug_sklearn.classifiers._layers import Dropout
from plug_sklearn.classifiers._losses import weigh_losses
from plug_sklearn.classifiers._members import MemberNorm
from plug_sklearn.classifiers._mlp import PlugMLPClassifier
from plug_sklearn.classifiers._networks import MLPNetwork
from plug_sklearn.classifiers._rows import Batches, MemberRows, join_probes
from plug_sklearn.classifiers._sizing import MLPWidths, size_mlp
from plug_sklearn.classifiers._stopping import StopTraining
from plug_sklearn.classifiers._training import Batch, ProbeNet

#: Bounds the rows and networks that are in memory at once.
MOST_BYTES = 2**28
#: Single-precision numbers that the largest registers of processors hold.
NUMBERS_AT_ONCE = 16


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


def _describe(training: Training) -> tuple[object, ...]:
    # Where rows are the same in all there are fewer, and so other widths; and folds may
    # differ by a row, or hold out none.
    net, held_out = training.net, training.validation
    shape = str(net.get_params_for("module"))
    n_held_out = None if held_out is None else len(held_out)
    return net.seed, shape, training.rows.y.shape, n_held_out


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
    leader = trainings[0].net
    convoy = Convoy(trainings, leader)
    for _ in range(leader.max_epochs):
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
        self.trainings = trainings
        self.nets = [training.net for training in trainings]
        self.leader = leader
        modules = [net.module_ for net in self.nets]
        self.network = join_modules(modules)
        self.optimizer = _join_optimizers(self.network, self.nets)
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
        self.rows.put_batches_in_one_place(leader.batch_size)
        self.validation = None
        held_out = [training.validation for training in trainings]
        if isinstance(held_out[0], MemberRows):
            self.validation = join_probes(cast(list[MemberRows], held_out), features)

    def go_on_with(self, runs: Sequence[bool]) -> "Convoy":
        """Make a convoy of the nets that run on, whose optimizers remember theirs."""
        convoy = Convoy(list(compress(self.trainings, runs)), self.leader)
        before, after = self.optimizer.state, convoy.optimizer.state
        for net in convoy.nets:
            for own in net.module_.parameters():
                after[own] = before[own]
        pairs = zip(self.network.parameters(), convoy.network.parameters(), strict=True)
        for joined, kept in pairs:
            after[kept] = {
                name: torch.cat(list(compress(value.chunk(len(runs)), runs)))
                if value.ndim
                else value
                for name, value in before[joined].items()
            }
        return convoy

    def train_epoch(self) -> None:
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
            self.optimizer.step()
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
        if isinstance(layer, Dropout):
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


def _join_optimizers(
    network: MLPNetwork, nets: Sequence[ProbeNet]
) -> torch.optim.Optimizer:
    joined = dict(network.named_parameters())
    names = {own: name for name, own in nets[0].module_.named_parameters()}

    def choose(of_nets: Sequence[nn.Parameter]) -> Sequence[nn.Parameter]:
        # A step rounds otherwise what is left over of the numbers it takes at a time.
        is_whole = of_nets[0].numel() % NUMBERS_AT_ONCE == 0
        return [joined[names[of_nets[0]]]] if is_whole else of_nets

    groups = zip(*(net.optimizer_.param_groups for net in nets), strict=True)
    return torch.optim.AdamW(
        [
            {
                **of_nets[0],
                "params": [
                    chosen
                    for each in zip(*(g["params"] for g in of_nets), strict=True)
                    for chosen in choose(each)
                ],
            }
            for of_nets in groups
        ],
        fused=True,
    )


def _ends_here(net: ProbeNet) -> bool:
    try:
        net.notify("on_epoch_end")
    except StopTraining:
        return True
    return False
