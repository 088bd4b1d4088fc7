"""A profile's inputs: what told each checkpoint when it was measured, and whether it is so now."""

from __future__ import annotations

from collections.abc import Sequence

from safeswap.checkpoint import digests
from safeswap.checkpoint.adapters import Adapter
from safeswap.checkpoint.family import Family
from safeswap.checkpoint.mixtures import leaves
from safeswap.checkpoint.precisions import PackedTensor
from safeswap.checkpoint.weight_file import WeightFile
from safeswap.io.workers import run_chunks
from safeswap.profile.records import AdapterRecord, FileRecord, InputRecord, TensorProfile


def record_of(family: Family, role: str) -> InputRecord:
    """A checkpoint of which not all was read: without digests."""
    member = family.members[role]
    files = tuple(
        FileRecord(f.path.name, f.size, f.mtime_ns, "", f.sha256, f.version) for f in member.files
    )
    return _input_record(family, role, "", files)


def measured_record(
    family: Family, role: str, tensors: tuple[TensorProfile, ...], workers: int
) -> InputRecord:
    """A checkpoint as it was measured.

    Args:
        tensors: what was measured of all members.
    """
    member = family.members[role]
    by_name = _stored_digests(family, role, tensors, workers)
    stored = {one.name: one for tensor in member.tensors.values() for one in leaves(tensor)}
    if member.packed:  # what is stored tells such checkpoints apart, rounded copies might not
        stored = {tensor.name: tensor for file in member.files for tensor in file.tensors}
        changed = member.adapter.applied.changed if member.adapter else {}
        stored |= {tensor.name: tensor for tensor in changed.values()}
    whole = {name: stored[name] for name in stored if name in by_name}
    for (alias_role, alias), original in family.aliases.items():
        if alias_role == role:  # the same bytes, as was checked when the family was joined
            name, same = (member.tensors[one].name for one in (alias, original))
            by_name.setdefault(name, by_name[same])
    files = tuple(
        FileRecord(
            name=file.path.name,
            size=file.size,
            mtime_ns=file.mtime_ns,
            digest=digests.of_weight_file(file.header, file.tensors, by_name),
            sha256=file.sha256,
            version=file.version,
        )
        for file in member.files
    )
    return _input_record(family, role, digests.of_checkpoint(whole, by_name), files)


def _input_record(
    family: Family, role: str, digest: str, files: tuple[FileRecord, ...]
) -> InputRecord:
    member = family.members[role]
    return InputRecord(
        source=member.source.text if member.source.hub_id else member.source.said,
        path=member.source.said,
        name=member.source.name,
        revision=member.source.revision,
        digest=digest,
        files=files,
        adapter=_adapter_record(member.adapter) if member.adapter else None,
    )


def _adapter_record(adapter: Adapter) -> AdapterRecord:
    file = adapter.file
    return AdapterRecord(
        source=adapter.source.text if adapter.source.hub_id else adapter.source.said,
        path=adapter.source.said,
        name=adapter.source.name,
        revision=adapter.source.revision,
        config=digests.of_small_file(adapter.config.path),
        files=(
            FileRecord(
                file.path.name, file.size, file.mtime_ns, adapter.digest(), version=file.version
            ),
        ),
    )


def _stored_digests(
    family: Family, role: str, tensors: tuple[TensorProfile, ...], workers: int
) -> dict[str, str]:
    """Stored tensor → digest of its bytes: as measured, or read here where only numbers made of
    them were.
    """
    member = family.members[role]
    measured = {tensor.name: tensor.digests[role] for tensor in tensors}
    lent = family.lent[role].tensors if role in family.lent else {}
    by_name = {
        tensor.name: measured[name]
        for name, tensor in member.tensors.items()
        if name in measured and name not in lent and leaves(tensor) == (tensor,)
        if not isinstance(tensor, PackedTensor)
    }
    for tensor in member.tensors.values():
        for one in leaves(tensor) if leaves(tensor) != (tensor,) else ():
            if one.name not in by_name and not isinstance(one, PackedTensor):
                by_name[one.name] = digests.of_tensor(one)
    for name in family.left_out.get(role, {}):  # of which nothing else is known
        by_name[member.tensors[name].name] = digests.of_tensor(member.tensors[name])
    if member.packed:
        stored = (tensor for file in member.files for tensor in file.tensors)
        rest = [tensor for tensor in stored if tensor.name not in by_name]
        found = run_chunks(
            rest,
            digests.of_tensor,
            workers=workers,
            advance=lambda count: None,
            size=lambda tensor: 0,
        )
        by_name |= {tensor.name: digest for tensor, digest in zip(rest, found, strict=True)}
    return by_name


def unchanged(record: InputRecord, family: Family, role: str) -> bool:
    """Whether a checkpoint is where it was when measured, its files with their sizes and times.

    Sizes and times alone do not tell experts apart: all have one shape, and copies and archives
    may give all files one time.
    """
    member = family.members[role]
    adapted = (record.adapter is None) != (member.adapter is None)
    if record.path != member.source.said or adapted:
        return False
    if not _as_recorded(member.files, record.files):
        return False
    adapter, said = member.adapter, record.adapter
    if adapter is None or said is None:
        return True
    same = said.path == adapter.source.said and _as_recorded((adapter.file,), said.files)
    return same and said.config == digests.of_small_file(adapter.config.path)


def _as_recorded(files: Sequence[WeightFile], records: Sequence[FileRecord]) -> bool:
    now = {(file.path.name, file.size, file.mtime_ns, file.version) for file in files}
    return now == {(file.name, file.size, file.mtime_ns, file.version) for file in records}
