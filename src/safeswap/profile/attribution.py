"""What each unit's part of the safety vector brings: the file that ``safeswap attribute`` writes.

It says of every unit how much of the change in three readouts is its own, when all of the safety
vector is added to the language expert. Methods read it (``--method attribution``); what makes it is
in ``safeswap.search.attribute``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from safeswap.anatomy import kind_of, label_of
from safeswap.checkpoint.digests import of_small_file
from safeswap.errors import CheckpointError, ConfigError, ProfileError
from safeswap.io.files import save_text
from safeswap.io.jsonfile import load_json
from safeswap.io.keys import check_keys

FORMAT = "safeswap-attribution/1"
GRANULARITIES = ("layer", "module", "head")
_AGAIN = "Run safeswap attribute again."
_LARGEST = 1e9
"""Nats that no readout reaches."""


@dataclass(frozen=True, slots=True)
class Readouts:
    """Three readouts of a model, or what a unit brings to each; nats.

    Attributes:
        refusing: mean log-odds of a refusal's opening after harmful requests.
        overrefusing: the same after harmless ones.
        keeping: mean log-likelihood of an answer in the language.
    """

    refusing: float
    overrefusing: float
    keeping: float


READOUTS = tuple(field.name for field in fields(Readouts))


@dataclass(frozen=True)
class Attribution:
    """What the units bring, measured for one language.

    Attributes:
        language: its role.
        by: what a unit is: ``layer``, ``module`` or ``head``.
        inputs: role → digest of its weights: base, safety and the language.
        settings: how it was measured.
        texts: what a file was given as → SHA-256 of its texts.
        prompts: what tells each request of them again, sorted, a space between, so that nobody
            takes them for a test.
        read: kind of text → how many were read.
        openings: how refusals open.
        backend: what ran the model.
        before, after: readouts of the language expert, and with all of the safety vector added.
        units: unit → what it brings: its share of ``after − before``, up to the error of the
            integration.
    """

    language: str
    by: str
    inputs: Mapping[str, str]
    settings: Mapping[str, Any]
    texts: Mapping[str, str]
    prompts: str
    read: Mapping[str, int]
    openings: tuple[str, ...]
    backend: Mapping[str, Any]
    before: Readouts
    after: Readouts
    units: Mapping[str, Readouts]

    def difference(self, readout: str) -> float:
        """How much a readout moved, nats."""
        moved: float = getattr(self.after, readout) - getattr(self.before, readout)
        return moved

    def total(self, readout: str) -> float:
        """What the units bring to a readout together, nats."""
        return math.fsum(getattr(one, readout) for one in self.units.values())

    def error(self, readout: str) -> float:
        """How far the sum over units lies from the difference, as a part of it (0 to infinity)."""
        missed, moved = self.total(readout) - self.difference(readout), self.difference(readout)
        return abs(missed / moved) if moved else math.inf if missed else 0.0

    def ranked(self, over: float = 0.0) -> list[str]:
        """The units that bring refusing, best first: by what they bring for a nat of keeping.

        Units that cost no keeping come first, those that bring most before the others. Units that
        bring nothing are left out.

        Args:
            over: nats of refusing that one of overrefusing costs.
        """

        def brings(unit: str) -> float:
            one = self.units[unit]
            return one.refusing - over * max(0.0, one.overrefusing)

        def place(unit: str) -> tuple[bool, float]:
            lost = -self.units[unit].keeping
            return lost > 0, -brings(unit) / lost if lost > 0 else -brings(unit)

        return sorted((unit for unit in self.units if brings(unit) > 0), key=place)

    def by_unit(self) -> Attribution:
        """The same by layer or module: what heads bring is added up, for shares are additive."""
        if self.by != "head":
            return self
        sums: dict[str, list[Readouts]] = {}
        for key, one in self.units.items():
            sums.setdefault(unit_of(key), []).append(one)
        units = {
            unit: Readouts(*(math.fsum(getattr(one, name) for one in own) for name in READOUTS))
            for unit, own in sums.items()
        }
        return replace(self, by="module", units=units)

    def save(self, path: Path) -> None:
        """Write it as JSON.

        Raises:
            OutputError: the place cannot be written, or is full; an older file is left as it was.
        """
        content = {"format": FORMAT, **asdict(self)}
        save_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, path: Path) -> Attribution:
        """Read it.

        Raises:
            ProfileError: the file is missing, damaged, or nothing of the kind.
        """
        try:
            content = load_json(path)
        except OSError as error:
            raise ProfileError(
                f"{path}: cannot be read ({error.strerror}). Check the path; safeswap attribute "
                "makes one."
            ) from error
        except ConfigError as error:
            raise ProfileError(f"{path}: is damaged ({error}). {_AGAIN}") from error
        return cls.from_dict(content, str(path))

    @classmethod
    def from_dict(cls, content: Any, where: str) -> Attribution:
        """Build it from JSON values; ``where`` names them in messages.

        Raises:
            ProfileError: as :meth:`load`.
        """
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ProfileError(f"{where}: is not a {FORMAT} file. safeswap attribute makes one.")
        known = [field.name for field in fields(cls)]
        check_keys(content, ("format", *known), where, ProfileError)
        try:
            made = {name: content[name] for name in known}
            sides = {name: _readouts(content[name], name) for name in ("before", "after")}
            units = {unit: _readouts(one, unit) for unit, one in content["units"].items()}
            found = cls(**made | sides | {"units": units, "openings": tuple(content["openings"])})
            _check_whole(found)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ProfileError(f"{where}: is damaged ({error}). {_AGAIN}") from error
        return found


def digest_of_file(path: Path) -> str:
    """SHA-256 (hex) of an attribution's file.

    Raises:
        ProfileError: it cannot be read.
    """
    try:
        return of_small_file(path)
    except (OSError, CheckpointError) as error:
        raise ProfileError(
            f"{path}: cannot be read ({error}). Check the path; safeswap attribute makes such a "
            "file."
        ) from error


def unit_of(key: str) -> str:
    """The unit that a key of an attribution is of: ``3.attention`` of ``3.heads.1``; a layer's
    own name stays.
    """
    layer, heads, _ = key.rpartition(".heads.")
    return f"{layer}.attention" if heads else key


def _readouts(record: Mapping[str, Any], what: str) -> Readouts:
    check_keys(record, READOUTS, what, ProfileError)
    for value in record.values():
        if type(value) not in (int, float) or not abs(value) <= _LARGEST:
            raise TypeError(f"{what} has {value!r}, no finite number")
    return Readouts(**record)


def _check_whole(found: Attribution) -> None:
    """Refuse what no run writes: a TypeError or ValueError."""
    if found.by not in GRANULARITIES:
        raise TypeError(f"by is {found.by!r}")
    if len(found.inputs) != 3 or found.language not in found.inputs:
        raise TypeError("inputs must be base, safety and the language")
    tables = (found.inputs, found.texts)
    if not all(isinstance(value, str) for table in tables for value in table.values()):
        raise TypeError("a digest is no text")
    if not isinstance(found.prompts, str):
        raise TypeError("prompts must be a text of digests")
    for table in (found.settings, found.read, found.backend):
        if not isinstance(table, dict):
            raise TypeError("settings, read and backend must be tables")
    if not found.units:
        raise TypeError("there is no unit")
    for unit in found.units:
        if found.by == "layer":
            label_of(f"{unit}.mlp")
        else:
            kind_of(unit_of(unit))
