"""Adapters: experts that are stored as a difference to their base (peft's LoRA in all its forms).

``config`` and ``keys`` read the two files, ``places`` and ``apply`` find what they change in the
base, ``tensors`` is what comes of it at the reading seam, ``factors`` the sums without products.
"""

from safeswap.checkpoint.adapters.apply import apply, update_of
from safeswap.checkpoint.adapters.factors import Factors
from safeswap.checkpoint.adapters.opening import Adapter, is_adapter, open_adapter

__all__ = ["Adapter", "Factors", "apply", "is_adapter", "open_adapter", "update_of"]
