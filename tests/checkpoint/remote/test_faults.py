"""Servers that fail, lie or change: what is read is right, or it is refused."""

from __future__ import annotations

import re
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from safeswap.checkpoint.model import Checkpoint, open_checkpoint
from safeswap.checkpoint.remote import fetch, http, web_folder
from safeswap.checkpoint.remote.fetch import TransientError, seconds_of
from safeswap.checkpoint.remote.http import Client
from safeswap.checkpoint.remote.web import WebFile
from safeswap.errors import CheckpointError
from safeswap.merge.unchanged import refuse_changed
from tiny import make_trio, refused, rewrite, safetensors_bytes, swap
from web import Web


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A checkpoint in one file of 1.4 MB, under ``trio/large``."""
    folder = make_trio(tmp_path / "made", shards=1, width=256, inner=256, words=256)["base"]
    return folder.rename(tmp_path / "trio" / "large")


def content(found: Checkpoint) -> dict[str, bytes]:
    """All bytes of a checkpoint, through its readers."""
    stored = {}
    for name, tensor in found.tensors.items():
        raw = np.empty(tensor.nbytes, np.uint8)
        with tensor.reader() as reader:
            assert reader.read_raw(0, tensor.elements, raw)
        stored[name] = raw.tobytes()
    return stored


def one_request(found: Checkpoint) -> None:
    """Order a whole file at once."""
    ranges = found.files[0].ranges
    assert ranges is not None
    ranges.prefetch(0, ranges.size)


def begins(web: Web) -> list[int]:
    """Where the requests for weights began, but for the looks at what the file is."""
    found = [re.match(r"bytes=(\d+)-(\d+)", one.range or "bytes=0-0") for one in web.asked]
    pairs = zip(web.asked, found, strict=True)
    return [
        int(m[1])
        for one, m in pairs
        if m and one.path.endswith("model.safetensors") and m[2] != "7"
    ]


@pytest.mark.parametrize("how", ["drop_after", "truncate_after"])
def test_a_connection_that_breaks_off_goes_on_from_the_byte_that_was_reached(
    web: Web, large: Path, how: str
) -> None:
    local = content(open_checkpoint(large))
    found = open_checkpoint(f"{web.url}large/")
    setattr(web.faults, how, 100_000)
    before = web.sent()
    one_request(found)
    assert content(found) == local
    size = (large / "model.safetensors").stat().st_size
    assert web.sent() - before == size - (1 << 16)  # no byte twice; the first came with the header
    later = begins(web)[1:]
    assert later == [(1 << 16) + 100_000 * n for n in range(len(later))]
    assert len(later) > 10


def test_what_fails_for_the_moment_is_tried_again(
    web: Web, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(fetch, "sleep", waits.append)
    web.faults.statuses, web.faults.retry_after = [503, 429], "7"
    found = open_checkpoint(f"{web.url}large/")
    assert waits == [7.0, 7.0]
    web.faults.statuses, web.faults.retry_after = [500, 502, 504], None
    assert content(found) == content(open_checkpoint(large))
    assert len(waits) == 5
    for wait, longest in zip(waits[2:], (0.001, 0.002, 0.004), strict=True):
        assert longest / 2 <= wait <= longest


def test_a_server_that_asks_for_too_long_a_while_is_not_waited_for(web: Web, large: Path) -> None:
    web.faults.statuses, web.faults.retry_after = [503], "3600"
    refused(lambda: open_checkpoint(f"{web.url}large/"), "3600 seconds", "503", "Wait")


def test_what_never_succeeds_is_refused_and_leaves_nothing(
    web: Web, trio: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    given = {role: f"{web.url}{role}/" for role in ("base", "safety", "sw")}
    web.faults.drop_after = 30
    refused(lambda: swap(given, out), "6 times in a row", "Check the connection", out=out)
    web.faults.drop_after = None
    merged = swap(given, out)
    local = swap(trio, tmp_path / "local")
    for file in local.glob("*.safetensors"):
        assert (merged / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize("tags", [True, False], ids=["its tag differs", "its size differs"])
def test_a_file_that_changes_under_the_reader_is_refused(web: Web, large: Path, tags: bool) -> None:
    web.faults.tags = tags
    found = open_checkpoint(f"{web.url}large/")
    file = large / "model.safetensors"
    stored = file.read_bytes()
    file.write_bytes(stored[:-2] + b"ab" + (b"" if tags else b"c"))
    refused(lambda: content(found), "changed while it was read", "Run the command again")
    ranges = found.files[0].ranges
    assert ranges is not None
    refused(ranges.refuse_changed, "changed while it was read")


def test_a_merge_refuses_an_input_that_changed_after_it_was_read(
    web: Web, trio: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {role: f"{web.url}{role}/" for role in ("base", "safety", "sw")}

    def change(*arguments: Any) -> None:
        file = trio["sw"] / "model-00001-of-00002.safetensors"
        file.write_bytes(file.read_bytes()[:-1] + b"x")
        refuse_changed(*arguments)

    monkeypatch.setattr("safeswap.merge.run.refuse_changed", change)
    out = tmp_path / "out"
    refused(lambda: swap(given, out), "00001-of-00002", "changed", out=out)


def test_where_nothing_tells_contents_apart_nothing_is_kept_for_later(
    web: Web, large: Path, cache: Path
) -> None:
    web.faults.tags = False
    first = content(open_checkpoint(f"{web.url}large/"))
    rewrite(large, lambda weights: weights.update({n: -v for n, v in weights.items()}))
    second = content(open_checkpoint(f"{web.url}large/"))
    assert second == content(open_checkpoint(large)) != first


@pytest.mark.parametrize(
    ("fault", "words"),
    [({"shift": 3}, "another range"), ({"packed": True}, "packs what it sends")],
)
def test_answers_that_are_not_what_was_asked_for_are_refused(
    web: Web, large: Path, fault: dict[str, object], words: str
) -> None:
    found = open_checkpoint(f"{web.url}large/")
    for name, value in fault.items():
        setattr(web.faults, name, value)
    with pytest.raises(CheckpointError, match=words):
        content(found)


def test_an_endless_body_is_read_no_further_than_was_asked(web: Web, large: Path) -> None:
    local = content(open_checkpoint(large))
    found = open_checkpoint(f"{web.url}large/")
    web.faults.endless = True
    one_request(found)
    assert content(found) == local


def test_an_endless_configuration_is_refused(
    web: Web, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_folder, "LARGEST", 1 << 20)
    web.faults.of, web.faults.endless = "config.json", True
    with pytest.raises(CheckpointError, match="larger than 1048576 bytes"):
        open_checkpoint(f"{web.url}large/")


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (safetensors_bytes(b"{}", length=1 << 40), "header claims"),
        (safetensors_bytes(b"{}", length=90_000_000), "but the file has only"),
        (b"<html>no</html>" * 9, "header claims"),
        (b"", "too few"),
    ],
)
def test_a_header_that_lies_is_refused(web: Web, large: Path, header: bytes, words: str) -> None:
    (large / "model.safetensors").write_bytes(header)
    message = refused(lambda: open_checkpoint(f"{web.url}large/"), words)
    assert f"{web.url}large/model.safetensors" in message


def test_redirects_in_a_circle_end(web: Web, large: Path) -> None:
    web.faults.redirect = {"large/config.json": f"{web.url}large/config.json"}
    refused(lambda: open_checkpoint(f"{web.url}large/"), "redirected more than 6 times")


@pytest.mark.parametrize(
    ("url", "location", "words"),
    [
        ("https://h.org/x", "http://h.org/x", "not encrypted"),
        ("https://h.org/x", "//127.0.0.1/x", "to this machine"),
        ("http://h.org/x", "http://localhost:9/x", "to this machine"),
        ("https://h.org/x", "file:///etc/passwd", "to no address"),
        ("https://h.org/x", None, "to no address"),
    ],
)
def test_redirects_that_are_not_followed(url: str, location: str | None, words: str) -> None:
    with pytest.raises(CheckpointError, match=words) as caught:
        Client._target(url, location, "https://h.org/x")
    assert "passwd" not in str(caught.value)


def test_a_signed_address_is_used_until_it_has_run_out(web: Web, large: Path) -> None:
    holder = Web(web.root)
    try:
        name = "large/model.safetensors"
        web.faults.redirect = {name: f"{holder.url}{name}?Signature=1"}
        stored = (large / "model.safetensors").read_bytes()
        client = Client(web.url, "Bearer secret")
        file = WebFile(client, f"{web.url}{name}", "where", len(stored), "", pinned=True)
        came = bytearray()
        for begin, end in ((0, 100), (100, 200)):
            fetch.fetch_range(file, begin, end, came.extend)
        assert (len(web.asked), len(holder.asked)) == (1, 2)
        holder.faults.statuses = [403]
        fetch.fetch_range(file, 200, 300, came.extend)
        assert (len(web.asked), len(holder.asked)) == (2, 4)
        assert bytes(came) == stored[:300]
        assert {one.authorization for one in web.asked} == {"Bearer secret"}
        assert {one.authorization for one in holder.asked} == {None}
    finally:
        holder.stop()


def test_a_redirect_loses_its_login() -> None:
    to = Client._target("https://h.org/x", "https://me:pw@o.org/y?sig=1", "https://h.org/x")
    assert to == "https://o.org/y?sig=1"


def test_no_connection_is_said(web: Web) -> None:
    web.stop()
    refused(lambda: open_checkpoint(f"{web.url}base/"), "no connection", "Check the connection")


def test_seconds_of_retry_after() -> None:
    assert seconds_of(None) is None
    assert seconds_of("120") == 120.0
    assert seconds_of("soon") is None
    assert seconds_of("-1") is None
    date = seconds_of(formatdate(time.time() + 100, usegmt=True))
    assert date is not None
    assert 90 < date <= 101
    assert seconds_of(formatdate(0, usegmt=True)) == 0.0


def test_a_secret_in_a_proxy_s_address_is_not_shown(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.stop()  # nobody listens there any more
    monkeypatch.setenv("http_proxy", web.url.replace("://", "://me:s3cret@"))
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    message = refused(lambda: open_checkpoint("http://nowhere.invalid/x/"), "no connection")
    assert "s3cret" not in message


def test_connections_of_a_forked_process_are_its_own() -> None:
    assert http._manager(1, None) is http._manager(1, None)
    assert http._manager(1, None) is not http._manager(2, None)


def test_a_transient_error_holds_the_wait() -> None:
    assert TransientError("x", 2.0).wait == 2.0
