"""What a bucket must be able to do, and the one way that holds for every kind of it.

Files are uploaded where no reader looks, and shown under their names at the end. Here: into a
folder beside the target whose name begins with a dot, from which the store itself moves them. S3
can do better (`safeswap.publish.s3`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from blake3 import blake3

from safeswap.display import without_password
from safeswap.errors import OutputError
from safeswap.publish.address import BucketFolder

Receipt = Mapping[str, Any]
"""What a store says of an upload, as JSON has it: enough to find it again and to check it."""
Note = Callable[[Receipt], None]


class StoppedError(Exception):
    """Somebody asked to stop while a file was uploaded; what arrived stays."""


class Store(Protocol):
    """A folder in a bucket; names are relative to it, with ``/``."""

    def visible(self) -> dict[str, int]:
        """Name → bytes of all that a reader sees there now."""
        ...

    def holds(self, name: str, receipt: Receipt) -> bool:
        """Whether a file that was uploaded whole is still there whole, hidden or shown."""
        ...

    def upload(
        self, name: str, path: Path, earlier: Receipt | None, note: Note, stop: threading.Event
    ) -> Receipt:
        """Upload a file where no reader sees it, or what is missing of it.

        Args:
            earlier: the last receipt that was noted for it.
            note: given each new receipt.

        Raises:
            StoppedError: ``stop`` was set meanwhile.
        """
        ...

    def show(self, name: str, receipt: Receipt) -> None:
        """Show an uploaded file under its name, whole and at once; once more does nothing."""
        ...

    def remove(self, names: list[str]) -> None:
        """Remove files that are shown."""
        ...

    def forget(self, name: str, receipt: Receipt) -> None:
        """Remove an upload that is not to be shown any more."""
        ...

    def tidy(self) -> None:
        """Remove what the uploads needed, once all are shown."""
        ...

    def close(self) -> None:
        """Let go of the connection."""
        ...


def open_store(place: BucketFolder) -> Store:
    """The store of a place.

    Raises:
        OutputError: its library is not installed, or it cannot be opened.
    """
    try:
        import fsspec
    except ImportError:
        raise _not_installed(place) from None
    options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
    if place.scheme == "s3":
        times = {"connect_timeout": 20, "read_timeout": 60, "retries": {"max_attempts": 5}}
        options |= {"config_kwargs": times}
    if place.scheme == "file":
        options = {"auto_mkdir": True, "skip_instance_cache": True}
    with in_words(str(place)):
        try:
            fs = fsspec.filesystem(place.scheme, **options)
        except ImportError:
            raise _not_installed(place) from None
        if place.scheme == "s3":
            from safeswap.publish.s3 import S3Store

            return S3Store(place, fs)
        return FolderStore(place, fs)


def _not_installed(place: BucketFolder) -> OutputError:
    return OutputError(
        f"{place}: needs fsspec and the library of that store. Install safeswap[remote]."
    )


class FolderStore:
    """Any store of fsspec: a hidden folder beside the target, and moves within the store."""

    def __init__(self, place: BucketFolder, fs: Any) -> None:
        self._place, self._fs = place, fs
        parent, _, name = place.path.rpartition("/")
        self._hidden = f"{parent}/.{name}.safeswap-partial"

    def visible(self) -> dict[str, int]:
        """As the protocol says."""
        with in_words(str(self._place)):
            return _found(self._fs, self._place.path)

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
            if self._seen(f"{self._hidden}/{name}") is not None:
                self._fs.mv(f"{self._hidden}/{name}", self._at(name))

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


def _found(fs: Any, root: str) -> dict[str, int]:
    fs.invalidate_cache()
    found = fs.find(root, detail=True)
    prefix = fs._strip_protocol(root).rstrip("/") + "/"
    return {
        path.removeprefix(prefix): int(info.get("size") or 0)
        for path, info in found.items()
        if path.startswith(prefix) and info.get("type") == "file"
    }


@contextmanager
def in_words(address: str) -> Iterator[None]:
    """What a store's library raises becomes one message: what, where, what to do next.

    Raises:
        OutputError: for whatever went wrong.
    """
    try:
        yield
    except (OutputError, StoppedError, KeyboardInterrupt):
        raise
    except Exception as error:  # each library has exceptions of its own
        said, todo = _said(error)
        raise OutputError(f"{address}: {said}. {todo}") from error


_RESUMED = "The same command goes on where this one stopped."


def _said(error: Exception) -> tuple[str, str]:
    """What went wrong, and what to do."""
    kind, text = type(error).__name__, without_password(str(error).strip() or repr(error))
    response = getattr(error, "response", None) or getattr(error.__cause__, "response", None)
    code = ""
    if isinstance(response, dict):
        code = str(response.get("Error", {}).get("Code", ""))
    text = text.splitlines()[0][:300]
    if (
        "NoCredentials" in kind
        or "DefaultCredentialsError" in kind
        or "Unable to locate cred" in text
    ):
        return "no credentials were found", (
            "Set them as the cloud's own tools do (for S3 AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or a profile; for Google GOOGLE_APPLICATION_CREDENTIALS)."
        )
    if code in ("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"):
        return f"the credentials were refused ({code})", f"Renew them. {_RESUMED}"
    if isinstance(error, PermissionError) or code in ("AccessDenied", "403"):
        return f"access was refused ({text})", (
            "The credentials need the rights to list, put, delete and, on S3, to complete and "
            f"abort multipart uploads there. {_RESUMED}"
        )
    if isinstance(error, FileNotFoundError) or code == "NoSuchBucket":
        return f"the bucket is not there ({text})", "Check its name and region, or make it first."
    if "ndpointConnection" in kind or "Connect" in kind or isinstance(error, TimeoutError):
        return f"the store cannot be reached ({text})", (
            f"Check the connection and the endpoint (AWS_ENDPOINT_URL). {_RESUMED}"
        )
    if code in ("QuotaExceeded", "ServiceQuotaExceeded", "XMinioStorageFull"):
        return f"the store is full ({text})", f"Free some space there. {_RESUMED}"
    return f"failed ({kind}: {text})", _RESUMED
