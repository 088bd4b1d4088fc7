"""Jinja from files and checkpoints: rendered in a sandbox, and for a bounded time.

A template is data that somebody else wrote. Jinja's immutable sandbox keeps it from Python's
insides and from changing what it is given; what it may cost is bounded here: turns of loops and
calls, characters made, and seconds. `installed` puts this environment where lm-eval compiles the
templates of tasks, and where transformers compiles chat templates (in a sandbox of its own, which
knows no bounds).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

from jinja2 import StrictUndefined, Template, nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from safeswap.io.regexes import BoundedRe

TURNS = 200_000
"""Turns of loops, calls and filtered items of one rendering."""
CHARACTERS = 1 << 26
"""Characters and items that one rendering may make."""
SECONDS = 10.0
"""Of one rendering; templates take a thousandth of one."""
_WIDEST = 100_000
_LONGEST_NUMBER = 10_000  # bits
_WIDE_FORMAT = re.compile(r"%[^a-zA-Z%]*(?:\d{6,}|\*)|\{[^{}]*(?:\d{6,}|\{)")


@dataclass(slots=True)
class _Budget:
    turns: int = TURNS
    characters: int = CHARACTERS
    until: float = field(default_factory=lambda: time.monotonic() + SECONDS)


_budget: ContextVar[_Budget | None] = ContextVar("budget", default=None)


def _spend(turns: int = 0, characters: int = 0) -> None:
    """Count what a template did.

    Raises:
        SecurityError: it did too much.
    """
    left = _budget.get() or _Budget()  # none while constants are folded: each counts alone
    left.turns -= turns
    left.characters -= characters
    if left.turns < 0 or left.characters < 0 or time.monotonic() > left.until:
        raise SecurityError(
            f"the template does too much: more than {TURNS} turns and calls, {CHARACTERS} "
            f"characters or {SECONDS:.0f} seconds for one text"
        )


def _length(value: Any) -> int:
    return len(value) if isinstance(value, (str, bytes, list, tuple, dict, range)) else 0


def _refuse_wide(arguments: Iterable[Any]) -> None:
    """Numbers among arguments are widths and counts."""
    for value in arguments:
        if isinstance(value, int) and abs(value) > _WIDEST:
            raise SecurityError(f"{value if abs(value) < 10**30 else 'a number'}: is too large")


def _joined_length(values: Any) -> int:
    known = isinstance(values, (list, tuple, dict, set))
    return sum(_length(value) + 1 for value in values) if known else _length(values)


def _bounded(act: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that counts what it is given and makes."""

    @wraps(act)  # keeps the marks of filters that want the context or the environment
    def filtered(*arguments: Any, **named: Any) -> Any:
        given = [*arguments, *named.values()]
        _refuse_wide(given[1:])
        texts = [value for value in given if isinstance(value, str)]
        values = [value for value in given if _length(value) and not isinstance(value, str)]
        longest = max(map(len, texts), default=0)
        rest = sum(map(len, texts)) - longest
        items = sum(map(_length, values))
        _spend(1 + items + longest // 1000, longest * rest + items * (rest + 1))
        if any(_WIDE_FORMAT.search(text) for text in texts) and act.__name__ == "do_format":
            raise SecurityError("a width in a format is too large")
        for value in values:
            _spend(characters=_joined_length(value))
        made = act(*arguments, **named)
        _spend(characters=_length(made))
        return made

    return filtered


def _range(*arguments: int) -> range:
    found = range(*arguments)
    if len(found) > _WIDEST:
        raise SecurityError(f"range is too large: more than {_WIDEST} numbers")
    return found


class _Bounded(Template):
    """A template with a budget for each rendering."""

    def render(self, *arguments: Any, **named: Any) -> str:
        mark = _budget.set(_Budget())
        try:
            return super().render(*arguments, **named)
        except RecursionError:
            raise SecurityError("the template calls itself too deeply") from None
        finally:
            _budget.reset(mark)

    def generate(self, *arguments: Any, **named: Any) -> Iterator[str]:
        yield self.render(*arguments, **named)


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """Jinja's immutable sandbox, with bounds on loops, calls, texts, numbers and time."""

    template_class = _Bounded
    intercepted_binops = frozenset({"*", "**", "%", "+"})

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.filters = {name: _bounded(act) for name, act in self.filters.items()}
        self.filters |= {"_turn": _turn, "_joined": _joined}
        self.globals["range"] = _range
        self.globals.pop("lipsum", None)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        """The syntax tree, with a count in every loop and in every joining of texts."""
        try:
            tree = super()._parse(source, name, filename)
        except RecursionError:
            raise SecurityError("the template is nested too deeply") from None
        for loop in tree.find_all(nodes.For):
            loop.body.insert(0, nodes.ExprStmt(_filter("_turn", loop.lineno), lineno=loop.lineno))
            if loop.test is not None:
                loop.test = nodes.And(_filter("_turn", loop.lineno), loop.test, lineno=loop.lineno)
        _count_joins(tree)
        return tree

    @staticmethod
    def concat(parts: Iterable[str]) -> str:
        """All output of a template or macro."""
        found = []
        for part in parts:
            _spend(characters=len(part))
            found.append(part)
        return "".join(found)

    def wrap_str_format(self, value: Any) -> Any:
        """The methods ``format`` and ``format_map`` of a text."""
        wrapped = super().wrap_str_format(value)
        if wrapped is not None and _WIDE_FORMAT.search(str(value.__self__)):
            raise SecurityError("a width in a format is too large")
        return wrapped

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Arithmetic whose result may be larger than what it is made of."""
        numbers = isinstance(left, (int, float)) and isinstance(right, (int, float))
        if numbers and operator in ("*", "**"):
            _refuse_large_number(operator, left, right)
        elif operator == "*":
            _spend(characters=max(_length(left), _length(right), 1) * _times(left, right))
        elif operator == "%" and isinstance(left, str):
            if _WIDE_FORMAT.search(left):
                raise SecurityError("a width in a format is too large")
            values = right if isinstance(right, (tuple, dict)) else (right,)
            _refuse_wide(values.values() if isinstance(values, dict) else values)
        made = super().call_binop(context, operator, left, right)
        _spend(1, _length(made))
        return made

    def call(self, context: Any, function: Any, *arguments: Any, **named: Any) -> Any:
        """A call of a macro, a function or a method."""
        _spend(1)
        owner = getattr(function, "__self__", None)
        if isinstance(owner, (str, bytes)):
            _refuse_wide([*arguments, *named.values()])
            texts = sum(map(_joined_length, arguments))
            _spend(characters=(len(owner) + 1) * (texts + 1))
        made = super().call(context, function, *arguments, **named)
        _spend(characters=_length(made))
        return made


def _filter(name: str, line: int) -> nodes.Filter:
    return nodes.Filter(nodes.Const(True), name, [], [], None, None, lineno=line)


def _turn(value: bool) -> bool:
    _spend(1)
    return value


def _joined(values: list[Any]) -> str:
    texts = [value if isinstance(value, str) else str(value) for value in values]
    _spend(1, sum(map(len, texts)))
    return "".join(texts)


def _count_joins(node: nodes.Node) -> None:
    """Put a counted joining in place of every ``~``."""
    for name, value in list(node.iter_fields()):
        if isinstance(value, nodes.Node):
            _count_joins(value)
            setattr(node, name, _counted(value))
        elif isinstance(value, list):
            for one in value:
                if isinstance(one, nodes.Node):
                    _count_joins(one)
            setattr(node, name, [_counted(one) for one in value])


def _counted(node: Any) -> Any:
    if not isinstance(node, nodes.Concat):
        return node
    listed = nodes.List(node.nodes, lineno=node.lineno)
    return nodes.Filter(listed, "_joined", [], [], None, None, lineno=node.lineno)


def _times(left: Any, right: Any) -> int:
    numbers = [value for value in (left, right) if isinstance(value, int)]
    return max(numbers[0], 0) if numbers else 1


def _refuse_large_number(operator: str, left: float, right: float) -> None:
    if not isinstance(left, int) or not isinstance(right, int):
        return
    bits = abs(left).bit_length()
    made = bits + abs(right).bit_length() if operator == "*" else bits * max(right, 1)
    if made > _LONGEST_NUMBER:
        raise SecurityError("a number is too large")


def _of_tasks() -> BoundedEnvironment:
    """lm-eval's own environment for the templates of tasks, bounded; without its filter of regular
    expressions, for whose time there is no bound.
    """
    return BoundedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)


@contextmanager
def installed() -> Iterator[None]:
    """lm-eval renders the templates of tasks and servers in our environment, and matches the
    regular expressions of their filters and metrics for a bounded time.
    """
    from lm_eval import utils
    from lm_eval.api import metrics
    from lm_eval.filters import extraction, transformation

    matching: tuple[Any, ...] = (metrics, extraction, transformation)
    kept, utils.env = utils.env, _of_tasks()
    modules = [module.re for module in matching]
    for module in matching:
        module.re = BoundedRe()
    try:
        yield
    finally:
        utils.env = kept
        for module, own in zip(matching, modules, strict=True):
            module.re = own


def bound_chat_templates() -> None:
    """Transformers renders chat templates in our environment from now on: its own sandbox, with
    bounds. Done once; harmless to do again.
    """
    from transformers.utils import chat_template_utils

    if chat_template_utils.ImmutableSandboxedEnvironment is not BoundedEnvironment:
        chat_template_utils.ImmutableSandboxedEnvironment = BoundedEnvironment
        chat_template_utils._compile_jinja_template.cache_clear()
