"""Checkpoints as files: folders, names, shapes and bytes. No maths and no decisions."""

from safeswap.checkpoint.family import BASE, SAFETY, Family, join_family
from safeswap.checkpoint.store import Checkpoint, open_checkpoint

__all__ = ["BASE", "SAFETY", "Checkpoint", "Family", "join_family", "open_checkpoint"]
