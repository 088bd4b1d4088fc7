"""Whether remote checkpoints are to be fetched whole: only where the user asked for it."""

from __future__ import annotations

import os

_asked = False


def ask_whole(on: bool) -> None:
    """Fetch remote checkpoints whole from now on (``--download``), or read them by ranges."""
    global _asked
    _asked = on


def is_whole_asked() -> bool:
    """Whether ``--download`` was given, or ``SAFESWAP_DOWNLOAD`` is ``1``."""
    return _asked or os.environ.get("SAFESWAP_DOWNLOAD", "") == "1"
