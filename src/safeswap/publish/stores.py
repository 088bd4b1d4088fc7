"""What a bucket must be able to do: take files where no reader looks, and show them at the end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from safeswap.display import without_password
from safeswap.errors import OutputError

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


def found_below(fs: Any, root: str) -> dict[str, int]:
    """Name → bytes of all files below a folder of a store."""
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
