"""How far each expert moved each tensor: measured once, in one pass over all checkpoints.

Kept per tensor, so that any granularity, threshold or blend is planned without reading weights
again: ‖W_base‖, ‖τ_expert‖ for every expert and ⟨τ_safety, τ_language⟩ for every language, where
τ = expert − base. Sums run in float64 over chunks whose arithmetic is float32 (float64 for stored
F32 and F64), and are the same for any number of workers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from safeswap import digests
from safeswap.checkpoint.dtypes import arithmetic_dtype, decode, inner_product
from safeswap.checkpoint.family import BASE, SAFETY, Family
from safeswap.checkpoint.files import announce, opened, read_into
from safeswap.checkpoint.header import StoredTensor
from safeswap.checkpoint.source import known_sha256
from safeswap.errors import CheckpointError, PlanError, nearest
from safeswap.work import CHUNK_ELEMENTS, default_workers, pieces_of, run_pieces

FORMAT = "safeswap-profile/1"


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
class TensorProfile:
    """One tensor's numbers.

    Attributes:
        name, unit, role, shape, dtype: what it is (``role`` as in :mod:`safeswap.anatomy`).
        base_norm: ‖W_base‖_F; None for buffers, which are not weights.
        update_norm: expert → ‖W_expert − W_base‖_F.
        inner: language → ⟨τ_safety, τ_language⟩.
        digests: role → digest of the stored bytes (BLAKE3, hex; see :mod:`safeswap.digests`).
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
        return sum(1 for unit in self.units if unit.endswith(".attention"))

    @cached_property
    def by_unit(self) -> Mapping[str, tuple[TensorProfile, ...]]:
        """Unit → its tensors, for every unit in the order of the model."""
        table: dict[str, list[TensorProfile]] = {unit: [] for unit in self.units}
        for tensor in self.tensors:
            table[tensor.unit].append(tensor)
        return {unit: tuple(tensors) for unit, tensors in table.items()}

    def save(self, path: Path) -> None:
        """Write the profile as JSON."""
        text = json.dumps(self.as_dict(), indent=1, ensure_ascii=False) + "\n"
        path.write_text(text, encoding="utf-8")

    def as_dict(self) -> dict[str, Any]:
        """The profile as plain JSON values."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def load(cls, path: Path) -> Profile:
        """Read a profile.

        Raises:
            PlanError: the file is missing, or not a profile of this version.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise PlanError(f"{path}: cannot be read ({error.strerror}).") from error
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise PlanError(f"{path}: is not a profile ({error}). Run safeswap profile.") from error
        return cls.from_dict(content, str(path))

    @classmethod
    def from_dict(cls, content: Any, where: str) -> Profile:
        """Build a profile from JSON values; ``where`` names them in messages."""
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise PlanError(f"{where}: is not a {FORMAT} file. Run safeswap profile again.")
        known = {"format", "inputs", "units", "tensors", "notes"}
        for key in content:
            if key not in known:
                raise PlanError(f"{where}: unknown key {key!r}{nearest(key, known)}")
        try:
            profile = cls(
                inputs={role: _input(record) for role, record in content["inputs"].items()},
                units=tuple(content["units"]),
                tensors=tuple(_tensor(record) for record in content["tensors"]),
                notes=tuple(content["notes"]),
            )
            _check_whole(profile)
        except (KeyError, TypeError, AttributeError) as error:
            raise PlanError(
                f"{where}: is damaged ({error}). Run safeswap profile again."
            ) from error
        return profile


def _input(record: dict[str, Any]) -> InputRecord:
    files = tuple(FileRecord(**file) for file in record["files"])
    return InputRecord(**{**record, "files": files})


def _tensor(record: dict[str, Any]) -> TensorProfile:
    tensor = TensorProfile(**{**record, "shape": tuple(record["shape"])})
    norms = [*tensor.update_norm.values()]
    norms += [] if tensor.base_norm is None else [tensor.base_norm]
    for number in (*norms, *tensor.inner.values()):
        if type(number) not in (int, float) or not math.isfinite(number):
            raise TypeError(f"tensor {tensor.name!r} has a number that is not finite")
    if any(norm < 0 for norm in norms):
        raise TypeError(f"tensor {tensor.name!r} has a negative norm")
    return tensor


def _check_whole(profile: Profile) -> None:
    """Every tensor once, in a known unit, with a number for every expert; else a TypeError."""
    if BASE not in profile.inputs or SAFETY not in profile.inputs or not profile.languages:
        raise TypeError("inputs must be base, safety and at least one language")
    experts = {role for role in profile.inputs if role != BASE}
    seen: set[str] = set()
    for tensor in profile.tensors:
        if tensor.unit not in profile.units:
            raise TypeError(f"tensor {tensor.name!r} is in the unknown unit {tensor.unit!r}")
        if tensor.name in seen:
            raise TypeError(f"tensor {tensor.name!r} stands twice")
        seen.add(tensor.name)
        if tensor.base_norm is None:
            complete = tensor.role != "projection"
        else:
            measured = set(tensor.update_norm), set(tensor.inner)
            complete = measured == (experts, experts - {SAFETY})
        if not complete or set(tensor.digests) != set(profile.inputs):
            raise TypeError(f"tensor {tensor.name!r} lacks the numbers of an input")


def measure_family(
    family: Family,
    *,
    workers: int | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> Profile:
    """Measure all experts of a family in one pass.

    Args:
        workers: threads; the result does not depend on it.
        advance: told how many bytes were read, for a progress display.

    Raises:
        CheckpointError: a weight that is NaN or infinite, a read that fails.
    """
    pieces = [
        (name, begin, end)
        for name in family.names
        for begin, end in pieces_of(family.base.tensors[name].elements)
    ]
    width = {n: sum(m.tensors[n].dtype.size for m in family.members.values()) for n in family.names}
    sums = run_pieces(
        pieces,
        lambda piece, scratch: _measure_piece(family, piece, scratch),
        lambda: _Scratch(tuple(family.members)),
        workers=workers or default_workers(),
        advance=advance,
        size=lambda piece: (piece[2] - piece[1]) * width[piece[0]],
    )
    by_tensor: dict[str, list[_Sums]] = {name: [] for name in family.names}
    for (name, _, _), piece_sums in zip(pieces, sums, strict=True):
        by_tensor[name].append(piece_sums)
    tensors = tuple(_join(family, name, parts) for name, parts in by_tensor.items())
    return Profile(
        inputs={role: _record(family, role, tensors) for role in family.members},
        units=family.anatomy.units,
        tensors=tensors,
        notes=family.notes,
    )


@dataclass(slots=True)
class _Sums:
    """Partial sums of one piece; the keys are (role, role): squares and inner products."""

    products: dict[tuple[str, str], float]
    digest: dict[str, bytes]


class _Scratch:
    """One worker's buffers, reused for every chunk."""

    def __init__(self, roles: tuple[str, ...]) -> None:
        self.raw = {role: np.empty(CHUNK_ELEMENTS * 8, np.uint8) for role in roles}
        self._wide = {
            kind: {role: np.empty(CHUNK_ELEMENTS, kind) for role in roles}
            for kind in (np.dtype(np.float32),)
        }

    def wide(self, kind: np.dtype[Any]) -> dict[str, NDArray[Any]]:
        """Buffers of the arithmetic's own type; float64 ones are made when first needed."""
        if kind not in self._wide:
            self._wide[kind] = {role: np.empty(CHUNK_ELEMENTS, kind) for role in self.raw}
        return self._wide[kind]


def _measure_piece(family: Family, piece: tuple[str, int, int], scratch: _Scratch) -> _Sums:
    name, begin, end = piece
    stored = {role: member.tensors[name] for role, member in family.members.items()}
    kind = arithmetic_dtype(*(tensor.dtype for tensor in stored.values()))
    weights = stored[BASE].dtype.mergeable
    hashes = {role: blake3() for role in stored}
    parts: dict[tuple[str, str], list[float]] = {pair: [] for pair in _pairs(family)}
    wide = scratch.wide(kind)
    with _AllOpened(stored) as descriptors:
        for role, tensor in stored.items():
            size = tensor.dtype.size
            announce(descriptors[role], tensor.start + begin * size, (end - begin) * size)
        for at in range(begin, end, CHUNK_ELEMENTS):
            count = min(CHUNK_ELEMENTS, end - at)
            for role, tensor in stored.items():
                raw = scratch.raw[role][: count * tensor.dtype.size]
                read_into(
                    descriptors[role], tensor.start + at * tensor.dtype.size, raw, tensor.file
                )
                hashes[role].update(raw.data)
            if weights:
                chunk = {role: wide[role][:count] for role in stored}
                _accumulate(stored, scratch, chunk, at, parts)
    products = {pair: math.fsum(values) for pair, values in parts.items()}
    return _Sums(products, {role: hashing.digest() for role, hashing in hashes.items()})


def _pairs(family: Family) -> list[tuple[str, str]]:
    squares = [(role, role) for role in family.members]
    if SAFETY not in family.members:
        return squares
    return squares + [(SAFETY, language) for language in family.languages]


class _AllOpened:
    """One descriptor per role, closed together."""

    def __init__(self, stored: Mapping[str, StoredTensor]) -> None:
        self._managers = {role: opened(tensor.file) for role, tensor in stored.items()}

    def __enter__(self) -> dict[str, int]:
        return {role: manager.__enter__() for role, manager in self._managers.items()}

    def __exit__(self, *exception: object) -> None:
        for manager in self._managers.values():
            manager.__exit__(None, None, None)


def _accumulate(
    stored: Mapping[str, StoredTensor],
    scratch: _Scratch,
    chunk: Mapping[str, NDArray[Any]],
    at: int,
    parts: dict[tuple[str, str], list[float]],
) -> None:
    for role, values in chunk.items():
        dtype = stored[role].dtype
        decode(scratch.raw[role][: len(values) * dtype.size], dtype, values)
        if role != BASE:
            np.subtract(values, chunk[BASE], out=values)
    for pair, sums in parts.items():
        left, right = chunk[pair[0]], chunk[pair[1]]
        with np.errstate(over="ignore", invalid="ignore"):
            product = inner_product(left, right)
        if not math.isfinite(product):
            product = _exact_product(stored, scratch, pair, len(left), at)
        sums.append(product)


def _exact_product(
    stored: Mapping[str, StoredTensor],
    scratch: _Scratch,
    pair: tuple[str, str],
    count: int,
    at: int,
) -> float:
    """The product again in float64, after showing that every weight of the chunk is finite."""
    exact: dict[str, NDArray[np.float64]] = {}
    for role in {BASE, *pair}:
        dtype, values = stored[role].dtype, np.empty(count, np.float64)
        decode(scratch.raw[role][: count * dtype.size], dtype, values)
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            raise not_finite(role, stored[role], at + int(bad[0]), float(values[bad[0]]))
        exact[role] = values
    left, right = (exact[r] if r == BASE else exact[r] - exact[BASE] for r in pair)
    product = inner_product(left, right)
    if not math.isfinite(product):
        tensor = stored[pair[0]]
        raise CheckpointError(
            f"{tensor.file}: tensor {tensor.name!r} has weights too large to measure. "
            "The checkpoint is damaged; fetch it again."
        )
    return product


def not_finite(role: str, tensor: StoredTensor, element: int, value: float) -> CheckpointError:
    """The error for a NaN or infinite weight."""
    return CheckpointError(
        f"{tensor.file}: tensor {tensor.name!r} of the {role} checkpoint has {value} at element "
        f"{element} of {tensor.elements}. The training diverged or the file is damaged; use "
        "another step of the run or fetch it again."
    )


def _join(family: Family, name: str, parts: list[_Sums]) -> TensorProfile:
    stored = family.base.tensors[name]
    placement = family.anatomy.placements[name]

    def total(pair: tuple[str, str]) -> float:
        return math.fsum(part.products[pair] for part in parts)

    is_weight = stored.dtype.mergeable and placement.role != "buffer"
    experts = family.experts if is_weight else ()
    languages = family.languages if is_weight and SAFETY in family.members else ()
    return TensorProfile(
        name=name,
        unit=placement.unit,
        role=placement.role,
        shape=stored.shape,
        dtype=stored.dtype.name,
        base_norm=math.sqrt(total((BASE, BASE))) if is_weight else None,
        update_norm={role: math.sqrt(total((role, role))) for role in experts},
        inner={language: total((SAFETY, language)) for language in languages},
        digests={
            role: digests.of_pieces(part.digest[role] for part in parts) for role in family.members
        },
    )


def _record(family: Family, role: str, tensors: tuple[TensorProfile, ...]) -> InputRecord:
    member = family.members[role]
    by_name = {tensor.name: tensor.digests[role] for tensor in tensors}
    for alias_role, alias in family.aliases:
        if alias_role == role:  # not read; its name alone stands for it
            by_name[alias] = digests.of_pieces([b"alias"])
    files = tuple(
        FileRecord(
            name=file.path.name,
            size=file.size,
            mtime_ns=file.mtime_ns,
            digest=digests.of_weight_file(file.header, file.tensors, by_name),
            sha256=known_sha256(file.path),
        )
        for file in member.files
    )
    return InputRecord(
        source=member.source.text,
        path=str(member.folder),
        name=member.source.name,
        revision=member.source.revision,
        digest=digests.of_checkpoint(
            {name: member.tensors[name] for name in family.names}, by_name
        ),
        files=files,
    )


def unchanged(record: InputRecord, family: Family, role: str) -> bool:
    """Whether a checkpoint is where it was when measured, its files with their sizes and times.

    Sizes and times alone do not tell experts apart: all have one shape, and copies and archives
    may give all files one time.
    """
    if record.path != str(family.members[role].folder):
        return False
    now = {(file.path.name, file.size, file.mtime_ns) for file in family.members[role].files}
    return now == {(file.name, file.size, file.mtime_ns) for file in record.files}
