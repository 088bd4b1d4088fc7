"""The one way that holds for every store of fsspec: a hidden folder beside the target.

Files are uploaded into it, and moved within the store at the end. S3 can do better
(`safeswap.publish.s3`).
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, BinaryIO

from blake3 import blake3

from safeswap.errors import OutputError
from safeswap.publish.address import BucketFolder
from safeswap.publish.stores import Note, Receipt, StoppedError, found_below, in_words


class FolderStore:
    """Any store of fsspec: a hidden folder beside the target, and moves within the store."""

    def __init__(self, place: BucketFolder, fs: Any) -> None:
        self._place, self._fs = place, fs
        parent, _, name = place.path.rpartition("/")
        self._hidden = f"{parent}/.{name}.safeswap-partial"

    def visible(self) -> dict[str, int]:
        """As the protocol says."""
        with in_words(str(self._place)):
            return found_below(self._fs, self._place.path)

    def holds(self, name: str, receipt: Receipt) -> bool:
        """As the protocol says; by size and by what the store calls this very content."""
        if not receipt.get("whole"):
            return False
        with in_words(str(self._place)):
            hidden = self._seen(f"{self._hidden}/{name}")
            return receipt["seen"] in (hidden, self._seen(self._at(name)))

    def upload(
        self, name: str, path: Path, earlier: Receipt | None, note: Note, stop: threading.Event
    ) -> Receipt:
        """As the protocol says; a file is sent whole or not at all."""
        digest = _digest(path.open("rb"))
        if earlier and earlier.get("of") == digest and self.holds(name, earlier):
            return earlier
        if stop.is_set():
            raise StoppedError
        with in_words(str(self._place)):
            self._fs.put_file(str(path), f"{self._hidden}/{name}")
            seen = self._seen(f"{self._hidden}/{name}")
        if seen is None or seen["size"] != path.stat().st_size:
            raise OutputError(
                f"{self._place}/{name}: did not arrive whole. Run the same command again."
            )
        receipt = {"whole": True, "seen": seen, "of": digest}
        note(receipt)
        return receipt

    def show(self, name: str, receipt: Receipt) -> None:
        """As the protocol says."""
        with in_words(str(self._place)):
            hidden = f"{self._hidden}/{name}"
            if self._seen(hidden) is None:
                return
            if self._place.scheme == "file":
                self._fs.mv(hidden, self._at(name))
                return
            self._fs.cp_file(hidden, self._at(name))  # within the store, whole or not at all
            self._fs.rm_file(hidden)

    def remove(self, names: list[str]) -> None:
        """As the protocol says."""
        with in_words(str(self._place)):
            for name in names:
                self._fs.rm_file(self._at(name))

    def forget(self, name: str, receipt: Receipt) -> None:
        """As the protocol says."""
        with in_words(str(self._place)):
            if self._seen(f"{self._hidden}/{name}") is not None:
                self._fs.rm_file(f"{self._hidden}/{name}")

    def tidy(self) -> None:
        """As the protocol says."""
        with in_words(str(self._place)):
            if self._fs.exists(self._hidden):
                self._fs.rm(self._hidden, recursive=True)

    def close(self) -> None:
        """As the protocol says: nothing to do."""

    def _at(self, name: str) -> str:
        return f"{self._place.path}/{name}"

    def _seen(self, path: str) -> dict[str, Any] | None:
        """A file's size, and what the store calls its content; the latter stays when it is moved
        where it is a digest of the content alone. A disk or memory knows none: it is read.
        """
        self._fs.invalidate_cache()
        try:
            info = self._fs.info(path)
        except FileNotFoundError:
            return None
        if info.get("type") != "file":
            return None
        digest = next((str(info[key]) for key in ("md5Hash", "crc32c") if info.get(key)), None)
        return {"size": info["size"], "digest": digest or _digest(self._fs.open(path, "rb"))}


def _digest(stream: BinaryIO) -> str:
    """The digest of all that a stream gives."""
    hashing = blake3()
    with stream:
        while block := stream.read(1 << 20):
            hashing.update(block)
    return hashing.hexdigest()
