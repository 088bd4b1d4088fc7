"""Locks that keep two processes apart, one way for every place that needs one.

They are ``flock`` on a file that is open already, and not lock files of a library's own: a journal
locks the very data that it adds to, staging must see whether its lock still lies where it was
opened, and a worker's file is its sign of life because the system lets go of it when it dies.

A file system without locks (some network drives) is told apart from another process that holds the
lock. There the work goes on without one, after a warning: two runs on one folder are rare, each
piece of an output has its digest, and rows that a second run takes away are made again.
"""

from __future__ import annotations

import errno
import fcntl
import logging
from pathlib import Path
from tempfile import TemporaryFile

from safeswap.errors import SafeswapError
from safeswap.io.files import remedy

_HELD = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}
_NO_LOCKS = {
    errno.ENOLCK,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
    errno.EINVAL,
    errno.EBADF,  # the descriptor is good: NFS locks no folder, nor what is open for reading
}
_told: set[Path] = set()
_log = logging.getLogger(__name__)


class HeldError(Exception):
    """Another process holds the lock: whoever asked for it says what that means."""


def take_lock(descriptor: int, path: Path, error: type[SafeswapError], *, wait: bool) -> bool:
    """Lock an open file for this process alone, until it is closed.

    Args:
        descriptor: of the file, open.
        path: its name, for messages.
        error: what is raised where it cannot be locked.
        wait: until the other process lets go, instead of ``HeldError``.

    Returns:
        Whether it is locked; False where the file system has no locks, which is told once a folder.

    Raises:
        HeldError: another process holds it, and ``wait`` is off.
        SafeswapError: of the class ``error``; the disk fails or is read-only, for instance.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as failure:
        if failure.errno in _HELD and not wait:  # who waits is not told that somebody holds it
            raise HeldError(path) from failure
        if failure.errno not in _NO_LOCKS:
            raise error(
                f"{path}: cannot be locked ({failure.strerror}). {remedy(failure, resumed=False)}"
            ) from failure
        _tell_once(path.parent, failure)
        return False
    return True


def has_record_locks(folder: Path) -> bool:
    """Whether a folder's file system has the locks that databases use (``lockf``, of ranges of a
    file); where it has none, that is told once a folder. Anything else that fails there is left to
    the database.
    """
    try:
        with TemporaryFile(dir=folder) as probe:
            fcntl.lockf(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as failure:
        if failure.errno in _NO_LOCKS:
            _tell_once(folder, failure)
            return False
    return True


def _tell_once(folder: Path, failure: OSError) -> None:
    if folder not in _told:
        _told.add(folder)
        _log.warning(
            "%s: its file system has no locks (%s), as some network drives. Going on without: "
            "let no other safeswap write there until this one is done.",
            folder,
            failure.strerror,
        )
