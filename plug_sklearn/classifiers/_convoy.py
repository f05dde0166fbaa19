"""Nets of one shape → steps of all at once, each as alone."""

from collections.abc import Iterable, Sequence
from copy import deepcopy
from itertools import compress
from typing import cast

import torch
from torch import Tensor, nn

from plug_sklearn.classifiers._classifiers import Training
from plug_sklearn.classifiers._layers import Dropout
from plug_sklearn.classifiers._losses import weigh_losses
from plug_sklearn.classifiers._members import MemberNorm
from plug_sklearn.classifiers._networks import MLPNetwork
from plug_sklearn.classifiers._rows import Batch, Batches, MemberRows, join_probes
from plug_sklearn.classifiers._training import ProbeNet, warm_up_norms

#: Single-precision numbers that the largest registers of processors hold.
NUMBERS_AT_ONCE = 16


class Convoy:
    """Nets that take their steps as one network, whose weights theirs are views of.

    Parameters
    ----------
    trainings : sequence of Training
        What has nets of the same shape.
    leader : ProbeNet
        The net whose steps and draws are those of all; it may have stopped itself.
    rows : MemberRows
        What the members of all learn from.
    validation : MemberRows or None
        What they are validated on; None: on nothing.
    """

    def __init__(
        self,
        trainings: Sequence[Training],
        leader: ProbeNet,
        rows: MemberRows,
        validation: MemberRows | None,
    ) -> None:
        self.trainings = trainings
        self.nets = [training.net for training in trainings]
        self.leader = leader
        self.rows = rows
        self.validation = validation
        self.n_steps = 0
        self.network = join_modules([net.module_ for net in self.nets])
        self.optimizer = _join_optimizers(self.network, self.nets)
        for layer, own in zip(
            self.network.modules(), leader.module_.modules(), strict=True
        ):
            if isinstance(layer, Dropout):
                layer.generator = own.generator

    def go_on_with(self, runs: Sequence[bool]) -> "Convoy":
        """Make a convoy of the nets that run on, whose optimizers remember theirs."""
        convoy = Convoy(
            list(compress(self.trainings, runs)),
            self.leader,
            self.rows.keep_probes(runs),
            None if self.validation is None else self.validation.keep_probes(runs),
        )
        convoy.n_steps = self.n_steps
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
            self.n_steps += 1
            warm_up_norms(self.network, self.n_steps)
            losses, _ = self._compute_losses(batch)
            for parameter in self.network.parameters():
                cast(Tensor, parameter.grad).zero_()
            torch.autograd.backward(losses.mean(dim=1).sum())
            self.optimizer.step()
            self._record_batch("train", losses, batch)
        for net in self.nets:
            for layer in net.module_.modules():
                if isinstance(layer, MemberNorm):
                    cast(Tensor, layer.num_batches_tracked).fill_(self.n_steps)

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
            training.net.n_steps_ = self.n_steps
            training.net.notify("on_train_end", X=training.rows, y=None)

    def _compute_losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        x, (codes, weights) = batch
        logits = self.network.compute_logits(x)
        losses = weigh_losses(logits, codes, weights)
        by_net = losses.view(len(x), len(self.nets), -1).transpose(0, 1)
        return by_net.flatten(start_dim=1).contiguous(), logits

    def _record_batch(self, prefix: str, losses: Tensor, batch: Batch) -> None:
        # The mean of each alone: those of all at once are rounded otherwise.
        for net, own in zip(self.nets, losses.detach(), strict=True):
            net.history.new_batch()
            net.history.record_batch(f"{prefix}_loss", own.mean().item())
            net.history.record_batch(f"{prefix}_batch_size", len(batch[0]))


def gather_convoy(trainings: Sequence[Training]) -> Convoy:
    """Make a convoy of nets that are initialised, led by the first.

    Parameters
    ----------
    trainings : sequence of Training
        What has nets of the same shape and seed, and as many rows.

    Returns
    -------
    Convoy
    """
    leader = trainings[0].net
    lengths = [len(training.rows.rows) for training in trainings]
    samples = torch.empty(sum(lengths), leader.module_.n_features)
    of_nets = torch.split(samples, lengths)
    for training, features in zip(trainings, of_nets, strict=True):
        # Once, where a net alone would in each of its batches.
        given = training.rows.rows.put_in_order()
        features.copy_(training.net.module_.read_features(given)[:, 0])
    rows = join_probes([training.rows for training in trainings], samples)
    rows.put_batches_in_one_place(leader.batch_size)
    held_out = [
        training.validation
        for training in trainings
        if isinstance(training.validation, MemberRows)
    ]
    validation = join_probes(held_out, samples) if held_out else None
    if validation is not None:
        n_held_out = leader.get_iterator(validation).batch_size
        validation.put_batches_in_one_place(n_held_out)
    return Convoy(trainings, leader, rows, validation)


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
