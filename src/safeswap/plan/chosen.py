"""On which questions a table was chosen: they are no test of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from safeswap.errors import PlanError
from safeswap.io.keys import check_keys

_KEYS = ("split", "cells", "prompts")
_SPLIT_KEYS = {"part", "fraction", "seed"}


@dataclass(frozen=True, slots=True)
class ChosenOn:
    """The questions that a choice among several tables was made on, or that one was fitted on.

    Attributes:
        split: the side of all questions: ``part`` (``dev``), ``fraction`` of dev questions, and the
            ``seed`` of the division; None where a table was fitted on texts of its own.
        cells: ``BENCHMARK/LANGUAGE`` of every figure that had a part in the choice; none of a fit.
        prompts: what tells each of its prompts again, whatever a file or benchmark is called
            (`Prompt.identities`); none in plans of earlier versions.
    """

    split: Mapping[str, Any] | None
    cells: tuple[str, ...]
    prompts: frozenset[str] = frozenset()

    @classmethod
    def fitted_on(cls, prompts: Iterable[str]) -> ChosenOn:
        """A table that was fitted on texts, by their identities."""
        return cls(None, (), frozenset(prompts))

    @property
    def rest(self) -> str:
        """The questions that are left to report on, as ``--split`` takes them: ``test:0.5:0``;
        empty where there is no such side, for all others are left.
        """
        if self.split is None:
            return ""
        return f"test:{self.split['fraction']:g}:{self.split['seed']}"

    def as_dict(self) -> dict[str, Any]:
        """Plain data for plans and ``model.json``."""
        plain: dict[str, Any] = {}
        if self.split is not None:
            plain = {"split": dict(self.split), "cells": list(self.cells)}
        return plain | ({"prompts": " ".join(sorted(self.prompts))} if self.prompts else {})

    @classmethod
    def from_dict(cls, content: Any, where: str) -> ChosenOn | None:
        """The record from what ``as_dict`` gave; None from an empty table: nothing was chosen.

        Raises:
            PlanError: unknown keys (with the nearest), or one that is missing.
        """
        if content == {}:
            return None
        if not isinstance(content, Mapping):
            raise PlanError(f"{where}: is a table of split and cells, as a sweep writes it.")
        check_keys(content, _KEYS, where, PlanError)
        prompts = content.get("prompts", "")
        if not isinstance(prompts, str):
            raise PlanError(f"{where}: prompts is a text of digests, as a sweep writes it.")
        if set(content) == {"prompts"} and prompts.split():
            return cls.fitted_on(prompts.split())
        split: Any = content.get("split")
        cells: Any = content.get("cells")
        whole = isinstance(split, dict) and set(split) == _SPLIT_KEYS and _is_split(split)
        if not whole or not isinstance(cells, list) or not all(isinstance(c, str) for c in cells):
            raise PlanError(
                f"{where}: needs split (part, fraction, seed) and cells, as a sweep writes them: "
                "without them nobody can tell which questions are left to test it on."
            )
        return cls(split, tuple(cells), frozenset(prompts.split()))


def _is_split(split: Mapping[str, Any]) -> bool:
    fraction = split["fraction"]
    number = isinstance(fraction, int | float) and not isinstance(fraction, bool)
    return (
        isinstance(split["part"], str)
        and number
        and 0 <= fraction <= 1
        and type(split["seed"]) is int
    )
