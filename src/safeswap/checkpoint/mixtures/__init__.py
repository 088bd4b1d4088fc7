"""Experts that one member of a family stores apart and another in one tensor: read in one layout.

``layouts`` knows the names and how a family lays its experts out, ``views`` are tensors of the
reading seam that bring one layout's numbers, and bytes, in another's order.
"""

from safeswap.checkpoint.mixtures.layouts import Relaid, in_layout_of
from safeswap.checkpoint.mixtures.views import leaves

__all__ = ["Relaid", "in_layout_of", "leaves"]
