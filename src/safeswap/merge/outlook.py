"""What a merge or a profile would do, without doing it: what is read, from where, and the room."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from safeswap.checkpoint.dtypes import Dtype
from safeswap.checkpoint.family import Family
from safeswap.checkpoint.model import Checkpoint
from safeswap.io.progress import shown_bytes
from safeswap.merge.adapter_modules import adapters_of
from safeswap.merge.companions import rest_bytes
from safeswap.merge.prepare import check_donor, output_layout, refuse_overlap
from safeswap.merge.shipping import bytes_here
from safeswap.profile import bytes_to_measure


def reading(family: Family) -> list[str]:
    """What is read, line by line: each checkpoint with its folder, tensors and bytes; the units;
    what is worth knowing.
    """
    lines = [
        f"{role}: {member.text}, {_place(member)}: {len(member.tensors)} tensors in "
        f"{len(member.files)} files, {shown_bytes(member.nbytes)}{_adapter(member)}"
        for role, member in family.members.items()
    ]
    units = family.anatomy.units
    layers = family.anatomy.layers
    read = shown_bytes(bytes_to_measure(family))
    lines.append(
        f"read: {read}; {len(family.names)} tensors in {len(units)} units, {layers} layers"
    )
    return [*lines, *(f"note: {note}" for note in family.notes)]


def _place(member: Checkpoint) -> str:
    return "by ranges" if member.is_remote else str(member.source.place)


def writing_adapters(family: Family, out: Path, to: str = "") -> list[str]:
    """What is written of adapters: of a module no more than its factors in all experts.

    Raises:
        PlanError, OutputError: an expert is no adapter of the base, an output in an input.
    """
    refuse_overlap(family, out)
    members = [family.members[role] for role in family.experts]
    adapters = adapters_of(family, family.experts)
    most = sum(adapter.file.size for adapter in adapters.values())
    what = "adapters" if len(members) > 2 else "an adapter"
    return [
        f"write: {to or out}: {what} of {family.base.text}, {shown_bytes(most)} at the most where "
        "factors are picked, up to twice that where they are joined (float32)",
        "nothing was read of the weights, and nothing written",
    ]


def _adapter(member: Checkpoint) -> str:
    if member.adapter is None:
        return ""
    adapter = member.adapter
    changed = len(adapter.applied.changed)
    return (
        f"; adapter {adapter.folder}: changes {changed} tensors, {shown_bytes(adapter.file.size)}"
    )


def writing(
    family: Family,
    outputs: Sequence[tuple[str, str]],
    out: Path,
    *,
    dtype: Dtype | None = None,
    shard_size: int | None = None,
    same: bool = False,
    to: str = "",
) -> list[str]:
    """What is written: bytes and files of all outputs, and whether there is room.

    Args:
        outputs: language and donor of each.
        out: the folder, or where the output grows that goes to an address.
        to: that address; it is not asked anything.

    Raises:
        FamilyError, OutputError: a donor without a tokenizer, an output in an input.
    """
    refuse_overlap(family, out)
    layouts, rest, lines = [], 0, []
    for language, donor in outputs:
        check_donor(family, donor)
        seen = family.output(language, donor)
        layout, _, _ = output_layout(seen, donor, dtype=dtype, shard_size=shard_size, same=same)
        layouts.append(layout)
        rest += rest_bytes(family.members[donor])
        lines += [f"{language}: {line}" for line in seen.rows.said()]
    place = out.expanduser().absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    total, shards = bytes_here(layouts, leaving=False) + rest, sum(len(x.shards) for x in layouts)
    here = bytes_here(layouts, leaving=bool(to) and not same) + rest
    room = "" if free >= here else " (TOO LITTLE)"
    what = f"write: {to or out}: {shown_bytes(total)} in {shards} shards; "
    what += f"of these at most {shown_bytes(here)} here at once, in {out}: " if to else ""
    return [
        *lines,
        f"{what}{shown_bytes(free)} free{room}",
        "nothing was read of the weights, and nothing written",
    ]
