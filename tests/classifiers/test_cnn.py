import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from skorch import NeuralNet
from skorch.callbacks import Callback
from torch import nn

from plug_sklearn import LayerAggregator, PlugCNNClassifier
from plug_sklearn.classifiers import CNNNetwork

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4, 3, 6))
Y = np.arange(60) % 2


def fit(X: np.ndarray, **parameters: object) -> PlugCNNClassifier:
    settings = {"max_epochs": 2, "random_state": 0} | parameters
    return PlugCNNClassifier(**settings).fit(X, Y)


PLAIN = {"conv_over": "units", "n_members": 1, "linear_path": False}


def test_network_over_units_is_sized_by_rows_and_shape() -> None:
    # 8, 16, 32, 32; LayerNorm 12, then 3 x 5 x 4 x 8 + 24, 128 + 48, 544, 2178.
    probe = fit(X, **PLAIN)
    assert isinstance(probe.net_.module_, CNNNetwork)
    assert probe.n_parameters_ == 12 + 504 + 176 + 544 + 2178


def test_network_over_layers_is_sized_by_rows_and_shape() -> None:
    # 18 x 8 + 24, 3 x 8 x 16 + 48, 544, 2178; linear 72 x 2 + 2.
    assert fit(X).n_parameters_ == 5 * (168 + 432 + 544 + 2178 + 146)


@pytest.mark.parametrize("conv_over", ["layers", "units"])
@pytest.mark.parametrize("n_parts", [1, 3])
def test_all_members_together_keep_to_the_budget(conv_over: str, n_parts: int) -> None:
    parameters = {"conv_over": conv_over, "linear_path": conv_over == "layers"}
    probe = PlugCNNClassifier(
        sizing="budget", target_ratio=30.0, n_members=2, max_epochs=1, **parameters
    )
    wide = RNG.normal(size=(60, 4, n_parts, 50))
    probe.fit(wide, Y)
    assert probe.n_parameters_ == pytest.approx(1800, rel=0.1)
    assert probe.predict_proba(wide).shape == (60, 2)


def test_order_of_layers_counts_over_layers() -> None:
    probe = fit(X, linear_path=False, max_epochs=5)
    assert not np.allclose(probe.transform(X), probe.transform(X[:, [0, 2, 1, 3]]))


def test_parameters_reach_the_network_and_the_loss() -> None:
    probe = PlugCNNClassifier(
        target_ratio=100.0,
        width_cap=9,
        proj_mult=6,
        dropout=0.4,
        contrastive_weight=0.3,
        temperature=0.5,
        max_epochs=1,
    ).fit(X, Y)
    net = probe.net_
    assert (net.module__first, net.module__projection) == (9, 54)
    assert net.module__dropout == 0.4
    assert net.criterion__contrastive_weight == 0.3
    assert net.criterion__temperature == 0.5


def test_probes_learn_at_the_linear_rate_over_the_units_of_a_layer() -> None:
    rates = []

    class KeepRates(Callback):
        def on_train_end(self, net: NeuralNet, **kwargs: object) -> None:
            rates.extend(group["lr"] for group in net.optimizer_.param_groups)

    fit(X, linear_lr=0.018, callbacks=[KeepRates()])
    assert min(rates) == pytest.approx(0.001)


def test_flat_samples_with_geometry_are_those_of_four_axes() -> None:
    flat = X.reshape(60, -1)
    probe = fit(flat, n_layers=4, n_parts=3)
    assert np.array_equal(probe.predict_proba(flat), fit(X).predict_proba(X))


def test_three_axes_are_one_part() -> None:
    one_part = X[:, :, 0]
    probe = fit(one_part)
    expected = fit(X[:, :, :1]).predict_proba(X[:, :, :1])
    assert np.array_equal(probe.predict_proba(one_part), expected)
    plain = fit(one_part, **PLAIN)
    assert isinstance(plain.net_.module_.encoder[0], nn.Conv1d)


def test_bare_features_are_not_layer_normalised() -> None:
    flat = X.reshape(60, -1)
    assert isinstance(fit(flat, **PLAIN).net_.module_.norm, nn.Identity)
    assert isinstance(fit(flat, n_layers=1, **PLAIN).net_.module_.norm, nn.LayerNorm)


@pytest.mark.parametrize(
    ("shape", "parameters", "message"),
    [
        ((72,), {"n_layers": 5}, r"divide the 72 features of X. Got 5 and 1 instead"),
        ((4, 18), {"n_layers": 3}, r"'n_layers' .* None or 4, as in X. Got 3 instead"),
        ((4, 18), {"n_parts": 2}, r"'n_parts' .* None or 1, as in X. Got 2 instead"),
        ((2, 2, 3, 6), {}, r"must be \(n, layers, parts, hidden\)"),
    ],
)
def test_shape_that_does_not_suit_is_an_error(
    shape: tuple[int, ...], parameters: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        fit(X.reshape(60, *shape), **parameters)


def test_transform_gives_the_projections_that_the_head_classifies() -> None:
    probe = fit(X)
    z = probe.transform(X)
    assert z.shape == (60, 5 * 32)
    assert (z >= 0).all()
    module = probe.net_.module_.double()
    tensor = module.output.weight.new_tensor(z).view(60, 5, 32)
    network = module.output(module.head(tensor))
    layers = module.linear(module.read_inputs(torch.tensor(X)))
    mixed = module.mixture(torch.cat([layers, network[:, :, None]], dim=2))
    # The mean of the members' probabilities, sharpened by the inverse temperature.
    means = mixed.softmax(dim=-1).mean(dim=1).log()
    both = module.temperature(means)
    np.testing.assert_allclose(
        both.softmax(dim=1).detach().numpy(), probe.predict_proba(X), rtol=1e-9
    )


@pytest.mark.parametrize("conv_over", ["layers", "units"])
def test_the_layer_that_tells_classes_apart_weighs_most(conv_over: str) -> None:
    knows = X.copy()
    knows[:, 2, 1, :3] += 3 * Y[:, None]
    weight = fit(knows, conv_over=conv_over, max_epochs=30).net_.module_.mixture.weight
    assert weight[:-1].argmax() == 2
    assert weight[2] > 2 * weight[[0, 1, 3]].max()


def test_layers_weigh_the_same_where_no_rows_are_held_out() -> None:
    weight = fit(X, early_stopping=False).net_.module_.mixture.weight
    assert weight.tolist() == pytest.approx([1 / 5] * 5)


def test_layers_are_weighed_by_validation_rows_that_are_given() -> None:
    knows = X.copy()
    knows[:, 2, 1, :3] += 3 * Y[:, None]
    probe = PlugCNNClassifier(max_epochs=9, random_state=0)
    probe.fit(knows, Y, X_val=knows[:20], y_val=Y[:20])
    module = probe.net_.module_.double()
    each = module(torch.tensor(knows[:20], dtype=torch.float64))[2]
    learnt = module.mixture.weight.clone()
    # Each row counts once, however many members predict it.
    codes = torch.tensor(Y[:20]).repeat_interleave(5)
    module.mixture.learn(each.flatten(end_dim=1), codes, torch.full((100,), 0.2))
    torch.testing.assert_close(learnt, module.mixture.weight, rtol=1e-3, atol=1e-5)


def test_fit_and_prediction_leave_samples_as_they_are() -> None:
    given = X[:, :, :1].astype(np.float32)
    before = given.copy()
    probe = fit(given, n_members=1)
    probe.predict_proba(given[:1])
    assert np.array_equal(given, before)


def test_projections_have_names_and_can_be_a_frame() -> None:
    probe = fit(X).set_output(transform="pandas")
    assert probe.transform(X).columns.tolist() == [
        f"plugcnnclassifier{i}" for i in range(160)
    ]


def test_transform_before_fit_is_an_error() -> None:
    with pytest.raises(NotFittedError):
        PlugCNNClassifier().transform(X)


def test_contrast_draws_the_projections_of_a_class_together() -> None:
    def spread(contrastive_weight: float) -> float:
        probe = fit(
            X,
            contrastive_weight=contrastive_weight,
            early_stopping=False,
            dropout=0.0,
            input_dropout=0.0,
            max_epochs=30,
            **PLAIN,
        )
        z = probe.transform(X)
        z /= np.linalg.norm(z, axis=1, keepdims=True)
        similarity = z @ z.T
        same = Y[:, None] == Y[None, :]
        return float(similarity[~same].mean() / similarity[same].mean())

    assert spread(5.0) < spread(0.0)


def test_cnn_follows_a_stacking_aggregator() -> None:
    pipeline = make_pipeline(
        LayerAggregator(layers=[0, -1], method="stack"),
        PlugCNNClassifier(max_epochs=2, random_state=0),
    )
    expected = fit(X[:, [0, 3]]).predict_proba(X[:, [0, 3]])
    assert np.array_equal(pipeline.fit(X, Y).predict_proba(X), expected)


def test_names_are_those_of_the_fitted_network_whatever_is_set_since() -> None:
    probe = fit(X, n_members=2, proj_mult=5)
    names = probe.get_feature_names_out().tolist()
    assert len(names) == probe.transform(X).shape[1]
    probe.set_params(n_members=7, proj_mult=2, width_cap=8)
    assert probe.get_feature_names_out().tolist() == names
    probe.set_output(transform="pandas")
    assert probe.transform(X).columns.tolist() == names


@pytest.mark.parametrize("number", [np.uint8, np.int8, np.uint16, np.int64])
def test_numpy_numbers_shape_samples_as_python_numbers(number: type) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 16 * 16 * 2)), np.arange(40) % 2
    shapes = [{"n_layers": kind(16), "n_parts": kind(16)} for kind in (int, number)]
    expected, found = (
        PlugCNNClassifier(
            **shape, proj_mult=shape["n_layers"], max_epochs=1, random_state=0
        )
        .fit(X, y)
        .predict_proba(X)
        for shape in shapes
    )
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["contrastive_weight", "temperature"])
def test_numpy_rates_of_the_contrastive_loss_fit_as_python_numbers(name: str) -> None:
    probe = PlugCNNClassifier(max_epochs=1, random_state=0, contrastive_weight=0.1)
    expected, found = (
        clone(probe).set_params(**{name: value}).fit(X, Y).predict_proba(X)
        for value in (float(np.float16(0.3)), np.float16(0.3))
    )
    np.testing.assert_array_equal(found, expected)
