"""A part of the questions, to see whether everything works before hours are spent; no result."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Limit:
    """So many questions of each benchmark in each language, chosen by their names alone.

    Attributes:
        count: questions of a cell, at least 1.
        seed: another seed is another choice.
    """

    count: int
    seed: int = 0

    def chosen(self, names: Iterable[str], count: int | None = None) -> frozenset[str]:
        """The names that are asked: the same of the same names in every language and on every
        machine.
        """
        order = sorted(
            dict.fromkeys(names),
            key=lambda name: hashlib.sha256(f"limit:{self.seed}:{name}".encode()).digest(),
        )
        return frozenset(order[: self.count if count is None else count])

    def as_dict(self) -> dict[str, Any]:
        """Plain data for files."""
        return asdict(self)


def limit_note(settings: Mapping[str, Any]) -> str:
    """What tables say of results of a part of the questions; empty where all were asked."""
    limit = settings.get("limit")
    if not isinstance(limit, dict):
        return ""
    return f"at most {limit.get('count')} questions of each, seed {limit.get('seed')}"
