"""Random masks that are the same however a tensor is cut up: a counter says what an element gets.

Philox-4x64 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) is a function of
a key and a counter. The key is a digest of (seed, tensor, expert), the counter the element's place.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
from numpy.typing import NDArray

_PER_COUNTER = 8
"""Elements that one counter serves: it gives 256 bits, an element takes 32."""


def draw(seed: int, tensor: str, expert: int, begin: int, count: int) -> NDArray[np.uint32]:
    """32 random bits for each of the elements begin … begin + count of a tensor.

    Args:
        expert: the place of the expert in the plan.
    """
    key = hashlib.sha256(f"{seed}\n{expert}\n{tensor}".encode()).digest()[:16]
    first, skipped = divmod(begin, _PER_COUNTER)
    # numpy raises the counter before it draws, so that first == 0 starts with counter 1
    source = np.random.Philox(key=np.frombuffer(key, "<u8"), counter=first)
    words = source.random_raw(-(-(skipped + count) // 2))
    return words.astype("<u8", copy=False).view("<u4")[skipped : skipped + count]


def kept(bits: NDArray[np.uint32], chance: float | NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which elements are kept when each has the given chance, in [0, 1]."""
    limit = chance * 2.0**32
    return bits < (math.ceil(limit) if isinstance(limit, float) else limit)  # whole ones are faster
