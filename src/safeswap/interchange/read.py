"""From a mergekit configuration to a plan: what a table of weights can say, and what it cannot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safeswap.anatomy import layer_of
from safeswap.checkpoint.dtypes import torch_name
from safeswap.checkpoint.family import Family, join_family
from safeswap.checkpoint.model import open_checkpoint
from safeswap.checkpoint.source import Source, pinned
from safeswap.errors import PlanError, listed
from safeswap.interchange.config import Config, Part, read_config
from safeswap.interchange.rows import Reader, Said
from safeswap.interchange.settings import Place
from safeswap.io.regular import is_folder
from safeswap.operators import Operation
from safeswap.plan import Plan, PlannedInput, PlannedUnit, check_operators
from safeswap.roles import BASE, SAFETY, check_role


@dataclass(frozen=True, slots=True)
class Imported:
    """The plan, and what of the configuration is not in it."""

    plan: Plan
    notes: tuple[str, ...]


def from_mergekit(
    path: str | Path,
    *,
    safety: str,
    languages: Mapping[str, str],
    base: str | None = None,
    donor: str | None = None,
) -> Imported:
    """Read a configuration as a plan; see docs/interchange.md for what can be read.

    Args:
        safety, languages, base: which of its models is which expert, as the file names them or as
            another path to the same folder; the base by default is its ``base_model``, or the
            model that is left.
        donor: by default whom mergekit takes configuration and tokenizer from.

    Raises:
        PlanError: names the key that a plan cannot express, or the tensors of one unit that have
            different weights.
        CheckpointError, FamilyError: the models are not there or not one family.
    """
    config = read_config(Path(path))
    if len(languages) != 1:
        raise PlanError(f"a plan has one language, not {len(languages)}; give one --language.")
    language, spoken = next(iter(languages.items()))
    experts = {SAFETY: safety, check_role(language): spoken}
    sources = {BASE: base or _base(config, experts), **experts}
    named_in = {} if base else {BASE: config.path}  # the others are the user's own words
    family = join_family(
        {
            role: open_checkpoint(source, named_in=named_in.get(role, ""))
            for role, source in sources.items()
        }
    )
    roles = _roles(config, sources, family)
    reader = Reader(config, roles, family.experts)
    units = _units(reader, family)
    operators = [row.operator for row in units.values()]
    common = operators[0] if all(other == operators[0] for other in operators) else None
    if common is not None:  # said once, for the plan
        units = {unit: PlannedUnit(row.weights) for unit, row in units.items()}
    members = {role: member.source for role, member in family.members.items()}
    plan = Plan(
        inputs={role: PlannedInput(_address(source)) for role, source in members.items()},
        units=units,
        donor=_donor(config, roles, donor, language),
        selector={"name": "mergekit", "merge_method": config.method},
        operator=common or Operation(),
    )
    check_operators(plan, config.path)
    return Imported(plan, _notes(config, family, plan.donor))


def _models(config: Config) -> list[str]:
    given = dict.fromkeys(model for part in config.parts for model in part.models)
    return [*given, *([config.base_model] if config.base_model else [])]


def _base(config: Config, experts: Mapping[str, str]) -> str:
    """The one model that is no expert; not guessed where an expert is not among the models."""
    experts_too = {str(_place(text)) for text in experts.values()}
    named = {str(_place(model)): model for model in _models(config)}
    left = [model for place, model in named.items() if place not in experts_too]
    absent = [text for text in experts.values() if str(_place(text)) not in named]
    if len(left) != 1 or absent:
        hint = f" ({listed(absent)} is not among its models)" if absent else ""
        raise PlanError(
            f"{config.path}: names {listed(left) or 'no model'} besides the experts{hint}, so the "
            "base is not clear. Give it with --base."
        )
    return left[0]


def _place(text: str) -> Path | str:
    try:
        folder = Path(text).expanduser()
    except RuntimeError:  # ~ of nobody
        return text
    return folder.resolve() if is_folder(folder) else text


def _roles(config: Config, sources: Mapping[str, str], family: Family) -> dict[str, str]:
    """Model as the file names it → role."""
    found = {}
    for model in _models(config):
        same = [
            role
            for role, source in sources.items()
            if _place(model) in (_place(source), family.members[role].folder)
        ]
        if not same:
            raise PlanError(
                f"{config.path}: model {model} is none of {', '.join(sources)}. A plan has a base, "
                "a safety expert and one language expert; give them as the file names them."
            )
        found[model] = same[0]
    return found


def _units(reader: Reader, family: Family) -> dict[str, PlannedUnit]:
    anatomy, config = family.anatomy, reader.config
    end = config.parts[-1].layers
    if end is not None and end[1] != anatomy.layers:
        raise PlanError(
            f"{config.path}: slices end at layer {end[1]} of {anatomy.layers}; a plan keeps all."
        )
    units = {}
    for unit in anatomy.units:
        made: dict[str, tuple[str, Said]] = {}
        for name in anatomy.tensors(unit):
            weight = family.base.tensors[name].dtype.mergeable
            if anatomy.placements[name].role != "buffer" and weight:
                said = reader.row(*_find(config, family, unit, name))
                made.setdefault(f"{list(said[0])} {said[1]}", (name, said))
        if len(made) > 1:
            shown = "; ".join(f"{name}: {text}" for text, (name, _) in made.items())
            raise PlanError(
                f"{config.path}: a plan has one row for unit {unit}, but its tensors have several "
                f"(safety, language): {shown}. Give them the same weights."
            )
        nothing = ("", ((0.0,) * len(family.experts), Operation()))
        pair, operation = next(iter(made.values()), nothing)[1]
        units[unit] = PlannedUnit(dict(zip(family.experts, pair, strict=True)), None, operation)
    return units


def _find(config: Config, family: Family, unit: str, name: str) -> tuple[Part, Place]:
    """The part that a unit lies in, and where in it."""
    layer = layer_of(unit)
    if layer is None:  # mergekit evaluates lists there at their beginning
        part = config.parts[0 if unit == "embeddings" else -1]
        return part, Place(name, 0.0)
    for part in config.parts:
        begin, end = part.layers or (0, family.anatomy.layers)
        if begin <= layer < end:
            return part, Place(
                name, (layer - begin) / (end - begin - 1) if end - begin > 1 else 1.0
            )
    raise AssertionError(unit)  # the parts cover all layers


def _donor(config: Config, roles: Mapping[str, str], donor: str | None, language: str) -> str:
    known = (BASE, SAFETY, language)
    if donor is not None:
        if donor not in known:
            raise PlanError(f"--donor {donor!r} is unknown; known: {', '.join(known)}")
        return donor
    source = config.rest.get("tokenizer_source")
    if source == "union":
        raise PlanError(
            f"{config.path}: tokenizer_source: union builds a tokenizer of its own; a plan takes "
            "one expert's. Choose it with --donor."
        )
    if source not in (None, "base"):
        return roles.get(str(source)) or _unknown_source(config, str(source))
    return roles[config.base_model] if config.base_model else language


def _unknown_source(config: Config, source: str) -> str:
    raise PlanError(
        f"{config.path}: tokenizer_source: {source} is none of the models. Choose with --donor."
    )


def _address(source: Source) -> str:
    if source.hub_id and source.revision:
        return pinned(source.text, source.hub_id, source.revision)
    return str(source.folder)


def _notes(config: Config, family: Family, donor: str) -> tuple[str, ...]:
    """What mergekit would do and a plan does not hold."""
    notes = []
    computed, written = config.rest.get("dtype"), config.rest.get("out_dtype")
    if computed not in (None, "float32", "float64"):
        notes.append(
            f"dtype: mergekit computes in {computed}, safeswap in float32 or wider: the values "
            "will be nearer to the exact ones"
        )
    stored = {t.dtype for t in family.members[donor].tensors.values() if t.dtype.mergeable}
    if (written or computed) and {torch_name(kind) for kind in stored} != {written or computed}:
        key = "out_dtype" if written else "dtype"
        notes.append(
            f"{key}: give safeswap merge --save-dtype {written or computed} to write the same"
        )
    if config.rest.get("chat_template"):
        notes.append("chat_template: not in a plan; the donor's goes along")
    return tuple(notes)
