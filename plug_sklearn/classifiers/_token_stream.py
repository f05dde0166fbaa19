"""Probabilities of texts whose tokens come one by one."""

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from plug_sklearn.classifiers._layers import average_members
from plug_sklearn.classifiers._token_aggregation import TokenScores
from plug_sklearn.classifiers._token_network import TokenNetwork
from plug_sklearn.classifiers._token_running import POOLS, RunningMean


class TokenStream:
    """The probabilities of ``n_texts`` texts, of which each so far has some tokens.

    A token costs the same time and memory however many there were before.
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
        """Add one token to each text, and give the probabilities (n, n_classes).

        ``token_features`` (n, ...) are those of a token of each of ``texts`` (n,),
        distinct positions; None is all.
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
                "The 'token_features' given to update must be those of a token of each "
                f"text, {expected[0]} x {expected[1]} numbers. Got an array of shape "
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
        """Add the scores of a token to some texts, and give the members' logits."""
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
    """Give the logits after each token of texts: (n_tokens, members, n_classes) each.

    The scores have the shape (n, n_most, ...); ``kept`` (n, n_most) marks tokens.
    """
    stream = TokenStream(network, len(kept))
    lengths = kept.sum(dim=1)
    # The lengths ascend: the texts that have a next token are the last.
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
