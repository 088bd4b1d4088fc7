"""Weights that are stored narrow: eight- and four-bit floats with scales, and GGUF.

Through the reading seam they are numbers like all others. `unpacked` finds them among a
checkpoint's tensors; `parts_of` says what a tensor is stored in, `Packing` writes it so again.
"""

from safeswap.checkpoint.precisions.found import Unpacked, unpacked
from safeswap.checkpoint.precisions.packed import (
    PackedTensor,
    Packing,
    Part,
    Span,
    parts_of,
    stored_bytes,
)

__all__ = [
    "PackedTensor",
    "Packing",
    "Part",
    "Span",
    "Unpacked",
    "parts_of",
    "stored_bytes",
    "unpacked",
]
