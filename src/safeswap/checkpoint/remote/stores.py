"""From an address to its store: the one place that knows which library reads what."""

from __future__ import annotations

from safeswap.checkpoint.remote.address import Address
from safeswap.checkpoint.remote.opening import Mirror, Store, open_mirror


def open_folder(address: Address, *, download: bool) -> Mirror:
    """Open a folder on a web server or in a bucket.

    Args:
        download: fetch its weights whole.

    Raises:
        CheckpointError: as :func:`safeswap.checkpoint.remote.opening.open_mirror`.
    """
    store: Store
    if address.kind == "web":
        from safeswap.checkpoint.remote.web_folder import WebFolder

        store = WebFolder(address)
    else:
        from safeswap.checkpoint.remote.bucket import Bucket

        store = Bucket(address)
    return open_mirror(address, store, download=download)
