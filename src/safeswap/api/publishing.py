"""Publish what was merged: to a hub, or into a bucket."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safeswap.api.merging import verify_merge
from safeswap.errors import ConfigError
from safeswap.merge.manifest import merged_folders
from safeswap.publish.address import BucketFolder, target
from safeswap.publish.hub import refuse_offline
from safeswap.publish.push import HubOutput, Pushed, PushOptions, bucket_files, push_to_bucket


def push_outlook(out: str | Path, to: str, **options: Any) -> list[Pushed]:
    """What :func:`push` would send, and where; nothing is asked of the network.

    Raises:
        SafeswapError: it cannot be published as it is.

    >>> from safeswap import api
    >>> _ = api.merge("base", safety="safety", languages={"sw": "swahili"}, out="to-push")
    >>> (shown,) = push_outlook("to-push", "me/swahili-safe")
    >>> shown.private, "config.json" in shown.files
    (True, True)
    """
    folder, place = Path(out).expanduser(), target(to)
    given = PushOptions(**options)
    if isinstance(place, BucketFolder):
        _refuse_options(given)
        return [Pushed(folder, str(place), True, bucket_files(folder)[0])]
    return HubOutput(folder, place, given).outlook()


def push(
    out: str | Path,
    to: str,
    *,
    scratch: str | Path | None = None,
    verified: bool = False,
    **options: Any,
) -> list[Pushed]:
    """Publish a merged folder: in a repository of the configured hub, or in a bucket.

    The copy for a hub names inputs without this machine's paths, and its card's header is
    completed; one commit shows all. A bucket gets a copy byte for byte.

    Args:
        out: what a merge wrote; of several languages each gets a repository of its own,
            ``NAME-LANGUAGE``.
        to: ``ORG/NAME``, ``s3://BUCKET/FOLDER`` or ``gs://BUCKET/FOLDER``.
        scratch: where the uploads to a bucket are noted; by default in the user's cache.
        verified: OUT was checked just now; otherwise its digests are compared first.
        options: those of :class:`safeswap.publish.push.PushOptions`.

    Raises:
        SafeswapError: OUT is not what the merge wrote, or what the hub or bucket refused, with
            what to do next. What was sent is kept there, and the same call goes on.
    """
    folder, place, given = Path(out).expanduser(), target(to), PushOptions(**options)
    if isinstance(place, BucketFolder):
        _refuse_options(given)
    else:
        refuse_offline(place)
        ready = HubOutput(folder, place, given)  # what is wrong with it is said before it is read
    for one in merged_folders(folder) if not verified else ():
        verify_merge(one, without_inputs=True)
    if isinstance(place, BucketFolder):
        where = Path(scratch) if scratch else None
        return [push_to_bucket(folder, place, scratch=where, overwrite=given.overwrite)]
    return ready.send()


def _refuse_options(given: PushOptions) -> None:
    for name in ("public", "revision", "message", "license", "keep_paths"):
        if getattr(given, name):
            option = name.replace("_", "-")
            raise ConfigError(
                f"--{option} is for a hub; a bucket gets a copy of OUT. Leave it out."
            )
