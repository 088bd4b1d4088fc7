"""A merge that goes into a bucket of Cloud Storage: a server that speaks its JSON API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote
from urllib.request import urlopen

import pytest

from tiny import refused, swap

Trio = dict[str, Path]
pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an emulator with a bucket ``models``, which the environment names."""
    pytest.importorskip("gcsfs")
    server = pytest.importorskip("gcp_storage_emulator.server").create_server(
        "127.0.0.1", 0, in_memory=True, default_bucket="models"
    )
    server.start()
    found = f"http://127.0.0.1:{server._api._httpd.socket.getsockname()[1]}"
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", found)
    yield found
    server.stop()


def files(url: str) -> dict[str, bytes]:
    """Key → bytes of the bucket, asked for by plain HTTP."""
    with urlopen(f"{url}/storage/v1/b/models/o", timeout=10) as answer:
        keys = [item["name"] for item in json.load(answer).get("items", [])]
    found = {}
    for key in keys:
        address = f"{url}/download/storage/v1/b/models/o/{quote(key, safe='')}?alt=media"
        with urlopen(address, timeout=10) as answer:
            found[key] = answer.read()
    return found


def local(folder: Path, prefix: str) -> dict[str, bytes]:
    return {f"{prefix}{path.name}": path.read_bytes() for path in folder.iterdir()}


def test_the_bytes_are_those_of_a_local_merge_and_are_replaced_when_asked(
    trio: Trio, url: str, tmp_path: Path
) -> None:
    given = {"scratch": tmp_path / "scratch"}
    swap(trio, "gs://models/a/out", **given)  # type: ignore[arg-type]
    assert files(url) == local(swap(trio, tmp_path / "one"), "a/out/")
    refused(lambda: swap(trio, "gs://models/a/out", **given), "exists already")  # type: ignore
    other = {"method": "uniform", "shard_size": "1GB"}
    swap(trio, "gs://models/a/out", overwrite=True, **other, **given)  # type: ignore[arg-type]
    assert files(url) == local(swap(trio, tmp_path / "two", **other), "a/out/")
