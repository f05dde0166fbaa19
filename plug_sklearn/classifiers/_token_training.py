"""Train a network that reads tokens, and apply it to texts."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional as F

from plug_sklearn.classifiers._batches import NO_CLASS
from plug_sklearn.classifiers._layers import average_members
from plug_sklearn.classifiers._losses import ProbeLoss
from plug_sklearn.classifiers._monitoring import OWN_CALLBACKS
from plug_sklearn.classifiers._prediction import (
    MOST_EXACT_ROWS,
    Outputs,
    copy_in_double,
    take_logits,
)
from plug_sklearn.classifiers._token_batches import (
    EVALUATION_BYTES,
    Texts,
    TokenBatches,
    TokenRows,
    choose_batch_size,
    cut_batches,
    join_tokens,
)
from plug_sklearn.classifiers._token_network import TokenBatch, TokenNetwork
from plug_sklearn.classifiers._training import ProbeNet


class TokenLoss(ProbeLoss):
    """Cross-entropy of tokens, where a span can be judged by its strongest token.

    A span is a run of neighbouring tokens of a text that have the same label, other
    than the first class. With ``span_max_weight`` w, the loss of each of its tokens is
    (1 - w) times its own cross-entropy plus w times that of the token of the span to
    which the network gives the label with the highest probability.

    References
    ----------
    Obeso et al., "Real-time detection of hallucinated entities in long-form
    generation", 2025, arXiv 2509.03531.
    """

    def __init__(self, span_max_weight: float = 0.0) -> None:
        super().__init__()
        self.span_max_weight = float(span_max_weight)

    def compute_span_loss(
        self, logits: Tensor, targets: tuple[Tensor, Tensor], texts: Tensor
    ) -> Tensor:
        """Compute the loss of a batch, a scalar, as ``ProbeLoss`` does.

        The logits have the shape (n_tokens, members, n_classes), and the class codes
        and weights (n_tokens, members); or without members, (n_tokens, n_classes) and
        (n_tokens,). ``texts`` (n_tokens,) numbers the texts.
        """
        codes, weights = (target.view(len(target), -1) for target in targets)
        logits = logits.reshape(*codes.shape, -1)
        own = F.cross_entropy(
            logits.flatten(end_dim=1), codes.flatten(), reduction="none"
        ).view(codes.shape)
        # A text has no class for the members that hold it out.
        labels = codes.amax(dim=1)
        is_start = (labels.diff() != 0) | (texts.diff() != 0)
        spans = F.pad(is_start.cumsum(dim=0), (1, 0))
        # The token with the highest probability has the smallest loss.
        least = own.new_full((len(spans), own.shape[1]), torch.inf).scatter_reduce(
            0, spans[:, None].expand_as(own), own, "amin"
        )
        share = self.span_max_weight * (labels > 0)[:, None]
        losses = (1 - share) * own + share * least[spans]
        return (losses * weights).mean()


class TokenNet(ProbeNet):
    """A ``ProbeNet`` on batches of tokens."""

    loss = TokenLoss

    def infer(self, x: TokenBatch, **fit_params: object) -> Outputs:
        """Apply the network to a batch, which is on its device."""
        outputs: Outputs = self.module_(x)
        return outputs

    def get_loss(
        self,
        y_pred: Outputs,
        y_true: tuple[Tensor, Tensor],
        X: TokenBatch | None = None,
        training: bool = False,
        **kwargs: Any,  # noqa: ANN401 - skorch's own
    ) -> Tensor:
        """Compute the loss, with the strongest tokens of spans if they count."""
        is_mixed = self.criterion_.span_max_weight > 0
        if is_mixed and X is not None and X.per_token:
            loss: Tensor = self.criterion_.compute_span_loss(
                take_logits(y_pred), y_true, X.number_texts()
            )
            return loss
        loss = super().get_loss(y_pred, y_true, X=X, training=training, **kwargs)
        return loss

    def run_single_epoch(
        self,
        iterator: Any,  # noqa: ANN401 - batches, or None
        training: bool,
        prefix: str,
        **kwargs: Any,  # noqa: ANN401 - skorch's own
    ) -> None:
        """Read the validation texts once, for the mixture's weights and for the loss.

        Callbacks of users are given batches with features, which are then read twice.
        """
        has_users_callbacks = any(
            name not in OWN_CALLBACKS for name, _ in self.callbacks_
        )
        if not (training or iterator is None or has_users_callbacks):
            iterator = self._read_validation(iterator)
        super().run_single_epoch(iterator, training, prefix, **kwargs)

    def _read_validation(self, batches: TokenBatches) -> Iterable[Any]:
        """Read validation texts, each only by the members that it is held out for."""
        rows = batches.rows
        if rows.per_token:
            return batches
        self._set_training(False)
        with torch.inference_mode():
            if rows.y.ndim == 1:
                each = self._read_texts(self.module_, rows, np.arange(len(rows)))
            else:
                is_own = (rows.y != NO_CLASS).cpu().numpy()
                each = torch.cat(
                    [
                        self._read_texts(self._take_network(member), rows, numbers)
                        for member, numbers in enumerate(map(np.flatnonzero, is_own.T))
                    ],
                    dim=1,
                )
        # The features are not needed any more.
        nothing = each.new_empty(len(rows), 0)
        batch = TokenBatch(nothing, nothing, per_member=rows.y.ndim == 2, each=each)
        return [(batch, (rows.y, rows.weight))]

    def _read_texts(
        self, network: TokenNetwork, rows: TokenRows, numbers: NDArray[np.intp]
    ) -> Tensor:
        """Apply ``network.read`` to some texts; the results of others are zero."""
        texts = [rows.texts[number] for number in numbers.tolist()]
        batches = self._join_texts(texts, np.float32)
        read = torch.cat([network.read(batch) for _, batch in batches])
        each = read.new_zeros(len(rows), *read.shape[1:])
        each[torch.from_numpy(numbers)] = read
        return each

    def _join_texts(
        self, texts: Texts, dtype: type[np.floating]
    ) -> Iterator[tuple[slice, TokenBatch]]:
        """Join texts, in their order, into batches that use the same memory."""
        lengths, n_features = np.array([len(t) for t in texts]), texts[0].shape[1]
        cuts = cut_batches(lengths, n_features, self.evaluation_rows, EVALUATION_BYTES)
        n_most = max(lengths[cut].sum() for cut in cuts)
        memory = np.empty((n_most, n_features), dtype=dtype)
        for cut in cuts:
            yield cut, join_tokens(texts[cut], torch.device(self.device), memory)

    def _take_network(self, member: int) -> TokenNetwork:
        """Return the network of one member, which shares the memory of its weights."""
        with torch.device("meta"):
            network = TokenNetwork(**self.get_params_for("module") | {"n_members": 1})
        state = self.module_.state_dict()
        for name, _ in network.named_parameters():
            state[name] = state[name][member : member + 1]
        network.load_state_dict(state, assign=True)
        return network.eval()

    def get_iterator(self, dataset: TokenRows, training: bool = False) -> TokenBatches:  # type: ignore[override]  # its rows are texts
        """Return the batches of texts, shuffled in training."""
        if training:
            batch_size = choose_batch_size(len(dataset), self.batch_size)
            return TokenBatches(dataset, batch_size, self.order_generator_)
        return TokenBatches(dataset, self.evaluation_rows)

    def compute_probabilities(
        self, X: ArrayLike, member: int | None = None
    ) -> NDArray[np.float64]:
        """Compute class probabilities (n, n_classes) of one member, or None for all."""

        def apply(network: TokenNetwork, batch: TokenBatch) -> list[Tensor]:
            logits = take_logits(network(batch))
            return list(
                average_members(logits) if member is None else logits[:, member]
            )

        logits = torch.stack(self.apply_to_texts(list(X), apply))  # type: ignore[arg-type]  # an array of arrays
        probabilities: NDArray[np.float64] = logits.softmax(dim=1).numpy()
        return probabilities

    def apply_to_texts(
        self,
        texts: Texts,
        apply: Callable[[TokenNetwork, TokenBatch], list[Tensor]],
    ) -> list[Tensor]:
        """Apply a function of the network to texts, batch by batch.

        ``apply`` takes the network in evaluation mode and a batch with ``per_member``.
        It returns a result for each text; equal texts share one. Up to 1,024 texts are
        computed in double precision, as in ``apply_in_batches``.
        """
        is_exact = (
            len(texts) <= MOST_EXACT_ROWS and torch.device(self.device).type != "mps"
        )
        was_training = self.module_.training
        module: Any = copy_in_double(self.module_) if is_exact else self.module_.eval()
        distinct = {id(text): text for text in texts}
        some = sorted(distinct.values(), key=len)
        batches = self._join_texts(some, np.float64 if is_exact else np.float32)
        found: dict[int, Tensor] = {}
        with torch.inference_mode():
            for cut, batch in batches:
                results = [result.cpu().double() for result in apply(module, batch)]
                found |= dict(zip(map(id, some[cut]), results, strict=True))
        self.module_.train(was_training)
        return [found[id(text)] for text in texts]
