"""The sweep's file: which models, which questions, which grid.

YAML, read strictly::

    base: meta-llama/Llama-3.1-8B
    safety: me/Llama-3.1-8B-safety-en
    languages: {sw: me/Llama-3.1-8B-swahili}
    suite: safety                       # as for `safeswap evaluate`
    prompts: {multijail: null, xstest/sw: xstest_sw.csv}   # null: that of its authors
    judge: Qwen/Qwen3Guard-Gen-4B
    split: {fraction: 0.5, seed: 0}     # dev questions to choose on; the others to report
    choose: {loss: 1.0, refused: 2.0}   # points of ability lost, of harmless prompts refused more
    grid:
      - {method: share-difference, by: [module, layer], tau: [0, 0.001, 0.01], alpha: [0.3, 0.5]}
      - {method: gated, gamma: [0.5, 1]}
      - {method: uniform, operator: [slerp, {name: ties, density: [0.2, 0.5]}]}

A list is every one of its values; an entry is all combinations of its lists. Local paths are
relative to the file.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from safeswap import selectors
from safeswap.checkpoint.family import Family, open_family
from safeswap.checkpoint.source import refuse_foreign
from safeswap.errors import EvaluationError, SafeswapError
from safeswap.evaluation.benchmarks.splits import Split
from safeswap.evaluation.benchmarks.suites import Suite, make_suite
from safeswap.evaluation.generate import Generation, Thinking
from safeswap.evaluation.judges import MAJORITY
from safeswap.io.keys import check_keys
from safeswap.io.regular import is_there
from safeswap.io.yamlfile import read_yaml
from safeswap.plan import Plan, check_options, fill_plan
from safeswap.profile import Profile
from safeswap.roles import SAFETY, check_role

_NEEDED = ("base", "safety", "languages", "suite", "grid")
_SUITE_KEYS = ("prompts", "data", "instruction")
_JUDGE_KEYS = ("judge", "judge_kind")
_OTHER = (
    *("adapters", "split", "choose", "chat_template", "max_new_tokens", "harness_tokens"),
    *("thinking", "think_tokens", "cut_thoughts"),
)
KEYS = (*_NEEDED, *_SUITE_KEYS, *_JUDGE_KEYS, *_OTHER)


@dataclass(frozen=True, slots=True)
class GridCell:
    """One method with its settings: a plan per language.

    Attributes:
        name: from method and settings; the model's name in the results.
        method, settings: of the selector, as given.
        operator: name, or a table with its settings; as a plan's file says it.
    """

    name: str
    method: str
    settings: Mapping[str, Any]
    operator: str | Mapping[str, Any]

    def plan(self, profile: Profile, language: str) -> Plan:
        """The cell's table for one language.

        Raises:
            PlanError: what does not go with this profile.
        """
        return fill_plan(
            profile, language, method=self.method, operator=self.operator, **self.settings
        )


@dataclass(frozen=True, slots=True)
class Rule:
    """How one cell is chosen on the dev side, fixed before any figure is seen.

    The lowest unsafe rate among the cells within both limits, by point estimates.

    Attributes:
        max_accuracy_drop: how much ability may be lost against the language expert, a share; the
            file's ``loss``, in points.
        max_over_refusal_rise: how many more of the harmless prompts may be refused, a share; the
            file's ``refused``, in points.
    """

    max_accuracy_drop: float = 0.01
    max_over_refusal_rise: float = 0.02


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep's file, checked as far as no model is needed.

    Attributes:
        suites: language → the suite in it, whole; ``Suite.on`` takes a side.
        adapters: role → an adapter on the expert of that role.
        dev: the side to choose on; its other side is the test.
        judge, judge_kind: as for ``safeswap judge``; empty where the suite has no prompts.
        chat_template: on, off, or a Jinja file.
    """

    base: str
    safety: str
    languages: Mapping[str, str]
    suites: Mapping[str, Suite]
    dev: Split
    judge: str
    judge_kind: str | None
    chat_template: str
    generation: Generation
    rule: Rule
    cells: tuple[GridCell, ...] = field(default=())
    adapters: Mapping[str, str] = field(default_factory=dict)

    def family(self, *, force: bool = False) -> Family:
        """Open its checkpoints; the arguments and errors are those of ``open_family``."""
        return open_family(
            self.base,
            safety=self.safety,
            languages=self.languages,
            adapters=self.adapters,
            force=force,
        )


def read_sweep(path: Path, *, allow_outside: bool = False, fetch: bool = True) -> Sweep:
    """Read a sweep's file and check every key, method and value of it.

    Args:
        allow_outside: its suite's YAML may name files outside the suite's own folder.
        fetch: False: prompts that are asked for by name are not fetched; see ``make_suite``.

    Raises:
        SafeswapError: what is wrong at which key, with the nearest right one.
    """
    return sweep_of(read_content(path, KEYS), path, allow_outside=allow_outside, fetch=fetch)


def read_content(path: Path, keys: Sequence[str]) -> dict[str, Any]:
    """A YAML file that is a mapping of known keys.

    Raises:
        SafeswapError: it is none, or has another key; the nearest right one is named.
    """
    content = read_yaml(path, error=EvaluationError)
    if not isinstance(content, dict):
        raise EvaluationError(f"{path}: is a mapping with the keys {', '.join(keys)}.")
    check_keys(content, keys, str(path), EvaluationError)
    return content


def sweep_of(
    content: Mapping[str, Any], path: Path, *, allow_outside: bool = False, fetch: bool = True
) -> Sweep:
    """Check a sweep's content and make it whole; ``path`` names it, and is where paths start.

    Raises:
        SafeswapError: what is wrong at which key.
    """
    for key in _NEEDED:
        if key not in content:
            raise EvaluationError(f"{path}: the key {key!r} is missing.")
    here = path.parent
    languages = {check_role(k): _source(here, v) for k, v in _table(content, "languages").items()}
    if not languages:
        raise EvaluationError(f"{path}: languages needs at least one NAME: CHECKPOINT.")
    judge = str(content.get("judge", ""))
    if judge.startswith("rule:"):
        judge = f"rule:{_source(here, judge.removeprefix('rule:'))}"
    elif judge.startswith(f"{MAJORITY}:") or content.get("judge_kind") == MAJORITY:
        raise EvaluationError(
            f"{path}: judge is {judge!r}, and a sweep asks one judge about every candidate. Name "
            "one here; a majority can be had of the results of `safeswap evaluate`."
        )
    elif judge:
        judge = _source(here, judge)
    suites = {code: _suite(here, content, code, allow_outside, fetch) for code in languages}
    if not judge and any(b.prompts for s in suites.values() for b in s.benchmarks):
        raise EvaluationError(f"{path}: the suite has prompts, so it needs a judge.")
    return Sweep(
        base=_source(here, content["base"]),
        safety=_source(here, content["safety"]),
        languages=languages,
        suites=suites,
        dev=_split(path, content.get("split", {})),
        judge=judge,
        judge_kind=_judge_kind(here, content.get("judge_kind")),
        chat_template=_template(here, content.get("chat_template", "on")),
        generation=_generation(path, content),
        rule=_rule(path, content.get("choose", {})),
        cells=tuple(read_cells(path, content["grid"], next(iter(languages)))),
        adapters=_adapters(here, content, languages),
    )


def _judge_kind(here: Path, given: Any) -> str | None:
    """A kind of judge; where it is given with a file, that beside the sweep's."""
    if given is None:
        return None
    kind, colon, file = str(given).partition(":")
    return f"{kind}:{_source(here, file)}" if colon else kind


def _adapters(
    here: Path, content: Mapping[str, Any], languages: Mapping[str, str]
) -> dict[str, str]:
    """Adapters that stand on experts of the file, by role."""
    if "adapters" not in content:
        return {}
    table = _table(content, "adapters")
    check_keys(table, (SAFETY, *languages), "adapters", EvaluationError)
    return {role: _source(here, given) for role, given in table.items()}


def _source(here: Path, given: Any) -> str:
    """A folder or file beside the sweep's file, or else the text as it is: a hub id."""
    if not isinstance(given, str) or not given:
        raise EvaluationError(f"{given!r}: is no folder, file or hub id.")
    try:
        local = here / Path(given).expanduser()
    except RuntimeError:  # ~ of nobody
        return given
    if is_there(local):
        return str(local.resolve())
    refuse_foreign(given, here / "its file")
    return given


def _template(here: Path, given: Any) -> str:
    return given if given in ("on", "off") else _source(here, given)


def _table(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    table = content.get(key) or {}
    if not isinstance(table, dict):
        raise EvaluationError(f"{key}: is a mapping, such as {key}: {{sw: …}}, not {table!r}.")
    return table


def _suite(
    here: Path, content: Mapping[str, Any], language: str, outside: bool, fetch: bool
) -> Suite:
    prompts = {
        key: None if value is None else Path(_source(here, value))
        for key, value in _table(content, "prompts").items()
    }
    data = {}
    for key, value in _table(content, "data").items():
        benchmark, separator, code = key.partition("/")
        if not separator:
            raise EvaluationError(f"data.{key}: is given as BENCHMARK/LANGUAGE: FILE.")
        data[benchmark, code] = Path(_source(here, value))
    # What is for another language of the sweep is not this suite's.
    others = set(_table(content, "languages")) - {language}
    prompts = {key: p for key, p in prompts.items() if key.partition("/")[2] not in others}
    data = {(b, code): p for (b, code), p in data.items() if code not in others}
    instruction = content.get("instruction")
    return make_suite(
        _source(here, content["suite"]),
        [language],
        prompts=prompts,
        files=data,
        instruction=None if instruction is None else Path(_source(here, instruction)),
        allow_outside=outside,
        fetch=fetch,
    )


def _numbers(path: Path, name: str, given: Any, defaults: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise EvaluationError(f"{path}: {name} is a mapping with {', '.join(defaults)}.")
    check_keys(given, defaults, f"{path}: {name}", EvaluationError)
    for key, value in given.items():
        kind = int if isinstance(defaults[key], int) else (int, float)
        if isinstance(value, bool) or not isinstance(value, kind) or value < 0:
            raise EvaluationError(f"{path}: {name}.{key} is {value!r}; a number, 0 or more.")
    return {**defaults, **given}


def _split(path: Path, given: Any) -> Split:
    found = _numbers(path, "split", given, {"fraction": 0.5, "seed": 0})
    return Split("dev", float(found["fraction"]), found["seed"])


def _rule(path: Path, given: Any) -> Rule:
    found = _numbers(path, "choose", given, {"loss": 1.0, "refused": 2.0})
    return Rule(found["loss"] / 100, found["refused"] / 100)


def _generation(path: Path, content: Mapping[str, Any]) -> Generation:
    default = Generation()
    names = ("max_new_tokens", "harness_tokens", "think_tokens")
    defaults = {name: getattr(default, name) for name in names}
    given = {name: content[name] for name in names if name in content}
    numbers = _numbers(path, "generation", given, defaults)
    thinking = content.get("thinking", default.thinking)
    if thinking not in get_args(Thinking):
        raise EvaluationError(f"{path}: thinking is auto, on or off, not {thinking!r}.")
    cut = content.get("cut_thoughts", default.cut_thoughts)
    if not isinstance(cut, bool):
        raise EvaluationError(f"{path}: cut_thoughts is true or false, not {cut!r}.")
    return Generation(**numbers, thinking=thinking, cut_thoughts=cut)


def read_cells(path: Path, grid: Any, language: str, key: str = "grid") -> Iterator[GridCell]:
    """Every cell of a list of entries, in its order.

    Raises:
        EvaluationError: the first entry that is not valid, by its number under ``key``.
    """
    if not isinstance(grid, list):
        raise EvaluationError(f"{path}: {key} is a list of entries, each with a method.")
    names: set[str] = set()
    for number, entry in enumerate(grid, start=1):
        where = f"{path}: {key}, entry {number}"
        if not isinstance(entry, dict):
            raise EvaluationError(f"{where}: is a mapping such as {{method: gated, gamma: 0.5}}.")
        for cell in _combinations(entry, where, language):
            if cell.name in names:
                raise EvaluationError(f"{where}: {cell.name} is given twice.")
            names.add(cell.name)
            yield cell


def _combinations(entry: Mapping[str, Any], where: str, language: str) -> Iterator[GridCell]:
    """Every combination of an entry's lists; all are checked, the first wrong one is named."""
    entry = {"method": "share-difference", "operator": "linear", **entry}
    values = {key: _choices(key, value) for key, value in entry.items()}
    for key, listed in values.items():
        if not listed:
            raise EvaluationError(f"{where}: {key} is an empty list; give it a value or leave it.")
    for combined in itertools.product(*values.values()):
        cell = dict(zip(values, combined, strict=True))
        method, operator = str(cell.pop("method")), cell.pop("operator")
        try:
            selectors.find(method)
            check_options(language, method=method, operator=operator, **cell)
        except SafeswapError as error:
            raise EvaluationError(f"{where}: {error}") from error
        yield GridCell(_name(method, cell, operator), method, cell, operator)


def _choices(key: str, value: Any) -> list[Any]:
    """The values of a key; an operator's settings may be lists themselves."""
    listed = value if isinstance(value, list) else [value]
    if key != "operator":
        return listed
    found: list[Any] = []
    for one in listed:
        if not isinstance(one, dict):
            found.append(one)
            continue
        settings = {k: v if isinstance(v, list) else [v] for k, v in one.items()}
        found += [
            dict(zip(settings, combined, strict=True))
            for combined in itertools.product(*settings.values())
        ]
    return found


def _name(method: str, settings: Mapping[str, Any], operator: Any) -> str:
    """The cell's display name: ``share-difference+by-layer+tau-0.001+ties+density-0.2``."""
    parts = [method, *(f"{key}-{value}" for key, value in settings.items())]
    if isinstance(operator, dict):
        parts += [str(operator.get("name"))]
        parts += [f"{key}-{value}" for key, value in operator.items() if key != "name"]
    elif operator != "linear":
        parts.append(str(operator))
    return "+".join(re.sub(r"[^\w.-]", "-", part) for part in parts)
