"""A checkpoint's folder holds its files: what leads out of it, or is no plain file, is not read.

A name or a link in a folder that somebody else made is a request to read any file of this machine;
what was read would then stand in an output or a message. Links are followed inside the folder, and
from a snapshot of the hub's cache to the blobs of the same repository, where its files lie.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path, PurePosixPath

from safeswap.errors import CheckpointError


def is_plain_name(name: str) -> bool:
    """Whether a name that a file gives can only mean a file below its own folder."""
    parts = PurePosixPath(name).parts
    return bool(parts) and not (
        name.startswith(("/", "~")) or ".." in parts or "\\" in name or "\0" in name or ":" in name
    )


def why_not_read(folder: Path, path: Path) -> str | None:
    """Why a file of a folder is not read, in words; None where it may be, or is not there.

    Args:
        folder: the checkpoint's.
        path: a file below it.
    """
    try:
        target = path.resolve()
        if path.is_symlink() or target.parent != path.parent:
            homes = _homes(folder.resolve())
            if not any(target.is_relative_to(home) for home in homes):
                return "a link that leads out of the folder"
        mode = target.stat().st_mode
    except FileNotFoundError:
        return None
    except (OSError, RuntimeError):  # links in a circle, or folders that may not be entered
        return None
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return None
    return "a pipe, socket or device"


def _homes(folder: Path) -> Iterator[Path]:
    """The folder; and the blobs of the same repository where it is a snapshot of a hub's cache."""
    yield folder
    repository = folder.parent.parent
    blobs = repository / "blobs"
    cached = folder.parent.name == "snapshots" and "--" in repository.name
    if cached and not blobs.is_symlink():
        yield blobs


def refuse_leaving(folder: Path, path: Path) -> None:
    """Refuse a file that `why_not_read` names.

    Raises:
        CheckpointError: says why.
    """
    reason = why_not_read(folder, path)
    if reason is not None:
        raise CheckpointError(
            f"{path}: is {reason}, and is not read. Remove it, or put the file itself into "
            f"{folder.name}/."
        )


def open_plain(path: Path) -> BufferedReader:
    """Open a file for reading; a pipe is not waited at, and a device not read.

    Raises:
        OSError: as the system says.
        CheckpointError: it is no plain file.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | os.O_NONBLOCK)
    stream = os.fdopen(descriptor, "rb")
    mode = os.fstat(stream.fileno()).st_mode
    if not stat.S_ISREG(mode):
        stream.close()
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(21, "Is a directory", str(path))
        raise CheckpointError(f"{path}: is a pipe, socket or device. Give a plain file.")
    return stream


def files_below(folder: Path) -> list[str]:
    """The names of all that is no folder below a folder, sorted; links to folders are not entered,
    and named too.
    """
    found: list[str] = []
    for place, folders, files in os.walk(folder, followlinks=False):
        here = Path(place)
        links = [name for name in folders if (here / name).is_symlink()]
        found += [(here / name).relative_to(folder).as_posix() for name in (*files, *links)]
    return sorted(found)
