"""The table that everything added from outside goes into."""

from __future__ import annotations

import pytest

from safeswap.errors import ConfigError
from safeswap.registry import Registry


def made_in(module: str) -> type:
    return type("Made", (), {"__module__": module})


def test_entries_are_read_like_a_dict_in_their_order() -> None:
    table: Registry[int] = Registry("thing")
    assert table.add("b", 1, made_in("one")) == 1 and table.add("a", 2, made_in("two")) == 2
    assert list(table) == ["b", "a"] and dict(table) == {"b": 1, "a": 2} and len(table) == 2
    table.remove("b")
    assert "b" not in table and table.get("b") is None


def test_a_name_belongs_to_its_module() -> None:
    table: Registry[int] = Registry("operator")
    table.add("ties", 1, made_in("safeswap.operators.ties"))
    table.add("ties", 2, made_in("safeswap.operators.ties"))  # a module loaded again
    with pytest.raises(ConfigError, match=r"mine: the operator 'ties' is registered already, by"):
        table.add("ties", 3, made_in("mine"))
    assert table["ties"] == 2
    table.remove("ties")
    table.add("ties", 3, made_in("mine"))
