import pickle
import signal

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from skorch.helper import predefined_split
from torch import nn
from torch.nn import functional as F

from plug_sklearn.classifiers import MLPNetwork
from plug_sklearn.classifiers._batches import MemberRows, Rows
from plug_sklearn.classifiers._losses import find_inverse_temperature
from plug_sklearn.classifiers._training import ProbeNet, find_components

RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 4)).astype(np.float32)
CODES = (X[:, 0] > 0).astype(np.intp)
WEIGHT = RNG.uniform(0.1, 3, size=50)


def build_net(**parameters: object) -> ProbeNet:
    sizes = {
        "module__n_features": 4,
        "module__n_classes": 2,
        "module__first": 16,
        "module__second": 16,
        "module__last": 16,
        "module__dropout": 0.5,
    }
    settings = {"max_epochs": 3, "lr": 0.01, "batch_size": 16, "verbose": 0}
    return ProbeNet(**({"module": MLPNetwork} | sizes | settings | parameters))


def share_rows(X: np.ndarray) -> MemberRows:
    factors = np.ones(CODES.max() + 1)
    return Rows(X, CODES, WEIGHT).put_on_device(factors, torch.device("cpu"))


def member_rows(X: np.ndarray, n_members: int = 1) -> MemberRows:
    return share_rows(X).choose(np.ones((n_members, 50), bool))


def train(**parameters: object) -> ProbeNet:
    net = build_net(**parameters)
    return net.fit(member_rows(X, net.get_params().get("module__n_members", 1)), None)


def weighted_cross_entropy(net: ProbeNet, logits: torch.Tensor) -> float:
    losses = F.cross_entropy(logits, torch.tensor(CODES), reduction="none")
    return float(np.average(losses.detach().numpy(), weights=WEIGHT))


def test_losses_of_an_epoch_are_weighted_means_over_its_rows() -> None:
    # So slow that the network is the same before and after the epoch.
    split = predefined_split(share_rows(X))
    net = train(
        max_epochs=1,
        lr=1e-12,
        batch_size=50,
        train_split=split,
        evaluation_rows=7,
        module__dropout=0.0,
    )
    assert net.history[-1, "valid_loss"] == pytest.approx(
        weighted_cross_entropy(net, net.module_.eval()(torch.tensor(X))), rel=1e-5
    )
    assert net.history[-1, "train_loss"] == pytest.approx(
        weighted_cross_entropy(net, net.module_.train()(torch.tensor(X))), rel=1e-5
    )


def test_the_seed_decides_the_weights() -> None:
    one, same, other = (train(seed=seed).module_.state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["output.weight"], other["output.weight"])


def test_a_generator_decides_initial_weights_batches_and_masks() -> None:
    drawn = []
    for seed in (0, 1):
        net = build_net(seed=seed).initialize()
        masked = net.module_.entry[0][3](torch.ones(4, 50))
        batch, _ = next(iter(net.get_iterator(member_rows(X), training=True)))
        drawn.append((net.module_.output.weight, masked, batch))
    for one, other in zip(*drawn, strict=True):
        assert not torch.equal(one, other)


def test_running_statistics_start_as_those_of_the_data() -> None:
    net = train(max_epochs=1, lr=1e-12, batch_size=50, module__dropout=0.0)
    norm = net.module_.entry[0][1]
    inputs = net.module_.entry[0][0](net.module_.standardise(torch.tensor(X))[:, None])
    inputs = inputs[:, 0]
    torch.testing.assert_close(norm.running_mean, inputs.mean(0))
    torch.testing.assert_close(norm.running_var, inputs.var(0))


def test_running_statistics_end_with_torchs_own_momentum() -> None:
    norms = [m for m in train(max_epochs=5).module_.modules() if hasattr(m, "momentum")]
    assert [norm.momentum for norm in norms] == pytest.approx(
        [nn.BatchNorm1d(1).momentum] * 4
    )


class InterruptedNetwork(MLPNetwork):
    """Is computed when the user presses Ctrl-C."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        signal.raise_signal(signal.SIGINT)
        return super().forward(x)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_gets_out_of_training() -> None:
    with pytest.raises(KeyboardInterrupt):
        build_net(module=InterruptedNetwork).fit(member_rows(X), None)


def test_initial_logits_are_the_shares_of_the_classes() -> None:
    net = build_net(class_shares=[0.9, 0.1]).initialize()
    assert net.module_.output.bias[0].softmax(0).tolist() == pytest.approx([0.9, 0.1])


def test_skorchs_own_predict_proba_agrees() -> None:
    net = train()
    expected = net.compute_probabilities(X)
    np.testing.assert_allclose(net.predict_proba(X), expected, atol=1e-5)


def test_trimmed_net_pickles_its_weights_once_and_nothing_of_training() -> None:
    net = train(module__first=512)
    net.trim_for_prediction()
    n_bytes = sum(value.nbytes for value in net.module_.state_dict().values())
    pickled = pickle.dumps(net)
    # skorch's settings and torch's framing of each tensor take some kilobytes.
    assert n_bytes < len(pickled) < n_bytes + 20_000
    loaded = pickle.loads(pickled)
    assert loaded.optimizer_ is None
    assert loaded.device == "cpu"
    np.testing.assert_array_equal(
        loaded.compute_probabilities(X), net.compute_probabilities(X)
    )


def test_scale_of_the_samples_does_not_matter() -> None:
    expected = train().compute_probabilities(X)
    # A power of two, so that the scaling itself rounds nothing.
    scaled = build_net().fit(member_rows(X / 1024), None)
    np.testing.assert_array_equal(scaled.compute_probabilities(X / 1024), expected)


def test_offset_of_a_unit_hardly_matters() -> None:
    # So coarse that the offset rounds nothing; its mean in single precision still is.
    coarse = np.round(X * 1024) / 1024
    offset = coarse + np.float32(1000) * (np.arange(4) == 2)
    one, other = (build_net().fit(member_rows(x), None) for x in (coarse, offset))
    np.testing.assert_allclose(
        one.compute_probabilities(coarse),
        other.compute_probabilities(offset),
        atol=0.03,
    )


def test_calibration_scales_logits_by_the_factor_of_the_lowest_loss() -> None:
    net = train(max_epochs=30, module__dropout=0.0, lr=0.05)
    noisy = X + RNG.normal(size=X.shape).astype(np.float32)
    rows = share_rows(noisy)
    logits = net.module_.eval()(rows.X).detach()
    factor = find_inverse_temperature(logits, rows.y, rows.weight)
    assert factor != 1
    net.calibrate(rows)
    torch.testing.assert_close(net.module_(rows.X).detach(), factor * logits)


def test_calibration_leaves_the_order_of_rows_as_it_was() -> None:
    net = train(max_epochs=10)
    before = net.compute_probabilities(X)[:, 1]
    net.calibrate(share_rows(X[::-1].copy()))
    after = net.compute_probabilities(X)[:, 1]
    assert np.array_equal(before.argsort(), after.argsort())
    assert not np.allclose(before, after)


def test_probabilities_of_a_member_average_to_those_of_all() -> None:
    net = train(module__n_members=3)
    each = [net.compute_probabilities(X, member) for member in range(3)]
    np.testing.assert_allclose(np.mean(each, axis=0), net.compute_probabilities(X))


GENERATOR = np.random.default_rng(0)
DEVIATIONS = np.geomspace(5, 0.1, 12)
FEATURES = (GENERATOR.normal(size=(80, 12)) * DEVIATIONS).astype(np.float32)
FEATURES -= FEATURES.mean(axis=0)


def test_directions_are_the_principal_ones() -> None:
    basis = find_components(FEATURES, np.ones(80, np.float32), 3, seed=0)
    unit = basis / np.linalg.norm(basis, axis=0)
    principal = PCA(3).fit(FEATURES).components_
    np.testing.assert_allclose(np.abs(np.diag(principal @ unit)), 1, atol=1e-5)


def test_variances_along_them_average_one() -> None:
    basis = find_components(FEATURES, np.ones(80, np.float32), 4, seed=0)
    assert np.var(FEATURES @ basis, axis=0).mean() == pytest.approx(1, rel=1e-4)
    lengths = np.linalg.norm(basis, axis=0)
    np.testing.assert_allclose(lengths, lengths[0], rtol=1e-5)


def test_a_row_of_weight_two_is_a_row_twice() -> None:
    weight = np.ones(80, np.float32)
    weight[:5] = 2
    weighted = find_components(FEATURES, weight, 3, seed=0)
    repeated = np.concatenate([FEATURES, FEATURES[:5]])
    other = find_components(repeated, np.ones(85, np.float32), 3, seed=0)
    np.testing.assert_allclose(weighted @ weighted.T, other @ other.T, atol=1e-4)


def test_features_without_variance_have_a_finite_basis() -> None:
    basis = find_components(
        np.zeros((9, 4), np.float32), np.ones(9, np.float32), 2, seed=0
    )
    assert np.isfinite(basis).all()
