"""Operators join the task vectors of one unit; the plan names one."""

from safeswap.operators.linear import Recipe, linear

__all__ = ["Recipe", "linear"]
