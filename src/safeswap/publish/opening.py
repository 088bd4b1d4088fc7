"""The store of a place: which one, and its library."""

from __future__ import annotations

from typing import Any

from safeswap.errors import OutputError
from safeswap.publish.address import BucketFolder
from safeswap.publish.folder_store import FolderStore
from safeswap.publish.s3 import S3Store
from safeswap.publish.stores import Store, in_words


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
            return S3Store(place, fs)
        return FolderStore(place, fs)


def _not_installed(place: BucketFolder) -> OutputError:
    return OutputError(
        f"{place}: needs fsspec and the library of that store. Install safeswap[remote]."
    )
