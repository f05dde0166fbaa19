from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from plug_sklearn import (
    cross_validation_report,
    recall_at_fpr,
    threshold_at_fpr,
)

RNG = np.random.default_rng(0)
Y = np.arange(400) % 2
X = RNG.normal(size=(400, 3)) + 1.5 * Y[:, None]


class FirstColumn(ClassifierMixin, BaseEstimator):
    """Its decision value is the first column."""

    classes_ = np.array([0, 1])

    def fit(self, X: np.ndarray, y: np.ndarray) -> "FirstColumn":
        self.fitted_ = True
        return self

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        values: np.ndarray = X[:, 0]
        return values

    def predict(self, X: np.ndarray) -> np.ndarray:
        return (X[:, 0] > 0).astype(int)


PROBE = FirstColumn().fit(X, Y)
SCORES = st.lists(
    st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=30
).filter(lambda rows: len({label for _, label in rows}) == 2)


@given(rows=SCORES, fpr=st.sampled_from([0.01, 0.1, 0.25, 0.5]))
def test_recall_is_the_best_of_all_thresholds(
    rows: list[tuple[int, bool]], fpr: float
) -> None:
    scores, labels = (np.array(column) for column in zip(*rows, strict=True))
    best = max(
        float((scores[labels] >= threshold).mean())
        for threshold in range(8)
        if (scores[~labels] >= threshold).mean() <= fpr
    )
    found = recall_at_fpr(fpr)(PROBE, scores[:, None].astype(float), labels.astype(int))
    assert found == pytest.approx(best)


def test_scorer_is_taken_wherever_scoring_is() -> None:
    names = np.array(["fine", "harmful"])[Y]
    scoring = {"at_1": recall_at_fpr(0.01), "at_20": recall_at_fpr(0.2)}
    table = cross_validate(LogisticRegression(), X, names, scoring=scoring, n_jobs=2)
    assert (table["test_at_20"] > table["test_at_1"]).all()
    report = cross_validation_report(LogisticRegression(), X, names, scoring=scoring)
    assert report.scores["at_1"].tolist() == pytest.approx(table["test_at_1"])
    inverse = recall_at_fpr(0.2, pos_label="fine")
    probe = LogisticRegression().fit(X, names)
    by_hand = recall_at_fpr(0.2)(
        FirstColumn(), -probe.decision_function(X)[:, None], 1 - Y
    )
    assert inverse(probe, X, names) == pytest.approx(by_hand)


def test_recall_of_one_class_is_undefined() -> None:
    with pytest.warns(UserWarning, match="undefined if 'y' holds one class"):
        assert np.isnan(recall_at_fpr(0.1)(PROBE, X, np.zeros(400, dtype=int)))
    with pytest.raises(ValueError, match="two classes"):
        recall_at_fpr(0.1)(PROBE, X, np.arange(400) % 3)


def is_largest(allowed: int, n: int, fpr: float, confidence: float) -> bool:
    """Whether no more negative rows may be flagged to keep the promise."""

    def promise(k: int) -> float:
        return 1 - sum(comb(n, i) * fpr**i * (1 - fpr) ** (n - i) for i in range(k + 1))

    return promise(allowed) >= confidence > promise(allowed + 1)


@pytest.mark.parametrize(
    ("n", "fpr", "confidence"), [(299, 0.01, 0.95), (1000, 0.02, 0.9), (60, 0.2, 0.99)]
)
def test_number_allowed_is_the_largest_that_the_binomial_allows(
    n: int, fpr: float, confidence: float
) -> None:
    scores = np.arange(n, dtype=float)[:, None]
    monitor = threshold_at_fpr(
        PROBE, scores, np.zeros(n, dtype=int), fpr, confidence=confidence
    )
    assert is_largest(monitor.predict(scores).sum(), n, fpr, confidence)


@pytest.mark.parametrize("is_discrete", [False, True])
def test_rate_on_new_rows_stays_below_the_limit_as_often_as_promised(
    is_discrete: bool,
) -> None:
    n, fpr, confidence, n_draws = 300, 0.02, 0.9, 1500
    rng = np.random.default_rng(1)
    kept = []
    for _ in range(n_draws):
        scores = rng.normal(size=(n, 1))
        if is_discrete:
            scores = np.round(4 * scores) / 4
        monitor = threshold_at_fpr(
            PROBE, scores, np.zeros(n, dtype=int), fpr, confidence=confidence
        )
        # Rounded scores reach the threshold from half a step below it.
        step = 0.25 * np.ceil(4 * monitor.threshold) - 0.125
        kept.append(stats.norm.sf(step if is_discrete else monitor.threshold) < fpr)
    error = np.sqrt(confidence * (1 - confidence) / n_draws)
    assert np.mean(kept) > confidence - 3 * error
    if not is_discrete:
        # No more rows are given away than the binomial costs.
        allowed = monitor.predict(scores).sum()
        exact = stats.binom.sf(allowed, n, fpr)
        assert np.mean(kept) == pytest.approx(exact, abs=4 * error)


def test_groups_keep_the_promise_where_rows_depend_on_each_other() -> None:
    n_groups, size, fpr, confidence = 60, 10, 0.1, 0.9
    groups = np.repeat(np.arange(n_groups), size)
    y = np.zeros(len(groups), dtype=int)
    rng = np.random.default_rng(2)
    kept: dict[str, list[bool]] = {"rows": [], "groups": []}
    for _ in range(400):
        # Rows of a group share all of their score.
        scores = np.repeat(rng.normal(size=n_groups), size)[:, None]
        for name, given_groups in (("rows", None), ("groups", groups)):
            monitor = threshold_at_fpr(
                PROBE, scores, y, fpr, confidence=confidence, groups=given_groups
            )
            kept[name].append(stats.norm.sf(monitor.threshold) < fpr)
    assert np.mean(kept["groups"]) > confidence - 0.045
    # What groups are for: without them, the promise is broken.
    assert np.mean(kept["rows"]) < 0.8


def test_wrapper_is_fitted_and_flags_above_the_allowed_scores() -> None:
    probe = make_pipeline(StandardScaler(), LogisticRegression()).fit(X[:100], Y[:100])
    monitor = threshold_at_fpr(probe, X[100:], Y[100:], 0.1)
    negatives = np.sort(probe.predict_proba(X[100:])[Y[100:] == 0, 1])[::-1]
    allowed = monitor.predict(X[100:])[Y[100:] == 0].sum()
    assert is_largest(allowed, 150, 0.1, 0.95)
    assert negatives[allowed - 1] >= monitor.threshold > negatives[allowed]
    assert np.array_equal(monitor.predict_proba(X), probe.predict_proba(X))
    assert monitor.classes_.tolist() == [0, 1]


def test_either_class_and_decision_values_are_taken() -> None:
    names = np.array(["fine", "harmful"])[Y]
    probe = RidgeClassifier().fit(X[:100], names[:100])
    monitor = threshold_at_fpr(
        probe, X[100:], names[100:], 0.1, pos_label="fine", confidence=0.9
    )
    flagged = monitor.predict(X[100:])[names[100:] == "harmful"] == "fine"
    assert is_largest(flagged.sum(), 150, 0.1, 0.9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scores_that_tie_at_the_threshold_are_not_flagged(dtype: type) -> None:
    scores = np.ones((100, 1), dtype=dtype)
    monitor = threshold_at_fpr(PROBE, scores, np.zeros(100, dtype=int), 0.1)
    assert monitor.predict(scores).sum() == 0
    assert monitor.predict(np.nextafter(scores, dtype(2))).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"fpr": 0.01},
            r"needs 299 samples of the negative class .* Got 200. Give more",
        ),
        ({"groups": Y, "fpr": 0.1}, r"needs 29 groups with samples .* Got 1"),
        ({"fpr": 1}, "'fpr' parameter of threshold_at_fpr must be a number between"),
        ({"fpr": "1%"}, "Got '1%' instead"),
        ({"confidence": 95}, "'confidence' parameter of threshold_at_fpr"),
        ({"pos_label": "yes"}, r"'pos_label' .* among \[0, 1\]. Got 'yes' instead"),
        ({"y": Y + 1}, r"'y' parameter of threshold_at_fpr .* Got \[2\] instead"),
        ({"y": Y[1:]}, "'y' parameter.* for each of the 400 samples"),
        ({"groups": [None] * 400}, "'groups' parameter of threshold_at_fpr .* missing"),
        (
            {"estimator": LogisticRegression().fit(X, np.arange(400) % 3)},
            r"two classes. Got LogisticRegression with classes \[0, 1, 2\]",
        ),
    ],
)
def test_bad_input_is_refused(arguments: dict[str, object], message: str) -> None:
    given = {"estimator": PROBE, "X": X, "y": Y, "fpr": 0.1, **arguments}
    with pytest.raises(ValueError, match=message):
        threshold_at_fpr(**given)  # type: ignore[arg-type]  # what is tested


def test_estimators_must_be_fitted() -> None:
    with pytest.raises(NotFittedError):
        threshold_at_fpr(LogisticRegression(), X, Y, 0.1)
    with pytest.raises(ValueError, match="'fpr' parameter of recall_at_fpr"):
        recall_at_fpr(0)
