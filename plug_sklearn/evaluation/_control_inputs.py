"""The controls of a probe, and the estimator, samples and labels of each."""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils.multiclass import type_of_target

from plug_sklearn._activations import map_ragged

OWNER = "probe_controls"
PROBE = "probe"
#: Controls that need texts.
TEXT_CONTROLS = ("text_length", "bag_of_words", "tf_idf", "random_weights")
CONTROLS = (
    "majority",
    "text_length",
    "bag_of_words",
    "tf_idf",
    "shuffled_labels",
    "first_layer",
    "random_weights",
)
#: Words of one letter count too, such as the symbols of chemical elements.
WORDS = r"(?u)\b\w+\b"


#: Activations; those of the first layer in the same shape, or None; texts, or None; and
#: items, which are equal for equal rows.
Inputs = tuple[
    NDArray[Any], NDArray[Any] | None, NDArray[np.object_] | None, Sequence[Hashable]
]


def name_control(name: str) -> str:
    """Turn the name of a control into a label."""
    label = "TF-IDF" if name == "tf_idf" else name.replace("_", " ")
    return label[:1].upper() + label[1:]


def choose_controls(controls: Any, *, has_texts: bool) -> list[str]:  # noqa: ANN401 - validated here
    possible = [name for name in CONTROLS if has_texts or name not in TEXT_CONTROLS]
    if isinstance(controls, str) and controls == "all":
        return possible
    is_listed = isinstance(controls, Sequence) and not isinstance(controls, str)
    if not is_listed or not controls or not set(controls) <= set(CONTROLS):
        raise ValueError(
            f"The 'controls' parameter of {OWNER} must be 'all', or one or more of "
            f"{list(CONTROLS)} in a list. Got {controls!r} instead."
        )
    impossible = [name for name in controls if name not in possible]
    if impossible:
        raise ValueError(
            f"The 'controls' parameter of {OWNER} must be among {possible} for "
            "activations: others need texts, and a pipeline that begins with an "
            f"HFEmbeddingTransformer. Got {impossible} instead."
        )
    return [name for name in possible if name in controls]


def read_labels(y: ArrayLike) -> NDArray[Any]:
    """Check labels, and return them as an array of shape (n_samples,)."""
    labels: NDArray[Any] = column_or_1d(y)
    classes = np.unique(labels)
    is_continuous = type_of_target(labels).startswith("continuous")
    if is_continuous or len(classes) < 2:
        found = "continuous values" if is_continuous else f"one class, {classes}"
        raise ValueError(
            f"The 'y' parameter of {OWNER} must be labels of two classes or more. Got "
            f"{found} instead."
        )
    return labels


def make_controls(
    embedder: Any,  # noqa: ANN401 - an HFEmbeddingTransformer or None
    probe: BaseEstimator,
    X: Any,  # noqa: ANN401 - texts or activations
    y: NDArray[Any],
    groups: ArrayLike | None,
    chosen: Sequence[str],
    random_state: int | np.random.RandomState | None,
) -> Iterator[tuple[str, BaseEstimator, Any, NDArray[Any]]]:
    """Yield the name, estimator, rows and labels of the probe and of each control.

    They come one by one, so that few arrays are in memory.
    """
    seeds = check_random_state(random_state).randint(2**31, size=2)
    wants_first = "first_layer" in chosen
    activations, first, contents, items = _read_inputs(embedder, X, wants_first)
    yield PROBE, probe, activations, y
    if "majority" in chosen:
        yield "majority", DummyClassifier(), np.zeros((len(y), 1)), y
    for name, baseline in make_text_baselines().items():
        if name in chosen:
            yield name, baseline, contents, y
    if "shuffled_labels" in chosen:
        shuffled = shuffle_labels(y, items=items, groups=groups, random_state=seeds[0])
        yield "shuffled_labels", probe, activations, shuffled
    if wants_first:
        yield "first_layer", probe, first, y
    if "random_weights" in chosen:
        from plug_sklearn.embedding import with_random_weights

        with with_random_weights(embedder, seeds[1]) as untrained:
            activations = untrained.fit_transform(X)
        yield "random_weights", probe, activations, y


def _read_inputs(
    embedder: Any,  # noqa: ANN401 - an HFEmbeddingTransformer or None
    X: Any,  # noqa: ANN401 - texts or activations
    wants_first: bool,
) -> Inputs:
    """Run the texts through the model once, or take activations as they are."""
    if embedder is not None:
        return _embed(embedder, X, wants_first)
    activations = np.asarray(X)
    is_numeric = activations.dtype.kind in "fiu"
    if not is_numeric or activations.ndim not in (3, 4) or not activations.size:
        raise ValueError(
            f"The 'X' parameter of {OWNER} must be activations of 3 or 4 axes, "
            "none of them empty, or texts, with a pipeline that begins with an "
            f"HFEmbeddingTransformer. Got {activations.dtype} of shape "
            f"{activations.shape} instead."
        )
    first = _fill_layers(activations, activations, 0) if wants_first else None
    items = [row.tobytes() for row in activations]
    return activations, first, None, items


def _embed(embedder: Any, X: Any, wants_first: bool) -> Inputs:  # noqa: ANN401 - as above
    from plug_sklearn.embedding import list_texts

    contents = np.array([join_contents(text) for text in list_texts(X)], dtype=object)
    reader = clone(embedder).fit(X)
    layers = reader.layers_
    n_extra = int(wants_first and 0 not in layers)
    if n_extra:
        # Layer 0 is read in the same pass, before the layers of the pipeline.
        layers = (0, *layers)
        reader.set_params(layers=layers).fit(X)
    activations = reader.transform(X)
    own = _map_items(lambda one: one[:, n_extra:], activations)
    first = None
    if wants_first:
        first = _fill_layers(own, activations, layers.index(0))
    return own, first, contents, contents.tolist()


def _fill_layers(like: NDArray[Any], source: NDArray[Any], layer: int) -> NDArray[Any]:
    """Replace each layer of ``like`` by one layer of ``source``."""
    return _map_items(
        lambda own, one: np.broadcast_to(one[:, layer : layer + 1], own.shape),
        like,
        source,
    )


def _map_items(
    function: Callable[..., NDArray[Any]], *arrays: NDArray[Any]
) -> NDArray[Any]:
    """Apply a function to arrays; of token activations, to the arrays of each text."""
    is_ragged = arrays[0].dtype == object
    return map_ragged(function, *arrays) if is_ragged else function(*arrays)


def join_contents(text: str | Sequence[Mapping[str, str]]) -> str:
    """Return a text; of a conversation, the contents of its messages, joined."""
    if isinstance(text, str):
        return text
    return "\n".join(message["content"] for message in text)


def make_text_baselines() -> dict[str, Pipeline]:
    """Make classifiers of arrays of strings, by the names of their controls."""
    features = {
        "text_length": make_pipeline(
            FunctionTransformer(measure_lengths), StandardScaler()
        ),
        "bag_of_words": CountVectorizer(token_pattern=WORDS),
        "tf_idf": TfidfVectorizer(token_pattern=WORDS),
    }
    return {
        name: make_pipeline(own, LogisticRegression(max_iter=1000))
        for name, own in features.items()
    }


def measure_lengths(texts: Sequence[str]) -> NDArray[np.float64]:
    """Return log(1 + n) of the characters and of the words, shape (n_texts, 2)."""
    lengths = [(len(text), len(text.split())) for text in texts]
    return np.log1p(np.array(lengths, dtype=np.float64))


def shuffle_labels(
    y: NDArray[np.generic],
    *,
    items: Sequence[Hashable] | None = None,
    groups: ArrayLike | None = None,
    random_state: int | np.random.RandomState | None = None,
) -> NDArray[np.generic]:
    """Shuffle labels between samples that could have each other's label.

    Equal items of one group that share a label still share one afterwards, so that a
    probe that memorises items gains as much as with the true labels. Labels are
    shuffled within groups. Groups with a single label exchange it with other such
    groups.
    """
    rng = check_random_state(random_state)
    rows = np.arange(len(y))
    item_codes = rows if items is None else pd.factorize(pd.Series(list(items)))[0]
    group_codes = (
        np.zeros(len(y), dtype=np.intp)
        if groups is None
        else pd.factorize(np.asarray(groups))[0]
    )
    table = pd.DataFrame({"group": group_codes, "item": item_codes, "row": rows})
    table["label"] = pd.factorize(y)[0]
    by_group = table.groupby("group")["label"]
    is_pure = (by_group.transform("nunique") == 1).to_numpy()
    # Rows of one unit share a label. Items with several labels are units by row.
    by_item = table.groupby(["group", "item"])
    is_ambiguous = (by_item["label"].transform("nunique") > 1).to_numpy()
    first = by_item["row"].transform("first").to_numpy()
    unit = np.where(is_ambiguous, rows, first)
    unit[is_pure] = by_group.transform("idxmin").to_numpy()[is_pure]
    # Units of a stratum exchange their labels.
    stratum = np.where(is_pure, -1, group_codes)
    shuffled = y.copy()
    for number in np.unique(stratum):
        units = np.unique(unit[stratum == number])
        drawn = y.copy()
        drawn[units] = y[rng.permutation(units)]
        members = stratum == number
        shuffled[members] = drawn[unit[members]]
    return shuffled
