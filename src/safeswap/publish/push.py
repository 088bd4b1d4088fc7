"""Publish a merged folder: looked at first, then sent, then looked at where it is."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from safeswap.checkpoint.staging import Staging
from safeswap.merge.manifest import merged_folders, read_manifest
from safeswap.publish.address import BucketFolder, HubRepo
from safeswap.publish.card_header import (
    choose_license,
    complete_card,
    hub_inputs,
    other_licenses,
)
from safeswap.publish.hub import HubPush, Wanted
from safeswap.publish.private import Published, published, published_names
from safeswap.publish.shipment import Shipment

_log = logging.getLogger("safeswap.publish")


@dataclass(frozen=True)
class PushOptions:
    """How an output is published.

    Attributes:
        public: everybody may read the repository; by default it is private.
        revision: a branch of it.
        message: of the commit.
        license: named in the card in place of the inputs' own.
        overwrite: what an earlier merge left there and this one lacks is removed.
        keep_paths: this machine's paths stay in manifest, plan and configuration.
    """

    public: bool = False
    revision: str | None = None
    message: str | None = None
    license: str | None = None
    overwrite: bool = False
    keep_paths: bool = False


@dataclass(frozen=True)
class Pushed:
    """What was, or would be, published.

    Attributes:
        folder: the output.
        to: where.
        private: whether only its owners read it.
        files: name → bytes.
        said: what was changed, left out, or is to be known.
        url: where people look at it; "" before it is sent.
        commit: the commit that shows it, "" where there is none.
    """

    folder: Path
    to: str
    private: bool
    files: Mapping[str, int]
    said: tuple[str, ...] = ()
    url: str = ""
    commit: str = ""

    @property
    def nbytes(self) -> int:
        """Bytes of all files."""
        return sum(self.files.values())


@dataclass(frozen=True)
class _One:
    """One merged folder and the repository for it."""

    repo: HubRepo
    found: Published
    said: list[str] = field(default_factory=list)


def repos_of(folders: Sequence[Path], out: Path, repo: HubRepo) -> list[HubRepo]:
    """A repository for each merged folder: each language has its own, for a loader takes a
    repository as one model.
    """
    if list(folders) == [out]:
        return [repo]
    return [HubRepo(f"{repo.name}-{folder.name}") for folder in folders]


class HubOutput:
    """What a merge wrote, made ready for a hub; nothing is asked of the network before `send`.

    Raises:
        ConfigError, OutputError, VerificationError: it cannot be published as it is.
    """

    def __init__(self, out: Path, repo: HubRepo, options: PushOptions) -> None:
        choose_license({}, options.license)
        self._options = options
        folders = merged_folders(out)
        self._ones = [
            _One(name, published(folder, keep_paths=options.keep_paths))
            for folder, name in zip(folders, repos_of(folders, out, repo), strict=True)
        ]

    def outlook(self) -> list[Pushed]:
        """What would be sent, and where."""
        return [self._pushed(one, one.found.said) for one in self._ones]

    def send(self) -> list[Pushed]:
        """Send it.

        Raises:
            OutputError: says what the hub refused, and what to do.
        """
        return [self._send(one) for one in self._ones]

    def _send(self, one: _One) -> Pushed:
        options, found = self._options, one.found
        wanted = Wanted(
            one.repo, options.public, options.revision, options.message, options.overwrite
        )
        push = HubPush(wanted)
        manifest = read_manifest(found.folder)
        known = {**push.licenses(hub_inputs(manifest)), **other_licenses(manifest)}
        license, words = choose_license(known, options.license)
        said = [*found.said, *complete_card(found, license), *([words] if words else [])]
        said += push.prepare()
        commit = push.send(found, lambda text: _log.info(f"{one.repo}: {text}"))
        push.check(found, commit)
        return self._pushed(one, said, push.url(commit), commit)

    def _pushed(self, one: _One, said: Sequence[str], url: str = "", commit: str = "") -> Pushed:
        files, private = one.found.sizes, not self._options.public
        return Pushed(one.found.folder, one.repo.name, private, files, tuple(said), url, commit)


def push_to_bucket(
    out: Path, place: BucketFolder, *, scratch: Path | None = None, overwrite: bool = False
) -> Pushed:
    """Copy a merged folder into a bucket, byte for byte; shown when whole, resumed after a kill.

    Args:
        scratch: where what was sent is noted; by default in the user's cache.

    Raises:
        OutputError, VerificationError: it cannot be sent, or is no merge's.
    """
    names, digests = bucket_files(out)
    shipment = Shipment(place, scratch, overwrite=overwrite)
    job = json.dumps(["push", str(out.resolve()), digests, names], sort_keys=True)
    staging = Staging(shipment.local, job)
    try:
        shipment.begin(staging)
        shipment.commit(out, sorted(names))
        staging.discard()
    finally:
        shipment.stop()
        shipment.close()
        staging.release()
    return Pushed(out, str(place), True, names)


def bucket_files(out: Path) -> tuple[dict[str, int], list[str]]:
    """Name → bytes of what a merge wrote, and the digests of its manifests.

    Raises:
        VerificationError: the folder is no merge's.
    """
    names, digests = {}, []
    for folder in merged_folders(out):
        manifest = read_manifest(folder)
        digests.append(str(manifest.get("digest")))
        prefix = "" if folder == out else f"{folder.name}/"
        for name in published_names(manifest, folder):
            names[prefix + name] = (folder / name).stat().st_size
    return names, digests
