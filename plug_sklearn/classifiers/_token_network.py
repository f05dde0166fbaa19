"""The network of ``PlugTokenClassifier``: it scores tokens and aggregates the scores.

``n_outputs`` is 1 for two classes, where the only logit is that of the second, and the
number of classes otherwise.
"""

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Generator, Tensor, nn

from plug_sklearn.classifiers._layers import (
    Dropout,
    Mixture,
    PrincipalComponents,
    Standardise,
    TemperatureScaling,
    ZeroInitialised,
    average_members,
)
from plug_sklearn.classifiers._token_aggregation import (
    Rule,
    TokenScores,
    pool_tokens,
)

#: Number of tokens at the end of a text that have a learned bias each.
N_RECENT = 8
#: A norm that no token exceeds. Artifacts hold finite numbers only.
NO_LIMIT = torch.finfo(torch.float32).max
#: Aggregations whose heads have queries.
WITH_QUERIES = ("attention", "rolling")


@dataclass(frozen=True, eq=False)
class TokenBatch:
    """The tokens of some texts, one text after the other, without padding.

    ``features`` has the shape (n_tokens, n_features). ``places`` (n_texts, n_most) are
    the rows of the tokens of each text; padding has the value n_tokens. The network
    returns logits of texts, or of tokens if ``per_token``; of each member if
    ``per_member``, and of all members together otherwise. ``each`` is the result of the
    network's ``read``, if the batch has been read already.
    """

    features: Tensor
    places: Tensor
    per_member: bool = False
    per_token: bool = False
    each: Tensor | None = None

    def __len__(self) -> int:
        return len(self.features) if self.per_token else len(self.places)

    def __getitem__(self, chosen: Tensor) -> list[Tensor]:
        """List the features of the texts, or tokens, that a mask (n, ...) chooses."""
        each = list(self.features) if self.per_token else self.split(self.features)
        return [each[row] for row in chosen.nonzero()[:, 0].tolist()]

    @property
    def kept(self) -> Tensor:
        """Mask of real tokens, (n_texts, n_most)."""
        return self.places < len(self.features)

    def number_texts(self) -> Tensor:
        """Return the text of each token, (n_tokens,)."""
        return self.kept.nonzero()[:, 0]

    def pad(self, values: Tensor) -> Tensor:
        """Arrange values (n_tokens, ...) by text, padded: (n_texts, n_most, ...)."""
        if self.places.numel() == len(values):
            return values.view(*self.places.shape, *values.shape[1:])
        extended = torch.cat([values, torch.zeros_like(values[:1])])
        padded = extended.index_select(0, self.places.flatten())
        return padded.view(*self.places.shape, *values.shape[1:])

    def split(self, values: Tensor) -> list[Tensor]:
        """Split values (n_tokens, ...) into one tensor for each text."""
        return list(torch.split(values, self.kept.sum(dim=1).tolist()))


class StandardiseTokens(Standardise):
    """Limit the norms of tokens, then standardise their features.

    In many models the first token of a text has activations far larger than all others.
    Features of tokens whose norm exceeds ``largest_norm``, a buffer, are scaled down to
    it.

    References
    ----------
    Sun et al., "Massive activations in large language models", 2024, arXiv 2402.17762.
    """

    largest_norm: Tensor

    def __init__(self, n_features: int) -> None:
        super().__init__((n_features,))
        self.register_buffer("largest_norm", torch.tensor(NO_LIMIT))

    def reset_parameters(self) -> None:
        """Become the identity."""
        super().reset_parameters()
        self.largest_norm.fill_(NO_LIMIT)

    def limit_norms(self, features: Tensor) -> Tensor:
        """Compute the factors (n_tokens, 1) that limit the norms of the tokens."""
        norms = torch.linalg.vector_norm(features, dim=1, keepdim=True)
        # Without a limit, norms may be infinite in single precision.
        is_larger = (norms > self.largest_norm) & (self.largest_norm < NO_LIMIT)
        return torch.where(is_larger, self.largest_norm / norms, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        """Standardise tokens (n_tokens, n_features)."""
        return super().forward(x * self.limit_norms(x))


class TokenHeads(nn.Module):
    """Values of the heads of each member, and the biases of the logits."""

    def __init__(
        self, n_members: int, n_inputs: int, n_heads: int, n_outputs: int
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_members, n_inputs, n_heads, n_outputs))
        self.bias = nn.Parameter(torch.empty(n_members, n_outputs))

    def draw(self, generator: Generator) -> None:
        """Draw small values, and set the bias to zero."""
        deviation = 0.02 / sqrt(self.weight.shape[1])
        nn.init.normal_(self.weight, 0, deviation, generator=generator)
        nn.init.zeros_(self.bias)


class TokenQueries(nn.Module):
    """Queries of each member and head, and the biases of the last tokens of a text."""

    def __init__(
        self, n_members: int, n_inputs: int, n_heads: int, n_recent: int
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_members, n_inputs, n_heads))
        self.recency = nn.Parameter(torch.empty(n_members, n_heads, n_recent))

    def draw(self, generator: Generator) -> None:
        """Draw small queries, and set the biases to zero."""
        deviation = 0.1 / sqrt(self.weight.shape[1])
        nn.init.normal_(self.weight, 0, deviation, generator=generator)
        nn.init.zeros_(self.recency)


class TokenPaths(ZeroInitialised):
    """Linear probes of the mean of all tokens and of the last, initialised to zero."""

    def __init__(self, n_members: int, n_inputs: int, n_outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_members, n_inputs, 2, n_outputs))
        self.bias = nn.Parameter(torch.empty(n_members, 2, n_outputs))


class TokenNetwork(nn.Module):
    """An ensemble of probes that score the tokens of texts and aggregate the scores.

    The norms of tokens are limited, and their features are standardised. With
    ``n_kept``, they are then replaced by this number of principal components. The
    logits are the sum of the outputs of the heads. With ``linear_path``, they are a
    mixture of this sum and the logits of linear probes of the mean of all tokens and of
    the last token.
    """

    def __init__(
        self,
        n_features: int,
        n_classes: int,
        *,
        n_heads: int,
        aggregation: str,
        window: int = 1,
        n_members: int = 1,
        linear_path: bool = False,
        input_dropout: float = 0.0,
        n_kept: int | None = None,
        strongest: bool = False,
    ) -> None:
        super().__init__()
        self.n_members, self.n_heads = n_members, n_heads
        self.n_classes = n_classes
        self.n_outputs = 1 if n_classes == 2 else n_classes
        self.aggregation, self.window = aggregation, window
        self.strongest = strongest
        self.temperature = TemperatureScaling()
        self.standardise = StandardiseTokens(n_features)
        self.components, n_inputs = None, n_features
        if n_kept is not None:
            self.components, n_inputs = PrincipalComponents(n_features, n_kept), n_kept
        self.input_dropout = Dropout(input_dropout)
        self.queries = None
        if aggregation in WITH_QUERIES:
            n_recent = N_RECENT if aggregation == "attention" else 0
            self.queries = TokenQueries(n_members, n_inputs, n_heads, n_recent)
        self.output = TokenHeads(n_members, n_inputs, n_heads, self.n_outputs)
        self.linear, self.mixture = None, None
        if linear_path:
            self.linear = TokenPaths(n_members, n_inputs, self.n_outputs)
            self.mixture = Mixture(3)

    def start_from(self, log_shares: Tensor) -> None:
        """Set the biases so that the initial logits give these class probabilities."""
        if self.n_outputs == 1:
            log_shares = log_shares[1:] - log_shares[:1]
        self.output.bias.copy_(log_shares)
        if self.linear is not None:
            self.linear.bias.copy_(log_shares)

    def score_tokens(self, features: Tensor) -> TokenScores:
        """Map features (n_tokens, n_features) to the scores of the tokens."""
        return self._split_scores(self._apply_weights(features))

    def score_texts(self, batch: TokenBatch) -> tuple[TokenScores, Tensor]:
        """Score the tokens; return the scores by text, and the mask of tokens."""
        scores = batch.pad(self._apply_weights(batch.features))
        return self._split_scores(scores), batch.kept

    def _apply_weights(self, features: Tensor) -> Tensor:
        """Map features (n_tokens, n_features) to all scores (n_tokens, members, any).

        Standardisation, components and all weights are multiplied into one matrix, so
        that the tokens are read once and are not copied.
        """
        weight = torch.cat([own.flatten(2) for own in self._list_weights()], dim=2)
        if self.training:
            kept = weight.new_ones(1, self.n_members, weight.shape[1])
            weight = weight * self.input_dropout(kept)[0, :, :, None]
        if self.components is not None:
            weight = self.components.basis @ weight
        weight = self.standardise.scale[:, None] * weight
        flat = weight.transpose(0, 1).flatten(start_dim=1)
        scores = (features @ flat) * self.standardise.limit_norms(features)
        scores = scores - self.standardise.mean @ flat
        return scores.view(len(features), self.n_members, -1)

    def _list_weights(self) -> list[Tensor]:
        """List the weights that are applied to tokens, (members, n_inputs, ...)."""
        weights: list[Tensor] = [self.output.weight]
        if self.queries is not None:
            weights.append(self.queries.weight)
        if self.linear is not None:
            weights.append(self.linear.weight)
        return weights

    def _split_scores(self, scores: Tensor) -> TokenScores:
        """Split the scores (..., members, any) of tokens."""
        sizes = [own[0, 0].numel() for own in self._list_weights()]
        split = torch.split(scores, sizes, dim=-1)
        values = torch.unflatten(split[0], -1, (self.n_heads, self.n_outputs))
        if self.strongest and self.n_outputs > 1:
            values = values - values[..., :1]
        return TokenScores(
            values,
            None if self.queries is None else split[1],
            None if self.linear is None else torch.unflatten(split[-1], -1, (2, -1)),
        )

    def forward(self, batch: TokenBatch) -> Tensor | tuple[Tensor, ...]:
        """Map the tokens of texts to logits.

        They have the shape (n_texts, n_classes), or (n_tokens, n_classes) if each token
        is read by itself. Logits of each member have the shape (n, members, n_classes).
        With a linear path, two more results are returned: the logits of the heads,
        (n, members, n_classes); and those of the two linear probes and of the heads, in
        this order, (n, members, 3, n_classes).
        """
        each = self.read(batch) if batch.each is None else batch.each
        logits = self.mix(each)
        if not batch.per_member:
            logits = average_members(logits)
        scaled: Tensor = self.temperature(logits)
        return scaled if self.mixture is None else (scaled, each[..., -1, :], each)

    def read(self, batch: TokenBatch) -> Tensor:
        """Compute the logits of texts, or of tokens by themselves, as in ``finish``."""
        if batch.per_token:
            return self.read_alone(self.score_tokens(batch.features))
        return self.aggregate(*self.score_texts(batch))

    def read_alone(self, scores: TokenScores) -> Tensor:
        """Compute the logits of each token as if it were a text, as in ``finish``."""
        return self.finish(scores.values.sum(dim=-2), scores.direct)

    def aggregate(self, scores: TokenScores, kept: Tensor) -> Tensor:
        """Compute the logits of texts from the scores of tokens, as in ``finish``.

        ``kept`` (n, n_most) marks real tokens.
        """
        pooled = pool_tokens(scores, kept, self.rule, is_soft=self.training)
        if scores.direct is None:
            return self.finish(pooled.sum(dim=-2))
        mask, n_tokens = kept[:, :, None, None], kept.sum(dim=1)
        mean = (scores.direct[..., 0, :] * mask).sum(dim=1) / n_tokens[:, None, None]
        rows = torch.arange(len(kept), device=kept.device)
        last = scores.direct[rows, n_tokens - 1, :, 1]
        return self.finish(pooled.sum(dim=-2), torch.stack([mean, last], dim=2))

    @property
    def rule(self) -> Rule:
        """How scores are aggregated."""
        recency = None if self.queries is None else self.queries.recency
        return Rule(self.aggregation, self.window, recency)

    def finish(self, pooled: Tensor, direct: Tensor | None = None) -> Tensor:
        """Add biases, and return a logit for each class.

        ``pooled`` (n, members, n_outputs) are the sums over heads. ``direct``
        (n, members, 2, n_outputs) are the outputs of the linear probes, if there are
        any. The result has the shape (n, members, 1 or 3, n_classes); the heads come
        last.
        """
        logits = (pooled + self.output.bias)[:, :, None]
        if direct is not None and self.linear is not None:
            logits = torch.cat([direct + self.linear.bias, logits], dim=2)
        if self.n_outputs > 1:
            return logits
        return torch.cat([torch.zeros_like(logits), logits], dim=-1)

    def mix(self, each: Tensor) -> Tensor:
        """Mix the logits of ``finish`` to those of members (n, members, n_classes)."""
        mixed: Tensor = each[:, :, 0] if self.mixture is None else self.mixture(each)
        return mixed
