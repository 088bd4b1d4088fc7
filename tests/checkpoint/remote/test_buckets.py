"""Buckets: an S3 server from a package, and a small stand-in for Cloud Storage."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import safeswap
from gcs import Gcs
from safeswap.checkpoint.model import open_checkpoint
from safeswap.checkpoint.remote import bucket as buckets
from safeswap.checkpoint.remote.bucket import Bucket
from safeswap.checkpoint.remote.opening import open_mirror
from safeswap.errors import CheckpointError
from tiny import refused, swap

BUCKET = "models"
ROLES = ("base", "safety", "sw")


@dataclass
class Store:
    """A bucket on this machine: its scheme, and how an object gets there."""

    scheme: str
    put: Any

    def address(self, role: str) -> str:
        return f"{self.scheme}://{BUCKET}/team/{role}"


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    import boto3
    from s3fs import S3FileSystem

    for name, value in {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "s3cret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket=BUCKET)
    yield Store("s3", lambda key, data: client.put_object(Bucket=BUCKET, Key=key, Body=data))
    for entry in client.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        client.delete_object(Bucket=BUCKET, Key=entry["Key"])
    client.delete_bucket(Bucket=BUCKET)
    S3FileSystem.clear_instance_cache()


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gcs]:
    core = pytest.importorskip("gcsfs.core")
    served = Gcs(BUCKET)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", served.url)
    monkeypatch.setitem(
        buckets._SYSTEMS,
        "gs",
        lambda: core.GCSFileSystem(
            token="anon", use_listings_cache=False, skip_instance_cache=True
        ),
    )
    yield served
    served.stop()


@pytest.fixture(params=["s3", "cloud"])
def store(request: pytest.FixtureRequest, trio: dict[str, Path]) -> Store:
    made = request.getfixturevalue(request.param)
    found = made if isinstance(made, Store) else Store("gs", made.put)
    for role, folder in trio.items():
        for file in folder.iterdir():
            found.put(f"team/{role}/{file.name}", file.read_bytes())
    found.put("team/sw/chat_templates/tool.jinja", b"{{ tool }}")
    found.put("team/sw/chat_template.jinja", b"{{ x }}")
    return found


def test_a_merge_from_a_bucket_has_the_bytes_of_a_local_one(
    store: Store, trio: dict[str, Path], tmp_path: Path
) -> None:
    merged = swap({role: store.address(role) for role in ROLES}, tmp_path / "out")
    local = swap(trio, tmp_path / "local")
    for file in local.glob("*.safetensors"):
        assert (merged / file.name).read_bytes() == file.read_bytes()
    assert (merged / "chat_templates" / "tool.jinja").read_text() == "{{ tool }}"
    record = json.loads((merged / "safeswap.json").read_text())["profile"]["inputs"]["base"]
    assert record["source"] == store.address("base")
    assert all(file["version"] for file in record["files"])
    kept = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    assert b"s3cret" not in kept
    assert safeswap.api.verify_merge(merged, allow_remote=True).from_inputs


def test_an_object_that_changes_under_the_reader_is_refused(store: Store) -> None:
    found = open_checkpoint(store.address("te"))
    file = found.files[0]
    assert file.ranges is not None
    store.put(f"team/te/{file.path.name}", b"x" * file.size)
    refused(file.ranges.refuse_changed, "changed", "Run the command again")
    late = open_checkpoint(store.address("base"))
    ranges = late.files[1].ranges
    assert ranges is not None
    ranges._pieces.clear()  # type: ignore[attr-defined]
    store.put(f"team/base/{late.files[1].path.name}", b"y" * ranges.size)
    refused(lambda: ranges.read_into(9, np.empty(9, np.uint8)), "changed")


@pytest.mark.parametrize("path", ["models/none", "nobucket/x"])
def test_what_is_not_there_is_said(store: Store, path: str) -> None:
    refused(lambda: open_checkpoint(f"{store.scheme}://{path}"), "nothing of this name")


def test_a_folder_of_folders_is_no_checkpoint(store: Store) -> None:
    refused(lambda: open_checkpoint(f"{store.scheme}://{BUCKET}/team"), "has no config.json")


def test_a_store_that_fails_for_the_moment_is_asked_again(
    cloud: Gcs, trio: dict[str, Path]
) -> None:
    for file in trio["base"].iterdir():
        cloud.put(f"base/{file.name}", file.read_bytes())
    cloud.failing = [503]
    found = open_checkpoint(f"gs://{BUCKET}/base")
    assert len(found.tensors) == len(open_checkpoint(trio["base"]).tensors)
    assert not cloud.failing


class Lying:
    """fsspec's file system with a listing of its own."""

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def ls(self, path: str, detail: bool) -> list[dict[str, Any]]:
        return [{"name": name, "type": "file", "size": 1, "ETag": '"1"'} for name in self.names]


@pytest.mark.parametrize(
    "name",
    [
        "models/team/sw/../base/config.json",
        "models/team/sw//etc/passwd",
        "/etc/passwd",
        "models/team/te/config.json",
        "models/team/sw/deep/config.json",
        "models/team/sw/a\\b",
        "models/team/sw/a\nb",
        "models/team/sw/~x",
    ],
)
def test_a_listing_that_leads_out_of_its_folder_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    from safeswap.checkpoint.remote import parse_address

    monkeypatch.setitem(buckets._SYSTEMS, "s3", lambda: Lying([name]))
    address = parse_address("s3://models/team/sw")
    assert address is not None
    refused(lambda: open_mirror(address, Bucket(address), download=False), "no file of that folder")
    assert not cache.exists()


def test_a_missing_library_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ImportError("s3fs")

    monkeypatch.setitem(buckets._SYSTEMS, "s3", missing)
    with pytest.raises(CheckpointError, match=r"needs s3fs. Install safeswap\[remote\]"):
        open_checkpoint("s3://models/x")


def test_no_credentials_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        def ls(self, path: str, detail: bool) -> None:
            raise PermissionError("Access Denied: s3cret")

    monkeypatch.setitem(buckets._SYSTEMS, "s3", Refusing)
    with pytest.raises(CheckpointError, match="AWS_PROFILE") as caught:
        open_checkpoint("s3://models/x")
    assert "s3cret" not in str(caught.value)
