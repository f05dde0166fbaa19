from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn.base import BaseEstimator
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import NotFittedError
from sklearn.feature_selection import SelectKBest
from sklearn.linear_model import (
    LogisticRegression,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
)
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    MaxAbsScaler,
    MinMaxScaler,
    PolynomialFeatures,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import LinearSVC

from plug_sklearn import (
    BestLayerClassifier,
    HFEmbeddingTransformer,
    LayerAggregator,
    PlugCNNClassifier,
    PlugMLPClassifier,
    PlugStackClassifier,
    ProbeDirection,
    probe_direction,
)

RNG = np.random.default_rng(0)
N = 90
X = RNG.normal(size=(N, 4, 2, 5)) * RNG.uniform(0.5, 3, size=5) + 1
Y = np.array(["no", "yes"])[(X[:, 2, 1, 0] + X[:, 1, 1, 1] > 2).astype(int)]
THREE = np.digitize(X[:, 2, 1, 0], [0.3, 1.6])

PROBES = [
    LogisticRegression(),
    RidgeClassifier(),
    LinearDiscriminantAnalysis(),
    LinearSVC(),
    SGDClassifier(random_state=0),
]
STEPS: list[Sequence[BaseEstimator]] = [
    [],
    [StandardScaler()],
    [StandardScaler(with_mean=False), MinMaxScaler((-1, 3))],
    [StandardScaler(with_std=False), RobustScaler()],
    [MaxAbsScaler(), PCA(4)],
    [RobustScaler(with_centering=False), PCA(3, whiten=True), StandardScaler()],
    [SelectKBest(k=6), StandardScaler()],
]


def evaluate(direction: ProbeDirection, activations: np.ndarray) -> np.ndarray:
    """The affine function, from its labels alone, where they are positions."""
    columns = []
    for output, intercept in direction.intercepts.items():
        value = np.full(len(activations), intercept)
        for layer, part in direction.vectors.loc[output].index:
            unit = direction.vectors.loc[(output, layer, part)].to_numpy()
            norm = direction.norms.loc[(output, layer, part)]
            value = value + norm * (activations[:, layer, part] @ unit)
        columns.append(value)
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("probe", PROBES)
def test_it_gives_the_decision_values_back(
    probe: BaseEstimator, steps: Sequence[BaseEstimator]
) -> None:
    pipeline = make_pipeline(LayerAggregator(layers=[2, 1]), *steps, probe)
    for y in (Y, THREE):
        pipeline.fit(X, y)
        direction = probe_direction(pipeline)
        expected = pipeline.decision_function(X)
        found = evaluate(direction, X)
        assert_allclose(found, expected.reshape(found.shape), atol=1e-8)
        assert direction.kind == "linear"
        assert_allclose(np.linalg.norm(direction.vectors, axis=1), 1)


@given(
    layers=st.lists(st.integers(0, 3), min_size=1, unique=True),
    parts=st.lists(st.integers(0, 1), min_size=1, unique=True),
    method=st.sampled_from(["concat", "mean"]),
)
def test_layers_and_parts_that_are_not_read_have_no_row(
    layers: list[int], parts: list[int], method: str
) -> None:
    aggregator = LayerAggregator(layers=layers, parts=parts, method=method)
    pipeline = make_pipeline(aggregator, LogisticRegression()).fit(X, Y)
    direction = probe_direction(pipeline)
    expected = {("yes", layer, part) for layer in layers for part in parts}
    assert set(direction.vectors.index) == expected
    assert_allclose(evaluate(direction, X)[:, 0], pipeline.decision_function(X))


def test_rows_are_named_as_the_embedder_names_them(llama: str) -> None:
    texts = ["Paris is in France.", "Lima is in Peru.", "Gold is Fe.", "1 2 3"] * 3
    y = np.arange(12) % 2
    embedder = HFEmbeddingTransformer(
        llama,
        device="cpu",
        layers=[2, 0],
        parts=("rs", "attn"),
        pooling=("last", "mean"),
    )
    pipeline = make_pipeline(
        embedder, LayerAggregator(layers=[2], parts=[1, 2]), LogisticRegression()
    )
    direction = probe_direction(pipeline.fit(texts, y))
    assert list(direction.vectors.index) == [(1, 2, "rs_mean"), (1, 2, "attn_last")]
    activations = embedder.fit_transform(texts)
    chosen = activations[:, 0, [1, 2]]
    weights = direction.vectors.to_numpy() * direction.norms.to_numpy()[:, None]
    found = np.einsum("nph,ph->n", chosen, weights) + direction.intercepts.loc[1]
    assert_allclose(found, pipeline.decision_function(texts), rtol=1e-5, atol=1e-6)


def test_estimators_that_hold_a_probe_stand_for_it() -> None:
    pipeline = make_pipeline(LayerAggregator(), LogisticRegression(C=0.1))
    expected = probe_direction(pipeline.fit(X, Y)).vectors
    search = GridSearchCV(pipeline, {"logisticregression__C": [0.1]}).fit(X, Y)
    threshold = FixedThresholdClassifier(pipeline, threshold=0.7).fit(X, Y)
    for holder in (search, threshold):
        assert probe_direction(holder).vectors.equals(expected)


def test_best_layer_stands_for_the_probe_on_that_layer() -> None:
    chooser = BestLayerClassifier(LogisticRegression(), cv=3).fit(X, Y)
    direction = probe_direction(chooser)
    assert list(direction.vectors.index) == [("yes", chooser.layer_, chooser.part_)]
    assert_allclose(evaluate(direction, X)[:, 0], chooser.decision_function(X))


@pytest.mark.parametrize("y", [Y, THREE])
@pytest.mark.parametrize(
    "steps", [[], [LayerAggregator(layers=[2, 1], method="stack")]]
)
def test_joined_probes_of_layers_are_one_direction(
    steps: list[BaseEstimator], y: np.ndarray
) -> None:
    probe = make_pipeline(*steps, PlugStackClassifier(random_state=0)).fit(X, y)
    expected = probe.decision_function(X).reshape(N, -1)
    assert_allclose(evaluate(probe_direction(probe), X), expected, atol=1e-6)


def test_probes_without_a_pipeline_have_one_layer_or_those_of_their_input() -> None:
    flat = X.reshape(N, -1)
    direction = probe_direction(Ridge().fit(flat, Y == "yes"))
    assert list(direction.vectors.index) == [(0, 0, 0)]
    expected = Ridge().fit(flat, Y == "yes").predict(flat)
    assert_allclose(evaluate(direction, flat[:, None, None])[:, 0], expected)


def fit_mlp(y: np.ndarray, **parameters: object) -> PlugMLPClassifier:
    return PlugMLPClassifier(
        max_epochs=5, n_members=2, random_state=0, device="cpu", **parameters
    ).fit(X, y)


@pytest.mark.parametrize("y", [Y, THREE])
@pytest.mark.parametrize("sizing", ["heuristic", "budget"])
def test_linear_path_is_what_the_network_adds_to_its_nonlinear_part(
    y: np.ndarray, sizing: str
) -> None:
    probe = fit_mlp(y, sizing=sizing)
    direction = probe_direction(probe)
    assert direction.kind == "linear path"
    # With the nonlinear part cut off, the network of one member is its linear path.
    module = probe.net_.module_
    for parameter in module.output.parameters():
        parameter.data.zero_()
    weight, bias = module.linear.weight.data, module.linear.bias.data
    weight[:] = weight.mean(dim=0)
    bias[:] = bias.mean(dim=0)
    logits = probe.predict_log_proba(X)
    if len(probe.classes_) == 2:
        expected = logits[:, 1:] - logits[:, :1]
    else:
        expected = logits - logits.mean(axis=1, keepdims=True)
    assert_allclose(evaluate(direction, X), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [PlugMLPClassifier, PlugCNNClassifier])
def test_mean_gradient_is_that_of_finite_differences(kind: type) -> None:
    probe = kind(max_epochs=3, n_members=2, random_state=0, device="cpu").fit(X, Y)
    rows = X[:7].astype(np.float32)
    direction = probe_direction(probe, rows)
    assert direction.kind == "mean gradient"

    def log_odds(activations: np.ndarray) -> np.ndarray:
        logits = probe.predict_log_proba(activations)
        return logits[:, 1] - logits[:, 0]

    for layer, part, unit in [(0, 0, 0), (2, 1, 0), (3, 1, 4)]:
        up, down = rows.copy(), rows.copy()
        up[:, layer, part, unit] += 2**-10
        down[:, layer, part, unit] -= 2**-10
        step = up[:, layer, part, unit] - down[:, layer, part, unit]
        expected = ((log_odds(up) - log_odds(down)) / step).mean()
        place = ("yes", layer, part)
        found = direction.norms[place] * direction.vectors.loc[place, unit]
        assert found == pytest.approx(expected, rel=0.02, abs=1e-3)
    mean = evaluate(direction, rows).mean()
    assert mean == pytest.approx(log_odds(rows).mean(), abs=1e-4)


def test_mean_gradient_goes_back_through_the_steps_before() -> None:
    steps = [LayerAggregator(layers=[2]), StandardScaler()]
    probe = PlugMLPClassifier(max_epochs=3, random_state=0, device="cpu")
    pipeline = make_pipeline(*steps, probe).fit(X, Y)
    direction = probe_direction(pipeline, X)
    features = pipeline[:-1].transform(X)
    own = probe_direction(pipeline[-1], features)
    gradient = own.vectors.to_numpy().reshape(2, 5) * own.norms.iloc[0]
    gradient = gradient / pipeline[1].scale_.reshape(2, 5)
    assert_allclose(direction.norms, np.linalg.norm(gradient, axis=1), rtol=1e-5)
    assert_allclose(
        direction.vectors.to_numpy() * direction.norms.to_numpy()[:, None], gradient
    )


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (make_pipeline(LayerAggregator(), GaussianNB()), "a linear model.*GaussianNB"),
        (
            make_pipeline(LayerAggregator(method="max"), LogisticRegression()),
            "method='max'",
        ),
        (
            make_pipeline(LayerAggregator(), PolynomialFeatures(1), Ridge()),
            "affine steps: .* Got PolynomialFeatures instead",
        ),
        (
            make_pipeline(LayerAggregator(), MinMaxScaler(clip=True), Ridge()),
            "clip=True",
        ),
        (PlugCNNClassifier(max_epochs=1), "give samples as 'X'"),
    ],
)
def test_what_is_not_linear_is_refused_by_name(
    estimator: BaseEstimator, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        probe_direction(estimator.fit(X, THREE == 0))


def test_probes_must_be_fitted() -> None:
    with pytest.raises(NotFittedError):
        probe_direction(LogisticRegression())
    with pytest.raises(NotFittedError):
        probe_direction(make_pipeline(LayerAggregator(), LogisticRegression()))
