"""Check the fitted pipelines, and predict from the states that they read."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from plug_sklearn.embedding import HFEmbeddingTransformer, LanguageModel, describe_model
from plug_sklearn.embedding.models import LoadedModel
from plug_sklearn.embedding.passes import ForwardPass, Request, pad_prompts
from plug_sklearn.embedding.prompts import OpenPrompt, TokenizedPrompts

#: Parameters in which the embedders of probes may differ.
_FREE = frozenset(
    {
        "layers",
        "parts",
        "pooling",
        "store",
        "n_jobs",
        "verbose",
        "batch_tokens",
        "activation_dtype",
    }
)


class Probe:
    """One fitted pipeline: an embedder, other steps, and a classifier.

    ``name`` is the user's name for it, and ``owner`` the name of the function in
    messages. ``classes`` are the columns of its probabilities.
    """

    def __init__(self, name: str, pipeline: object, owner: str) -> None:
        self.name = name
        # A fitted search contains the pipeline that it chose.
        found = getattr(pipeline, "best_estimator_", pipeline)
        if not isinstance(found, Pipeline) or not isinstance(
            found[0], HFEmbeddingTransformer
        ):
            raise TypeError(
                f"The 'probes' parameter of {owner} must be a fitted pipeline whose "
                "first step is an HFEmbeddingTransformer, or a dict of these. Got "
                f"{_show(found)} for {name!r} instead."
            )
        if len(found) < 2 or not hasattr(found[-1], "predict_proba"):
            raise TypeError(
                f"The 'probes' parameter of {owner} must be pipelines whose last step "
                f"has predict_proba. Got {_show(found[-1])} for {name!r} instead."
            )
        try:
            check_is_fitted(found)
        except NotFittedError:
            raise NotFittedError(
                f"The 'probes' parameter of {owner} must hold fitted pipelines. Got "
                f"one for {name!r} that is not fitted: call its 'fit' first."
            ) from None
        self.embedder: HFEmbeddingTransformer = found[0]
        self.rest: Pipeline = found[1:]
        self.classes: list[object] = np.asarray(found.classes_).tolist()
        self.model: LanguageModel = describe_model(self.embedder)
        self.reads_tokens = self._reads_tokens(owner)
        # For a single token, the pooling "last" gives its own states.
        pooling = self.embedder.pooling or "last"
        names = (pooling,) if isinstance(pooling, str) else pooling
        self.poolings: tuple[str, ...] = tuple(map(str, names))
        self.layers: tuple[int, ...] = tuple(self.embedder.layers_)
        self.parts: tuple[str, ...] = tuple(map(str, self.embedder.parts))

    def _reads_tokens(self, owner: str) -> bool:
        """Return whether the probe reads the states of every token."""
        if self.embedder.pooling is not None:
            return False
        if not hasattr(self.rest[-1], "start_stream"):
            raise ValueError(
                f"The 'pooling' parameter of the HFEmbeddingTransformer in "
                f"{self.name!r} must not be None for {owner}, unless the last step "
                "can be updated token by token, as PlugTokenClassifier can. Got "
                f"{_show(self.rest[-1])} instead."
            )
        for parameter in ("token_filter", "eos_token"):
            value = getattr(self.embedder, parameter)
            if value is not None:
                raise ValueError(
                    f"The {parameter!r} parameter of the HFEmbeddingTransformer in "
                    f"{self.name!r} must be None for {owner} with pooling=None. Got "
                    f"{value!r} instead. Fit the pipeline again with "
                    f"{parameter}=None, or with a pooling such as 'mean'."
                )
        return True

    def find_places(self, request: Request) -> list[int]:
        """Find the layers and parts of this probe among those of a request."""
        pairs = request.pairs
        return [pairs.index((n, part)) for n in self.layers for part in self.parts]

    def predict(self, states: NDArray[np.float32]) -> NDArray[np.floating]:
        """Predict probabilities (n, n_classes) from pooled states.

        The float32 states have the shape (n, n_pairs, n_poolings, hidden_size), where
        pairs are the layers and parts of this probe. A row that holds NaN gives a row
        of NaN. Raises a FloatingPointError if a state is infinite.
        """
        activations = self.shape(states)
        has_tokens = ~np.isnan(activations[:, 0, 0, 0])
        found = np.full((len(states), len(self.classes)), np.nan)
        if not has_tokens.any():
            return found
        chosen = activations if has_tokens.all() else activations[has_tokens]
        self.require_finite(chosen)
        found[has_tokens] = self.rest.predict_proba(chosen)
        return found

    def shape(self, states: NDArray[np.float32]) -> NDArray[np.floating]:
        """Reshape and convert states to activations."""
        shape = (len(self.layers), len(self.parts) * len(self.poolings))
        activations = states.reshape(len(states), *shape, states.shape[-1])
        return activations.astype(self.embedder.activation_dtype, copy=False)

    def require_finite(self, activations: NDArray[np.floating]) -> None:
        """Raise a FloatingPointError unless all activations are finite."""
        if not np.isfinite(activations).all():
            raise FloatingPointError(
                f"The states that {self.name!r} reads hold infinities or NaN. Use "
                "dtype='bfloat16' or 'float32' in HFEmbeddingTransformer."
            )


def read_probes(probes: Any, owner: str, reserved: Sequence[str]) -> dict[str, Probe]:  # noqa: ANN401 - validated here
    """Check the probes, and return them by name; that of a single one is "probe"."""
    if not isinstance(probes, Mapping):
        probes = {"probe": probes}
    if not probes:
        raise ValueError(
            f"The 'probes' parameter of {owner} must hold at least one pipeline. "
            "Got an empty dict instead."
        )
    for name in probes:
        if not isinstance(name, str) or not name or name in reserved:
            raise ValueError(
                f"The 'probes' parameter of {owner} must name each pipeline by a "
                f"string that is none of {tuple(reserved)}. Got {name!r} instead."
            )
    found = {name: Probe(name, one, owner) for name, one in probes.items()}
    first, *others = found.values()
    for other in others:
        _require_same_model(first, other, owner)
    return found


def make_request(probes: Mapping[str, Probe]) -> Request:
    """Make a request for all layers, parts and poolings that any probe reads.

    It may include combinations of them that no probe reads.
    """
    layers, parts, poolings = (
        tuple(
            sorted({one for probe in probes.values() for one in getattr(probe, name)})
        )
        for name in ("layers", "parts", "poolings")
    )
    return Request(layers, parts, poolings)


def _require_same_model(first: Probe, other: Probe, owner: str) -> None:
    mine, theirs = (p.embedder.get_params(deep=False) for p in (first, other))
    for parameter in sorted(mine.keys() - _FREE):
        if _plain(mine[parameter]) != _plain(theirs[parameter]):
            raise ValueError(
                f"The 'probes' parameter of {owner} must be pipelines that read the "
                f"same model in the same way. Got {parameter}={mine[parameter]!r} for "
                f"{first.name!r} and {theirs[parameter]!r} for {other.name!r} instead."
            )
    for what in ("fitted_turn", "fitted_chat"):
        seen = [getattr(probe.model, what) for probe in (first, other)]
        if None not in seen and seen[0] != seen[1]:
            raise ValueError(
                f"The 'probes' parameter of {owner} must be pipelines that were fitted "
                "with the same chat template. Those of "
                f"{first.name!r} and {other.name!r} wrote different prompts."
            )


def _plain(value: object) -> object:
    """Convert paths, sequences and arrays so that equal values compare equal."""
    if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str):
        return [_plain(one) for one in value]
    return value if value is None or isinstance(value, Mapping) else str(value)


def _show(thing: object) -> str:
    return thing if isinstance(thing, str) else type(thing).__name__


class TokenStream:
    """Probabilities of one probe of all tokens, for the prompts and answers of a batch.

    ``steps`` are the steps after the embedder, the last of which has ``start_stream``.
    ``tokens`` holds the states of the pooled tokens of each prompt, of shape
    (n_tokens, n_layers, n_parts, hidden_size). ``owns_answer`` (n_prompts,) says
    whether the tokens of each answer are pooled.
    """

    def __init__(
        self,
        steps: Pipeline,
        tokens: Sequence[NDArray[np.floating]],
        owns_answer: NDArray[np.bool_],
    ) -> None:
        self.steps = steps
        self.owns_answer = owns_answer
        classifier: Any = steps[-1]
        self._stream = classifier.start_stream(n_texts=len(tokens))
        self.current = np.full((len(tokens), len(classifier.classes_)), np.nan)
        for row, states in enumerate(tokens):
            if len(states):
                features = self._transform(states)
                for place in range(len(features)):
                    self._update(features[place : place + 1], np.array([row]))

    def update(
        self, states: NDArray[np.floating], batches: Sequence[NDArray[np.intp]]
    ) -> list[NDArray[np.floating]]:
        """Add several tokens, one after the other.

        ``states`` (n, n_layers, n_parts, hidden_size) are those of all tokens.
        ``batches`` are the rows that each token belongs to, n in all. Returns the
        probabilities after each token, (n_rows, n_classes).
        """
        features = self._transform(states)
        ends = np.cumsum([len(rows) for rows in batches])
        found = []
        for rows, some in zip(batches, np.split(features, ends[:-1]), strict=True):
            own = self.owns_answer[rows]
            if own.any():
                self._update(some[own], rows[own])
            found.append(self.current[rows])
        return found

    def _update(
        self, features: NDArray[np.floating], rows: NDArray[np.integer]
    ) -> None:
        self.current[rows] = self._stream.update(features, texts=rows.tolist())

    def _transform(self, states: NDArray[np.floating]) -> NDArray[np.floating]:
        if len(self.steps) == 1:
            return states
        features: NDArray[np.floating] = np.asarray(self.steps[:-1].transform(states))
        return features


def read_prompt_tokens(
    loaded: LoadedModel, request: Request, prompts: Sequence[OpenPrompt]
) -> list[NDArray[np.float32]]:
    """Read the states of the pooled tokens of each prompt, before the model writes.

    The forward pass must keep every token. Returns float32 arrays of shape
    (n_tokens, n_layers, n_parts, hidden_size), without rows where no token is pooled.
    """
    forward = ForwardPass(loaded, request)
    found = []
    for prompt in prompts:
        if not prompt.own.any():
            found.append(np.empty((0, 1, 1, 1), dtype=np.float32))
            continue
        text = TokenizedPrompts.join([prompt.ids], [prompt.own])
        batch = pad_prompts(text, [0], forward.pad_id, forward.row_multiple)
        found.append(np.asarray(forward.run(batch)[0], dtype=np.float32))
    return found
