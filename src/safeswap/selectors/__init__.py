"""Selectors fill the plan's table from a profile. One file each, registered by name."""

from safeswap.selectors.share_difference import Decision, UnitChoice, share_difference

__all__ = ["Decision", "UnitChoice", "share_difference"]
