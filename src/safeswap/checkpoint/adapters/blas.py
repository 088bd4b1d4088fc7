"""One BLAS thread while products are made: sums must not hang on how many cores a machine has, and
BLAS's threads would fight with ours.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from threadpoolctl import ThreadpoolController


class _Users:
    """How many readers are at work; the last one gives the threads back."""

    def __init__(self) -> None:
        self.lock, self.count, self.limit = threading.Lock(), 0, _NOTHING


_NOTHING: Any = None
_users = _Users()


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


def enter() -> None:
    """Keep BLAS to one thread until :func:`leave` was called as often."""
    with _users.lock:
        if not _users.count:
            _users.limit = _controller().limit(limits=1, user_api="blas")
        _users.count += 1


def leave() -> None:
    """End one :func:`enter`."""
    with _users.lock:
        _users.count -= 1
        if not _users.count:
            _users.limit.restore_original_limits()
            _users.limit = _NOTHING


@contextmanager
def one_thread() -> Iterator[None]:
    """Around products outside of readers."""
    enter()
    try:
        yield
    finally:
        leave()
