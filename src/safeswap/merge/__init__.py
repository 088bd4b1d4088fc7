"""Carry plans out: bytes are copied where a plan says one expert, computed where it blends.

A job is one plan and one output folder; several jobs that share base and safety expert run
together, so that each chunk of an input is warm when the next output asks for it.

``run`` is a whole merge from checks to commit. ``prepare`` makes plans ready, ``stream`` lets
operators see whole tensors first, ``chunks`` computes bytes, ``write`` puts them on the disk.
``companions`` are the donor's files that go along, ``manifest`` and ``card`` say what was done,
``verify`` computes it again.
"""

from safeswap.merge.manifest import read_manifest
from safeswap.merge.run import Merged, merge
from safeswap.merge.verify import Verification, verify_folder

__all__ = ["Merged", "Verification", "merge", "read_manifest", "verify_folder"]
