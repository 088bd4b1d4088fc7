"""One BLAS thread while chunks are worked on: sums must not hang on how many cores a machine has,
and BLAS's threads would fight with ours.

The limit is set by who starts a run of work, before its threads, and taken back at its end: most
builds of OpenBLAS let one thread alone set it, and giving threads back after each product costs
more than the products (they spin before they sleep).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from threadpoolctl import ThreadpoolController


class _State:
    """How many are at work, and how many threads each library had before."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0
        self.before: list[tuple[Any, int]] = []


_state = _State()
_here = threading.local()


def enter() -> None:
    """Keep every BLAS that is loaded (OpenBLAS, MKL, BLIS; Accelerate apart) to one thread, in the
    whole process, until :func:`leave` was called as often.
    """
    with _state.lock:
        if not _state.users:
            loaded: list[Any] = ThreadpoolController().select(user_api="blas").lib_controllers
            _state.before = [(one, one.get_num_threads()) for one in loaded]
            for one, _ in _state.before:
                _set(one, 1)
        _state.users += 1
        libraries = [one for one, _ in _state.before]
    if not getattr(_here, "limited", False):  # OpenMP counts threads of each thread by itself
        _here.limited = True
        for one in libraries:
            if getattr(one, "threading_layer", "") == "openmp":
                one.set_num_threads(1)


def leave() -> None:
    """End one :func:`enter`."""
    with _state.lock:
        _state.users -= 1
        if not _state.users:
            for one, count in _state.before:
                _set(one, count)


def _set(library: Any, count: int) -> None:
    """Set the number of threads, whichever thread did so before."""
    free = getattr(library, "clear_controlling_thread", None)
    if free is not None:
        free(force=True)
    library.set_num_threads(count)
    if free is not None:
        free(force=True)


@contextmanager
def one_thread() -> Iterator[None]:
    """Around a run of work, or products outside of one."""
    enter()
    try:
        yield
    finally:
        leave()
