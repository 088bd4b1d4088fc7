"""Who takes part in a merge: the base, the safety expert, and one role per language."""

from __future__ import annotations

import re

from safeswap.errors import ConfigError

BASE = "base"
"""The common ancestor."""
SAFETY = "safety"
"""The English safety expert."""
RESERVED = (BASE, SAFETY)
"""Roles that are no language."""

_ROLE = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


def check_role(name: str) -> str:
    """Return a language's name as given, after checking it.

    Raises:
        ConfigError: reserved, empty, or with characters that a folder name cannot have.
    """
    if name in RESERVED or not _ROLE.fullmatch(name):
        raise ConfigError(
            f"language name {name!r} is not valid: use letters, digits, - and _ (e.g. sw), and not "
            f"{' or '.join(RESERVED)}."
        )
    return name
