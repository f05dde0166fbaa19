"""Limit the threads of BLAS, which numpy and scipy multiply matrices with."""

import threading
from contextlib import AbstractContextManager, nullcontext

from threadpoolctl import threadpool_limits


def use_one_blas_thread() -> AbstractContextManager[object]:
    """Limit BLAS to one thread for as long as the context lasts.

    numpy and scipy each have a pool of threads. Where small matrices go to both in
    turn, the pools wait for each other, and one thread is several times faster. The
    limit holds for the whole process. Only the main thread sets it, since several
    threads might not restore it in order.
    """
    if threading.current_thread() is threading.main_thread():
        limits: AbstractContextManager[object] = threadpool_limits(1, user_api="blas")
        return limits
    return nullcontext()
