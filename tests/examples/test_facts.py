"""The quickstart's statements are what they claim to be."""

import doctest
import runpy
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

PATH = Path(__file__).parents[2] / "examples" / "facts.py"
FACTS = runpy.run_path(str(PATH))

PAIRS = list(FACTS["read_pairs"]())


@pytest.fixture
def statements() -> pd.DataFrame:
    return FACTS["make_statements"]()


def list_truths() -> set[tuple[str, str, str]]:
    """Give every (subject, relation, value) of the tables."""
    return {
        (next(iter(fact.values())), relation, fact[relation])
        for pair in PAIRS
        for fact in pair
        for relation in list(fact)[1:]
    }


def test_there_are_at_least_800_statements(statements: pd.DataFrame) -> None:
    assert len(statements) >= 800


def test_half_of_each_relation_is_true(statements: pd.DataFrame) -> None:
    assert (statements.groupby("relation")["label"].mean() == 0.5).all()


def test_no_statement_appears_twice_or_with_both_labels(
    statements: pd.DataFrame,
) -> None:
    assert not statements["statement"].str.casefold().duplicated().any()


def test_no_subject_is_asked_about_twice() -> None:
    subjects = [next(iter(fact.items())) for pair in PAIRS for fact in pair]
    assert len(set(subjects)) == len(subjects)


def test_a_false_statement_is_true_by_no_row_of_the_tables() -> None:
    truths = list_truths()
    for one, other in PAIRS:
        subjects = [next(iter(fact.values())) for fact in (one, other)]
        for relation in list(one)[1:]:
            assert (subjects[0], relation, other[relation]) not in truths
            assert (subjects[1], relation, one[relation]) not in truths


def test_a_label_says_whether_the_tables_hold_what_is_stated(
    statements: pd.DataFrame,
) -> None:
    truths = {
        (relation, said[0].upper() + said[1:])
        for pair in PAIRS
        for fact in pair
        for relation in list(fact)[1:]
        for said in (t.format_map(fact) for t in FACTS["TEMPLATES"][relation])
    }
    for row in statements.itertuples():
        assert row.label == ((row.relation, row.statement) in truths)


def test_every_word_of_a_group_is_as_often_true_as_false(
    statements: pd.DataFrame,
) -> None:
    for _, group in statements.groupby("group"):
        words = {
            label: Counter(" ".join(said).casefold().replace(".", " ").split())
            for label, said in group.groupby("label")["statement"]
        }
        assert words[0] == words[1]


def test_all_statements_about_a_fact_and_its_partner_are_one_group(
    statements: pd.DataFrame,
) -> None:
    for number, pair in enumerate(PAIRS):
        expected = {said for _, said, _ in FACTS["state_pair"](pair)}
        found = statements.loc[statements["group"] == number, "statement"]
        assert set(found) == expected


def test_a_subject_is_named_in_one_group_only(statements: pd.DataFrame) -> None:
    templates_of = FACTS["TEMPLATES"]
    for number, pair in enumerate(PAIRS):
        outside = set(statements.loc[statements["group"] != number, "statement"])
        for fact in pair:
            said = {
                template.format_map({**fact, relation: value})
                for relation in list(fact)[1:]
                for template in templates_of[relation]
                for value in {f[relation] for p in PAIRS for f in p if relation in f}
            }
            assert not outside & {s[0].upper() + s[1:] for s in said}


def test_the_statements_are_the_same_every_time(statements: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(statements, FACTS["make_statements"]())


def test_the_example_in_the_docstring_is_right() -> None:
    parser = doctest.DocTestParser()
    function = FACTS["make_statements"]
    example = parser.get_doctest(function.__doc__, FACTS, "facts", str(PATH), 0)
    assert doctest.DocTestRunner().run(example).failed == 0
    assert example.examples


def test_negations_say_the_opposite_in_the_same_order(statements: pd.DataFrame) -> None:
    negated = FACTS["make_statements"](negated=True)
    assert negated[["relation", "group"]].equals(statements[["relation", "group"]])
    assert (negated["label"] == 1 - statements["label"]).all()
    for said, denied in zip(statements["statement"], negated["statement"], strict=True):
        without = denied.replace(" do not ", " ").replace(" does not mean ", " means ")
        without = without.replace(" did not write ", " wrote ").replace(" not ", " ")
        assert without == said
