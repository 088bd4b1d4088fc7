"""Prompts by name: fetched from where their authors publish them, once, and never unasked.

A file is asked for over https alone, read no further than its known size, compared with its known
digest and only then put into the cache, beside the pieces of remote weights. What lies in the cache
is compared again whenever it is used. Nothing is sent but the request.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from pathlib import Path
from urllib.parse import urlsplit

from safeswap.checkpoint.remote.cache import cache_folder, write_piece
from safeswap.errors import CheckpointError, ConfigError, EvaluationError, SafeswapError
from safeswap.evaluation.benchmarks.origins import OriginFile
from safeswap.io.progress import shown_bytes
from safeswap.io.regular import read_regular

_log = logging.getLogger("safeswap.evaluation")
_FOLDER = "prompts"
_YES = ("1", "ON", "YES", "TRUE")
_WAITS = (0.5, 2.0, None)
"""Seconds before the next try; after the last one there is none."""
_LONGEST = 60.0
"""Seconds that a host may ask to be waited for."""


def kept(file: OriginFile) -> Path | None:
    """Where the file lies in the cache; None where it does not, or is another one by now."""
    path = _place(file)
    try:
        data = read_regular(path, file.size)
    except (OSError, ConfigError):
        return None
    return path if hashlib.sha256(data).hexdigest() == file.sha256 else None


def fetched(file: OriginFile, title: str, form: str) -> Path:
    """The file in the cache; fetched first where it is not there.

    Args:
        title: the benchmark's, for messages.
        form: how a file of one's own is given instead, such as ``multijail=FILE``.

    Raises:
        EvaluationError: no network is wanted or there is none, the host does not give the file, or
            it gives another one; says from where to get it by hand.
    """
    found = kept(file)
    if found is not None:
        return found
    way_out = f"Or get that file yourself, where there is a network, and give --prompts {form}."
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in _YES:
        raise EvaluationError(
            f"{title} is not in the cache, and HF_HUB_OFFLINE is set: nothing is fetched from "
            f"{file.url}. Unset it to let it be fetched ({shown_bytes(file.size)}). {way_out}"
        )
    _log.info(f"fetching {title}: {file.url} ({shown_bytes(file.size)})")
    try:
        data = _ask(file)
        digest = hashlib.sha256(data).hexdigest()
        if digest != file.sha256:
            raise EvaluationError(
                f"{file.url} has the SHA-256 {digest}, not {file.sha256}, which the file of its "
                "authors has. Something on the way changed it, or it was replaced; nothing was "
                "kept."
            )
        write_piece(_place(file), data, b"")
    except SafeswapError as error:
        raise EvaluationError(f"{title} cannot be fetched. {error} {way_out}") from error
    return _place(file)


def _place(file: OriginFile) -> Path:
    """One file for one content, with the ending that tells its form."""
    return cache_folder() / _FOLDER / f"{file.sha256}{Path(urlsplit(file.url).path).suffix}"


def _ask(file: OriginFile) -> bytes:
    """The bytes that the host gives, tried again where that may help.

    Raises:
        CheckpointError: it gives none, more than there should be, or is no https.
    """
    from safeswap.checkpoint.remote.address import is_loopback

    try:
        from safeswap.checkpoint.remote.fetch import TransientError
        from safeswap.checkpoint.remote.http import Client, refuse_status, whole
    except ModuleNotFoundError as error:
        raise EvaluationError(
            f"{file.url}: needs {error.name}. Run pip install 'safeswap[remote]'."
        ) from error
    parts = urlsplit(file.url)
    if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
        raise CheckpointError(f"{file.url}: is no https address.")
    client = Client(file.url)
    for wait in _WAITS:
        try:
            with client.ask("GET", file.url, file.url) as (response, _):
                if response.status != 200:
                    refuse_status(response.status, file.url, login=False)
                return whole(response, file.size, file.url)
        except TransientError as error:
            asked = error.wait or 0.0
            if wait is None or asked > _LONGEST:
                raise CheckpointError(
                    f"{file.url}: {error}. Check the connection, then run the same command again."
                ) from error
            time.sleep(max(wait, asked))
    raise AssertionError("the last try returns or raises")
