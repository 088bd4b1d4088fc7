"""What a merge or a profile would do, without doing it: what is read, from where, and the room."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from safeswap.checkpoint.dtypes import Dtype
from safeswap.checkpoint.family import Family
from safeswap.io.progress import shown_bytes
from safeswap.merge.companions import rest_bytes
from safeswap.merge.prepare import check_donor, output_layout, refuse_overlap


def reading(family: Family) -> list[str]:
    """What is read, line by line: each checkpoint with its folder, tensors and bytes; the units;
    what is worth knowing.
    """
    lines = [
        f"{role}: {member.source.text}, {member.folder}: {len(member.tensors)} tensors in "
        f"{len(member.files)} files, {shown_bytes(member.nbytes)}"
        for role, member in family.members.items()
    ]
    units = family.anatomy.units
    layers = family.anatomy.layers
    lines.append(
        f"read: {shown_bytes(family.bytes_to_read())}; {len(family.names)} tensors in {len(units)} "
        f"units, {layers} layers"
    )
    return [*lines, *(f"note: {note}" for note in family.notes)]


def writing(
    family: Family,
    donors: Sequence[str],
    out: Path,
    *,
    dtype: Dtype | None = None,
    shard_size: int | None = None,
) -> list[str]:
    """What is written: bytes and files of all outputs, and whether there is room.

    Raises:
        FamilyError, OutputError: a donor without a tokenizer, an output in an input.
    """
    refuse_overlap(family, out)
    total, shards = 0, 0
    for donor in donors:
        check_donor(family, donor)
        layout, _ = output_layout(family, donor, dtype=dtype, shard_size=shard_size)
        total += layout.nbytes + rest_bytes(family, donor)
        shards += len(layout.shards)
    place = out.expanduser().absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    room = "" if free >= total else " (TOO LITTLE)"
    return [
        f"write: {out}: {shown_bytes(total)} in {shards} shards; {shown_bytes(free)} free{room}",
        "nothing was read of the weights, and nothing written",
    ]
