"""Working memory that a thread keeps: fresh arrays for every block cost more than the arithmetic.

The system gives new pages one fault at a time (7 ns per element for the three arrays of an
election, whose arithmetic takes 3 ns); buffers that stay are paid for once.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

_LARGEST = 1 << 22
_kept = threading.local()


def buffer(slot: str, size: int, kind: DTypeLike) -> NDArray[Any]:
    """A buffer with anything in it, this thread's until the slot is asked for again.

    Args:
        slot: who uses it and what for; two buffers that are needed at once have two slots.
        size: elements; more than 4 Mi bytes are not kept.
    """
    wanted = size * np.dtype(kind).itemsize
    if wanted > _LARGEST:
        return np.empty(size, kind)
    slots: dict[str, NDArray[np.uint8]] = _kept.__dict__
    held = slots.get(slot)
    if held is None or len(held) < wanted:
        held = slots[slot] = np.empty(wanted, np.uint8)
    return held[:wanted].view(kind)
