"""Are the inputs still what was opened? Asked once all bytes are written, before OUT has its name.

A file whose inode, size and times are those that it had is as it was. Where only times of the inode
changed, as when somebody links or closes a file to others, a weight file is read again and compared
with what was measured. What was changed *before* a run and given its old size and time is not seen
where a saved profile is used again (``merge --plan``): reading everything twice would be the price.
``safeswap verify`` does read it, and says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from safeswap.checkpoint import digests
from safeswap.checkpoint.family import Family
from safeswap.checkpoint.model import Checkpoint, header_again
from safeswap.checkpoint.reader import Tensor
from safeswap.checkpoint.weight_file import WeightFile
from safeswap.errors import CheckpointError
from safeswap.io.buffers import buffer
from safeswap.io.files import signatures
from safeswap.io.workers import BLOCK_ELEMENTS, chunks_of
from safeswap.merge.chunks import ChunkHash
from safeswap.merge.companions import small_files
from safeswap.profile import Profile


def small_names(family: Family) -> dict[str, frozenset[Path]]:
    """Role → the files besides weights that matter: configuration, tokenizer, templates, code."""
    return {
        role: frozenset(small_files(member).values()) for role, member in family.members.items()
    }


def refuse_changed(family: Family, profile: Profile, small: Mapping[str, frozenset[Path]]) -> None:
    """Refuse inputs that changed since they were opened: weights, configuration, tokenizer, code.

    Args:
        small: `small_names` as they were before.

    Raises:
        CheckpointError: names the file.
    """
    after = small_names(family)
    for role, member in family.members.items():
        adapter = member.adapter
        before = {member.folder: member.signatures}
        before |= {adapter.folder: adapter.signatures} if adapter else {}
        now = {folder: signatures(folder) for folder in before}
        for file in (*member.files, *((adapter.file,) if adapter else ())):
            if file.ranges is not None:
                file.ranges.refuse_changed()
                continue
            folder, name = file.path.parent, file.path.name
            found = now[folder].get(name)
            if found is None or found[1:3] != (file.size, file.mtime_ns):
                raise _changed(file.path, role)
            if found == before[folder].get(name, found):
                continue
            if adapter and file is adapter.file:
                record = profile.inputs[role].adapter
                same = record is not None and adapter.digest() == record.files[0].digest
            elif adapter and folder == family.base.folder:
                continue  # the base's own turn says it
            else:
                same = _reads_as_measured(file, member, role, profile)
            if not same:
                raise _changed(file.path, role)
        for path in sorted(small[role] | after[role]) if member.signatures else ():
            if now[path.parent].get(path.name) != before[path.parent].get(path.name):
                raise _changed(path, role)


def _changed(path: Path, role: str) -> CheckpointError:
    return CheckpointError(f"{path}: the {role} checkpoint changed during the merge. Run it again.")


def _reads_as_measured(file: WeightFile, member: Checkpoint, role: str, profile: Profile) -> bool:
    """Whether a file that somebody touched still holds the bytes that the profile measured."""
    if file.header and header_again(file) != file.header:
        return False
    measured = {tensor.name: tensor.digests for tensor in profile.tensors}
    if member.packed:  # measured were the numbers; of the bytes there is a digest for the file
        found = {tensor.name: _digest(tensor) for tensor in file.tensors}
        records = {record.name: record.digest for record in profile.inputs[role].files}
        now = digests.of_weight_file(file.header, file.tensors, found)
        return now == records[file.path.name]
    return all(
        _digest(tensor) == measured[tensor.name][role]
        for tensor in file.tensors
        if tensor.name in measured
    )


def _digest(tensor: Tensor) -> str:
    size, parts = tensor.dtype.size, []
    with tensor.reader() as reader:
        for begin, end in chunks_of(tensor.elements):
            hashing = ChunkHash(size)
            for at in range(begin, end, BLOCK_ELEMENTS):
                count = min(BLOCK_ELEMENTS, end - at)
                raw = buffer("again", count * size, np.uint8)
                reader.read_raw(at, at + count, raw)
                hashing.update(raw)
            parts.append(hashing.digest())
    return digests.of_chunks(parts)
