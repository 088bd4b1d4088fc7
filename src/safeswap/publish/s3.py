"""S3: parts that no reader sees until the upload is completed, which is one step per file.

A multipart upload is no object: it cannot be listed as one or read. So all shards are uploaded and
left uncompleted, and completing them at the end moves no bytes.
"""

from __future__ import annotations

import threading
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import md5
from pathlib import Path
from typing import Any

from safeswap.errors import OutputError
from safeswap.publish.address import BucketFolder
from safeswap.publish.stores import Note, Receipt, StoppedError, found_below, in_words

PART_BYTES = 1 << 23
"""Bytes of a part; more where a file would have over 10,000 of them, which S3 does not take."""
_MOST_PARTS = 10_000
_AT_ONCE = 4
"""Parts on their way at once: memory for as many."""


class S3Store:
    """A folder in a bucket of S3, or of a server that speaks it.

    A receipt: ``upload`` (its id), ``part_bytes``, ``parts`` (number → ETag, MD5 in hex), ``size``,
    ``whole``.
    """

    def __init__(self, place: BucketFolder, fs: Any) -> None:
        self._place, self._fs = place, fs
        self._bucket, _, self._prefix = place.path.partition("/")

    def visible(self) -> dict[str, int]:
        """As the protocol says."""
        with in_words(str(self._place)):
            return found_below(self._fs, self._place.path)

    def holds(self, name: str, receipt: Receipt) -> bool:
        """As the protocol says; by the size and ETag of every part, or of the object."""
        if not receipt.get("whole"):
            return False
        with in_words(f"{self._place}/{name}"):
            there = self._parts(name, receipt["upload"])
            if there is None:
                return self._is_shown(name, receipt)
            sizes = _sizes(receipt["size"], receipt["part_bytes"])
            wanted = {n: (receipt["parts"][str(n)][0], size) for n, size in enumerate(sizes, 1)}
            return there == wanted

    def upload(
        self, name: str, path: Path, earlier: Receipt | None, note: Note, stop: threading.Event
    ) -> Receipt:
        """As the protocol says. A part that lies there is not sent again where its MD5 is that of
        the bytes here now.
        """
        with in_words(f"{self._place}/{name}"):
            size = path.stat().st_size
            there = self._parts(name, earlier["upload"]) if earlier else None
            if earlier is None or there is None or earlier["size"] != size:
                if earlier and self.holds(name, earlier) and _is_of(path, earlier):
                    return earlier
                if earlier:
                    self.forget(name, earlier)
                made = self._call("create_multipart_upload", name)["UploadId"]
                part_bytes = max(PART_BYTES, -(-size // _MOST_PARTS))
                earlier, there = {"upload": made, "part_bytes": part_bytes, "size": size}, {}
                note(earlier)
            parts: dict[str, list[str]] = dict(earlier.get("parts", {}))
            receipt = {**earlier, "parts": parts}
            self._send(name, path, receipt, there, note, stop)
            receipt["whole"] = True
            note(receipt)
            return receipt

    def _send(
        self,
        name: str,
        path: Path,
        receipt: dict[str, Any],
        there: dict[int, tuple[str, int]],
        note: Note,
        stop: threading.Event,
    ) -> None:
        """Send the parts that are missing."""
        parts, lock = receipt["parts"], threading.Lock()
        step = receipt["part_bytes"]

        def send(number: int, size: int) -> None:
            if stop.is_set():
                raise StoppedError
            with path.open("rb") as stream:
                stream.seek((number - 1) * step)
                raw = stream.read(size)
            digest = md5(raw, usedforsecurity=False)
            etag, found = there.get(number, ("", -1))
            noted = parts.get(str(number)) == [etag, digest.hexdigest()]
            if found != size or not (noted or etag == f'"{digest.hexdigest()}"'):
                asked = {"UploadId": receipt["upload"], "PartNumber": number, "Body": raw}
                asked["ContentMD5"] = b64encode(digest.digest()).decode()
                etag = self._call("upload_part", name, **asked)["ETag"]
            with lock:
                parts[str(number)] = [etag, digest.hexdigest()]
                note({"upload": receipt["upload"], "part": number, "is": parts[str(number)]})

        sizes = _sizes(receipt["size"], step)
        _each(send, list(enumerate(sizes, 1)))

    def show(self, name: str, receipt: Receipt) -> None:
        """As the protocol says."""
        parts = receipt["parts"]
        listed = [
            {"PartNumber": number, "ETag": parts[str(number)][0]}
            for number in range(1, len(parts) + 1)
        ]
        asked = {"UploadId": receipt["upload"], "MultipartUpload": {"Parts": listed}}
        with in_words(f"{self._place}/{name}"):
            try:
                self._call("complete_multipart_upload", name, **asked)
            except Exception as error:
                if not _is_gone(error):
                    raise
                if self._is_shown(name, receipt):  # by an earlier try, whose answer was lost
                    return
                raise OutputError(
                    f"{self._place}/{name}: its upload is gone: somebody, or a rule of the bucket, "
                    "aborted it. Run the same command again: what is missing is made and sent anew."
                ) from error

    def remove(self, names: list[str]) -> None:
        """As the protocol says."""
        with in_words(str(self._place)):
            for name in names:
                self._call("delete_object", name)

    def forget(self, name: str, receipt: Receipt) -> None:
        """As the protocol says."""
        with in_words(f"{self._place}/{name}"):
            if self._parts(name, receipt["upload"]) is not None:
                self._call("abort_multipart_upload", name, UploadId=receipt["upload"])

    def tidy(self) -> None:
        """As the protocol says: completing left nothing behind."""

    def close(self) -> None:
        """As the protocol says: the library closes its sessions itself."""

    def _call(self, method: str, name: str, **asked: Any) -> Any:
        return self._fs.call_s3(method, Bucket=self._bucket, Key=self._key(name), **asked)

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}"

    def _parts(self, name: str, upload: str) -> dict[int, tuple[str, int]] | None:
        """Number → ETag and bytes of the parts of an upload; None where there is no such upload."""
        found: dict[int, tuple[str, int]] = {}
        after = 0
        while True:
            try:
                answer = self._call("list_parts", name, UploadId=upload, PartNumberMarker=after)
            except Exception as error:
                if _is_gone(error):
                    return None
                raise
            for part in answer.get("Parts", ()):
                found[part["PartNumber"]] = (part["ETag"], part["Size"])
            if not answer.get("IsTruncated"):
                return found
            after = answer["NextPartNumberMarker"]

    def _is_shown(self, name: str, receipt: Receipt) -> bool:
        """Whether the object under the name is this upload: the ETag of one is the MD5 of its
        parts' MD5s, and how many there are.
        """
        try:
            answer = self._call("head_object", name)
        except FileNotFoundError:
            return False
        whole = md5(usedforsecurity=False)
        for number in range(1, len(receipt["parts"]) + 1):
            whole.update(bytes.fromhex(receipt["parts"][str(number)][1]))
        wanted = f'"{whole.hexdigest()}-{len(receipt["parts"])}"'
        return bool(answer["ETag"] == wanted and answer["ContentLength"] == receipt["size"])


def _is_gone(error: Exception) -> bool:
    """Whether a store says that there is no such upload."""
    response = getattr(error.__cause__ or error, "response", None)
    code = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
    return code in ("NoSuchUpload", "404") or "NoSuchUpload" in str(error)


def _is_of(path: Path, receipt: Receipt) -> bool:
    """Whether a receipt is of the bytes of this file."""
    with path.open("rb") as stream:
        for number in range(1, len(receipt["parts"]) + 1):
            raw = stream.read(receipt["part_bytes"])
            if md5(raw, usedforsecurity=False).hexdigest() != receipt["parts"][str(number)][1]:
                return False
        return not stream.read(1)


def _sizes(size: int, step: int) -> list[int]:
    """Bytes of each part; one empty part of an empty file."""
    return [min(step, size - at) for at in range(0, size, step)] or [0]


def _each(act: Callable[[int, int], None], work: list[tuple[int, int]]) -> None:
    """Act on all, a few at once; the first failure ends it."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        waiting = [pool.submit(act, *one) for one in work]
        try:
            for one in waiting:
                one.result()
        finally:
            pool.shutdown(cancel_futures=True)
