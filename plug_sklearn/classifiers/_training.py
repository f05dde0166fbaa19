"""The skorch net that trains a network."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from copy import deepcopy
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from skorch import NeuralNetClassifier
from skorch.callbacks import PassthroughScoring, PrintLog
from torch import Generator, Tensor, nn

import plug_sklearn._forks  # noqa: F401 - that a forked child computes with one thread
from plug_sklearn.classifiers._callbacks import OWN_CALLBACKS, hide_members
from plug_sklearn.classifiers._layers import Dropout
from plug_sklearn.classifiers._losses import ProbeLoss
from plug_sklearn.classifiers._mixture import weigh_mixture
from plug_sklearn.classifiers._networks import initialise_parameters
from plug_sklearn.classifiers._prediction import (
    apply_in_batches,
    softmax_last,
    take_logits,
)
from plug_sklearn.classifiers._projection import learn_basis
from plug_sklearn.classifiers._rows import Batch, Batches, MemberRows, Rows
from plug_sklearn.classifiers._sharpness import find_sharpness
from plug_sklearn.classifiers._stopping import StopTraining

#: After this many batches, the running mean of all is torch's own, of momentum 0.1.
WARM_UP_STEPS = 10


class ProbeNet(NeuralNetClassifier):
    """A skorch classifier that draws from its own seed, from rows on its device.

    Differs from skorch's in five ways: no draw comes from a global generator; batches
    are slices of tensors already on the device, without a DataLoader; rows have
    weights; an interrupt gets out; and a pickle holds the weights of the network once,
    on the CPU, with nothing of its training.

    Parameters
    ----------
    module : type of torch.nn.Module
        The network; gives logits, or logits and projections.
    seed : int, default=0
        Where initial weights, batches and dropout masks come from.
    class_shares : sequence of float, default=None
        Weight of each class in training, which the logits start from: an early epoch
        need not learn it first. None: all the same.
    evaluation_rows : int, default=1024
        Rows of a batch outside training.
    **kwargs
        skorch's parameters.
    """

    def __init__(
        self,
        module: type[nn.Module],
        *,
        seed: int = 0,
        class_shares: Sequence[float] | None = None,
        evaluation_rows: int = 1024,
        **kwargs: Any,  # noqa: ANN401 - skorch's own, many and varied
    ) -> None:
        defaults = {
            "criterion": ProbeLoss,
            "dataset": Rows,
            "optimizer": torch.optim.AdamW,
            "predict_nonlinearity": softmax_last,
            "train_split": None,
            # Rows are scored from the batches, which is where their labels are.
            "use_caching": True,
        }
        super().__init__(module, **(defaults | kwargs))
        self.seed = seed
        self.class_shares = class_shares
        self.evaluation_rows = evaluation_rows

    @property
    def _default_callbacks(self) -> list[tuple[str, object]]:
        losses = [
            ("train_loss", PassthroughScoring("train_loss", on_train=True)),
            ("valid_loss", PassthroughScoring("valid_loss")),
        ]
        # It makes its table each epoch, whether or not it prints it.
        return [*losses, ("print_log", PrintLog())] if self.verbose else losses

    def initialize_module(self) -> "ProbeNet":
        """Build the network without a draw, then draw from the seed."""
        seeds = np.random.SeedSequence(self.seed).generate_state(3).tolist()
        with torch.device("meta"):
            module = self.module(**self.get_params_for("module"))
        module = module.to_empty(device="cpu")
        # Drawn on the CPU, so that every device starts from the same weights.
        generator = Generator().manual_seed(seeds[0])
        initialise_parameters(module, generator, self.class_shares)
        self.order_generator_ = Generator().manual_seed(seeds[1])
        mask_generator = Generator(torch.device(self.device)).manual_seed(seeds[2])
        for layer in module.modules():
            if isinstance(layer, Dropout):
                layer.generator = mask_generator
        self.module_ = module
        self.n_steps_ = 0
        return self

    def partial_fit(
        self,
        X: MemberRows,
        y: object = None,
        classes: object = None,
        **fit_params: object,
    ) -> "ProbeNet":
        """Train, to the end or until a callback ends it.

        skorch's own takes Ctrl-C for the end of training too, and returns a network
        that is half trained.
        """
        if not self.initialized_:
            self.initialize()
        self.notify("on_train_begin", X=X, y=y)
        X.put_batches_in_one_place(self.batch_size)
        with suppress(StopTraining):
            self.fit_loop(X, y, **fit_params)
        self.notify("on_train_end", X=X, y=y)
        return self

    def notify(self, method_name: str, **kwargs: object) -> None:
        """Call the callbacks, who may end training.

        skorch's callbacks end it with a KeyboardInterrupt of their own. One that comes
        out of a callback that is not ours is taken for that. They are shown rows and
        class codes, where the loss is given weights too and rows of each member. At the
        end of training, ours are called first: the others see the network that is kept.
        """
        getattr(self, method_name)(self, **kwargs)
        shown = None
        callbacks = self.callbacks_
        if method_name == "on_train_end":
            callbacks = sorted(callbacks, key=lambda item: item[0] not in OWN_CALLBACKS)
        for name, callback in callbacks:
            if name in OWN_CALLBACKS:
                getattr(callback, method_name)(self, **kwargs)
                continue
            shown = shown or hide_members(kwargs)
            try:
                getattr(callback, method_name)(self, **shown)
            except KeyboardInterrupt as interrupt:
                if method_name.startswith("on_train"):
                    raise
                raise StopTraining from interrupt

    def on_train_begin(
        self,
        net: "ProbeNet",
        X: MemberRows,
        y: object = None,
        **kwargs: object,
    ) -> None:
        """Learn how to standardise the units, from the rows of all members."""
        super().on_train_begin(net, X=X, y=y, **kwargs)
        weight = cast(Tensor, X.rows.weight)
        self.module_.standardise.learn(X.rows.X, weight, X.rows.places)
        if self.module_.projection is not None:
            inputs = self.module_.read_features(X.rows.put_in_order())
            inputs = inputs.flatten(end_dim=-2).cpu()
            shared = weight.cpu().repeat_interleave(len(inputs) // len(weight))
            basis = self.module_.projection.basis
            seed = int(np.random.SeedSequence(self.seed).generate_state(4)[3])
            learnt = learn_basis(inputs.numpy(), shared.numpy(), basis.shape[1], seed)
            basis.copy_(torch.tensor(learnt))
        if not self.module_.standardise.scale.any():
            self._keep_class_shares()

    def _keep_class_shares(self) -> None:
        """Predict the share of each class, and let no step change that.

        Where no feature varies there is nothing to learn. Norms over rows that are all
        equal divide rounding errors by almost nothing, and Adam makes whole steps of
        such gradients.
        """
        nn.init.zeros_(self.module_.output.weight)
        for group in self.optimizer_.param_groups:
            group["lr"] = 0.0

    def run_single_epoch(
        self,
        iterator: Batches | None,
        training: bool,
        prefix: str,
        **kwargs: Any,  # noqa: ANN401 - skorch's own
    ) -> None:
        """Weigh the classifiers of a mixture, before it is validated."""
        mixture = getattr(self.module_, "mixture", None)
        if not training and iterator is not None and mixture is not None:
            self._set_training(False)
            weigh_mixture(self.module_, mixture, cast(Iterable[Batch], iterator))
        super().run_single_epoch(iterator, training, prefix, **kwargs)

    def train_step_single(self, batch: object, **fit_params: object) -> dict[str, Any]:
        """Take a step, with norms whose running statistics start from the data.

        Torch starts them from 0 and 1, which a few dozen steps later still show: an
        early epoch would be judged by statistics it does not have. The first ten
        batches are averaged in full instead.
        """
        self.n_steps_ += 1
        warm_up_norms(self.module_, self.n_steps_)
        step: dict[str, Any] = super().train_step_single(batch, **fit_params)
        return step

    def calibrate(self, validation: Rows | MemberRows) -> None:
        """Scale the logits by the most probable factor on validation rows.

        Where no feature varies they are those of the shares of the classes, and stay.
        """
        if not self.module_.standardise.scale.any():
            return
        self._set_training(False)
        with torch.inference_mode():
            batches = self.get_iterator(validation)
            logits = torch.cat([take_logits(self.module_(x)) for x, _ in batches])
        codes = cast(Tensor, validation.y).flatten()
        weights = cast(Tensor, validation.weight).flatten()
        # The mixture has been weighed by these rows, and is less sure of others: there
        # is no doubt about a factor below 1.
        is_mixed = getattr(self.module_, "mixture", None) is not None
        factor = find_sharpness(
            logits.flatten(end_dim=-2), codes, weights, doubt_below_one=not is_mixed
        )
        self.module_.sharpness.factor.fill_(factor)

    def _set_training(self, training: bool = True) -> None:
        # skorch's own goes through all layers in each step.
        if (self.module_.training, self.criterion_.training) != (training, training):
            super()._set_training(training)

    def check_data(self, X: object, y: object = None) -> None:
        """Accept the data: the estimator has checked it."""

    def get_iterator(
        self, dataset: Rows | MemberRows, training: bool = False
    ) -> Batches:
        """Take batches of rows, shuffled in training."""
        if training:
            return Batches(dataset, self.batch_size, self.order_generator_)
        n_members = 1
        if isinstance(dataset, MemberRows):
            n_members = dataset.positions.shape[1] // dataset.n_probes
        return Batches(dataset, max(2, self.evaluation_rows // n_members))

    def trim_for_prediction(self) -> None:
        """Drop all that only training needs; the network stays in evaluation mode."""
        super().trim_for_prediction()
        del self.order_generator_
        for parameter in self.module_.parameters():
            parameter.grad = None

    def compute(
        self, X: NDArray[np.float32], apply: Callable[[Any, Tensor], Tensor]
    ) -> NDArray[np.float64]:
        """Apply a function of the network to all samples, as ``apply_in_batches``."""
        return apply_in_batches(
            self.module_, X, apply, torch.device(self.device), self.evaluation_rows
        )

    def compute_probabilities(
        self, X: ArrayLike, member: int | None = None
    ) -> NDArray[np.float64]:
        """Compute class probabilities, (n, n_classes), that sum to 1.

        Of one member, or, None, the mean of all.
        """

        def apply(module: Any, x: Tensor) -> Tensor:  # noqa: ANN401 - either network
            # One member is the mean of all; a network takes its axis for no axis.
            if member is None or module.n_members == 1:
                return take_logits(module(x))
            each = x[:, None].expand(-1, module.n_members, *x.shape[1:])
            return take_logits(module(each))[:, member]

        logits = self.compute(np.asarray(X, dtype=np.float32), apply)
        # In double precision, whatever that of the logits: in single precision the sum
        # is so far from 1 that scikit-learn's log loss warns.
        probabilities: NDArray[np.float64] = torch.tensor(logits).softmax(dim=1).numpy()
        return probabilities

    def __getstate__(self) -> dict[str, object]:
        state = self.__dict__.copy()
        if self.initialized_:
            state["module_"] = deepcopy(self.module_).cpu()
            state["device"] = "cpu"
        return state

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)


def warm_up_norms(module: nn.Module, n_steps: int) -> None:
    """Set how fast the norms of a module forget, in its first steps.

    Parameters
    ----------
    module : nn.Module
        The network that takes a step.
    n_steps : int
        Steps, with this one.
    """
    if n_steps <= WARM_UP_STEPS:
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                layer.momentum = 1 / n_steps
