"""An output on its way into a bucket: sent file by file, shown when whole, resumed after a kill.

The order in which files are shown is what a reader is safe with: the manifest, all else, and last
what a loader begins with (``config.json``). An earlier merge that is replaced loses that file
first. So at no moment does a name lead to a model that is not whole.
"""

from __future__ import annotations

import hashlib
import logging
import os
import queue
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from safeswap.checkpoint.adapters.config import CONFIG as ADAPTER_CONFIG
from safeswap.checkpoint.family import Family
from safeswap.checkpoint.inside import files_below
from safeswap.checkpoint.staging import Staging
from safeswap.errors import ConfigError, OutputError, listed
from safeswap.io.progress import bytes_bar
from safeswap.merge.companions import MANIFEST
from safeswap.publish.address import BucketFolder, bucket_folder, is_address
from safeswap.publish.journal import Journal
from safeswap.publish.opening import open_store
from safeswap.publish.stores import Receipt, Store

_log = logging.getLogger("safeswap.publish")
_JOURNAL = "uploads"
LAST = ("config.json", ADAPTER_CONFIG)
"""What loaders look for first: shown when all else is there, and taken away first."""


def scratch_folder() -> Path:
    """Where outputs grow that go elsewhere, unless another folder is named."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "safeswap" / "outgoing"


def growing(place: BucketFolder, scratch: Path | None = None) -> Path:
    """Where an output grows on this disk that goes to a place; nothing is made or asked.

    Args:
        scratch: by default a folder in the user's cache.
    """
    slug = re.sub(r"[^\w.-]+", "-", place.path)[-60:].strip(".-")
    digest = hashlib.sha256(str(place).encode()).hexdigest()[:12]
    return (scratch or scratch_folder()).expanduser().absolute() / f"{slug}-{digest}"


class Shipment:
    """An output that goes into a bucket: what `safeswap.merge.shipping.Shipping` asks for.

    Args:
        place: the folder in the bucket.
        scratch: the folder on this disk in which shards grow; by default one in the user's cache.
        overwrite: an earlier merge there is replaced, once the new one is whole.

    Raises:
        OutputError: the bucket cannot be reached, or something is there already.
    """

    def __init__(
        self, place: BucketFolder, scratch: Path | None, *, overwrite: bool = False
    ) -> None:
        self.address = str(place)
        self.local = growing(place, scratch)
        self._overwrite = overwrite
        self._store: Store = open_store(place)
        self._earlier = Journal(_journal_of(self.local))
        self._journal = self._earlier
        self._visible = self._store.visible()
        if not (self._earlier.showing and not overwrite):
            self._refuse_taken()
        self._waiting: queue.Queue[tuple[str, Path, int] | None] = queue.Queue()
        self._gone: set[str] = set()
        """Files whose bytes are there and no longer here."""
        self._count, self._lock = 0, threading.Lock()
        self._failure: BaseException | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def _refuse_taken(self) -> None:
        if not self._visible:
            return
        if not self._overwrite:
            raise OutputError(
                f"{self.address}: exists already, with {len(self._visible)} files. Choose another "
                "folder, remove it first, or add --overwrite to replace an earlier merge."
            )
        foreign = foreign_files(self._visible)
        if foreign:
            raise OutputError(
                f"{self.address}: --overwrite replaces only what a merge wrote; this holds "
                f"{listed(foreign)} too. Choose another folder, or remove it yourself."
            )

    def begin(self, staging: Staging) -> None:
        """As the protocol says; uploads of another job in the same place are removed."""
        path = staging.folder.parent / _JOURNAL
        self._journal = Journal(path)
        if self._journal.job != staging.job:
            if self._journal.showing:
                self._refuse_taken()
            for name, receipt in self._journal.receipts.items():
                self._store.forget(name, receipt)
        self._journal.begin(staging.job)

    def is_sent(self, name: str) -> bool:
        """As the protocol says."""
        receipt = self._journal.receipts.get(name)
        sent = receipt is not None and self._store.holds(name, receipt)
        if sent:
            self._gone.add(name)
        return sent

    def send(self, name: str, path: Path, keep: int) -> None:
        """As the protocol says."""
        with self._lock:
            self._count += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, daemon=True)
                self._thread.start()
        self._waiting.put((name, path, keep))

    def _work(self) -> None:
        while True:
            one = self._waiting.get()
            if one is None:
                return
            try:
                if self._failure is None and not self._stop.is_set():
                    name, path, keep = one
                    self._upload(name, path)
                    _let_go(path, keep)
                    self._gone.add(name)
            except BaseException as error:
                self._failure = error
            finally:
                with self._lock:
                    self._count -= 1

    def _upload(self, name: str, path: Path) -> Receipt:
        _log.debug(f"{self.address}/{name}: sending {path.stat().st_size} bytes")
        earlier = self._journal.receipts.get(name)
        return self._store.upload(
            name, path, earlier, lambda receipt: self._journal.note(name, receipt), self._stop
        )

    def unsent(self) -> int:
        """As the protocol says."""
        if self._failure is not None:
            if isinstance(self._failure, OutputError):
                raise OutputError(str(self._failure)) from self._failure
            raise self._failure
        with self._lock:
            return self._count

    def stop(self) -> None:
        """As the protocol says; waits for the parts that are on their way."""
        self._stop.set()
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join()
            self._thread = None
        self._journal.close()

    def commit(self, folder: Path, only: Sequence[str] | None = None) -> None:
        """As the protocol says.

        Args:
            only: the files that are sent; by default all in the folder.
        """
        names = sorted(files_below(folder) if only is None else only)
        left = [name for name in names if name not in self._gone]
        with bytes_bar("upload", sum((folder / n).stat().st_size for n in left)) as advance:
            for name in left:
                self._upload(name, folder / name)
                advance((folder / name).stat().st_size)
        before = self._store.visible()
        if not self._journal.showing:
            self._make_way(before)
            self._journal.show()
        for name in sorted(names, key=lambda name: (_turn(name), name)):
            self._store.show(name, self._journal.receipts[name])
        if self._overwrite:
            self._store.remove([n for n in before if n not in names and _turn(n) < _AT_LAST])
        self._check(folder, names)
        self._store.tidy()

    def _make_way(self, before: Mapping[str, int]) -> None:
        """Take away what a loader of the earlier merge begins with. A run that is killed after this
        and before the journal says so does it again; once it says so, what lies there is ours.
        """
        if before and not self._overwrite:
            raise OutputError(
                f"{self.address}: something else was written there meanwhile ({listed(before)}). "
                "Remove it, and run the same command again: nothing is sent twice."
            )
        self._store.remove([name for name in before if _turn(name) == _AT_LAST])

    def _check(self, folder: Path, names: list[str]) -> None:
        """What the store lists is what was sent, to the byte."""
        found = self._store.visible()
        wanted = {name: (folder / name).stat().st_size for name in names}
        if found != wanted:
            wrong = sorted(n for n in {*found, *wanted} if found.get(n) != wanted.get(n))
            raise OutputError(
                f"{self.address}: holds other files than were sent ({listed(wrong)}): something "
                "else writes there. Run the same command again, or choose another folder."
            )

    def close(self) -> None:
        """As the protocol says."""
        self._store.close()


_AT_LAST = 2


def _turn(name: str) -> int:
    """When a file is shown: the manifest, all else, what loaders begin with."""
    last = name.rpartition("/")[2]
    return 0 if last == MANIFEST else _AT_LAST if last in LAST else 1


def foreign_files(names: Iterable[str]) -> list[str]:
    """The files of a folder that no merge wrote: all, where there is no manifest; else those in no
    folder with one.
    """
    names = list(names)
    made = {name.removesuffix(MANIFEST) for name in names if name.rpartition("/")[2] == MANIFEST}
    return sorted(n for n in names if not any(n.startswith(folder) for folder in made))


def _journal_of(local: Path) -> Path:
    return local.parent / f".{local.name}.safeswap-partial" / _JOURNAL


def _let_go(path: Path, keep: int) -> None:
    """Free a file's bytes but the first; its size stays, as a hole."""
    size = path.stat().st_size
    os.truncate(path, keep)
    os.truncate(path, size)


@contextmanager
def shipped(
    out: str | Path, scratch: str | Path | None = None, *, overwrite: bool = False
) -> Iterator[tuple[Path, Shipment | None]]:
    """Where an output grows, and what takes it away from there where ``out`` is an address.

    Args:
        scratch: the folder in which what goes elsewhere grows; by default one of the user's cache.

    Raises:
        ConfigError: an address that cannot be written to; a scratch folder for a local output.
        OutputError: as :class:`Shipment`.
    """
    if not is_address(out):
        if scratch is not None:
            raise ConfigError("--scratch is for outputs in a bucket. Leave it out: OUT is local.")
        yield Path(out), None
        return
    where = Path(scratch) if scratch else None
    shipment = Shipment(bucket_folder(str(out)), where, overwrite=overwrite)
    try:
        yield shipment.local, shipment
    finally:
        shipment.stop()
        shipment.close()


def refuse_same(family: Family, shipment: Shipment | None) -> None:
    """An output in a bucket may not be, hold or lie in an input there.

    Raises:
        OutputError: names the input.
    """
    if shipment is None:
        return
    target = f"{shipment.address}/"
    for role, member in family.members.items():
        given = str(member.text).rstrip("/") + "/"
        if given.startswith(target) or (is_address(given) and target.startswith(given)):
            raise OutputError(
                f"{shipment.address}: is, holds or lies in the {role} checkpoint "
                f"({member.text}). Choose another --out."
            )
