"""What a profile holds, and its file: numbers per tensor, and the inputs as they were."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from safeswap.anatomy import kind_of, layer_labels
from safeswap.errors import ConfigError, ProfileError
from safeswap.io.files import save_text
from safeswap.io.jsonfile import LARGE, load_json
from safeswap.io.keys import check_keys
from safeswap.roles import BASE, SAFETY

FORMAT = "safeswap-profile/1"
_LARGEST = 1e150
"""Norms above it have squares that no float holds."""


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One weight file as it was when measured; ``sha256`` only where the hub or its cache knows it.

    ``version`` is what the store of a remote file said of its content (ETag, generation, commit);
    its ``mtime_ns`` is 0.
    """

    name: str
    size: int
    mtime_ns: int
    digest: str
    sha256: str | None = None
    version: str | None = None


@dataclass(frozen=True, slots=True)
class AdapterRecord:
    """The adapter of an input: where it lies, its weight file, and its configuration's SHA-256."""

    source: str
    path: str
    name: str
    revision: str | None
    config: str
    files: tuple[FileRecord, ...]


@dataclass(frozen=True, slots=True)
class InputRecord:
    """One checkpoint as it was when measured; ``digest`` identifies its weights (BLAKE3, hex).

    With an adapter, ``digest`` is of the weights as the adapter makes them, and all else is of the
    checkpoint that it stands on.
    """

    source: str
    path: str
    name: str
    revision: str | None
    digest: str
    files: tuple[FileRecord, ...]
    adapter: AdapterRecord | None = None

    @property
    def called(self) -> str:
        """Its public name: with an adapter, what stands on what."""
        return f"{self.adapter.name} on {self.name}" if self.adapter else self.name

    @property
    def given(self) -> str:
        """What the user typed, as far as it is known."""
        return f"{self.adapter.source} on {self.source}" if self.adapter else self.source


@dataclass(frozen=True, slots=True)
class TensorProfile:
    """One tensor's numbers.

    Attributes:
        name, unit, role, shape, dtype: what it is (``role`` as in :mod:`safeswap.anatomy`).
        base_norm: ‖W_base‖_F; None for buffers, which are not weights.
        update_norm: expert → ‖W_expert − W_base‖_F.
        inner: language → ⟨τ_safety, τ_language⟩.
        digests: role → digest of the bytes of a copy (BLAKE3, hex; see
            :mod:`safeswap.checkpoint.digests`): the stored ones, or those that the numbers of a
            narrow weight are rounded to.
    """

    name: str
    unit: str
    role: str
    shape: tuple[int, ...]
    dtype: str
    base_norm: float | None
    update_norm: Mapping[str, float]
    inner: Mapping[str, float]
    digests: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Interval:
    """A difference of shares (safety minus language) as estimated, and its confidence interval."""

    difference: float
    low: float
    high: float

    def certain(self, tau: float) -> bool:
        """Whether one decision holds in all of the interval: safety, language, or blend."""
        return self.low > tau or self.high < -tau or (-tau <= self.low and self.high <= tau)


Intervals = Mapping[str, Mapping[str, Mapping[str, Interval]]]
"""Language → granularity (``module``, ``layer``) → key → interval."""


@dataclass(frozen=True, slots=True)
class Sample:
    """How a profile was made from a part of the weights.

    Attributes:
        seed: of the drawing.
        bytes_read, bytes_all: of all members.
        confidence: with which all intervals of one language and granularity hold together.
        read: tensor → the part of its elements that was read (0 to 1).
        intervals: of the differences of shares.
    """

    seed: int
    bytes_read: int
    bytes_all: int
    confidence: float
    read: Mapping[str, float]
    intervals: Intervals


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

        def keep(table: Mapping[str, Any]) -> dict[str, Any]:
            return {role: value for role, value in table.items() if role in roles}

        tensors = tuple(
            replace(
                tensor,
                update_norm=keep(tensor.update_norm),
                inner=keep(tensor.inner),
                digests=keep(tensor.digests),
            )
            for tensor in self.tensors
        )
        others = tuple(f"{role}:" for role in self.languages if role != language)
        notes = tuple(note for note in self.notes if not note.startswith(others))
        sample = self.sample
        if sample is not None:
            sample = replace(sample, intervals={language: sample.intervals[language]})
        return replace(self, inputs=keep(self.inputs), tensors=tensors, notes=notes, sample=sample)

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
        _check_texts(file, "name", "digest", or_none=("sha256",))
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
    tensor = TensorProfile(**{**record, "shape": tuple(record["shape"])})
    norms = [*tensor.update_norm.values()]
    norms += [] if tensor.base_norm is None else [tensor.base_norm]
    limits = [
        *((norm, _LARGEST) for norm in norms),
        *((n, _LARGEST**2) for n in tensor.inner.values()),
    ]
    for number, limit in limits:
        if type(number) not in (int, float) or not abs(number) <= limit:
            raise TypeError(f"tensor {tensor.name!r} has a number that is not finite, or too large")
    if any(norm < 0 for norm in norms):
        raise TypeError(f"tensor {tensor.name!r} has a negative norm")
    return tensor


def _check_whole(profile: Profile) -> None:
    """Every tensor once, in a known unit, with a number for every expert; else a TypeError."""
    if BASE not in profile.inputs or SAFETY not in profile.inputs or not profile.languages:
        raise TypeError("inputs must be base, safety and at least one language")
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
        if tensor.base_norm is None:
            complete = tensor.role != "projection"
        else:
            measured = set(tensor.update_norm), set(tensor.inner)
            complete = measured == (experts, experts - {SAFETY})
        if not complete or set(tensor.digests) != set(profile.inputs):
            raise TypeError(f"tensor {tensor.name!r} lacks the numbers of an input")
