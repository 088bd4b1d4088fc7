"""Bytes on disk: positioned reads into reused buffers, positioned writes, copies in the kernel.

Files are read with ``pread`` and not mapped: pages of a mapping count as the process's memory.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from safeswap.errors import CheckpointError, OutputError

_COPY_BUFFER = 1 << 20
_LFS = b"version https://git-lfs"
_NO_KERNEL_COPY = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM}


def open_descriptor(path: Path) -> int:
    """Open a file for reading; the caller closes it with :func:`close_descriptor`.

    Raises:
        CheckpointError: the file is gone or may not be read.
    """
    try:
        return os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    except OSError as error:
        todo = reading_remedy(
            error, "Check that it is still there and readable, then run the same command again."
        )
        raise CheckpointError(f"{path}: cannot be opened ({error.strerror}). {todo}") from error


def close_descriptor(descriptor: int) -> None:
    """Close what :func:`open_descriptor` opened."""
    os.close(descriptor)


def refuse_pointer(path: Path) -> None:
    """A clone without Git LFS holds small texts under the names of the large files.

    Raises:
        CheckpointError: the file is such a text.
    """
    try:
        # without blocking: opening a pipe would wait for whoever writes into it
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as stream:
            regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
            pointer = regular and stream.read(len(_LFS)) == _LFS
    except OSError:
        return  # whoever reads it next says why it cannot be read
    if pointer:
        raise CheckpointError(
            f"{path}: is a Git LFS pointer, not the file that it stands for. Run git lfs pull in "
            "its folder, or fetch the file from the hub."
        )


def prefetch(descriptor: int, start: int, nbytes: int) -> None:
    """Tell the kernel which range comes next, so that a cold disk reads ahead."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, start, nbytes, os.POSIX_FADV_WILLNEED)


def read_into(descriptor: int, start: int, buffer: NDArray[np.uint8], path: Path) -> None:
    """Fill ``buffer`` (uint8) from absolute offset ``start``.

    Raises:
        CheckpointError: the file ends before (it was cut off or changed) or the disk fails.
    """
    view = buffer.data
    done = 0
    while done < len(view):
        try:
            got = os.preadv(descriptor, [view[done:]], start + done)
        except OSError as error:
            raise CheckpointError(
                f"{path}: reading at byte {start + done} failed ({error.strerror}). "
                "Check the disk, or fetch the file again."
            ) from error
        if got == 0:
            raise CheckpointError(
                f"{path}: ends at byte {start + done}, {len(view) - done} bytes too early. "
                "It changed while it was read, or was cut off; fetch it again."
            )
        done += got


def write_at(descriptor: int, start: int, data: memoryview | bytes, path: Path) -> None:
    """Write all of ``data`` at absolute offset ``start``.

    Raises:
        OutputError: the disk is full or fails; what was written so far is kept for a resume.
    """
    view = memoryview(data).cast("B")
    done = 0
    while done < len(view):
        try:
            done += os.pwrite(descriptor, view[done:], start + done)
        except OSError as error:
            raise _write_failed(path, error) from error


def set_size(descriptor: int, size: int, path: Path) -> None:
    """Give an open file its size; what was in it stays.

    Raises:
        OutputError: the disk or a limit does not allow it.
    """
    try:
        os.ftruncate(descriptor, size)
    except OSError as error:
        raise _write_failed(path, error) from error


def fsync(descriptor: int, path: Path, *, forget: bool = False) -> None:
    """Wait until what was written is on the disk, so that a power cut cannot take it back.

    Args:
        forget: give back the memory that caches the file; the next to read it goes to the disk.

    Raises:
        OutputError: the disk is full or fails after all.
    """
    try:
        os.fsync(descriptor)
        if forget and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    except OSError as error:
        raise _write_failed(path, error) from error


Signature = tuple[int, int, int, int]
"""What changes with a file: inode, size, and the times of its content and of its inode (ns)."""


def signature(path: Path) -> Signature:
    """What tells whether a file is still as it was. The last time cannot be set back, so that bytes
    written over with size and time kept show; it changes with permissions and links, too.

    Raises:
        OSError: the file is gone.
    """
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def signatures(folder: Path) -> dict[str, Signature]:
    """Name → signature of the plain files in a folder, links followed; gone ones are left out."""
    found = {}
    for path in folder.iterdir():
        with suppress(OSError):
            if path.is_file():
                found[path.name] = signature(path)
    return found


def crowds_memory(nbytes: int) -> bool:
    """Whether files of so many bytes in all leave less than half of this machine's memory free.

    Outputs then push inputs out of the cache that are still to be read: with three languages of
    2.5 GB each on 24 GB, a run that kept its outputs cached took twice the time.
    """
    return nbytes > os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2


def fsync_path(path: Path) -> None:
    """The same for a file or folder that is not open (a folder's entries are its content).

    Raises:
        OutputError: as :func:`fsync`.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise _write_failed(path, error) from error
    try:
        fsync(descriptor, path)
    finally:
        os.close(descriptor)


def copy_range(
    source: int, start: int, target: int, to: int, nbytes: int, path: Path, into: Path
) -> None:
    """Copy ``nbytes`` from ``path`` to ``into``, both open, inside the kernel where it can.

    Raises:
        OutputError: the target cannot take them.
        CheckpointError: the source ends early.
    """
    done = 0
    while done < nbytes and hasattr(os, "copy_file_range"):
        try:
            got = os.copy_file_range(source, target, nbytes - done, start + done, to + done)
        except OSError as error:
            if error.errno in _NO_KERNEL_COPY:
                break
            if error.errno == errno.EIO:
                break  # which of the two disks failed? the plain path below says it
            raise _write_failed(into, error) from error
        if got == 0:
            break  # the plain path below says whether the source really ends here
        done += got
    buffer = np.empty(min(_COPY_BUFFER, nbytes - done), np.uint8)
    while done < nbytes:
        part = buffer[: nbytes - done]
        read_into(source, start + done, part, path)
        write_at(target, to + done, part.data, into)
        done += len(part)


def write_atomically(path: Path, data: bytes, *, settle: bool = False) -> None:
    """Write a small file whole or not at all: what was there before stays until then.

    Args:
        settle: wait until it is on the disk, so that a power cut cannot take it back.

    Raises:
        OSError: the place cannot be written, or is full; nothing half-made is left.
    """
    target = path.resolve()
    if target.exists() and not target.is_file():  # a pipe or a terminal takes it as it comes
        target.write_bytes(data)
        return
    part = target.with_name(f".{target.name}.part")
    part.unlink(missing_ok=True)  # of a killed run; or a link, laid there to be written through
    try:
        with part.open("xb") as stream:
            stream.write(data)
            if settle:
                stream.flush()
                os.fsync(stream.fileno())
        part.replace(target)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def save_text(path: Path, text: str) -> None:
    """As ``write_atomically``, for text in UTF-8 that a user asked for.

    Raises:
        OutputError: the place cannot be written, or is full.
    """
    try:
        write_atomically(path, text.encode())
    except OSError as error:
        raise _write_failed(path, error, resumed=False) from error


def save_inside(folder: Path, name: str, data: bytes) -> Path:
    """As ``write_atomically``, for a file of our naming in a folder that others may have filled.

    Args:
        name: of the file, with ``/`` where it lies deeper.

    Returns:
        Its path.

    Raises:
        OutputError: as `check_no_link`; the place cannot be written, or is full.
    """
    check_no_link(folder, name)
    path = folder / name
    try:
        write_atomically(path, data)
    except OSError as error:
        raise _write_failed(path, error, resumed=False) from error
    return path


def check_no_link(folder: Path, name: str) -> None:
    """Refuse a file that is a link, or lies behind one: what it leads to would be written over.
    The folder itself may be one: its user named it.

    Raises:
        OutputError: a part of the name is a link.
    """
    path = folder
    for part in Path(name).parts:
        path = path / part
        if path.is_symlink():
            raise OutputError(
                f"{path}: is a link, and what it leads to would be written over. Remove the link, "
                "or choose another folder."
            )


def check_writable(path: Path) -> None:
    """Refuse before any work when a file cannot be written; writes nothing.

    Raises:
        OutputError: the path is a folder, or its own folder is missing or may not be written.
    """
    folder = path.parent
    if path.is_dir():
        raise OutputError(f"{path}: is a folder. Give the name of a file.")
    if not folder.is_dir():
        raise OutputError(f"{path}: its folder does not exist. Make {folder} first.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(
            f"{folder}: cannot be written (Permission denied). Choose another file, or fix the "
            "folder's permissions."
        )


def _write_failed(path: Path, error: OSError, *, resumed: bool = True) -> OutputError:
    return OutputError(
        f"{path}: writing failed ({error.strerror}). {remedy(error, resumed=resumed)}"
    )


def reading_remedy(error: OSError, otherwise: str) -> str:
    """What to do when a file could not be read: ``otherwise``, unless too many were open."""
    return remedy(error) if error.errno in (errno.EMFILE, errno.ENFILE) else otherwise


def remedy(error: OSError, *, resumed: bool = True) -> str:
    """What to do when the system refused something, as a sentence.

    Args:
        resumed: the same command finds what it wrote before.
    """
    again = "run the same command again" + (": it goes on where it stopped." if resumed else ".")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"Free some space and {again}"
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return f"Raise the number of files that may be open (ulimit -n), and {again}"
    if error.errno == errno.EROFS:
        return "The file system is read-only: choose another place, or mount it for writing."
    if error.errno == errno.EFBIG:
        return f"Check the limit on the size of files (ulimit -f), raise it, and {again}"
    return f"Check the disk and its permissions, then {again}"
