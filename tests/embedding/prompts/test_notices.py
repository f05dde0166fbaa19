import pytest

from plug_sklearn.embedding.prompts._notices import Notices

SETTINGS = {
    "limit": 9,
    "side": "left",
    "roles": None,
    "token_filter": "special",
    "eos_token": None,
}


def test_counts_are_told_once() -> None:
    notices = Notices(n_read=7, n_cut=2, n_emptied=3)
    with pytest.warns(UserWarning) as caught:
        notices.tell([], **SETTINGS)
    cut, emptied = (str(warning.message) for warning in caught)
    assert cut.startswith("2 of 7 distinct texts are longer than 9 tokens")
    assert emptied.startswith("3 of 7 distinct texts have no token left")
    notices.tell([], **SETTINGS)


def test_warning_points_at_the_caller() -> None:
    with pytest.warns(UserWarning) as caught:
        Notices(n_read=1, n_cut=1).tell([], **SETTINGS)
    assert caught[0].filename == __file__


def test_nothing_changed_is_nothing_told() -> None:
    Notices(n_read=5).tell([], **SETTINGS)


def test_rows_whose_messages_were_left_out_are_listed_once() -> None:
    notices = Notices(n_read=2, dropped=["b"])
    with pytest.warns(UserWarning, match=r"2 of 3 rows .*\[1, 2\].*roles=\['tool'\]"):
        notices.tell(["a", "b", "b"], **SETTINGS | {"roles": ["tool"]})
    notices.tell(["a", "b", "b"], **SETTINGS)
