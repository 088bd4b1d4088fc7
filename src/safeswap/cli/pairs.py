"""``NAME=VALUE`` on the command line, where several verbs read the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from safeswap.errors import PlanError


def language_pairs(pairs: Sequence[str]) -> dict[str, str | Path]:
    """Language experts as given with ``--language NAME=CHECKPOINT``: name → checkpoint.

    Raises:
        PlanError: not of that form, or a name twice.
    """
    found: dict[str, str | Path] = {}
    for pair in pairs:
        name, separator, source = pair.partition("=")
        if not separator or not source:
            raise PlanError(f"--language {pair!r} must be NAME=CHECKPOINT, e.g. sw={pair}.")
        if name in found:
            raise PlanError(f"--language {name} is given twice.")
        found[name] = source
    return found
