"""The weights of a model on a hub, by ranges, at one commit.

The hub sends a request for a large file on to another host, with a signed address: that host gets
no token, and is asked directly for further ranges until the address has run out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from safeswap.checkpoint.remote.http import Client
from safeswap.checkpoint.remote.web import WebFile
from safeswap.errors import CheckpointError


class HubFolder:
    """A model at a commit, as a store of weights; small files come from the hub's own client."""

    def __init__(self, api: Any, hub_id: str, commit: str, authorization: str | None) -> None:
        """``api``: huggingface_hub's ``HfApi``; ``authorization``: for its endpoint alone."""
        self._api, self._hub_id, self._commit = api, hub_id, commit
        self._client = Client(api.endpoint, authorization)

    def companions(self) -> dict[str, bytes]:
        """None: they are in the hub's cache."""
        return {}

    def look(self, names: Iterable[str]) -> dict[str, WebFile]:
        """See ``Store.look``; the sizes and digests are those of the hub's listing.

        Raises:
            CheckpointError: the listing says no size of a file.
        """
        wanted = set(names)
        found = {}
        tree = self._api.list_repo_tree(self._hub_id, revision=self._commit, recursive=False)
        for entry in tree:
            if entry.path in wanted and hasattr(entry, "size"):
                found[entry.path] = self._file(entry)
        return {name: found[name] for name in sorted(wanted) if name in found}

    def _file(self, entry: Any) -> WebFile:
        where = f"hf://{self._hub_id}@{self._commit}/{entry.path}"
        if not isinstance(entry.size, int) or entry.size < 0:
            raise CheckpointError(f"{where}: the hub does not say how large it is.")
        lfs = getattr(entry, "lfs", None)
        path = f"{self._hub_id}/resolve/{self._commit}/{quote(entry.path)}"
        version = f"{self._commit}:{getattr(entry, 'blob_id', '')}"
        return WebFile(
            self._client,
            f"{self._api.endpoint}/{path}",
            where,
            entry.size,
            version,
            sha256=getattr(lfs, "sha256", None),
            pinned=True,
        )
