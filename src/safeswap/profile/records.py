"""The records of a profile: an input as it was, a tensor's numbers, and what a sample says."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any


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
class ExpertNumbers:
    """The numbers of every expert that lies in one tensor, in their order.

    Attributes:
        base_norm: ‖W_base‖_F of each.
        update_norm: expert of the run (role) → ‖W_expert − W_base‖_F of each.
        inner: language → ⟨τ_safety, τ_language⟩ of each.
    """

    base_norm: tuple[float, ...]
    update_norm: Mapping[str, tuple[float, ...]]
    inner: Mapping[str, tuple[float, ...]]


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
        part: in a mixture of experts what of the mlp it is, as in :mod:`safeswap.anatomy`; None
            elsewhere.
        experts: where it holds all experts of a layer, the numbers of each; None elsewhere, and
            where they are not known (a sample).
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
    experts: ExpertNumbers | None = None

    def only(self, roles: Collection[str]) -> TensorProfile:
        """The same without what was measured of other members."""
        experts = self.experts
        if experts is not None:
            own = (kept(experts.update_norm, roles), kept(experts.inner, roles))
            experts = ExpertNumbers(experts.base_norm, *own)
        return replace(
            self,
            update_norm=kept(self.update_norm, roles),
            inner=kept(self.inner, roles),
            digests=kept(self.digests, roles),
            experts=experts,
        )


def kept(table: Mapping[str, Any], roles: Collection[str]) -> dict[str, Any]:
    """What a table by role says of some roles."""
    return {role: value for role, value in table.items() if role in roles}


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
