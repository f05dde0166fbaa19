"""Train a network.

The training loop is skorch's. ``ProbeNet`` only replaces what our networks need to be
different: where batches come from, what is random, and what is kept.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import deepcopy
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.extmath import randomized_svd
from skorch import NeuralNetClassifier
from skorch.callbacks import PassthroughScoring, PrintLog
from torch import Generator, Tensor, nn

import plug_sklearn._forks  # noqa: F401 - forked children compute with one thread
from plug_sklearn.classifiers._batches import Batches, MemberRows, wrap_samples
from plug_sklearn.classifiers._layers import Dropout, weigh_mixture
from plug_sklearn.classifiers._losses import ProbeLoss, find_inverse_temperature
from plug_sklearn.classifiers._monitoring import (
    OWN_CALLBACKS,
    StopTraining,
    hide_members,
)
from plug_sklearn.classifiers._networks import initialise_parameters
from plug_sklearn.classifiers._prediction import (
    apply_in_batches,
    softmax_last,
    take_logits,
)

#: Batches after which batch norms take torch's running mean, of momentum 0.1.
WARM_UP_STEPS = 10


class ProbeNet(NeuralNetClassifier):
    """A skorch classifier whose training is reproducible and needs no DataLoader.

    skorch's epochs, batches, losses, optimizer, history and callbacks are used as they
    are. Different are five things: nothing is drawn from a global generator, but all
    from ``seed``; batches are slices of tensors on the device; rows have weights;
    KeyboardInterrupt is not caught; and a pickle holds the weights once, on the CPU,
    and nothing of the training.

    The logits start from ``class_shares``, the weight of each class, so that the first
    epochs need not learn it. ``evaluation_rows`` is the batch size outside training.
    """

    loss: ClassVar[type[nn.Module]] = ProbeLoss

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
            "criterion": self.loss,
            "dataset": wrap_samples,
            "optimizer": torch.optim.AdamW,
            "predict_nonlinearity": softmax_last,
            "train_split": None,
            # The losses are recorded from the batches, which hold the labels.
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
        # It builds its table in each epoch even if it prints nothing.
        return [*losses, ("print_log", PrintLog())] if self.verbose else losses

    def initialize_module(self) -> "ProbeNet":
        """Build the network without drawing, then draw its weights from the seed."""
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
        """Train for all epochs, or until a callback stops training.

        skorch also stops at Ctrl-C, and returns a network that is half trained.
        """
        if not self.initialized_:
            self.initialize()
        self.notify("on_train_begin", X=X, y=y)
        X.reuse_memory(self.batch_size)
        with suppress(StopTraining):
            self.fit_loop(X, y, **fit_params)
        self.notify("on_train_end", X=X, y=y)
        return self

    def notify(self, method_name: str, **kwargs: object) -> None:
        """Call the callbacks, which may stop training.

        skorch's callbacks stop it by raising KeyboardInterrupt; from a user's callback,
        that ends training too. Users' callbacks are given rows and class codes, without
        weights and members. At the end of training ours are called first, so that the
        others see the network that is kept.
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
        """Standardise the units by the rows of all members."""
        super().on_train_begin(net, X=X, y=y, **kwargs)
        X.teach_standardise(self.module_.standardise)
        if self.module_.components is not None:
            inputs, weight = X.sample_inputs(self.module_)
            basis = self.module_.components.basis
            seed = int(np.random.SeedSequence(self.seed).generate_state(4)[3])
            found = find_components(inputs, weight, basis.shape[1], seed)
            basis.copy_(torch.tensor(found))
        if not self.module_.standardise.scale.any():
            self._keep_class_shares()

    def _keep_class_shares(self) -> None:
        """Predict the share of each class, and keep all steps from changing that.

        If no feature varies, there is nothing to learn. Batch norm over equal rows
        divides rounding errors by almost nothing, and Adam takes full steps along such
        gradients.
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
        """Set the weights of a mixture before each validation."""
        mixture = getattr(self.module_, "mixture", None)
        if not training and iterator is not None and mixture is not None:
            self._set_training(False)
            weigh_mixture(self.module_, mixture, iterator)
        super().run_single_epoch(iterator, training, prefix, **kwargs)

    def train_step_single(self, batch: object, **fit_params: object) -> dict[str, Any]:
        """Take a step, with running statistics of batch norm that start from the data.

        Torch starts them from 0 and 1, which still has an effect dozens of steps later.
        Here they are the plain mean over the first ten batches.
        """
        self.n_steps_ += 1
        warm_up_norms(self.module_, self.n_steps_)
        step: dict[str, Any] = super().train_step_single(batch, **fit_params)
        return step

    def calibrate(self, validation: MemberRows) -> None:
        """Set the temperature that is most probable given the validation rows.

        If no feature varies, the probabilities are the shares of the classes, and stay.
        """
        if not self.module_.standardise.scale.any():
            return
        self._set_training(False)
        with torch.inference_mode():
            batches = self.get_iterator(validation)
            logits = torch.cat([take_logits(self.module_(x)) for x, _ in batches])
        codes, weights = validation.y.flatten(), validation.weight.flatten()
        # The weights of a mixture were chosen on these rows, where it is therefore too
        # confident: factors below 1 are not penalised.
        is_mixed = getattr(self.module_, "mixture", None) is not None
        factor = find_inverse_temperature(
            logits.flatten(end_dim=-2), codes, weights, is_prior_two_sided=not is_mixed
        )
        self.module_.temperature.factor.fill_(factor)

    def _set_training(self, training: bool = True) -> None:
        # skorch would set all layers in each step.
        if (self.module_.training, self.criterion_.training) != (training, training):
            super()._set_training(training)

    def check_data(self, X: object, y: object = None) -> None:
        """Do nothing: the estimator has checked the data."""

    def get_iterator(self, dataset: MemberRows, training: bool = False) -> Batches:
        """Return the batches of rows, shuffled in training."""
        if training:
            return Batches(dataset, self.batch_size, self.order_generator_)
        return Batches(dataset, max(2, self.evaluation_rows // dataset.n_members))

    def trim_for_prediction(self) -> None:
        """Drop what only training needs; the network stays in evaluation mode."""
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
        """Compute class probabilities (n, n_classes) of one member, or None for all."""

        def apply(module: Any, x: Tensor) -> Tensor:  # noqa: ANN401 - either network
            # A network reads an axis of length 1 as samples of all members.
            if member is None or module.n_members == 1:
                return take_logits(module(x))
            each = x[:, None].expand(-1, module.n_members, *x.shape[1:])
            return take_logits(module(each))[:, member]

        logits = self.compute(np.asarray(X, dtype=np.float32), apply)
        # In single precision, the sums would be so far from 1 that scikit-learn's log
        # loss warns.
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
    """Set the momentum of batch norms for step ``n_steps``, counted from 1."""
    if n_steps <= WARM_UP_STEPS:
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                layer.momentum = 1 / n_steps


def find_components(
    X: NDArray[np.float32], weight: NDArray[np.float32], n_kept: int, seed: int
) -> NDArray[np.float32]:
    """Find the principal components (n_features, n_kept) of standardised features.

    ``X`` (n, n_features) has a weighted mean of 0. All components are scaled by one
    factor, such that the variances of ``X`` along them average 1.

    References
    ----------
    Halko, Martinsson and Tropp, "Finding structure with randomness", 2011.
    """
    shares = weight / weight.sum()
    rows = X * np.sqrt(shares)[:, None]
    _, deviations, directions = randomized_svd(rows, n_kept, random_state=seed)
    typical = np.sqrt(np.square(deviations).mean())
    basis: NDArray[np.float32] = (directions.T / max(typical, 1e-30)).astype(np.float32)
    return basis
