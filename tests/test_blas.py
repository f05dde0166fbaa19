from threading import Thread

import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

from plug_sklearn._blas import use_one_blas_thread


def count_threads() -> set[int]:
    np.ones((2, 2)) @ np.ones((2, 2))
    found = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    return {pool["num_threads"] for pool in found}


def test_blas_has_one_thread_inside_and_as_many_as_before_outside() -> None:
    with threadpool_limits(2, user_api="blas"):
        with use_one_blas_thread():
            assert count_threads() == {1}
        assert count_threads() == {2}


def test_other_threads_leave_the_limits_alone() -> None:
    found: list[set[int]] = []

    def look_inside() -> None:
        with use_one_blas_thread():
            found.append(count_threads())

    with threadpool_limits(2, user_api="blas"):
        before = count_threads()
        other = Thread(target=look_inside)
        other.start()
        other.join()
        assert count_threads() == before
    assert len(found) == 1
