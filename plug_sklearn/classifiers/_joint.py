"""Train the MLPs of several layers and folds together, several times faster.

Networks of the same shape are trained as one network; their parameters are views into
its tensors. Each ends with the weights that it would have if it was trained alone.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from copy import deepcopy
from itertools import compress
from typing import Any, cast

import torch
from torch import Tensor, nn

from plug_sklearn._devices import resolve_device
from plug_sklearn.classifiers._batches import Batch, Batches, MemberRows, join_probes
from plug_sklearn.classifiers._data import draw_seeds
from plug_sklearn.classifiers._fitting import Training
from plug_sklearn.classifiers._layers import Dropout, MemberNorm
from plug_sklearn.classifiers._losses import weigh_losses
from plug_sklearn.classifiers._mlp import PlugMLPClassifier
from plug_sklearn.classifiers._monitoring import StopTraining
from plug_sklearn.classifiers._networks import MLPNetwork
from plug_sklearn.classifiers._sizing import MLPWidths, size_mlp
from plug_sklearn.classifiers._training import ProbeNet, warm_up_norms

#: Memory limit of the rows and networks that are trained together.
MOST_BYTES = 2**28
#: Numbers in single precision that fit into the largest registers of processors.
NUMBERS_AT_ONCE = 16


def fit_jointly(
    probes: Sequence[PlugMLPClassifier], arguments: Sequence[Mapping[str, Any]]
) -> None:
    """Fit probes that have the same parameters and satisfy ``can_fit_jointly``.

    ``arguments`` holds the ``X``, ``y``, and perhaps ``sample_weight`` and ``groups``
    of each. The results are those of separate fits, except that probes without a
    ``random_state`` share one seed.
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
            train_jointly(trainings)
        else:
            for training in trainings:
                training.net.fit(training.rows, None)
        for probe, training in prepared:
            probe._keep(training)


def can_fit_jointly(probe: PlugMLPClassifier) -> bool:
    """Return whether probes with these parameters can be trained jointly.

    They cannot be if they have callbacks or print progress, which concern one network;
    if they run on an accelerator, which rounds differently; or if they use principal
    components, which take most of the time.
    """
    return (
        type(probe) is PlugMLPClassifier
        and not probe.callbacks
        and not probe.verbose
        and probe.sizing == "heuristic"
        and probe.device in ("auto", "cpu")
        and resolve_device(probe.device, "PlugMLPClassifier").type == "cpu"
    )


def count_joint_probes(
    probe: PlugMLPClassifier, n_samples: int, n_features: int
) -> int:
    """Count how many probes fit into 256 MB, with samples and batches; at least 1."""
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
    # Weights, gradients, two moments, copies of these when some probes stop, and the
    # best weights; and the rows of a batch, with and without a mask.
    of_member = 9 * first + 2 * batch
    # The rows of a fold, perhaps in double precision, and standardised.
    n_numbers: int = n_features * (3 * n_samples + given.n_members * of_member)
    return max(1, MOST_BYTES // (4 * n_numbers))


def _describe(training: Training) -> tuple[object, ...]:
    # Equal rows are merged, so that layers may differ in rows and widths. Folds may
    # differ by a row, or hold out none. Networks of constant features are not trained.
    net, held_out = training.net, training.validation
    shape = str(net.get_params_for("module"))
    n_held_out = None if held_out is None else len(held_out)
    is_constant = training.rows.are_equal()
    return net.seed, shape, training.rows.y.shape, n_held_out, is_constant


def _is_exact(net: ProbeNet) -> bool:
    # MKL rounds differently if a member's rows or weights do not start at a multiple of
    # 64 bytes. So do torch's batch norms with the units left over from groups of 16.
    sizes = net.get_params_for("module")
    return not any(
        sizes[name] % NUMBERS_AT_ONCE
        for name in ("n_features", *MLPWidths.__annotations__)
    )


def train_jointly(trainings: Sequence[Training]) -> None:
    """Train networks of the same shape and seed, one step of all at a time."""
    for training in trainings:
        training.net.initialize()
        training.net.notify("on_train_begin", X=training.rows, y=None)
    joint = _prepare_jointly(trainings)
    for _ in range(joint.leader.max_epochs):
        joint.train_epoch()
        joint.validate_epoch()
        runs = [not _stops_here(training.net) for training in joint.trainings]
        if all(runs):
            continue
        stopped = [not one_runs for one_runs in runs]
        joint.release(list(compress(joint.trainings, stopped)))
        if not any(runs):
            return
        joint = joint.keep(runs)
    joint.release(joint.trainings)


def _stops_here(net: ProbeNet) -> bool:
    try:
        net.notify("on_epoch_end")
    except StopTraining:
        return True
    return False


def _prepare_jointly(trainings: Sequence[Training]) -> "JointTraining":
    leader = trainings[0].net
    lengths = [len(training.rows.all_weight) for training in trainings]
    samples = torch.empty(sum(lengths), leader.module_.n_features)
    by_probe = torch.split(samples, lengths)
    for training, features in zip(trainings, by_probe, strict=True):
        # Standardised once, instead of in each batch.
        given = training.rows.put_in_order()
        features.copy_(training.net.module_.read_features(given)[:, 0])
    rows = join_probes([training.rows for training in trainings], samples)
    rows.reuse_memory(leader.batch_size)
    held_out = [
        training.validation for training in trainings if training.validation is not None
    ]
    validation = join_probes(held_out, samples) if held_out else None
    if validation is not None:
        validation.reuse_memory(leader.get_iterator(validation).batch_size)
    return JointTraining(trainings, leader, rows, validation)


class JointTraining:
    """Several networks trained as one; their parameters are views of the joint tensors.

    The steps and draws are those of the network ``leader``, which may have stopped
    itself. ``rows`` and ``validation`` are the rows of the members of all.
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

    def keep(self, runs: Sequence[bool]) -> "JointTraining":
        """Continue with some of the networks, with the state of their optimizers."""
        kept_training = JointTraining(
            list(compress(self.trainings, runs)),
            self.leader,
            self.rows.keep_probes(runs),
            None if self.validation is None else self.validation.keep_probes(runs),
        )
        kept_training.n_steps = self.n_steps
        before, after = self.optimizer.state, kept_training.optimizer.state
        for net in kept_training.nets:
            for own in net.module_.parameters():
                after[own] = before[own]
        pairs = zip(
            self.network.parameters(), kept_training.network.parameters(), strict=True
        )
        for joined, kept in pairs:
            after[kept] = {
                name: torch.cat(list(compress(value.chunk(len(runs)), runs)))
                if value.ndim
                else value
                for name, value in before[joined].items()
            }
        return kept_training

    def train_epoch(self) -> None:
        """Take a step on each batch."""
        for net in self.nets:
            net.notify("on_epoch_begin")
        self.network.train()
        leader = self.leader
        for batch in Batches(self.rows, leader.batch_size, leader.order_generator_):
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
        """Compute the losses of the validation rows, and let callbacks score them."""
        if self.validation is None:
            return
        self.network.eval()
        for batch in self.leader.get_iterator(self.validation):
            with torch.no_grad():
                losses, logits = self._compute_losses(batch)
            self._record_batch("valid", losses, batch)
            _, targets = batch
            by_net = [each.chunk(len(self.nets), dim=1) for each in (logits, *targets)]
            for net, y_pred, *own in zip(self.nets, *by_net, strict=True):
                net.notify("on_batch_end", batch=(None, own), y_pred=y_pred)

    def release(self, trainings: Sequence[Training]) -> None:
        """Copy the best weights of networks out of the joint tensors."""
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
        # One mean at a time: means of several rows at once are rounded differently.
        for net, own in zip(self.nets, losses.detach(), strict=True):
            net.history.new_batch()
            net.history.record_batch(f"{prefix}_loss", own.mean().item())
            net.history.record_batch(f"{prefix}_batch_size", len(batch[0]))


def join_modules(modules: Sequence[MLPNetwork]) -> MLPNetwork:
    """Join networks of the same shape into one that has the members of all.

    Their weights, running statistics and gradients become views of its own. Each keeps
    its own standardisation and temperature, which the joint network does not apply.
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
        # A step rounds the numbers left over from groups of 16 differently.
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
