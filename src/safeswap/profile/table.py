"""What a profile holds, and its file: numbers per tensor, and the inputs as they were."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from safeswap.anatomy import kind_of, label_of, layer_labels
from safeswap.errors import ConfigError, ProfileError
from safeswap.io.files import save_text
from safeswap.io.jsonfile import LARGE, load_json
from safeswap.io.keys import check_keys
from safeswap.profile.records import (
    AdapterRecord,
    ExpertNumbers,
    FileRecord,
    InputRecord,
    Interval,
    Sample,
    TensorProfile,
    kept,
)
from safeswap.roles import BASE, SAFETY, check_role

FORMAT = "safeswap-profile/1"
_LONGEST = 1 << 40
"""What no dimension of a tensor reaches."""
_LARGEST = 1e150
"""Norms above it have squares that no float holds."""


@dataclass(frozen=True)
class Profile:
    """Everything that a selector may know: inputs, the order of units, numbers per tensor.

    ``sample`` is there where not all weights were read: the numbers are estimates then, and the
    digests empty.
    """

    inputs: Mapping[str, InputRecord]
    units: tuple[str, ...]
    tensors: tuple[TensorProfile, ...]
    notes: tuple[str, ...] = field(default=())
    sample: Sample | None = None

    @property
    def languages(self) -> tuple[str, ...]:
        """The language roles that were measured."""
        return tuple(role for role in self.inputs if role not in (BASE, SAFETY))

    @property
    def layers(self) -> int:
        """Number of layers, of all stacks."""
        return len(layer_labels(self.units))

    @cached_property
    def by_unit(self) -> Mapping[str, tuple[TensorProfile, ...]]:
        """Unit → its tensors, for every unit in the order of the model."""
        table: dict[str, list[TensorProfile]] = {unit: [] for unit in self.units}
        for tensor in self.tensors:
            table[tensor.unit].append(tensor)
        return {unit: tuple(tensors) for unit, tensors in table.items()}

    def only(self, language: str) -> Profile:
        """The same without what was measured of other languages."""
        roles = (BASE, SAFETY, language)
        tensors = tuple(tensor.only(roles) for tensor in self.tensors)
        others = tuple(f"{role}:" for role in self.languages if role != language)
        notes = tuple(note for note in self.notes if not note.startswith(others))
        sample = self.sample
        if sample is not None:
            sample = replace(sample, intervals={language: sample.intervals[language]})
        inputs = kept(self.inputs, roles)
        return replace(self, inputs=inputs, tensors=tensors, notes=notes, sample=sample)

    def save(self, path: Path) -> None:
        """Write the profile as JSON.

        Raises:
            OutputError: the place cannot be written, or is full; an older file is left as it was.
        """
        text = json.dumps(self.as_dict(), indent=1, ensure_ascii=False) + "\n"
        save_text(path, text)

    def as_dict(self) -> dict[str, Any]:
        """The profile as plain JSON values."""
        content = {"format": FORMAT, **asdict(self)}
        if self.sample is None:
            del content["sample"]
        for record in content["inputs"].values():
            adapter = record["adapter"]
            for file in (*record["files"], *(adapter["files"] if adapter else ())):
                if file["version"] is None:  # of files that lie here nothing is said
                    del file["version"]
            if adapter is None:  # of whole checkpoints neither
                del record["adapter"]
        for tensor in content["tensors"]:  # nor of experts where there are none
            for key in ("part", "experts"):
                if tensor[key] is None:
                    del tensor[key]
        return content

    @classmethod
    def load(cls, path: Path) -> Profile:
        """Read a profile.

        Raises:
            ProfileError: the file is missing, or not a profile of this version.
        """
        try:
            content = load_json(Path(path), LARGE, constants=True)
        except OSError as error:
            raise ProfileError(
                f"{path}: cannot be read ({error.strerror}). Check the path; safeswap profile "
                "makes one."
            ) from error
        except ConfigError as error:
            raise ProfileError(
                f"{path}: is not a profile ({error}). Run safeswap profile."
            ) from error
        return cls.from_dict(content, str(path))

    @classmethod
    def from_dict(cls, content: Any, where: str) -> Profile:
        """Build a profile from JSON values; ``where`` names them in messages."""
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ProfileError(f"{where}: is not a {FORMAT} file. Run safeswap profile again.")
        known = ("format", "inputs", "units", "tensors", "notes", "sample")
        check_keys(content, known, where, ProfileError)
        try:
            profile = cls(
                inputs={role: _input(record) for role, record in content["inputs"].items()},
                units=tuple(content["units"]),
                tensors=tuple(_tensor(record) for record in content["tensors"]),
                notes=tuple(content["notes"]),
                sample=_sample(content["sample"]) if "sample" in content else None,
            )
            _check_whole(profile)
        except (KeyError, TypeError, AttributeError) as error:
            raise ProfileError(
                f"{where}: is damaged ({error}). Run safeswap profile again."
            ) from error
        return profile


def _input(record: dict[str, Any]) -> InputRecord:
    found = InputRecord(**{**record, "files": _files(record), "adapter": None})
    _check_texts(found, "source", "path", "name", "digest", or_none=("revision",))
    adapter = record.get("adapter")
    if adapter is None:
        return found
    on = AdapterRecord(**{**adapter, "files": _files(adapter)})
    _check_texts(on, "source", "path", "name", "config", or_none=("revision",))
    return replace(found, adapter=on)


def _files(record: dict[str, Any]) -> tuple[FileRecord, ...]:
    found = tuple(FileRecord(**file) for file in record["files"])
    for file in found:
        _check_texts(file, "name", "digest", or_none=("sha256", "version"))
        if type(file.size) is not int or type(file.mtime_ns) is not int:
            raise TypeError(f"size or mtime_ns of {file.name!r} is no whole number")
    return found


def _check_texts(record: object, *names: str, or_none: tuple[str, ...]) -> None:
    for name in (*names, *or_none):
        value = getattr(record, name)
        if not isinstance(value, str) and not (value is None and name in or_none):
            raise TypeError(f"{name} is {value!r}, no text")


def _sample(record: dict[str, Any]) -> Sample:
    def number(value: Any) -> Any:
        if type(value) not in (int, float) or not abs(value) <= _LARGEST:
            raise TypeError(f"sample: {value!r} is no finite number")
        return value

    intervals = {
        language: {
            by: {
                key: Interval(*(number(row[end]) for end in ("difference", "low", "high")))
                for key, row in keys.items()
            }
            for by, keys in table.items()
        }
        for language, table in record["intervals"].items()
    }
    return Sample(
        **{
            **record,
            "intervals": intervals,
            "read": {name: number(part) for name, part in record["read"].items()},
            **{k: number(record[k]) for k in ("seed", "bytes_read", "bytes_all", "confidence")},
        }
    )


def _tensor(record: dict[str, Any]) -> TensorProfile:
    experts = _experts(record["experts"]) if "experts" in record else None
    tensor = TensorProfile(**{**record, "shape": tuple(record["shape"]), "experts": experts})
    _check_texts(tensor, "name", "unit", "role", "dtype", or_none=("part",))
    if not all(type(n) is int and 0 <= n <= _LONGEST for n in tensor.shape):
        raise TypeError(f"tensor {tensor.name!r} has the shape {record['shape']!r}")
    norms = [*tensor.update_norm.values()]
    norms += [] if tensor.base_norm is None else [tensor.base_norm]
    inner = [*tensor.inner.values()]
    if experts is not None:
        norms += [*experts.base_norm, *(n for own in experts.update_norm.values() for n in own)]
        inner += [n for own in experts.inner.values() for n in own]
    limits = [*((norm, _LARGEST) for norm in norms), *((n, _LARGEST**2) for n in inner)]
    for number, limit in limits:
        if type(number) not in (int, float) or not abs(number) <= limit:
            raise TypeError(f"tensor {tensor.name!r} has a number that is not finite, or too large")
    if any(norm < 0 for norm in norms):
        raise TypeError(f"tensor {tensor.name!r} has a negative norm")
    return tensor


def _experts(record: dict[str, Any]) -> ExpertNumbers:
    def own(table: dict[str, Any]) -> dict[str, tuple[float, ...]]:
        return {role: tuple(numbers) for role, numbers in table.items()}

    inner, moved = own(record["inner"]), own(record["update_norm"])
    return ExpertNumbers(
        **{**record, "base_norm": tuple(record["base_norm"]), "inner": inner, "update_norm": moved}
    )


def _check_part(tensor: TensorProfile) -> None:
    """A part is of its tensor's unit, and numbers of experts are there for all of them."""
    part, experts = tensor.part, tensor.experts
    if part is None and experts is None:
        return
    whole = part is not None and isinstance(part, str) and tensor.unit.endswith(".mlp")
    layer = tensor.unit.removesuffix("mlp")
    stacked = part == f"{layer}experts"
    if not whole or not (stacked or label_of(str(part)) == layer.removesuffix(".")):
        raise TypeError(f"tensor {tensor.name!r} has the unknown part {part!r}")
    if experts is None:
        return
    numbers = (*experts.update_norm.values(), *experts.inner.values())
    same = set(experts.update_norm) == set(tensor.update_norm)
    same = same and set(experts.inner) == set(tensor.inner)
    if not stacked or not same or any(len(own) != len(experts.base_norm) for own in numbers):
        raise TypeError(f"tensor {tensor.name!r} lacks the numbers of an expert")


def _check_whole(profile: Profile) -> None:
    """Every tensor once, in a known unit, with a number for every expert; else a TypeError."""
    if BASE not in profile.inputs or SAFETY not in profile.inputs or not profile.languages:
        raise TypeError("inputs must be base, safety and at least one language")
    for language in profile.languages:
        try:
            check_role(language)
        except ConfigError as error:
            raise TypeError(str(error).rstrip(".")) from None
    if not all(isinstance(note, str) for note in profile.notes):
        raise TypeError("a note is no text")
    if profile.sample and set(profile.sample.intervals) != set(profile.languages):
        raise TypeError("the sample has intervals of other languages than the inputs")
    for unit in profile.units:
        try:
            kind_of(unit)
        except (TypeError, ValueError):
            raise TypeError(f"{unit!r} is no unit") from None
    if not all(isinstance(t.unit, str) and isinstance(t.name, str) for t in profile.tensors):
        raise TypeError("a tensor's name or unit is no text")
    experts = {role for role in profile.inputs if role != BASE}
    seen: set[str] = set()
    for tensor in profile.tensors:
        if tensor.unit not in profile.units:
            raise TypeError(f"tensor {tensor.name!r} is in the unknown unit {tensor.unit!r}")
        if tensor.name in seen:
            raise TypeError(f"tensor {tensor.name!r} is given twice")
        seen.add(tensor.name)
        _check_part(tensor)
        if tensor.base_norm is None:
            complete = tensor.role != "projection"
        else:
            measured = set(tensor.update_norm), set(tensor.inner)
            complete = measured == (experts, experts - {SAFETY})
        if not complete or set(tensor.digests) != set(profile.inputs):
            raise TypeError(f"tensor {tensor.name!r} lacks the numbers of an input")
