"""Names and what they stand for: one kind of table for everything that can be added from outside.

Selectors, operators, judges, backends and benchmarks are each registered under a name by the file
that defines them. docs/extend.md shows one of each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from safeswap.errors import ConfigError

Entry = TypeVar("Entry")


class Registry(Mapping[str, Entry]):
    """Name → entry, in the order of registration; reads like a dict.

    Args:
        what: what an entry is called in messages, such as ``operator``.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._entries: dict[str, Entry] = {}
        self._origins: dict[str, str] = {}

    def add(self, name: str, entry: Entry, origin: Any) -> Entry:
        """Register an entry, and give it back.

        A name belongs to the module that took it first. The same module may take it again, as a
        reloaded one or a notebook's cell does.

        Args:
            origin: the function or class that the entry is made of, or its module's name.

        Raises:
            ConfigError: the name belongs to another module.
        """
        module = origin if isinstance(origin, str) else str(getattr(origin, "__module__", "?"))
        owner = self._origins.setdefault(name, module)
        if owner != module:
            raise ConfigError(
                f"{module}: the {self._what} {name!r} is registered already, by {owner}; give "
                "yours another name."
            )
        self._entries[name] = entry
        return entry

    def remove(self, name: str) -> None:
        """Forget an entry, such as one that a test registered."""
        del self._entries[name], self._origins[name]

    def __getitem__(self, name: str) -> Entry:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
