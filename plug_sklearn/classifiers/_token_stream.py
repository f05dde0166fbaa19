"""Predict texts whose tokens come one by one."""

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from plug_sklearn.classifiers._layers import average_members
from plug_sklearn.classifiers._token_aggregation import TokenScores
from plug_sklearn.classifiers._token_network import TokenNetwork
from plug_sklearn.classifiers._token_running import POOLS, RunningMean


class TokenStream:
    """Probabilities of ``n_texts`` texts, updated token by token.

    A token takes the same time and memory, however many came before.
    """

    def __init__(self, network: TokenNetwork, n_texts: int) -> None:
        self.network, self.n_texts = network, n_texts
        mean = network.standardise.mean
        self._rows = torch.arange(n_texts, device=mean.device)
        sizes = (n_texts, network.n_members, network.n_heads, network.n_outputs)
        empty = mean.new_zeros(sizes)
        self._pool = POOLS[network.aggregation](empty, network.rule)
        self._mean = RunningMean(empty[:, :, :1], network.rule)

    def update(
        self, token_features: ArrayLike, texts: ArrayLike | None = None
    ) -> NDArray[np.float64]:
        """Add one token to each text, and return the probabilities (n, n_classes).

        ``token_features`` (n, ...) holds one token of each of ``texts`` (n,), which are
        distinct positions; None: all texts.
        """
        features = np.array(token_features, dtype=np.float64)
        tokens = torch.from_numpy(features.reshape(len(features), -1))
        tokens = tokens.to(self._rows.device)
        rows = self._rows
        if texts is not None:
            rows = rows[torch.as_tensor(self._check_texts(texts), device=rows.device)]
        expected = (len(rows), len(self.network.standardise.mean))
        if tokens.shape != expected:
            raise ValueError(
                "The 'token_features' given to update must hold a token of each text, "
                f"{expected[0]} x {expected[1]} numbers. Got an array of shape "
                f"{features.shape} instead."
            )
        if not np.isfinite(features).all():
            raise ValueError(
                "The 'token_features' given to update must not hold NaN or infinity."
            )
        with torch.inference_mode():
            logits = self.add(rows, self.network.score_tokens(tokens))
            probabilities: NDArray[np.float64] = (
                average_members(logits).softmax(dim=1).cpu().numpy()
            )
        return probabilities

    def _check_texts(self, texts: ArrayLike) -> NDArray[np.int64]:
        """Check positions of texts."""
        given = np.asarray(texts)
        is_whole = given.ndim == 1 and given.dtype.kind in "iu"
        if (
            not is_whole
            or not ((given >= 0) & (given < self.n_texts)).all()
            or len(np.unique(given)) < len(given)
        ):
            raise ValueError(
                "The 'texts' given to update must be distinct positions in "
                f"[0, {self.n_texts}). Got {texts!r} instead."
            )
        return given.astype(np.int64)

    def add(self, rows: Tensor, scores: TokenScores) -> Tensor:
        """Add the scores of a token to some texts, and return the members' logits."""
        pooled, direct = self._pool.add(rows, scores).sum(dim=-2), None
        if scores.direct is not None:
            direct = scores.direct.clone()
            mean = self._mean.add(rows, TokenScores(direct[:, :, :1]))
            direct[:, :, :1] = mean
        each = self.network.finish(pooled, direct)
        logits: Tensor = self.network.sharpness(self.network.mix(each))
        return logits


def run_along_texts(
    network: TokenNetwork, scores: TokenScores, kept: Tensor
) -> list[Tensor]:
    """Compute the logits after each token of each text, (n_tokens, members, n_classes).

    The scores have the shape (n, n_most, ...); ``kept`` (n, n_most) marks real tokens.
    """
    stream = TokenStream(network, len(kept))
    lengths = kept.sum(dim=1)
    # The lengths ascend, so that the texts that have a next token are the last ones.
    first = torch.searchsorted(lengths, torch.arange(kept.shape[1]), right=True)
    rows = torch.arange(len(kept), device=kept.device)
    steps = []
    for place, start in enumerate(first.tolist()):
        now = scores.arrange(lambda part: part[start:, place])  # noqa: B023 - used at once
        steps.append(stream.add(rows[start:], now))
    return [
        torch.stack([steps[place][row - first[place]] for place in range(length)])
        for row, length in enumerate(lengths.tolist())
    ]
