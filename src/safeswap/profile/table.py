"""What a profile holds, and its file: numbers per tensor, and the inputs as they were."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from safeswap.anatomy import kind_of, label_of, layer_labels, with_parts
from safeswap.anatomy.units import PART_KINDS, Placement, parts_in_order
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
    """One weight file as it was when measured; ``sha256`` only where the hub's cache knows it."""

    name: str
    size: int
    mtime_ns: int
    digest: str
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class InputRecord:
    """One checkpoint as it was when measured; ``digest`` identifies its weights (BLAKE3, hex)."""

    source: str
    path: str
    name: str
    revision: str | None
    digest: str
    files: tuple[FileRecord, ...]


@dataclass(frozen=True, slots=True)
class ExpertProfile:
    """The numbers of one expert of a mixture, where one tensor holds all of them.

    Attributes:
        base_norm, update_norm, inner: as in `TensorProfile`, of its rows alone.
    """

    base_norm: float
    update_norm: Mapping[str, float]
    inner: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class TensorProfile:
    """One tensor's numbers.

    Attributes:
        name, unit, role, shape, dtype: what it is (``role`` as in :mod:`safeswap.anatomy`).
        base_norm: ‖W_base‖_F; None for buffers, which are not weights.
        update_norm: expert → ‖W_expert − W_base‖_F.
        inner: language → ⟨τ_safety, τ_language⟩.
        digests: role → digest of the stored bytes (BLAKE3, hex; see
            :mod:`safeswap.checkpoint.digests`).
        part: what part of a mixture of experts it is (``3.router``, ``3.experts.7``; ``3.experts``
            for all experts in one tensor); None elsewhere.
        experts: of a tensor that holds all experts, each one's numbers, in their order.
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
    part: str | None = None
    experts: tuple[ExpertProfile, ...] = ()

    @property
    def measured(self) -> tuple[TensorProfile, ...]:
        """What a selector counts: the tensor, or each expert in it as a tensor of its own."""
        if not self.experts:
            return (self,)
        return tuple(
            replace(
                self,
                name=f"{self.name}[{number}]",
                part=f"{self.part}.{number}",
                base_norm=one.base_norm,
                update_norm=one.update_norm,
                inner=one.inner,
                experts=(),
            )
            for number, one in enumerate(self.experts)
        )


@dataclass(frozen=True)
class Profile:
    """Everything that a selector may know: inputs, the order of units, numbers per tensor."""

    inputs: Mapping[str, InputRecord]
    units: tuple[str, ...]
    tensors: tuple[TensorProfile, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def languages(self) -> tuple[str, ...]:
        """The language roles that were measured."""
        return tuple(role for role in self.inputs if role not in (BASE, SAFETY))

    @property
    def layers(self) -> int:
        """Number of layers."""
        return len(layer_labels(self.units))

    @cached_property
    def parts(self) -> tuple[str, ...]:
        """The parts of mixtures of experts, which a plan may name besides units."""
        return parts_in_order(
            Placement(t.unit, "projection", t.part, len(t.experts)) for t in self.tensors if t.part
        )

    @cached_property
    def fine_units(self) -> tuple[str, ...]:
        """The units, and behind each mlp its parts: all that a plan may name."""
        return with_parts(self.units, self.parts)

    @cached_property
    def by_unit(self) -> Mapping[str, tuple[TensorProfile, ...]]:
        """Unit or part → its tensors, in the order of the model; experts count one by one, whether
        they are stored apart or in one tensor.
        """
        table: dict[str, list[TensorProfile]] = {unit: [] for unit in self.fine_units}
        for tensor in self.tensors:
            for one in tensor.measured:
                table[one.unit].append(one)
                if one.part is not None and one.role == "projection":
                    table[one.part].append(one)
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
                experts=tuple(
                    replace(one, update_norm=keep(one.update_norm), inner=keep(one.inner))
                    for one in tensor.experts
                ),
                digests=keep(tensor.digests),
            )
            for tensor in self.tensors
        )
        others = tuple(f"{role}:" for role in self.languages if role != language)
        notes = tuple(note for note in self.notes if not note.startswith(others))
        return replace(self, inputs=keep(self.inputs), tensors=tensors, notes=notes)

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
        for tensor in content["tensors"]:
            for key in ("part", "experts"):
                if not tensor[key]:
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
        known = ("format", "inputs", "units", "tensors", "notes")
        check_keys(content, known, where, ProfileError)
        try:
            profile = cls(
                inputs={role: _input(record) for role, record in content["inputs"].items()},
                units=tuple(content["units"]),
                tensors=tuple(_tensor(record) for record in content["tensors"]),
                notes=tuple(content["notes"]),
            )
            _check_whole(profile)
        except (KeyError, TypeError, AttributeError) as error:
            raise ProfileError(
                f"{where}: is damaged ({error}). Run safeswap profile again."
            ) from error
        return profile


def _input(record: dict[str, Any]) -> InputRecord:
    files = tuple(FileRecord(**file) for file in record["files"])
    return InputRecord(**{**record, "files": files})


def _tensor(record: dict[str, Any]) -> TensorProfile:
    experts = tuple(ExpertProfile(**one) for one in record.get("experts", ()))
    given = {**record, "shape": tuple(record["shape"]), "experts": experts}
    tensor = TensorProfile(**given)
    _check_part(tensor)
    norms: list[float] = []
    inner: list[float] = []
    counted: list[TensorProfile | ExpertProfile] = [tensor, *experts]
    for one in counted:
        norms += [*one.update_norm.values()]
        norms += [] if one.base_norm is None else [one.base_norm]
        inner += [*one.inner.values()]
    limits = [*((norm, _LARGEST) for norm in norms), *((n, _LARGEST**2) for n in inner)]
    for number, limit in limits:
        if type(number) not in (int, float) or not abs(number) <= limit:
            raise TypeError(f"tensor {tensor.name!r} has a number that is not finite, or too large")
    if any(norm < 0 for norm in norms):
        raise TypeError(f"tensor {tensor.name!r} has a negative norm")
    return tensor


def _check_part(tensor: TensorProfile) -> None:
    """The part of a mixture is one of its mlp's, and experts in one tensor are measured alike."""
    if tensor.part is None:
        if tensor.experts:
            raise TypeError(f"tensor {tensor.name!r} has experts and no part")
        return
    one = f"{tensor.part}.0" if tensor.experts else tensor.part
    try:
        right = kind_of(one) in PART_KINDS and tensor.unit == f"{label_of(one)}.mlp"
    except (TypeError, ValueError):
        right = False
    same = all(
        {*one.update_norm} == {*tensor.update_norm} and {*one.inner} == {*tensor.inner}
        for one in tensor.experts
    )
    if not right or not same or any(one.base_norm is None for one in tensor.experts):
        raise TypeError(f"tensor {tensor.name!r} has a part {tensor.part!r} that is none")


def _check_whole(profile: Profile) -> None:
    """Every tensor once, in a known unit, with a number for every expert; else a TypeError."""
    if BASE not in profile.inputs or SAFETY not in profile.inputs or not profile.languages:
        raise TypeError("inputs must be base, safety and at least one language")
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
