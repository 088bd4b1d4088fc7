"""The check of a table's keys, whatever kind of file it stood in."""

from __future__ import annotations

from collections.abc import Iterable

from safeswap.errors import ConfigError, SafeswapError, nearest
from safeswap.io.regular import shortened


def check_keys(
    content: Iterable[object],
    known: Iterable[str],
    where: str,
    error: type[SafeswapError] = ConfigError,
    then: str = "",
) -> None:
    """Refuse a key that is not known.

    Args:
        where: names the table in the message, with a colon after it.
        then: what to do next, where that is not to correct the key.

    Raises:
        SafeswapError: of the class ``error``; names the nearest.
    """
    known = tuple(known)
    for key in content:
        if key not in known:
            message = f"{where}: unknown key {shortened(repr(key))}{nearest(str(key), known)}"
            stop = "" if message.endswith("?") else "."
            raise error(f"{message}{stop} {then}" if then else message)
