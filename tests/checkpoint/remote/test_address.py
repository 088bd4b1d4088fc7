"""What is an address, what is kept of it, and what is refused."""

from __future__ import annotations

import pytest

from safeswap.checkpoint.remote import parse_address
from safeswap.errors import CheckpointError


@pytest.mark.parametrize(
    ("text", "kind", "kept", "root", "name"),
    [
        ("https://h.org/a/b", "web", "https://h.org/a/b/", "https://h.org/a/b/", "b"),
        ("HTTPS://h.org/a%20b/", "web", "https://h.org/a%20b/", "https://h.org/a%20b/", "a b"),
        ("http://127.0.0.1:80/x/", "web", "http://127.0.0.1:80/x/", "http://127.0.0.1:80/x/", "x"),
        ("s3://models/team/sw/", "s3", "s3://models/team/sw", "models/team/sw", "sw"),
        ("gs://a_b-c", "gs", "gs://a_b-c", "a_b-c", "a_b-c"),
        ("hf://org/name", "hub", "hf://org/name", "org/name", "org/name"),
        ("hf://models/org/name/", "hub", "hf://org/name", "org/name", "org/name"),
    ],
)
def test_an_address_is_taken_apart(text: str, kind: str, kept: str, root: str, name: str) -> None:
    found = parse_address(text)
    assert found is not None
    assert (found.kind, found.text, found.root, found.name) == (kind, kept, root, name)
    again = parse_address(found.text)
    assert again is not None
    assert (again.text, again.root) == (kept, root)


@pytest.mark.parametrize(
    ("text", "revision"),
    [("hf://o/n@v1.2", "v1.2"), ("hf://o/n@refs%2Fpr%2F1", "refs/pr/1"), ("hf://o/n@a/b", "a/b")],
)
def test_a_hub_s_address_has_a_revision(text: str, revision: str) -> None:
    found = parse_address(text)
    assert found is not None
    assert found.revision == revision


@pytest.mark.parametrize("text", ["/a/b", "org/name@v1", "C:\\x", "a b://c", "", "./x@y"])
def test_paths_and_hub_ids_are_none(text: str) -> None:
    assert parse_address(text) is None


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("s3s://b/x", "did you mean 's3'"),
        ("az://h/x", "known: https"),
        ("file:///x", "by its path"),
        ("https://h/a/../b", "leads out"),
        ("https://h/a/%2e%2E/b", "leads out"),
        ("https://h/a/%00", "leads out"),
        ("https:///x", "no host"),
        ("https://[::1/x", "no address"),
        ("https://h:port/x", "no address"),
        ("https://h/x#part", "fragment"),
        ("https://h/a\nb", "control character"),
        ("https://h\\@other/x", "backslash"),
        ("http://me:pw@h.org/x/", "unencrypted"),
        ("http://h.org/x/?token=t", "unencrypted"),
        ("s3://b/x", "bucket"),
        ("s3://Bucket/x", "bucket"),
        ("s3://bucket/../x", "dots"),
        ("s3://bucket/a//b", "empty part"),
        ("s3://bucket/x?versionId=1", "not read"),
        ("hf://datasets/org/name", "no model"),
        ("hf://datasets/name", "no model"),
        ("hf://name", "no model"),
        ("hf://org/..", "no model"),
        ("hf://org/name@../x", "no revision"),
        ("hf://org/name@", "no revision"),
    ],
)
def test_what_no_checkpoint_can_have_is_refused(text: str, word: str) -> None:
    with pytest.raises(CheckpointError, match=r"Give|give") as caught:
        parse_address(text)
    assert word in str(caught.value)


def test_secrets_are_neither_kept_nor_shown() -> None:
    found = parse_address("https://me:s3cret@h.org/x/?sig=s1gned&se=2030")
    assert found is not None
    assert found.login == "Basic bWU6czNjcmV0"
    assert found.query == "sig=s1gned&se=2030"
    for shown in (found.text, found.root, repr(found)):
        assert not any(secret in shown for secret in ("s3cret", "s1gned", "me:", "bWU6"))


@pytest.mark.parametrize("text", ["https://me:s3cret@h.org/a/../b", "https://me:s3cret@h:p/x"])
def test_refusals_do_not_show_them(text: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        parse_address(text)
    assert "s3cret" not in str(caught.value)
