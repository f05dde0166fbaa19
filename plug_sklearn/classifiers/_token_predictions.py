"""Predictions of single tokens, for ``PlugTokenClassifier``."""

from abc import abstractmethod
from collections.abc import Sequence
from numbers import Integral
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_consistent_length
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from plug_sklearn.classifiers._data import read_sample_weight
from plug_sklearn.classifiers._layers import average_members
from plug_sklearn.classifiers._prediction import PredictsLabels, copy_in_double
from plug_sklearn.classifiers._token_aggregation import weigh_tokens
from plug_sklearn.classifiers._token_network import TokenBatch, TokenNetwork
from plug_sklearn.classifiers._token_stream import TokenStream, run_along_texts
from plug_sklearn.classifiers._token_targets import (
    has_token_labels,
    is_unlabelled,
    read_token_labels,
)


class PredictsTokens(PredictsLabels):
    """A classifier of texts that also predicts and weighs their tokens."""

    classes_: NDArray[Any]
    net_: Any

    @abstractmethod
    def _read_samples(self, X: Any) -> NDArray[np.object_]:  # noqa: ANN401 - as in fit
        """Check token features, as ``read_texts`` does."""

    def predict_token_proba(
        self,
        X: Any,  # noqa: ANN401 - as in fit
        running: bool = False,
    ) -> NDArray[np.object_]:
        """Predict the probability of each class for each token.

        Parameters
        ----------
        X : array-like of shape (n_samples,) of arrays
            Token features, as in :meth:`fit`.
        running : bool, default=False
            False: predict each token as if it were the whole text. True: predict the
            text up to and including each token. Running sums are used, so this takes
            one pass over the tokens.

        Returns
        -------
        ndarray of shape (n_samples,), object
            For each text, an array of shape (n_tokens, n_classes) and dtype float64.
            Texts that are the same object share one array.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If ``fit`` has not been called.
        ValueError
            If ``X`` is not as described, or the number of features differs from that in
            ``fit``.
        """
        check_is_fitted(self, "net_")

        def read_alone(network: TokenNetwork, batch: TokenBatch) -> list[Tensor]:
            logits = network.read_alone(network.score_tokens(batch.features))
            return batch.split(network.temperature(network.mix(logits)))

        def run(network: TokenNetwork, batch: TokenBatch) -> list[Tensor]:
            scores, kept = network.score_texts(batch)
            return run_along_texts(network, scores, kept)

        found = self.net_.apply_to_texts(
            list(self._read_samples(X)), run if running else read_alone
        )
        return _gather([average_members(logits).softmax(dim=1) for logits in found])

    def token_weights(self, X: Any) -> NDArray[np.object_]:  # noqa: ANN401 - as in fit
        """Compute how much each token contributes to the aggregate of its text.

        These are the weights that ``aggregation`` gives to the tokens, averaged over
        members and heads. With ``"max"``, the token with the largest score has the
        whole weight of a head. With ``"rolling"``, the tokens of the best window share
        it by their attention weights.

        Parameters
        ----------
        X : array-like of shape (n_samples,) of arrays
            Token features, as in :meth:`fit`.

        Returns
        -------
        ndarray of shape (n_samples,), object
            For each text, an array of shape (n_tokens,), float64, which sums to 1.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If ``fit`` has not been called.
        ValueError
            If ``X`` is not as described, or the number of features differs from that in
            ``fit``.
        """
        check_is_fitted(self, "net_")

        def weigh(network: TokenNetwork, batch: TokenBatch) -> list[Tensor]:
            scores, kept = network.score_texts(batch)
            weights = weigh_tokens(scores, kept, network.rule)
            return [own[mask] for own, mask in zip(weights, kept, strict=True)]

        return _gather(self.net_.apply_to_texts(list(self._read_samples(X)), weigh))

    def start_stream(self, n_texts: int = 1) -> TokenStream:
        """Start reading texts whose tokens come one by one.

        Parameters
        ----------
        n_texts : int, default=1
            Number of texts.

        Returns
        -------
        TokenStream
            Its ``update(token_features)`` takes the features (n_texts, ...) of the next
            token of each text, and returns the probabilities (n_texts, n_classes) of
            the texts so far. ``update(token_features, texts)`` adds a token only to the
            texts at the given positions.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If ``fit`` has not been called.
        ValueError
            If ``n_texts`` is not an integer above 0.
        """
        check_is_fitted(self, "net_")
        if not isinstance(n_texts, Integral) or n_texts < 1:
            raise ValueError(
                "The 'n_texts' given to start_stream must be an integer above 0. Got "
                f"{n_texts!r} instead."
            )
        network = cast(TokenNetwork, copy_in_double(self.net_.module_))
        return TokenStream(network, int(n_texts))

    def score(
        self,
        X: Any,  # noqa: ANN401 - as in fit
        y: Any,  # noqa: ANN401 - as in fit
        sample_weight: ArrayLike | None = None,
    ) -> float:
        """Compute the accuracy over texts, or over tokens if ``y`` labels tokens.

        Parameters
        ----------
        X : array-like of shape (n_samples,) of arrays
            Token features, as in :meth:`fit`.
        y : array-like of shape (n_samples,)
            Labels of texts, or labels of tokens, as in :meth:`fit`. Tokens without a
            label are ignored.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of texts. Each token has the weight of its text.

        Returns
        -------
        float
            Fraction of correct predictions.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If ``fit`` has not been called.
        ValueError
            If ``X`` or ``y`` is not as described; if no token has a label; or if a
            weight is negative or not finite, or all are 0.
        """
        if not has_token_labels(y):
            accuracy: float = super().score(X, y, sample_weight)
            return accuracy
        check_is_fitted(self, "net_")
        owner = type(self).__name__
        texts = self._read_samples(X)
        check_consistent_length(texts, y)
        labels = read_token_labels(y, texts, owner)
        if (labels[0].dtype.kind == "U") != (self.classes_.dtype.kind == "U"):
            raise ValueError(
                f"y given to {owner}.score must hold labels of the type of those in "
                f"fit, such as {self.classes_[0].item()!r}. Got "
                f"{labels[0][0].item()!r} instead."
            )
        is_right = np.concatenate(
            [
                self.classes_[found.argmax(axis=1)] == own
                for found, own in zip(self.predict_token_proba(X), labels, strict=True)
            ]
        )
        weight = read_sample_weight(sample_weight, np.zeros((len(texts), 1)), owner)
        weights = np.repeat(weight, [len(own) for own in labels])
        weights = np.where(is_unlabelled(np.concatenate(labels)), 0, weights)
        if not weights.any():
            raise ValueError(
                f"y given to {owner} must label at least one token of weight above 0."
            )
        return float(np.average(is_right, weights=weights))


def _gather(found: Sequence[Tensor]) -> NDArray[np.object_]:
    """Make an array of arrays; equal ones stay one object."""
    arrays = {id(each): each.numpy() for each in found}
    gathered = np.empty(len(found), dtype=object)
    for position, each in enumerate(found):
        gathered[position] = arrays[id(each)]
    return gathered
