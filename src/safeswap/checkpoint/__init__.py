"""Checkpoints as files: folders, names, shapes and bytes. No maths and no decisions."""

from safeswap.checkpoint.family import Family, join_family
from safeswap.checkpoint.model import Checkpoint, open_checkpoint
from safeswap.roles import BASE, SAFETY

__all__ = ["BASE", "SAFETY", "Checkpoint", "Family", "join_family", "open_checkpoint"]
