"""Small files from anywhere, read whole: regular files only, and none larger than was expected."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from safeswap.errors import ConfigError

SHOWN = 80
"""Characters of somebody else's text that a message repeats."""
_UNFIT = re.compile("[\0\ud800-\udfff]")


@contextmanager
def open_regular(path: Path) -> Iterator[BufferedReader]:
    """A file open for reading its bytes.

    Raises:
        OSError: as the system says; the caller knows what to do about it.
        ConfigError: it is a pipe or device.
    """
    # Without blocking: opening a pipe would wait for whoever writes into it.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as stream:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(21, "Is a directory", str(path))
        if not stat.S_ISREG(mode):
            raise ConfigError(f"{path}: is a pipe or device. Give a regular file.")
        yield stream


def read_regular(path: Path, limit: int) -> bytes:
    """All bytes of a file.

    Args:
        limit: bytes that it may have at most; more are not read.

    Raises:
        OSError: as the system says; the caller knows what to do about it.
        ConfigError: it is a pipe or device, or too large.
    """
    if "\0" in str(path):
        raise ConfigError(f"{str(path)!a}: a path has no NUL. Check the path.")
    with open_regular(path) as stream:
        # No more than there is: a read sets aside as much memory as it is allowed to fill.
        data = stream.read(min(os.fstat(stream.fileno()).st_size, limit) + 1)
    if len(data) > limit:
        raise ConfigError(
            f"{path}: is larger than {limit} bytes, too large for a file of its kind. Is it the "
            "right file?"
        )
    return data


def read_text(path: Path, limit: int) -> str:
    """A text file in UTF-8, with or without a byte order mark; lines end in a line feed alone.

    Raises:
        OSError: as the system says; the caller knows what to do about it.
        ConfigError: it is a pipe or device, too large, or no UTF-8; says in which line.
    """
    data = read_regular(path, limit)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}: line {line} is not UTF-8. Save the file in UTF-8.") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def is_file(path: Path) -> bool:
    """Whether there is such a file; none has a name that is too long, where `Path` raises."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """Whether there is such a folder, as `is_file`."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def is_there(path: Path) -> bool:
    """Whether there is anything of this name, as `is_file`."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def shortened(value: object) -> str:
    """Somebody else's text for a message: what matters of it stands at its beginning."""
    text = str(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def unfit_for_names(text: str) -> bool:
    """Whether it holds NUL or half a surrogate pair: no file and no terminal takes such names."""
    return _UNFIT.search(text) is not None
