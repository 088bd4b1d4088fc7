"""Folders in buckets (S3, Google Cloud Storage), through fsspec.

Keys and tokens are found where the field keeps them (environment, profiles, roles), by s3fs and
gcsfs; this package never sees them. A range is asked of the very version that was listed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, TypeVar

from safeswap.checkpoint.inside import is_plain_name
from safeswap.checkpoint.loaded_names import LARGEST, TEMPLATES, is_companion
from safeswap.checkpoint.remote.address import Address
from safeswap.checkpoint.remote.fetch import (
    CHANGED,
    CONNECTIONS,
    TransientError,
    small_file,
    tried,
)
from safeswap.errors import CheckpointError

Answer = TypeVar("Answer")

_MOST = 20_000
"""Files in a folder; more is no checkpoint's."""
_AT_ONCE = 4 << 20
"""Bytes of a request at the most: the store's client holds the whole answer in memory."""
_LOGIN = {
    "s3": "Log in as for the aws command (AWS_PROFILE, AWS_ACCESS_KEY_ID, a role).",
    "gs": "Log in as for gcloud (gcloud auth application-default login).",
}


@dataclass(frozen=True)
class BucketFile:
    """One object; ``path`` is ``bucket/key``, ``version`` its ETag or generation."""

    store: Bucket
    path: str
    size: int
    version: str
    sha256: str | None = None

    @property
    def where(self) -> str:
        """Its address, for messages."""
        return f"{self.store.address.kind}://{self.path}"

    def stream(self, begin: int, end: int) -> Iterator[bytes]:
        """See ``Origin.stream``."""
        while begin < end:
            stop = min(end, begin + _AT_ONCE)
            found = self.store.read(self, begin, stop)
            if len(found) > stop - begin:
                raise CheckpointError(f"{self.where}: the store gave more than it was asked for.")
            yield found
            if len(found) < stop - begin:
                return
            begin = stop

    def refuse_changed(self) -> None:
        """See ``Origin.refuse_changed``."""
        info = self.store.system.info
        row = tried(
            self.where,
            lambda: self.store.ask(lambda: info(self.path, refresh=True), self.where),
        )
        now = self.store.file(self.path, row)
        if (now.size, now.version) != (self.size, self.version):
            raise CheckpointError(f"{self.where}: {CHANGED}")


class Bucket:
    """A folder of a bucket, as a store.

    Attributes:
        system: fsspec's file system.
    """

    def __init__(self, address: Address) -> None:
        """Nothing is asked yet.

        Raises:
            CheckpointError: the library for it is missing.
        """
        self.address = address
        try:
            self.system: Any = _SYSTEMS[address.kind]()
        except ImportError as error:
            library = "s3fs" if address.kind == "s3" else "gcsfs"
            raise CheckpointError(
                f"{address.text}: reading from {address.kind}:// needs {library}. Install "
                "safeswap[remote]."
            ) from error

    def companions(self) -> dict[str, bytes]:
        """See ``Store.companions``."""
        files = {n: one for n, one in self.files.items() if _is_small(n) and one.size <= LARGEST}
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            contents = pool.map(lambda one: small_file(one, LARGEST), files.values())
            return dict(zip(files, contents, strict=True))

    def look(self, names: Iterable[str]) -> dict[str, BucketFile]:
        """See ``Store.look``."""
        return {name: self.files[name] for name in names if name in self.files}

    @cached_property
    def files(self) -> dict[str, BucketFile]:
        """Name → file, of what lies in the folder, and in those of chat templates in it.

        Raises:
            CheckpointError: there is none, it may not be listed, or its names are none of files.
        """
        rows = self._list("")
        inner = {str(r["name"]).rpartition("/")[2] for r in rows if r["type"] == "directory"}
        found = self._named(rows, "")
        for folder in sorted(inner.intersection(TEMPLATES)):
            found |= self._named(self._list(f"/{folder}"), f"{folder}/")
        return found

    def read(self, file: BucketFile, begin: int, end: int) -> bytes:
        """Bytes ``begin`` to ``end`` of an object in its version.

        Raises:
            TransientError, CheckpointError: as `ask`.
        """
        ranged = _s3_range if self.address.kind == "s3" else _gs_range

        def question() -> bytes:
            try:
                return ranged(self.system, file, begin, end)
            except FileNotFoundError as error:  # it was listed
                raise CheckpointError(f"{file.where}: {CHANGED}") from error

        return self.ask(question, file.where)

    def ask(self, question: Callable[[], Answer], where: str) -> Answer:
        """What a question to the store gives; its errors become those of this package.

        Raises:
            TransientError: it may go well the next time.
            CheckpointError: it may not be read, is gone, or changed.
        """
        try:
            return question()
        except CheckpointError:
            raise
        except FileNotFoundError as error:
            raise CheckpointError(
                f"{where}: there is nothing of this name. Check bucket and folder."
            ) from error
        except PermissionError as error:
            login = _LOGIN[self.address.kind]
            raise CheckpointError(f"{where}: may not be read. {login}") from error
        except Exception as error:  # fsspec passes on what each store's client raises
            raise self._of_store(error, where) from error

    def file(self, path: str, row: Any) -> BucketFile:
        """An object, from what the store says of it.

        Raises:
            CheckpointError: it says no size.
        """
        size = row.get("size")
        if not isinstance(size, int) or size < 0:
            raise CheckpointError(
                f"{self.address.kind}://{path}: the store does not say how large it is."
            )
        when = row.get("LastModified") or row.get("updated") or ""
        when = when.isoformat() if isinstance(when, datetime) else str(when)
        tag = row.get("generation") if self.address.kind == "gs" else row.get("ETag")
        return BucketFile(self, path, size, str(tag or when))

    def _of_store(self, error: Exception, where: str) -> Exception:
        said = f"{type(error).__name__} {error} {error.__cause__ or ''}"
        if any(word in said for word in ("PreconditionFailed", "Precondition Failed", "412")):
            return CheckpointError(f"{where}: {CHANGED}")
        if "credentials" in said.lower() or "Anonymous caller" in said:
            return CheckpointError(f"{where}: may not be read. {_LOGIN[self.address.kind]}")
        return TransientError(f"the store failed ({type(error).__name__})")

    def _list(self, below: str) -> list[Any]:
        path, where = f"{self.address.root}{below}", f"{self.address.text}{below}"
        rows: list[Any] = tried(
            where, lambda: self.ask(lambda: self.system.ls(path, detail=True), where)
        )
        return rows

    def _named(self, rows: list[Any], before: str) -> dict[str, BucketFile]:
        """Name → file, of a listing.

        Raises:
            CheckpointError: a name that may lead out of the folder, or too many.
        """
        found: dict[str, BucketFile] = {}
        for row in rows:
            path = str(row["name"])
            name = path.removeprefix(f"{self.address.root}/")
            if row["type"] != "file" or path.rstrip("/") == f"{self.address.root}/{before}"[:-1]:
                continue
            last = name.removeprefix(before)
            if name == path or not is_plain_name(name) or "/" in last or not last.isprintable():
                raise CheckpointError(
                    f"{self.address.text}: lists {name[:80]!r}, which is no file of that folder. "
                    "Check the address."
                )
            found[name] = self.file(path, row)
            if len(found) > _MOST:
                raise CheckpointError(
                    f"{self.address.text}: lists more than {_MOST} files. Is it the right folder?"
                )
        return found


def _is_small(name: str) -> bool:
    return is_companion(name, code=True) or name == "adapter_config.json"


def _s3() -> Any:
    from s3fs import S3FileSystem

    return S3FileSystem(use_listings_cache=False)


def _gs() -> Any:
    # the class beneath gcsfs's own face, which asks by gRPC first what kind of bucket it is: where
    # gRPC does not pass, that takes a minute
    from gcsfs.core import GCSFileSystem

    return GCSFileSystem(use_listings_cache=False)


_SYSTEMS = {"s3": _s3, "gs": _gs}


def _s3_range(system: Any, file: BucketFile, begin: int, end: int) -> bytes:
    """A range of an S3 object, only while it has its ETag."""
    from fsspec.asyn import sync

    bucket, _, key = file.path.partition("/")
    wanted = {"Bucket": bucket, "Key": key, "Range": f"bytes={begin}-{end - 1}"}
    if file.version.startswith('"'):
        wanted["IfMatch"] = file.version

    async def read() -> bytes:
        answer = await system._call_s3("get_object", **wanted)
        try:
            content: bytes = await answer["Body"].read()
            return content
        finally:
            answer["Body"].close()

    found: bytes = sync(system.loop, read, timeout=300)
    return found


def _gs_range(system: Any, file: BucketFile, begin: int, end: int) -> bytes:
    """A range of an object in Cloud Storage, of its generation."""
    from fsspec.asyn import sync

    url = system.url(file.path, generation=file.version)
    ranged = {"Range": f"bytes={begin}-{end - 1}"}
    _, content = sync(system.loop, system._call, "GET", url, headers=ranged, timeout=300)
    return bytes(content)
