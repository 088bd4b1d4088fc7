"""YAML that a person wrote, read strictly."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import yaml

from safeswap.errors import ConfigError, SafeswapError
from safeswap.io.regular import read_regular, shortened, unfit_for_names

LIMIT = 16 << 20
"""Bytes of a file."""
DEEPEST = 64
"""Lists and tables inside one another."""
Scalars = Literal["strict", "text", "yaml-1.1"]
_TEXT = "tag:yaml.org,2002:str"


def read_yaml(
    path: Path, *, scalars: Scalars = "strict", error: type[SafeswapError] = ConfigError
) -> Any:
    """Plain values from strict YAML: no key twice, ``no`` is a language, 1e-3 is a number.

    Aliases, tags, deep nesting and what is no regular file are refused: a few hundred bytes of
    aliases can stand for more than fits any memory.

    Args:
        scalars: ``strict`` as said above; ``text`` keeps every scalar as it is written (``1.0``,
            ``2024-01-01``); ``yaml-1.1`` takes ``yes`` and ``no`` for truth values too, as tools
            do whose files are read here.
        error: what is raised.

    Raises:
        SafeswapError: of the class ``error``; it cannot be read, or is not YAML of this kind.
    """
    with _told(str(path), error):
        return yaml.load(_content(path), _LOADERS[scalars])


def read_text(path: Path, *, error: type[SafeswapError] = ConfigError) -> str:
    """The text of a file that holds YAML.

    Raises:
        SafeswapError: of the class ``error``; it cannot be read, is too large, or is no UTF-8.
    """
    with _told(str(path), error):
        return _content(path)


def read_yaml_text(text: str, where: str, *, error: type[SafeswapError] = ConfigError) -> Any:
    """As `read_yaml`, of text; ``where`` stands for its file in messages."""
    with _told(where, error):
        return yaml.load(text, _Loader)


def read_nodes(path: Path, *, error: type[SafeswapError] = ConfigError) -> yaml.Node | None:
    """The nodes of strict YAML, which know their lines; None where there are none.

    Raises:
        SafeswapError: as of `read_yaml`.
    """
    with _told(str(path), error):
        return yaml.compose(_content(path), _Loader)


def compose_nodes(
    text: str, where: str, *, error: type[SafeswapError] = ConfigError
) -> yaml.Node | None:
    """As `read_nodes`, of text; ``where`` stands for its file in messages."""
    with _told(where, error):
        return yaml.compose(text, _Loader)


def _content(path: Path) -> str:
    return read_regular(Path(path), LIMIT).decode("utf-8")


@contextmanager
def _told(where: str, error: type[SafeswapError]) -> Iterator[None]:
    """What PyYAML and the system raise, as an error that says where and what to do."""
    try:
        yield
    except OSError as failure:
        raise error(f"{where}: cannot be read ({failure.strerror}). Check the path.") from failure
    except ConfigError as failure:
        raise error(str(failure)) from failure
    except yaml.MarkedYAMLError as failure:
        mark = failure.problem_mark
        line = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        what = failure.problem or ""
        what = f"is not YAML ({failure.context}: {what})" if failure.context else what
        raise error(f"{where}{line}: {what}. Fix that line.") from failure
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as failure:
        # no UTF-8, control characters, a number of too many digits, a date that is none
        raise error(f"{where}: is not YAML ({shortened(failure)}). Fix it.") from failure


_BITS = 4096
"""Python writes out no more than 4,300 digits."""


def _refused(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(None, None, problem, mark)


class _Loader(yaml.SafeLoader):
    """Strict YAML: no duplicate keys, ``no`` is the language and not False, 1e-3 is a number."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        mark = event.start_mark
        if getattr(event, "anchor", None) is not None:
            name = shortened(event.anchor)
            raise _refused(f"the anchor or alias {name!r} is not read; write it out", mark)
        tag = getattr(event, "tag", None)
        if tag not in (None, "!", _TEXT):
            raise _refused(f"the tag {shortened(tag)!r} is not read; leave it out", mark)
        value = getattr(event, "value", None)  # of a scalar
        if isinstance(value, str) and unfit_for_names(value):
            raise _refused(f"NUL or half a surrogate pair in {shortened(ascii(value))}", mark)
        self._depth += 1
        if self._depth > DEEPEST:
            raise _refused(f"is nested deeper than {DEEPEST} levels", mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """A whole number that can be printed: 0x… and 1:1:… grow past what Python writes out."""
        value = int(super().construct_yaml_int(node))
        if value.bit_length() > _BITS:
            raise _refused("a number of too many digits", node.start_mark)
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=deep)
            shown = shortened(repr(key))
            if not isinstance(key, str):
                raise _refused(f"the key {shown} is not a name; quote it", key_node.start_mark)
            if key in seen:
                raise _refused(f"the key {shown} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.yaml_implicit_resolvers = {
    first: [(tag, rule) for tag, rule in rules if tag != "tag:yaml.org,2002:bool"]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"([Tt]rue|TRUE|[Ff]alse|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


class _TextLoader(_Loader):
    """All scalars as they are written."""


class _CommonLoader(_Loader):
    """Scalars as PyYAML reads them."""


_TextLoader.yaml_implicit_resolvers = {}
_CommonLoader.yaml_implicit_resolvers = yaml.SafeLoader.yaml_implicit_resolvers
_LOADERS: dict[Scalars, type[_Loader]] = {
    "strict": _Loader,
    "text": _TextLoader,
    "yaml-1.1": _CommonLoader,
}
