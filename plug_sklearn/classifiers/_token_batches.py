"""Texts, and the batches of tokens that networks read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plug_sklearn.classifiers._batches import NO_CLASS, Batches, MemberRows, Rows
from plug_sklearn.classifiers._layers import Standardise
from plug_sklearn.classifiers._token_network import (
    NO_LIMIT,
    StandardiseTokens,
    TokenBatch,
)

#: Most bytes of features in a batch, in training and in prediction, in float32. A text
#: that is larger is a batch by itself.
TRAINING_BYTES, EVALUATION_BYTES = 2**26, 2**23
#: With few texts, batches are smaller, so that an epoch has about this many steps: Adam
#: can tell signal from noise only by how much gradients differ between batches.
LEAST_STEPS = 16
#: Least number of texts of these smaller batches.
LEAST_TEXTS = 4
#: Number of batches whose texts are sorted by length together.
SORTED_TOGETHER = 16
#: Norms of tokens are limited to this multiple of their median.
NORM_FACTOR = 2.0
#: Largest norm whose square is safe in single precision.
LARGEST_SAFE_NORM = 1e18
#: Largest number of tokens from which principal components are computed.
SAMPLED_TOKENS = 4096

Texts = Sequence[NDArray[Any]]


@dataclass(frozen=True)
class TextRows(Rows):
    """Distinct texts, sorted by length, each with an array of token features.

    ``X`` (n_given,) holds the arrays in the order given. If tokens have labels,
    ``token_codes`` are the class codes of the tokens of each text in the order of
    ``X``, with -1 for no label, and ``codes`` is the largest code of each text.
    """

    token_codes: NDArray[np.object_] | None = None

    def list_texts(self) -> list[NDArray[Any]]:
        """List the arrays of the rows."""
        places = range(len(self.X)) if self.places is None else self.places
        return [self.X[place] for place in places]

    def list_token_codes(self) -> list[NDArray[np.intp]] | None:
        """List the class codes of the tokens of the rows."""
        if self.token_codes is None:
            return None
        places = range(len(self.X)) if self.places is None else self.places
        return [self.token_codes[place] for place in places]

    def list_validated(self) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """List class codes and weights of validation rows in the order of batches.

        In a batch, all members of a row (or token) come before the next row.
        """
        rows = np.arange(len(self.codes))
        if self.held_out is not None:
            rows, _ = np.nonzero(self.held_out.T)
        token_codes = self.list_token_codes()
        if token_codes is None:
            return self.codes[rows], self.weight[rows]
        n_times = np.bincount(rows, minlength=len(self.codes))
        codes = np.concatenate(
            [
                np.repeat(own[own >= 0], times)
                for own, times in zip(token_codes, n_times, strict=True)
            ]
        )
        n_labelled = np.array([(own >= 0).sum() for own in token_codes])
        return codes, np.repeat(self.weight, n_labelled * n_times)

    def sum_by_class(self, n_classes: int) -> NDArray[np.float64]:
        """Sum the weights of the rows, or tokens, of each class."""
        token_codes = self.list_token_codes()
        if token_codes is None:
            return super().sum_by_class(n_classes)
        totals = np.zeros(n_classes)
        for own, weight in zip(token_codes, self.weight, strict=True):
            totals += weight * np.bincount(own[own >= 0], minlength=n_classes)
        return totals

    def put_on_device(
        self, class_factors: NDArray[np.float64], device: torch.device
    ) -> "TokenRows":
        """Put labels on a device, and multiply weights by the factors of classes.

        The texts stay where they are, and are put on the device batch by batch.
        """
        texts, codes, weight = self.list_texts(), self.codes, self.weight
        token_codes = self.list_token_codes()
        if token_codes is not None:
            weight = np.repeat(weight, [len(own) for own in token_codes])
            codes = np.concatenate(token_codes)
        weight = np.where(codes < 0, 0, weight * class_factors[codes])
        codes = np.where(codes < 0, NO_CLASS, codes)
        return TokenRows(
            texts,
            torch.tensor(codes, device=device),
            torch.tensor(weight / weight.mean(), dtype=torch.float32, device=device),
            texts,
            torch.tensor(self.weight / self.weight.mean()),
            per_token=token_codes is not None,
        )


def join_tokens(
    texts: Texts,
    device: torch.device,
    memory: NDArray[Any] | None = None,
    *,
    per_member: bool = True,
    per_token: bool = False,
) -> TokenBatch:
    """Make a batch of texts.

    If ``memory`` (n_most, n_features) is given, the features are written there.
    """
    lengths = np.array([len(text) for text in texts])
    n_tokens, n_most = lengths.sum(), lengths.max()
    if memory is None:
        memory = np.empty((n_tokens, texts[0].shape[1]), dtype=np.float32)
    features = memory[:n_tokens]
    np.concatenate(texts, out=features, casting="same_kind")
    steps = np.arange(n_most)
    starts = lengths.cumsum() - lengths
    is_token = steps < lengths[:, None]
    places = np.where(is_token, starts[:, None] + steps, n_tokens)
    return TokenBatch(
        torch.from_numpy(features).to(device),
        torch.from_numpy(places).to(device),
        per_member=per_member,
        per_token=per_token,
    )


def choose_batch_size(n_texts: int, largest: int) -> int:
    """Choose how many texts a training batch has, and so the steps of an epoch."""
    return min(largest, max(LEAST_TEXTS, n_texts // LEAST_STEPS))


def cut_batches(
    lengths: NDArray[np.intp], n_features: int, most_texts: int, most_bytes: int
) -> list[slice]:
    """Cut texts into batches of limited size, with at least one text each."""
    most_tokens = most_bytes // (4 * n_features)
    cuts, n_tokens = [0], 0
    for number, length in enumerate(lengths.tolist()):
        is_full = number - cuts[-1] >= most_texts or n_tokens + length > most_tokens
        if is_full and number > cuts[-1]:
            cuts.append(number)
            n_tokens = 0
        n_tokens += length
    ends = [*cuts[1:], len(lengths)]
    return [slice(start, end) for start, end in zip(cuts, ends, strict=True)]


def find_largest_norm(texts: Texts, shares: NDArray[np.float64]) -> float:
    """Find the norm that tokens may have: a multiple of the median norm of all tokens.

    ``shares`` (n_texts,) are the weights of the texts. There is no limit where norms
    would not be finite in single precision.
    """
    norms = np.concatenate([compute_norms(text) for text in texts])
    lengths = [len(text) for text in texts]
    weights = np.repeat(shares / lengths, lengths)[norms > 0]
    norms = norms[norms > 0]
    if not len(norms) or norms.max() > LARGEST_SAFE_NORM:
        return NO_LIMIT
    order = norms.argsort()
    place = np.searchsorted(weights[order].cumsum(), weights.sum() / 2)
    return float(NORM_FACTOR * norms[order][min(place, len(norms) - 1)])


def compute_norms(text: NDArray[Any]) -> NDArray[np.float64]:
    """Compute the norms (n_tokens,) of tokens in double precision."""
    norms: NDArray[np.float64] = np.sqrt(
        np.einsum("ij,ij->i", text, text, dtype=np.float64)
    )
    return norms


def limit_norms(text: NDArray[Any], largest: float) -> NDArray[np.float64]:
    """Scale tokens down to a norm, in double precision."""
    norms = compute_norms(text)
    factors = np.divide(largest, norms, out=np.ones_like(norms), where=norms > largest)
    limited: NDArray[np.float64] = text * factors[:, None]
    return limited


class TokenRows(MemberRows):
    """Texts, with class codes and weights of each member or of all members together.

    All members read the same batches. If a member does not use a text, the text has no
    class and no weight for it. Class codes and weights have the shape (n,) or
    (n, members). They are those of texts, or, with ``per_token``, of all tokens, one
    text after another. ``all_texts`` and ``all_weight`` (n_all,) are the texts that any
    member uses.
    """

    def __init__(
        self,
        texts: Texts,
        y: Tensor,
        weight: Tensor,
        all_texts: Texts,
        all_weight: Tensor,
        *,
        per_token: bool,
    ) -> None:
        self.texts, self.y, self.weight = texts, y, weight
        self.all_texts, self.all_weight = all_texts, all_weight
        self.per_token = per_token
        self.lengths = np.array([len(text) for text in texts])
        self.starts = self.lengths.cumsum() - self.lengths
        self.buffer: NDArray[np.float32] | None = None

    @property
    def n_members(self) -> int:
        """1, because all members read the same batches."""
        return 1

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: Any) -> tuple[Any, tuple[Tensor, Tensor]]:  # noqa: ANN401 - a slice or positions
        """Return the batch of a slice, or of some positions."""
        numbers = np.arange(len(self))[index]
        targets = self._find_targets(numbers)
        batch = join_tokens(
            [self.texts[number] for number in numbers.tolist()],
            self.y.device,
            memory=self.buffer,
            per_member=self.y.ndim == 2,
            per_token=self.per_token,
        )
        return batch, (self.y[targets], self.weight[targets])

    def _find_targets(self, numbers: NDArray[np.intp]) -> Tensor:
        if self.per_token:
            numbers = np.concatenate(
                [np.arange(self.lengths[n]) + self.starts[n] for n in numbers]
            )
        return torch.from_numpy(numbers).to(self.y.device)

    def choose(self, chosen: NDArray[np.bool_]) -> "TokenRows":
        """Give each member the texts that ``chosen`` (n_members, n) marks."""
        used = np.flatnonzero(chosen.any(axis=0))
        own = chosen.T[used]
        if self.per_token:
            own = own.repeat(self.lengths[used], axis=0)
        mask = torch.from_numpy(own).to(self.y.device)
        targets = self._find_targets(used)
        y = self.y[targets][:, None].expand(mask.shape).masked_fill(~mask, NO_CLASS)
        weight = self.weight[targets][:, None] * mask
        return TokenRows(
            [self.texts[number] for number in used.tolist()],
            y,
            weight / weight.mean(),
            self.all_texts,
            self.all_weight,
            per_token=self.per_token,
        )

    def reuse_memory(self, batch_size: int) -> None:
        """Let each batch overwrite the features of the previous one."""
        n_features = self.texts[0].shape[1]
        longest = np.sort(self.lengths)[-batch_size:]
        most = max(longest[-1], TRAINING_BYTES // (4 * n_features))
        n_tokens = min(longest.sum(), most)
        self.buffer = np.empty((n_tokens, n_features), dtype=np.float32)

    def teach_standardise(self, layer: Standardise) -> None:
        """Compute the largest norm, and the features' means and deviations over tokens.

        A text counts by its weight, whatever its length.
        """
        assert isinstance(layer, StandardiseTokens)
        weight = self.all_weight.cpu().double().numpy()
        shares = weight / weight.sum()
        largest = find_largest_norm(self.all_texts, shares)
        layer.largest_norm.fill_(largest)
        origin = limit_norms(self.all_texts[0][:1], largest)[0]
        total, squares = np.zeros_like(origin), np.zeros_like(origin)
        for text, own in zip(self.all_texts, shares, strict=True):
            # Subtracting one token makes constant features exactly 0.
            values = limit_norms(text, largest) - origin
            total += own * values.mean(axis=0)
            squares += own * np.einsum("ij,ij->j", values, values) / len(values)
        deviation = np.sqrt((squares - total**2).clip(min=0))
        scale = np.zeros_like(deviation)
        varies = deviation > np.finfo(np.float32).tiny
        scale[varies] = 1 / deviation[varies]
        layer.mean.copy_(torch.from_numpy(origin + total))
        layer.scale.copy_(torch.from_numpy(scale))

    def sample_inputs(
        self,
        module: Any,  # noqa: ANN401 - a TokenNetwork
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return standardised tokens and their weights, for principal components."""
        n_tokens = sum(len(text) for text in self.all_texts)
        step = -(-n_tokens // SAMPLED_TOKENS)
        tokens, weights, seen = [], [], 0
        for text, own in zip(self.all_texts, self.all_weight.tolist(), strict=True):
            chosen = text[-seen % step :: step]
            seen += len(text)
            tokens.append(chosen.astype(np.float32))
            weights.append(np.full(len(chosen), own / len(text), dtype=np.float32))
        sampled = torch.from_numpy(np.concatenate(tokens)).to(self.y.device)
        return module.standardise(sampled).cpu().numpy(), np.concatenate(weights)


class TokenBatches(Batches):
    """Batches of texts of similar lengths, in random order if a generator is given.

    Without a generator, batches are consecutive texts, which are already sorted by
    length.
    """

    rows: TokenRows

    def __len__(self) -> int:
        return sum(1 for _ in self._list_batches())

    def __iter__(self) -> Iterator[Any]:
        for numbers in self._list_batches():
            yield self.rows[numbers]

    def _list_batches(self) -> Iterator[NDArray[np.intp]]:
        rows = self.rows
        lengths, n_features = rows.lengths, rows.texts[0].shape[1]
        if self.generator is None:
            most = EVALUATION_BYTES
            for cut in cut_batches(lengths, n_features, self.batch_size, most):
                yield np.arange(len(rows))[cut]
            return
        order = torch.randperm(len(rows), generator=self.generator).numpy()
        n_together = SORTED_TOGETHER * self.batch_size
        for start in range(0, len(order), n_together):
            some = order[start : start + n_together]
            some = some[lengths[some].argsort(kind="stable")]
            cuts = cut_batches(
                lengths[some], n_features, self.batch_size, TRAINING_BYTES
            )
            for number in torch.randperm(len(cuts), generator=self.generator).tolist():
                yield some[cuts[number]]
