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
    with in_words(str(place)):
        try:
            fs = _file_system(place.scheme)
        except ImportError:
            raise _not_installed(place) from None
        return S3Store(place, fs) if place.scheme == "s3" else FolderStore(place, fs)


def _file_system(scheme: str) -> Any:
    """What fsspec has for a scheme, with limits on how long an answer may take."""
    if scheme == "gs":
        # the class beneath gcsfs's own face, which asks by gRPC first what kind of bucket it is
        from gcsfs.core import GCSFileSystem

        return GCSFileSystem(skip_instance_cache=True, use_listings_cache=False)
    import fsspec

    if scheme == "s3":
        times = {"connect_timeout": 20, "read_timeout": 60, "retries": {"max_attempts": 5}}
        options: dict[str, Any] = {"config_kwargs": times, "use_listings_cache": False}
    else:
        options = {"auto_mkdir": True} if scheme == "file" else {}
    return fsspec.filesystem(scheme, skip_instance_cache=True, **options)


def _not_installed(place: BucketFolder) -> OutputError:
    return OutputError(
        f"{place}: needs fsspec and the library of that store. Install safeswap[remote]."
    )
