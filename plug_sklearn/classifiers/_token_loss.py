"""The training loss of labelled tokens."""

import torch
from torch import Tensor
from torch.nn import functional as F

from plug_sklearn.classifiers._losses import ProbeLoss


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
        self.span_max_weight = span_max_weight

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
