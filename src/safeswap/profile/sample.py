"""A profile from a sample: random blocks of every tensor, the same blocks of all members.

A tensor is cut into blocks of consecutive elements. Blocks are drawn without replacement, in an
order that only a seed and the tensor's name decide, so that a larger sample holds the smaller one.
A block gives the partial sums of which a profile is made: ‖W_base‖², each expert's ‖τ‖², and the
inner products ⟨τ_safety, τ_language⟩. A total is estimated by the number of blocks times the mean
of a block; what does not fill a last block is always read.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from safeswap.checkpoint.family import Family
from safeswap.checkpoint.numerics import inner_product
from safeswap.checkpoint.reader import Tensor, TensorReader, announce
from safeswap.errors import CheckpointError
from safeswap.io.buffers import buffer
from safeswap.io.workers import default_workers, run_chunks
from safeswap.profile.inputs import record_of
from safeswap.profile.measure import not_finite, pairs_of, profile_of
from safeswap.profile.records import Sample
from safeswap.profile.table import Profile
from safeswap.profile.updates import Pair
from safeswap.roles import BASE

LARGEST_BLOCK = 1 << 15
"""Elements of a block: 64 KiB of bfloat16, which costs a disk or a server little more than one
number would."""
SMALLEST_BLOCK = 1 << 11
BLOCKS = 1024
"""A smaller tensor has smaller blocks, so that it has this many."""
FEWEST = 16
"""Blocks that say something of how much blocks differ; a tensor with fewer is read whole."""
_TOGETHER = 64
"""Blocks that one thread reads in one go."""

Floats = NDArray[np.float64]
Runs = list[tuple[int, int]]
Work = TypeVar("Work")


@dataclass
class TensorSample:
    """What was read of one tensor.

    Attributes:
        elements: of the tensor.
        block: elements of a block.
        blocks: how many there are, without what is left over at the end.
        pairs: what the columns hold: (role, role) a square, two roles an inner product.
        values: float64 [blocks read, pairs], in the order in which they were drawn.
        rest: float64 [pairs], of what is left over at the end.
    """

    elements: int
    block: int
    blocks: int
    pairs: tuple[Pair, ...]
    values: Floats
    rest: Floats

    @property
    def read(self) -> int:
        """Elements that were read."""
        return len(self.values) * self.block + self.elements - self.blocks * self.block

    @property
    def whole(self) -> bool:
        """Whether nothing is left to read."""
        return len(self.values) == self.blocks

    def totals(self) -> Floats:
        """The estimated total of every pair, float64 [pairs]; exact where all is read."""
        if not self.blocks:
            return self.rest
        found: Floats = self.rest + self.values.mean(axis=0) * self.blocks
        return found


@dataclass
class FamilySample:
    """Samples of all tensors of a family, and the way to more.

    Attributes:
        seed: another seed draws other blocks.
        tensors: tensor → what was read of it.
    """

    family: Family
    seed: int = 0
    tensors: dict[str, TensorSample] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Nothing is read yet."""
        pairs = tuple(pairs_of(self.family))
        for name in self.family.names:
            elements = self.family.base.tensors[name].elements
            block = _block_of(elements)
            count = elements // block if self.family.is_weight(name) else 0
            shape = (0, len(pairs))
            self.tensors[name] = TensorSample(
                elements, block, count, pairs, np.empty(shape), np.zeros(len(pairs))
            )

    def width(self, name: str) -> int:
        """Bytes that an element has in all members together."""
        return sum(tensor.dtype.size for tensor in self.family.measured(name).values())

    @property
    def nbytes(self) -> int:
        """Bytes read, of all members."""
        return sum(s.read * self.width(name) for name, s in self.tensors.items())

    @property
    def all_bytes(self) -> int:
        """Bytes of all weights of all members."""
        return sum(s.elements * self.width(name) for name, s in self.tensors.items())

    def cost(self, wanted: Mapping[str, int]) -> int:
        """Bytes that :meth:`grow` would read."""
        return sum(
            self.width(name) * count * self.tensors[name].block
            for name, count in self._missing(wanted).items()
        )

    def _missing(self, wanted: Mapping[str, int]) -> dict[str, int]:
        return {
            name: more
            for name, count in wanted.items()
            if (more := min(count, self.tensors[name].blocks) - len(self.tensors[name].values)) > 0
        }

    def read_rests(self, *, workers: int | None = None) -> None:
        """Read what is left over at the end of every tensor: norms and biases are all of that.

        Raises:
            CheckpointError: as :meth:`grow`.
        """
        names = [n for n, s in self.tensors.items() if self.family.is_weight(n)]
        found = run_chunks(
            names,
            lambda name: self._read_rest(name),
            workers=workers or default_workers(),
            advance=lambda count: None,
            size=lambda name: 0,
            ahead=self._ahead(lambda name: (name, self._runs_of_rest(name))),
        )
        for name, rest in zip(names, found, strict=True):
            self.tensors[name].rest = rest

    def _read_rest(self, name: str) -> Floats:
        found: Floats = self._sums(name, self._runs_of_rest(name)).sum(axis=0)
        return found

    def _runs_of_rest(self, name: str) -> Runs:
        sample = self.tensors[name]
        return [
            (begin, min(begin + LARGEST_BLOCK, sample.elements))
            for begin in range(sample.blocks * sample.block, sample.elements, LARGEST_BLOCK)
        ]

    def _ahead(self, runs: Callable[[Work], tuple[str, Runs]]) -> Callable[[Work], None] | None:
        """What says that a piece of work's runs will be read soon; None where all bytes lie here.

        Args:
            runs: of a piece of work, the tensor and its runs of elements.
        """
        if not self.family.is_remote:
            return None

        def ahead(work: Work) -> None:
            name, wanted = runs(work)
            for begin, end in wanted:
                announce(self.family.measured(name).values(), begin, end)

        return ahead

    def grow(
        self,
        wanted: Mapping[str, int],
        *,
        workers: int | None = None,
        advance: Callable[[int], None] = lambda count: None,
    ) -> None:
        """Read on until each tensor has as many blocks as wanted, or all.

        Args:
            wanted: tensor → blocks.
            workers: threads; the numbers do not depend on it.
            advance: told how many bytes were read.

        Raises:
            CheckpointError: a weight that is NaN or infinite, a read that fails.
        """
        work: list[tuple[str, list[int]]] = []
        for name, more in self._missing(wanted).items():
            have = len(self.tensors[name].values)
            drawn = self._order(name)[have : have + more]
            work += [(name, drawn[at : at + _TOGETHER]) for at in range(0, more, _TOGETHER)]
        found = run_chunks(
            work,
            lambda one: self._read_blocks(*one),
            workers=workers or default_workers(),
            advance=advance,
            size=lambda one: len(one[1]) * self.tensors[one[0]].block * self.width(one[0]),
            ahead=self._ahead(lambda one: (one[0], self._runs(*one))),
        )
        for (name, _), values in zip(work, found, strict=True):
            sample = self.tensors[name]
            sample.values = np.concatenate([sample.values, values])

    def _order(self, name: str) -> list[int]:
        """All blocks of a tensor in the order in which they are drawn."""
        key = hashlib.sha256(f"{self.seed}:{name}".encode()).digest()
        dice = np.random.Generator(np.random.Philox(int.from_bytes(key[:16], "little")))
        return [int(number) for number in dice.permutation(self.tensors[name].blocks)]

    def _runs(self, name: str, blocks: Sequence[int]) -> Runs:
        """Where blocks lie, in the order of the file."""
        size = self.tensors[name].block
        return [(block * size, (block + 1) * size) for block in sorted(blocks)]

    def _read_blocks(self, name: str, blocks: Sequence[int]) -> Floats:
        places = np.argsort(blocks)  # read in the order of the file, told in that of the drawing
        values = self._sums(name, self._runs(name, blocks))
        told = np.empty_like(values)
        told[places] = values
        return told

    def _sums(self, name: str, runs: Sequence[tuple[int, int]]) -> Floats:
        """The products of every pair over each run of elements; float64 [runs, pairs]."""
        tensors, pairs = self.family.measured(name), self.tensors[name].pairs
        sums = np.zeros((len(runs), len(pairs)))
        with ExitStack() as stack:
            readers = {role: stack.enter_context(t.reader()) for role, t in tensors.items()}
            for begin, end in runs:
                for reader in readers.values():
                    reader.prefetch(begin, end)
            for row, (begin, end) in enumerate(runs):
                numbers = _updates(tensors, readers, begin, end)
                sums[row] = [inner_product(numbers[one], numbers[two]) for one, two in pairs]
        return sums

    def profile(self, sample: Sample) -> Profile:
        """The profile that the sample gives; estimates, without digests."""
        blank = dict.fromkeys(self.family.members, "")
        tensors = tuple(
            profile_of(
                self.family, name, dict(zip(s.pairs, map(float, s.totals()), strict=True)), blank
            )
            for name, s in self.tensors.items()
        )
        return Profile(
            inputs={role: record_of(self.family, role) for role in self.family.members},
            units=self.family.anatomy.units,
            tensors=tensors,
            notes=self.family.notes,
            sample=sample,
        )


def _block_of(elements: int) -> int:
    """Elements of a block: a power of two, so that a tensor has some hundred of them."""
    wanted = 1 << max(0, int(math.log2(max(1, elements // BLOCKS))))
    return min(LARGEST_BLOCK, max(SMALLEST_BLOCK, wanted))


def _updates(
    tensors: Mapping[str, Tensor], readers: Mapping[str, TensorReader], begin: int, end: int
) -> dict[str, Floats]:
    """The base's numbers and every expert's task vector over a run of elements, float64.

    Raises:
        CheckpointError: a weight that is NaN, infinite, or too large to measure.
    """
    found: dict[str, Floats] = {}
    for role, tensor in tensors.items():
        values = buffer(f"sampled {role}", LARGEST_BLOCK, np.float64)[: end - begin]
        readers[role].read_numbers(begin, end, values)
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            at = int(bad[0])
            raise not_finite(role, tensor, begin + at, float(values[at]))
        if role != BASE:
            values -= found[BASE]
        found[role] = values
    if any(not math.isfinite(inner_product(values, values)) for values in found.values()):
        raise CheckpointError(
            f"{tensors[BASE].where}: tensor {tensors[BASE].name!r} has weights too large to "
            "measure. A checkpoint of this run is damaged; fetch it again."
        )
    return found
