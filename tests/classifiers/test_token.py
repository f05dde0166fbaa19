import pickle
from functools import cache
from typing import Any

import numpy as np
import pytest
from _texts import N_FEATURES, gather, make_texts
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import estimator_checks_generator

from plug_sklearn import LayerAggregator, PlugMLPClassifier, PlugTokenClassifier

AGGREGATIONS = ["attention", "max", "mean", "rolling", "softmax"]
X, Y = make_texts(60)
QUICK: dict[str, Any] = {
    "max_epochs": 6,
    "n_members": 2,
    "random_state": 0,
    "device": "cpu",
}


def fit(y: object = Y, **parameters: object) -> PlugTokenClassifier:
    return PlugTokenClassifier(**QUICK | parameters).fit(X, y)


@cache
def fit_once(aggregation: str) -> PlugTokenClassifier:
    return fit(aggregation=aggregation, window=3)


@pytest.mark.filterwarnings("ignore:X given to PlugTokenClassifier has two axes")
def test_checks_of_scikit_learn_pass_with_texts_of_one_token() -> None:
    # Two axes are read as texts of one token each.
    probe = PlugTokenClassifier(max_epochs=10, n_members=2, patience=5)
    for estimator, check in estimator_checks_generator(probe):
        if check.func.__name__ != "check_array_api_input":
            check(estimator)


def test_probe_finds_the_token_that_tells() -> None:
    train, test = make_texts(300, longest=60), make_texts(200, 1, longest=60)
    probe = PlugTokenClassifier(random_state=0, device="cpu", max_epochs=40)
    probe.fit(*train)
    assert roc_auc_score(test[1], probe.predict_proba(test[0])[:, 1]) > 0.95
    told = [text[:, 0].argmax() for text in test[0]]
    found = [weights.argmax() for weights in probe.token_weights(test[0])]
    assert np.equal(told, found).mean() > 0.8
    pooled = [[text.mean(axis=0) for text in X] for X, _ in (train, test)]
    mean = PlugMLPClassifier(random_state=0, device="cpu").fit(pooled[0], train[1])
    assert probe.score(*test) > mean.score(pooled[1], test[1]) + 0.1


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_running_probabilities_are_those_of_the_beginnings(aggregation: str) -> None:
    probe = fit_once(aggregation)
    running = probe.predict_token_proba(X[:9], running=True)
    for text, found in zip(X[:9], running, strict=True):
        beginnings = gather([text[: end + 1] for end in range(len(text))])
        assert_allclose(found, probe.predict_proba(beginnings), atol=1e-12)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_evidence_of_a_token_is_that_of_a_text_of_it_alone(aggregation: str) -> None:
    probe = fit_once(aggregation)
    (found,) = probe.predict_token_proba(X[7:8])
    assert_allclose(found, probe.predict_proba(X[7][:, None]), atol=1e-12)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_weights_of_tokens_sum_to_one(aggregation: str) -> None:
    weights = fit_once(aggregation).token_weights(X)
    assert [len(own) for own in weights] == [len(text) for text in X]
    assert_allclose([own.sum() for own in weights], 1)
    assert min(own.min() for own in weights) >= 0


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_order_company_and_copies_of_texts_do_not_change_predictions(
    aggregation: str,
) -> None:
    probe = fit_once(aggregation)
    expected = probe.predict_proba(X)
    order = np.random.default_rng(0).permutation(len(X))
    assert_allclose(probe.predict_proba(X[order]), expected[order], atol=1e-12)
    assert_allclose(
        probe.predict_proba([*X, *X]), np.tile(expected, (2, 1)), atol=1e-12
    )
    longest = np.ones((500, N_FEATURES))
    for position in (0, 5):
        with_long = probe.predict_proba(gather([X[position], longest]))
        assert_allclose(with_long[0], expected[position], atol=1e-12)


def test_order_of_texts_does_not_change_the_fit() -> None:
    order = np.random.default_rng(0).permutation(len(X))
    again = PlugTokenClassifier(**QUICK).fit(X[order], Y[order])
    assert_array_equal(again.predict_proba(X), fit().predict_proba(X))


def test_text_given_twice_is_a_text_of_weight_two() -> None:
    weight = np.ones(len(X))
    weight[:3] = 2
    weighted = PlugTokenClassifier(**QUICK).fit(X, Y, sample_weight=weight)
    # A copy of an array is equal to it.
    doubled = gather([*X, *(text.copy() for text in X[:3])])
    repeated = PlugTokenClassifier(**QUICK).fit(doubled, [*Y, *Y[:3]])
    assert_array_equal(repeated.predict_proba(X), weighted.predict_proba(X))


def test_same_seed_gives_the_same_bits_and_another_seed_does_not() -> None:
    assert_array_equal(fit().predict_proba(X), fit().predict_proba(X))
    other = fit(random_state=1).predict_proba(X)
    assert (other != fit().predict_proba(X)).any()


def test_half_precision_lists_and_further_axes_are_read_alike() -> None:
    half = gather([text.astype(np.float16) for text in X])
    expected = PlugTokenClassifier(**QUICK).fit(half, Y).predict_proba(half)
    for same in (
        list(half),
        gather([text.astype(np.float64) for text in half]),
        gather([text.reshape(-1, 2, 1, 4) for text in half]),
        [text.tolist() for text in half],
    ):
        probe = PlugTokenClassifier(**QUICK).fit(same, Y)
        assert_array_equal(probe.predict_proba(same), expected)


def test_array_of_three_axes_holds_texts_of_equal_lengths() -> None:
    array = np.stack([np.resize(text, (4, N_FEATURES)) for text in X])
    probe = PlugTokenClassifier(**QUICK).fit(array, Y)
    assert probe.n_features_in_ == N_FEATURES
    same = PlugTokenClassifier(**QUICK).fit(gather(array), Y)
    assert_array_equal(probe.predict_proba(array), same.predict_proba(list(array)))


def test_texts_of_one_and_of_ten_thousand_tokens_are_fitted_together() -> None:
    long = np.random.default_rng(0).normal(size=(10_000, N_FEATURES))
    texts, y = gather([*X, long.astype(np.float32)]), [*Y, 1]
    probe = PlugTokenClassifier(**QUICK | {"max_epochs": 1}).fit(texts, y)
    running = probe.predict_token_proba(texts[-1:], running=True)[0]
    assert running.shape == (10_000, 2)
    assert_allclose(running[-1], probe.predict_proba(texts[-1:])[0], atol=1e-9)


def test_validation_texts_and_groups_are_used() -> None:
    other = make_texts(30, seed=2)
    probe = PlugTokenClassifier(**QUICK).fit(X, Y, X_val=other[0], y_val=other[1])
    assert probe.monitor_ == "roc_auc"
    grouped = PlugTokenClassifier(**QUICK).fit(X, Y, groups=np.arange(60) // 3)
    assert (grouped.predict_proba(X) != fit().predict_proba(X)).any()


def test_scorer_is_given_texts() -> None:
    probe = fit(monitor="accuracy")
    assert {"valid_score"} <= set(probe.history_[0])


@pytest.mark.parametrize("ratio", [5.0, 12.0])
@pytest.mark.parametrize("linear_path", [True, False])
@pytest.mark.parametrize("aggregation", ["attention", "max"])
def test_budget_sets_the_number_of_parameters(
    aggregation: str, linear_path: bool, ratio: float
) -> None:
    rng = np.random.default_rng(0)
    texts = gather([rng.normal(size=(2, 300)) for _ in range(100)])
    probe = PlugTokenClassifier(
        sizing="budget",
        aggregation=aggregation,
        linear_path=linear_path,
        target_ratio=ratio,
        n_members=2,
        max_epochs=1,
        device="cpu",
    ).fit(texts, np.arange(100) % 2)
    assert probe.n_parameters_ == pytest.approx(ratio * 100, rel=0.1)


def test_pickle_has_the_size_of_the_weights_and_predicts_the_same() -> None:
    probe = fit()
    data = pickle.dumps(probe)
    state = probe.net_.module_.state_dict()
    size = sum(value.numel() * value.element_size() for value in state.values())
    assert len(data) < size + 6000
    assert_array_equal(pickle.loads(data).predict_proba(X), probe.predict_proba(X))


def test_probe_works_in_pipelines_searches_and_other_processes() -> None:
    activations = gather([text.reshape(-1, 2, 1, 4) for text in X])
    pipe = make_pipeline(LayerAggregator([1]), PlugTokenClassifier(**QUICK))
    scores = cross_val_score(pipe, activations, Y, cv=2)
    assert scores.shape == (2,)
    grid = {"plugtokenclassifier__aggregation": ["mean", "attention"]}
    search = GridSearchCV(pipe, grid, cv=2, n_jobs=2).fit(activations, Y)
    assert clone(search.best_estimator_).get_params()
    assert search.predict_proba(activations).shape == (60, 2)


def test_three_classes_have_three_columns() -> None:
    y = np.array(["a", "b", "c"])[np.arange(60) % 3]
    for aggregation in AGGREGATIONS:
        probe = fit(y, aggregation=aggregation)
        assert_allclose(probe.predict_proba(X).sum(axis=1), 1)
        running = probe.predict_token_proba(X[:2], running=True)
        assert_allclose(running[1][-1], probe.predict_proba(X[:2])[1], atol=1e-12)


def label_tokens(names: tuple[Any, Any, Any]) -> list[list[Any]]:
    """Label the telling token of each text, and leave out the first one."""
    none, background, told = names
    labels = []
    for text, label in zip(X, Y, strict=True):
        own = [background] * len(text)
        own[int(text[:, 0].argmax())] = told if label else background
        own[0] = none
        labels.append(own)
    return labels


def test_labels_of_tokens_train_the_evidence_of_tokens() -> None:
    labels = label_tokens((-1, 0, 1))
    probe = fit(labels, max_epochs=60)
    assert probe.labels_tokens_
    found = np.concatenate(probe.predict_token_proba(X))[:, 1]
    flat = np.concatenate(labels)
    assert roc_auc_score(flat[flat >= 0], found[flat >= 0]) > 0.95
    evidence = probe.predict_token_proba(X)
    strongest = [tokens[:, 1].max() for tokens in evidence]
    assert_allclose(probe.predict_proba(X)[:, 1], np.round(strongest, 3), atol=0.25)


def test_strings_label_tokens_too() -> None:
    numbers = fit(label_tokens((-1, 0, 1)))
    strings = fit(label_tokens((None, "fine", "wrong")))
    assert strings.classes_.tolist() == ["fine", "wrong"]
    assert_array_equal(strings.predict_proba(X), numbers.predict_proba(X))


def test_texts_without_labelled_tokens_are_dropped() -> None:
    labels = label_tokens((-1, 0, 1))
    labels[:5] = [[-1] * len(own) for own in labels[:5]]
    without = PlugTokenClassifier(**QUICK).fit(X[5:], labels[5:])
    assert_array_equal(fit(labels).predict_proba(X), without.predict_proba(X))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([*X[:3], np.zeros((2, 3))], "Got 3 at position 3"),
        ([*X[:3], np.zeros((0, N_FEATURES))], "at least one token"),
        ([*X[:3], np.full((2, N_FEATURES), np.nan)], "NaN or infinity.*position 3"),
        ([*X[:3], np.full((2, N_FEATURES), 1e300)], "NaN or infinity.*position 3"),
        ([*X[:3], np.array([["a"] * N_FEATURES])], "<U1 of shape .* at position 3"),
        ([*X[:3], "text"], "Got str at position 3"),
        ([*X[:3], np.zeros(N_FEATURES)], r"shape \(8,\) at position 3"),
        (["text"] * 4, "must hold numbers. Got texts"),
        ([], "at least one text"),
        (np.zeros((4, 2, 2, 2)), "pooling=None in HFEmbeddingTransformer"),
        ([], r"at least one text. Got \[\] instead"),
    ],
)
def test_wrong_features_are_refused_with_their_position(
    wrong: object, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        PlugTokenClassifier(**QUICK).fit(wrong, [0, 1, 0, 1])


def test_pooled_features_are_read_with_a_warning() -> None:
    pooled = np.array([text.mean(axis=0) for text in X])
    with pytest.warns(UserWarning, match="two axes.*pooling=None in HFEmb"):
        probe = PlugTokenClassifier(**QUICK).fit(pooled, Y)
    assert probe.predict(pooled).shape == (len(X),)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([None, *["a", "b"] * 30][: len(X)], "must not be missing. Got None"),
        (np.array(["a", *[0, 1] * 30][: len(X)], dtype=object), "all strings or all"),
        ([np.zeros(len(X[0])), *Y[1:]], "or a sequence of labels for each text"),
    ],
)
def test_mixed_labels_of_texts_are_refused(y: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PlugTokenClassifier(**QUICK).fit(X, y)


def test_none_marks_unlabelled_tokens_among_numbers_too() -> None:
    marked = label_tokens((-1, 0, 1))
    listed = [[None if label == -1 else int(label) for label in own] for own in marked]
    expected, found = fit(marked), fit(listed)
    assert_array_equal(found.classes_, [0, 1])
    assert_array_equal(found.predict_proba(X), expected.predict_proba(X))


def test_other_number_of_features_is_refused_in_prediction() -> None:
    with pytest.raises(ValueError, match="X has 3 features, but PlugTokenClassifier"):
        fit_once("mean").predict_proba([np.zeros((2, 3)), np.zeros((1, 3))])


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([[0] * len(text) for text in X[:-1]] + [[0]], "position 59"),
        ([[-1] * len(text) for text in X], "must label at least one token"),
        ([[0.5] * len(text) for text in X], "whole numbers"),
        ([[0] * len(text) for text in X], "at least two classes"),
    ],
)
def test_wrong_labels_of_tokens_are_refused(y: object, message: str) -> None:
    texts = gather([*X[:-1], np.zeros((3, N_FEATURES))])
    with pytest.raises(ValueError, match=message):
        PlugTokenClassifier(**QUICK).fit(texts if "59" in message else X, y)


def test_other_scorers_are_refused_with_labels_of_tokens() -> None:
    with pytest.raises(ValueError, match="'monitor' parameter of PlugTokenClassifier"):
        fit(label_tokens((-1, 0, 1)), monitor="accuracy")
