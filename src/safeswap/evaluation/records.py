"""How a candidate was made, as a record: files hold it, grids are built from it.

Nothing is read out of a candidate's display name. Results folders from before there were records
have an operator in words (``ties(density=0.2)``) and aliases by name alone: what is certain of
these is read, and the rest is None, for whoever shows it to say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from safeswap.errors import EvaluationError
from safeswap.operators import OPERATORS, Operation


@dataclass(frozen=True, slots=True)
class CandidateRecord:
    """How a table of weights was made.

    Attributes:
        method: the selector's name, or ``search``; empty for the models that merges are made from.
        settings: of the method, as given (defaults are left out); a search's weights by group.
        operator: how task vectors are joined, with its settings; None where an older file has it in
            words that do not say it for sure.
        words: those words; empty otherwise.
    """

    method: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    operator: Operation | None = field(default_factory=Operation)
    words: str = ""

    @property
    def operator_title(self) -> str:
        """The operator for the reader: ``linear``, ``ties(density=0.2)``."""
        return self.words if self.operator is None else str(self.operator)

    def as_dict(self) -> dict[str, Any]:
        """Plain data: ``method``, ``settings``, ``operator`` as a table of ``name``, ``settings``.

        An operator known in words only stays those words, so that nothing is made up by rewriting.
        """
        operator: Any = self.words
        if self.operator is not None:
            operator = {"name": self.operator.name, "settings": dict(self.operator.settings)}
        return {"method": self.method, "settings": dict(self.settings), "operator": operator}

    @classmethod
    def from_dict(cls, content: Any, where: str) -> CandidateRecord:
        """A record from plain data, of this form or the older one; ``where`` names it in messages.

        Raises:
            EvaluationError: it is neither.
        """
        table = _table(content, where)
        settings = _table(table.get("settings", {}), f"{where}: settings")
        operator = table.get("operator", "linear")
        method = str(table.get("method", ""))
        if isinstance(operator, str):
            certain = Operation(operator) if _says_all(operator) else None
            return cls(method, settings, certain, operator if certain is None else "")
        given = _table(operator, f"{where}: operator")
        if not isinstance(given.get("name"), str):
            raise EvaluationError(f"{where}: operator needs a name. {_DAMAGED}")
        own = _table(given.get("settings", {}), f"{where}: operator.settings")
        return cls(method, settings, Operation(given["name"], own))


@dataclass(frozen=True, slots=True)
class Alias:
    """Another cell of a grid that came to a candidate's very same table.

    Attributes:
        name: the cell's, by which it is the same cell in every language.
        record: how it was made; None in older files, which have the name only.
    """

    name: str
    record: CandidateRecord | None = None

    def as_dict(self) -> str | dict[str, Any]:
        """Plain data: the record with its ``name``, or the name where that is all there is."""
        return self.name if self.record is None else {"name": self.name, **self.record.as_dict()}

    @classmethod
    def from_dict(cls, content: Any, where: str) -> Alias:
        """An alias from what ``as_dict`` gave.

        Raises:
            EvaluationError: it is something else.
        """
        if isinstance(content, str):
            return cls(content)
        name = _table(content, where).get("name")
        if not isinstance(name, str):
            raise EvaluationError(f"{where}: an alias needs a name. {_DAMAGED}")
        return cls(name, CandidateRecord.from_dict(content, where))


def read_aliases(content: Any, where: str) -> tuple[Alias, ...]:
    """The aliases of a stored candidate.

    Raises:
        EvaluationError: they are no list of aliases.
    """
    if not isinstance(content, list | tuple):
        raise EvaluationError(f"{where}: aliases are no list. {_DAMAGED}")
    return tuple(Alias.from_dict(one, f"{where}: alias {n}") for n, one in enumerate(content, 1))


_DAMAGED = "The file is damaged or was edited: restore it, or evaluate again in another folder."


def _says_all(operator: str) -> bool:
    """Whether an operator in words is certain: a known name, of which no setting was left out.

    Words have the settings that were given in brackets, but texts (paths, digests) not at all.
    """
    known = OPERATORS.get(operator)
    return known is not None and not any(isinstance(p.default, str) for p in known.parameters)


def _table(content: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(content, Mapping):
        raise EvaluationError(f"{where}: is no table but {content!r}. {_DAMAGED}")
    return content
