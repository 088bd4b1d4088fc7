"""The plan: for every unit, the weight of each expert's task vector. To read, edit and rerun."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from safeswap.anatomy import kind_of
from safeswap.anatomy.units import AFTER_LAYERS, BEFORE_LAYERS, LAYER_KINDS
from safeswap.checkpoint.family import BASE, SAFETY
from safeswap.errors import PlanError, nearest
from safeswap.profile import Profile
from safeswap.selectors import UnitChoice, share_difference

FORMAT = "safeswap-plan/1"
GRANULARITIES = ("module", "layer")
NORMS = ("language", "safety", "blend", "follow")
OUTSIDE = ("blend", "language", "safety", "base")
RESERVED = (BASE, SAFETY)
_KEYS = ("format", "selector", "operator", "donor", "profile", "inputs", "units")
_UNIT_KEYS = ("weights", "shares", "difference")
_SELECTOR = "share-difference"
_SETTINGS = ("by", "tau", "tau_relative", "alpha", "norms", "outside")
_LARGEST = sys.float_info.max
_ROLE = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class PlannedUnit:
    """One row: the weights, and the shares that led to them (None where none did).

    Attributes:
        weights: expert → weight of its task vector, every expert of the plan named.
        shares: expert → its share p_e(u) of the expert's whole update, or None.
    """

    weights: Mapping[str, float]
    shares: Mapping[str, float] | None = None

    @property
    def decision(self) -> str:
        """``safety``, a language's name, ``base``, ``blend`` (weights sum to 1) or ``mix``."""
        given = {expert: weight for expert, weight in self.weights.items() if weight != 0.0}
        if not given:
            return BASE
        if len(given) == 1 and next(iter(given.values())) == 1.0:
            return next(iter(given))
        total = sum(given.values())
        return "blend" if abs(total - 1.0) < 1e-9 and min(given.values()) > 0 else "mix"

    @property
    def difference(self) -> float | None:
        """d(u) = p_safety − p_language, or None without shares."""
        if not self.shares:
            return None
        language = next(expert for expert in self.shares if expert != SAFETY)
        return self.shares[SAFETY] - self.shares[language]


@dataclass(frozen=True, slots=True)
class PlannedInput:
    """A checkpoint that the plan was made for; ``digest`` is empty in a plan written by hand."""

    source: str
    digest: str = ""


@dataclass(frozen=True)
class Plan:
    """A table of units × experts with what is needed to carry it out.

    Attributes:
        inputs: role → checkpoint; roles are ``base``, ``safety`` and one language.
        units: unit → row, in the order of the model.
        donor: the role whose configuration, tokenizer and other files go along.
        selector: how the table was filled (name and settings), for the reader.
        profile: path of the profile that it was made from, or None.
    """

    inputs: Mapping[str, PlannedInput]
    units: Mapping[str, PlannedUnit]
    donor: str
    selector: Mapping[str, Any] = field(default_factory=dict)
    operator: str = "linear"
    profile: str | None = None

    @property
    def experts(self) -> tuple[str, ...]:
        """The roles with a task vector, safety first."""
        return tuple(role for role in self.inputs if role != BASE)

    @property
    def language(self) -> str:
        """The language's role."""
        return next(role for role in self.experts if role != SAFETY)

    def counts(self) -> dict[str, dict[str, int]]:
        """How often each decision was made: kind of unit → decision → number of units."""
        table: dict[str, dict[str, int]] = {}
        for unit, row in self.units.items():
            kind = table.setdefault(kind_of(unit), {})
            kind[row.decision] = kind.get(row.decision, 0) + 1
        return table

    def as_dict(self) -> dict[str, Any]:
        """The plan as plain values, in the order of its file."""
        inputs = {
            role: {"source": given.source} | ({"digest": given.digest} if given.digest else {})
            for role, given in self.inputs.items()
        }
        units = {unit: _row(row) for unit, row in self.units.items()}
        content = {"format": FORMAT, "selector": dict(self.selector), "operator": self.operator}
        content |= {"donor": self.donor}
        content |= {"profile": self.profile} if self.profile else {}
        return content | {"inputs": inputs, "units": units}

    def text(self) -> str:
        """The plan as YAML: one line per unit."""
        content = self.as_dict()
        units = content.pop("units")
        head = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000)
        width = max(len(unit) for unit in units) + 2
        lines = [f"  {unit + ':':{width}}{_inline(row)}" for unit, row in units.items()]
        return "\n".join([_HEAD, head.rstrip(), "units:", *lines, ""])

    def save(self, path: Path) -> None:
        """Write the plan as YAML."""
        path.write_text(self.text(), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Plan:
        """Read a plan and check every key and number of it.

        Raises:
            PlanError: not YAML, or unknown keys, experts, duplicate keys, NaN; names the nearest.
        """
        try:
            content = yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)
        except OSError as error:
            raise PlanError(f"{path}: cannot be read ({error.strerror}).") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise PlanError(f"{path}: is not YAML ({error}).") from error
        return cls.from_dict(content, str(path))

    @classmethod
    def from_dict(cls, content: Any, where: str) -> Plan:
        """Build a plan from plain values; ``where`` names them in messages."""
        return _read(content, where)


_HEAD = """\
# A safeswap plan: per unit, the weight of each expert's task vector (expert minus base).
# Edit the weights and run: safeswap merge --plan THIS --out OUT
# shares and difference say what led to the weights; they decide nothing."""


def _row(row: PlannedUnit) -> dict[str, Any]:
    content: dict[str, Any] = {"weights": dict(row.weights)}
    if row.shares:
        shares = {expert: round(share, 9) for expert, share in row.shares.items()}
        # of the rounded shares, so that a plan that was read writes the same file again
        difference = PlannedUnit(row.weights, shares).difference
        content |= {"shares": shares, "difference": round(difference or 0.0, 9)}
    return content


def _inline(row: Mapping[str, Any]) -> str:
    text: str = yaml.safe_dump(dict(row), default_flow_style=True, sort_keys=False, width=10_000)
    return text.strip()


class _Loader(yaml.SafeLoader):
    """Strict YAML: no duplicate keys, ``no`` is the language and not False, 1e-3 is a number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=deep)
            if not isinstance(key, str):
                raise yaml.MarkedYAMLError(None, None, f"the key {key!r} is not a name; quote it")
            if key in seen:
                mark = key_node.start_mark
                raise yaml.MarkedYAMLError(None, None, f"the key {key!r} stands twice", mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, rule) for tag, rule in rules if tag != "tag:yaml.org,2002:bool"]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"(true|false)$"), list("tf"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def _read(content: Any, where: str) -> Plan:
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise PlanError(f"{where}: is not a {FORMAT} file. Make one with safeswap plan.")
    _known(content, _KEYS, where)
    for key in ("inputs", "units"):
        if not isinstance(content.get(key), dict) or not content[key]:
            raise PlanError(f"{where}: {key} is missing or not a table.")
    inputs = {role: _input(role, given, where) for role, given in content["inputs"].items()}
    languages = [role for role in inputs if role not in RESERVED]
    if BASE not in inputs or SAFETY not in inputs or len(languages) != 1:
        raise PlanError(f"{where}: inputs must be base, safety and one language, not {[*inputs]}.")
    experts = tuple(role for role in inputs if role != BASE)
    _check_names(content["units"], where)
    units = {u: _unit(row, experts, f"{where}: unit {u}") for u, row in content["units"].items()}
    donor = content.get("donor", languages[0])
    if donor not in inputs:
        raise PlanError(f"{where}: donor {donor!r} is not an input{nearest(str(donor), inputs)}")
    operator = content.get("operator", "linear")
    if operator != "linear":
        raise PlanError(
            f"{where}: unknown operator {operator!r}{nearest(str(operator), ['linear'])}"
        )
    selector = content.get("selector", {})
    profile = content.get("profile")
    if not isinstance(selector, dict) or not isinstance(profile, str | None):
        raise PlanError(f"{where}: selector must be a table and profile a path.")
    if selector.get("name") == _SELECTOR:
        _known(selector, ("name", *_SETTINGS), f"{where}: selector")
    return Plan(inputs, units, donor, selector, operator, profile)


def _check_names(units: Mapping[str, Any], where: str) -> None:
    """Every key is the name of a unit, of whatever model; the rest is for `check_units`."""
    layers = sorted({unit.partition(".")[0] for unit in units if unit.partition(".")[2]})
    known = [f"{layer}.{kind}" for layer in layers for kind in LAYER_KINDS]
    for unit in units:
        try:
            kind_of(unit)
        except ValueError:
            near = nearest(unit, [*BEFORE_LAYERS, *known, *AFTER_LAYERS])
            raise PlanError(f"{where}: {unit!r} is not a unit{near}") from None


def _known(content: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in content:
        if key not in known:
            raise PlanError(f"{where}: unknown key {key!r}{nearest(key, known)}")


def _input(role: str, given: Any, where: str) -> PlannedInput:
    if not isinstance(given, dict) or not isinstance(given.get("source"), str):
        raise PlanError(f"{where}: input {role} needs a source (a folder or hub id).")
    _known(given, ("source", "digest"), f"{where}: input {role}")
    if not isinstance(given.get("digest", ""), str):
        raise PlanError(f"{where}: input {role}: digest must be text.")
    return PlannedInput(given["source"], given.get("digest", ""))


def _unit(row: Any, experts: tuple[str, ...], where: str) -> PlannedUnit:
    if not isinstance(row, dict) or not isinstance(row.get("weights"), dict):
        raise PlanError(f"{where}: needs weights, e.g. {{weights: {{{experts[0]}: 1}}}}.")
    _known(row, _UNIT_KEYS, where)
    weights = dict.fromkeys(experts, 0.0)
    weights |= _numbers(row["weights"], experts, where)
    shares = row.get("shares")
    if shares is None:
        return PlannedUnit(weights)
    if not isinstance(shares, dict) or set(shares) != set(experts):
        raise PlanError(f"{where}: shares must name {' and '.join(experts)}.")
    return PlannedUnit(weights, _numbers(shares, experts, where))


def _numbers(table: Mapping[str, Any], experts: tuple[str, ...], where: str) -> dict[str, float]:
    for expert, value in table.items():
        if expert not in experts:
            raise PlanError(f"{where}: unknown expert {expert!r}{nearest(expert, experts)}")
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not abs(value) <= _LARGEST:
            raise PlanError(f"{where}: {expert} is {value!r}; a finite number is needed.")
    return {expert: float(value) for expert, value in table.items()}


def check_units(plan: Plan, units: tuple[str, ...]) -> None:
    """Refuse a table that does not name exactly the model's units.

    Raises:
        PlanError: names the first unknown or missing unit and the nearest right name.
    """
    for unit in plan.units:
        if unit not in units:
            raise PlanError(f"plan: the model has no unit {unit!r}{nearest(unit, units)}")
    missing = [unit for unit in units if unit not in plan.units]
    if missing:
        raise PlanError(
            f"plan: unit {missing[0]!r} is missing ({len(missing)} in all). Every unit needs a "
            "row; weights of 0 leave it as in the base."
        )


def check_role(name: str) -> str:
    """A language's name on the command line or in the API.

    Raises:
        PlanError: reserved, empty, or with characters that a folder name cannot have.
    """
    if name in RESERVED or not _ROLE.fullmatch(name):
        raise PlanError(
            f"language name {name!r} will not do: use letters, digits, - and _ (e.g. sw), and not "
            f"{' or '.join(RESERVED)}."
        )
    return name


def _choice(option: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise PlanError(f"{option} {value!r} is unknown{nearest(value, choices)}")
    return value


def check_options(
    language: str,
    *,
    by: str = "module",
    tau: float = 0.001,
    tau_relative: bool = False,
    alpha: float = 0.5,
    norms: str | None = None,
    outside: str = "blend",
    donor: str | None = None,
) -> None:
    """Refuse options of :func:`fill_plan` that cannot be; needs no profile.

    Raises:
        PlanError: names the option, its limits or the nearest right word.
    """
    _choice("--by", by, GRANULARITIES)
    _choice("--norms", NORMS[0] if norms is None else norms, NORMS)
    _choice("--outside", outside, OUTSIDE)
    if donor is not None:
        _choice("--donor", donor, (language, SAFETY, BASE))
    for option, value, top in (("--tau", tau, math.inf), ("--alpha", alpha, 1.0)):
        if not 0.0 <= value <= top or math.isinf(value):
            limits = "from 0 to 1" if top == 1.0 else "0 or more"
            raise PlanError(f"{option} {value} will not do: it must be {limits}.")


def fill_plan(
    profile: Profile,
    language: str | None = None,
    *,
    by: str = "module",
    tau: float = 0.001,
    tau_relative: bool = False,
    alpha: float = 0.5,
    norms: str | None = None,
    outside: str = "blend",
    donor: str | None = None,
    profile_path: str | None = None,
) -> Plan:
    """Make a plan with the paper's selector; no weights are read.

    Args:
        language: which language of the profile; needed when it has several.
        by: ``module`` (attentions and MLPs are decided one by one) or ``layer``.
        tau: threshold on the difference of shares, 0 or more; with ``tau_relative`` a fraction of
            the mean share.
        alpha: weight of safety in a blend, 0 to 1; the language gets the rest.
        norms: ``language``, ``safety``, ``blend`` or ``follow``; by default the paper's choice:
            ``follow`` by layer, ``language`` by module.
        outside: embeddings, final norm and output: ``blend``, ``language``, ``safety``, ``base``.
        donor: role whose other files go along; the language by default.

    Raises:
        PlanError: an option out of its range, an unknown language, an expert equal to the base.
    """
    norms = norms or ("follow" if by == "layer" else "language")
    language = _language(profile, language)
    settings: dict[str, Any] = {"by": by, "tau": tau, "tau_relative": tau_relative}
    settings |= {"alpha": alpha, "norms": norms, "outside": outside}
    check_options(language, donor=donor, **settings)
    choices = share_difference(
        profile, language, by=by, tau=tau, tau_relative=tau_relative, norms=norms
    )
    weights = {
        "safety": {SAFETY: 1.0, language: 0.0},
        "language": {SAFETY: 0.0, language: 1.0},
        "blend": {SAFETY: alpha, language: 1.0 - alpha},
        "base": {SAFETY: 0.0, language: 0.0},
    }
    units = {
        unit: _planned(choices.get(unit, UnitChoice(outside)), weights, language)
        for unit in profile.units
    }
    return Plan(
        inputs={
            role: PlannedInput(_address(profile, role), profile.inputs[role].digest)
            for role in (BASE, SAFETY, language)
        },
        units=units,
        donor=donor or language,
        selector={"name": _SELECTOR, **settings},
        profile=profile_path,
    )


def _address(profile: Profile, role: str) -> str:
    """Where to find an input again: the hub id pinned to its commit, or the absolute folder."""
    record = profile.inputs[role]
    return f"{record.name}@{record.revision}" if record.revision else record.path


def _language(profile: Profile, language: str | None) -> str:
    known = profile.languages
    if language is None and len(known) == 1:
        return known[0]
    if language is None:
        raise PlanError(f"the profile has {len(known)} languages ({', '.join(known)}); choose one.")
    if language not in known:
        raise PlanError(f"language {language!r} is not in the profile{nearest(language, known)}")
    return language


def _planned(
    choice: UnitChoice, weights: Mapping[str, Mapping[str, float]], language: str
) -> PlannedUnit:
    shares = None
    if choice.share_safety is not None and choice.share_language is not None:
        shares = {SAFETY: choice.share_safety, language: choice.share_language}
    return PlannedUnit(weights[choice.decision], shares)
