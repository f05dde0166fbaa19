import threading
from collections.abc import Callable

import pytest
import sklearn

from plug_sklearn.generation._background import iterate


def count(hand_out: Callable[[int], None]) -> None:
    for number in range(1000):
        hand_out(number)


def test_items_come_in_order_and_the_thread_ends() -> None:
    n_threads = threading.active_count()
    assert list(iterate(count)) == list(range(1000))
    assert threading.active_count() == n_threads


def test_a_function_is_never_further_than_one_item_ahead() -> None:
    """Whoever stops taking items costs no memory."""
    handed: list[int] = []

    def produce(hand_out: Callable[[int], None]) -> None:
        for number in range(1000):
            handed.append(number)
            hand_out(number)

    items = iterate(produce)
    for number in range(5):
        assert next(items) == number
        # One is taken, one waits, and one is being handed out.
        assert len(handed) <= number + 3
    items.close()
    assert len(handed) <= 8


def test_closing_ends_the_function_where_it_hands_out() -> None:
    ended: list[bool] = []

    def produce(hand_out: Callable[[int], None]) -> None:
        try:
            count(hand_out)
        finally:
            ended.append(True)

    n_threads = threading.active_count()
    items = iterate(produce)
    next(items)
    items.close()
    assert ended == [True]
    assert threading.active_count() == n_threads


def test_an_error_comes_after_the_items_before_it() -> None:
    def produce(hand_out: Callable[[int], None]) -> None:
        hand_out(1)
        raise ValueError("no more")

    items = iterate(produce)
    assert next(items) == 1
    with pytest.raises(ValueError, match="no more"):
        next(items)


def test_settings_of_scikit_learn_hold_in_the_thread() -> None:
    def produce(hand_out: Callable[[object], None]) -> None:
        hand_out(sklearn.get_config()["transform_output"])

    with sklearn.config_context(transform_output="pandas"):
        assert next(iterate(produce)) == "pandas"
