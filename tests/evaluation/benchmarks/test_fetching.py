"""Prompts by name: fetched from a stand-in on this machine, as from their authors."""

from __future__ import annotations

import hashlib
import logging
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from safeswap.errors import EvaluationError
from safeswap.evaluation.benchmarks import BENCHMARKS, PromptBenchmark, fetching, register
from safeswap.evaluation.benchmarks.named import fetchable
from safeswap.evaluation.benchmarks.origins import Origin, OriginFile
from safeswap.evaluation.benchmarks.suites import Suite, make_suite
from web import Faults, Web

PUBLIC = Path(__file__).parents[4] / "shared" / "data"
HARM = b"id,en,sw\n1,Who stole it?,Nani aliiba?\n2,Who burnt it?,Nani alichoma?\n"
IN_TE = b"id,te\n1,a\n2,b\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    served = Web(tmp_path_factory.mktemp("web"))
    yield served
    served.stop()


@pytest.fixture
def web(server: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    """A stand-in with two files, and a benchmark ``loot`` whose authors published them there."""
    monkeypatch.setenv("SAFESWAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(fetching, "_WAITS", (0.0, 0.0, None))
    (server.root / "harm.csv").write_bytes(HARM)
    (server.root / "te.csv").write_bytes(IN_TE)
    server.faults = Faults(of=".csv")
    server.asked.clear()
    add("loot", server.url)
    yield server
    BENCHMARKS.remove("loot")


def file_of(url: str, content: bytes, *languages: str) -> OriginFile:
    return OriginFile(url, hashlib.sha256(content).hexdigest(), len(content), languages)


def add(name: str, url: str) -> None:
    files = (file_of(f"{url}harm.csv", HARM, "en", "sw"), file_of(f"{url}te.csv", IN_TE, "te"))
    origin = Origin("the stand-in", "CC0", files, f"{name}/LANGUAGE=FILE")
    one = PromptBenchmark(name, "Loot", "harmful", "the stand-in", origin=origin)
    register(one, __name__)


def asked(suite: Suite) -> list[tuple[str, str]]:
    benchmark = suite.benchmarks[0]
    assert benchmark.prompts is not None
    return [(p.language, p.text) for p in benchmark.prompts.prompts]


def loot(*languages: str, key: str = "loot", fetch: bool = True) -> Suite:
    return make_suite("loot,belebele", languages, prompts={key: None}, fetch=fetch)


def refusal(*languages: str, key: str = "loot") -> str:
    with pytest.raises(EvaluationError) as caught:
        loot(*languages, key=key)
    return str(caught.value)


def cached(tmp_path: Path) -> list[bytes]:
    folder = tmp_path / "cache" / "prompts"
    return [file.read_bytes() for file in sorted(folder.iterdir())] if folder.exists() else []


def test_a_name_is_fetched_once_and_said(
    web: Web, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="safeswap")
    first = loot("sw", "en")
    assert asked(first) == [
        ("sw", "Nani aliiba?"),
        ("sw", "Nani alichoma?"),
        ("en", "Who stole it?"),
        ("en", "Who burnt it?"),
    ]
    assert [one.path for one in web.asked] == ["harm.csv"]  # none is fetched for te
    assert [one.authorization for one in web.asked] == [None]
    said = caplog.messages
    assert said[0] == f"fetching Loot: {web.url}harm.csv ({len(HARM)} bytes)"
    assert said[1] == "Loot: 2 prompts in sw, en; from the stand-in, licence: CC0"
    assert cached(tmp_path) == [HARM]
    assert asked(loot("sw", "en")) == asked(first) and len(web.asked) == 1
    assert len(asked(loot("te", "sw"))) == 4
    assert [one.path for one in web.asked] == ["harm.csv", "te.csv"]


def test_what_is_asked_in_one_language_only(web: Web) -> None:
    suite = loot("sw", "en", "te", key="loot/sw")
    assert {code for code, _ in asked(suite)} == {"sw"}
    assert suite.benchmarks[0].absent == dict.fromkeys(("en", "te"), "the prompts are in sw only")
    assert "loot/ko: Loot can be fetched in en, sw, te only" in refusal("ko", "sw", key="loot/ko")


def test_files_of_ones_own_beside_fetched_ones(web: Web, tmp_path: Path) -> None:
    own = tmp_path / "own.csv"
    own.write_text("id,sw,ko\n9,Wewe?,x\n")
    given = {"loot": None, "loot/sw": own}
    suite = make_suite("loot,belebele", ["en", "sw", "yo"], prompts=given)
    assert sorted(asked(suite)) == [
        ("en", "Who burnt it?"),
        ("en", "Who stole it?"),
        ("sw", "Wewe?"),
    ]
    assert suite.benchmarks[0].absent == {"yo": "Loot can be fetched in en, sw, te only"}


def test_a_trial_says_what_would_be_fetched_and_fetches_nothing(web: Web, tmp_path: Path) -> None:
    suite = loot("sw", "te", "yo", fetch=False)
    assert not web.asked and not cached(tmp_path)
    benchmark = suite.benchmarks[0]
    assert {code: file.url for code, file in benchmark.to_fetch.items()} == {
        "sw": f"{web.url}harm.csv",
        "te": f"{web.url}te.csv",
    }
    assert list(benchmark.absent) == ["yo"]
    loot("sw")
    benchmark = loot("sw", "te", fetch=False).benchmarks[0]
    assert list(benchmark.to_fetch) == ["te"] and benchmark.prompts is not None
    assert benchmark.prompts.languages == ("sw",) and not benchmark.absent
    assert [one.path for one in web.asked] == ["harm.csv"]


def test_without_a_network_it_is_said_how_to_go_on(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    said = refusal("sw")
    assert "Loot is not in the cache, and HF_HUB_OFFLINE is set" in said
    assert f"{web.url}harm.csv" in said and "give --prompts loot/LANGUAGE=FILE" in said
    assert not web.asked
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    loot("sw")
    monkeypatch.setenv("HF_HUB_OFFLINE", "yes")
    assert len(asked(loot("sw"))) == 2  # what is in the cache is there


def test_a_host_that_does_not_answer(web: Web, tmp_path: Path) -> None:
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        BENCHMARKS.remove("loot")
        add("loot", f"http://127.0.0.1:{taken.getsockname()[1]}/")
        said = refusal("sw")
    assert "Loot cannot be fetched. http://127.0.0.1" in said and "no connection" in said
    assert "Check the connection" in said and "--prompts loot/LANGUAGE=FILE" in said
    assert not cached(tmp_path)


def test_other_bytes_are_refused(web: Web, tmp_path: Path) -> None:
    other = HARM.replace(b"Iba", b"iba").replace(b"stole", b"STOLE")
    assert len(other) == len(HARM)
    (web.root / "harm.csv").write_bytes(other)
    said = refusal("sw")
    assert hashlib.sha256(other).hexdigest() in said and hashlib.sha256(HARM).hexdigest() in said
    assert "nothing was kept" in said and not cached(tmp_path)
    (web.root / "harm.csv").write_bytes(HARM + b"3,x,y\n")
    assert f"is larger than {len(HARM)} bytes" in refusal("sw")
    (web.root / "harm.csv").write_bytes(HARM[:-9])
    assert "has the SHA-256" in refusal("sw")
    (web.root / "harm.csv").unlink()
    assert "harm.csv: is not there" in refusal("sw")
    assert not cached(tmp_path)


def test_an_endless_body_is_not_read_to_its_end(web: Web) -> None:
    content = HARM * 2  # the stand-in is endless with files of some length only
    (web.root / "harm.csv").write_bytes(content)
    web.faults.endless = True
    assert f"is larger than {len(HARM)} bytes" in refusal("sw")
    assert web.sent(".csv") < 1 << 26


def test_a_host_that_fails_for_a_while(web: Web, tmp_path: Path) -> None:
    web.faults.statuses = [503, 500]
    assert len(asked(loot("sw"))) == 2 and len(web.asked) == 3
    web.faults.statuses = [503] * 9
    assert "the server says 503" in refusal("te")
    assert len(web.asked) == 6
    web.faults.statuses, web.faults.retry_after = [429], "3600"
    assert "the server says 429" in refusal("te")
    assert len(web.asked) == 7  # an hour is not waited for


def test_a_body_that_breaks_off_is_asked_for_again(web: Web) -> None:
    (web.root / "harm.csv").write_bytes(HARM)
    web.faults.drop_after, web.faults.drops = 10, 1
    assert len(asked(loot("sw"))) == 2
    assert [one.path for one in web.asked] == ["harm.csv", "harm.csv"]


def test_redirects_lead_to_no_plain_http_elsewhere(web: Web) -> None:
    web.faults.redirect = {"harm.csv": "ftp://example.org/harm.csv"}
    assert "is redirected to no address" in refusal("sw")
    web.faults.redirect = {"harm.csv": f"{web.url}te.csv"}  # digests, not names, are believed
    assert "has the SHA-256" in refusal("sw")
    for url in ("http://example.org/", "ftp://example.org/", "file:///etc/"):
        BENCHMARKS.remove("loot")
        add("loot", url)
        assert "is no https address" in refusal("sw")


def test_a_damaged_file_in_the_cache_is_fetched_again(web: Web, tmp_path: Path) -> None:
    loot("sw")
    (path,) = (tmp_path / "cache" / "prompts").iterdir()
    for damage in (HARM[:-1] + b"x", HARM + b"x", b""):
        path.write_bytes(damage)
        assert len(asked(loot("sw"))) == 2 and path.read_bytes() == HARM
    assert len(web.asked) == 4
    path.unlink()
    path.mkdir()
    assert "cannot be fetched" in refusal("sw") and "cannot be kept" in refusal("sw")


def test_a_cache_that_cannot_be_made(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SAFESWAP_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(Exception, match="Set SAFESWAP_CACHE to a folder that can be written"):
        loot("sw")


def test_without_the_library_that_fetches(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "safeswap.checkpoint.remote.http", raising=False)
    monkeypatch.setitem(sys.modules, "urllib3", None)
    said = refusal("sw")
    assert "needs urllib3. Run pip install 'safeswap[remote]'." in said and not web.asked


def test_a_benchmark_without_known_files_is_not_fetched(web: Web) -> None:
    register(PromptBenchmark("desk", "Desk", "harmful", "my desk"), __name__)
    try:
        with pytest.raises(EvaluationError) as caught:
            make_suite("desk", ["sw"], prompts={"desk": None})
        assert "no file of Desk can be fetched by its name" in str(caught.value)
        assert "It comes from my desk" in str(caught.value)
    finally:
        BENCHMARKS.remove("desk")
    with pytest.raises(EvaluationError) as caught:
        make_suite("xsafety", ["de"], prompts={"xsafety": None})
    assert "no digests of its files are known" in str(caught.value)
    assert "--prompts xsafety/LANGUAGE=FOLDER" in str(caught.value)
    with pytest.raises(EvaluationError, match=r"--prompts loot=FILE, or --prompts loot to fetch"):
        make_suite("loot", ["sw"])
    with pytest.raises(EvaluationError, match=r"desk.csv"):
        make_suite("loot", ["sw"], prompts={"loot": Path("desk.csv")})


def test_every_published_file_is_pinned() -> None:
    assert fetchable() == [
        "multijail",
        "xstest",
        "polyrefuse",
        "polyrefuse-harmless",
        "sea-safeguard",
        "sea-safeguard-harmless",
        "strongreject",
    ]
    for name in fetchable():
        one = BENCHMARKS[name]
        assert isinstance(one, PromptBenchmark) and one.origin is not None
        assert one.origin.licence and name in one.origin.form
        for file in one.origin.files:
            assert re.fullmatch(
                r"https://raw\.githubusercontent\.com/[\w.-]+/[\w.-]+/[0-9a-f]{40}/[\w./-]+",
                file.url,
            )
            assert re.fullmatch(r"[0-9a-f]{64}", file.sha256) and file.languages
            assert 1000 < file.size < 1 << 20


@pytest.mark.skipif(not PUBLIC.exists(), reason="the public files are not here")
def test_the_public_files_have_the_digests() -> None:
    here = {
        hashlib.sha256(path.read_bytes()).hexdigest(): path
        for folder in ("multijail", "xstest", "polyrefuse", "sea_safeguard")
        for path in (PUBLIC / folder).iterdir()
    }
    for name in fetchable():
        one = BENCHMARKS[name]
        assert isinstance(one, PromptBenchmark) and one.origin is not None
        for file in one.origin.files if name != "strongreject" else ():
            path = here[file.sha256]
            assert path.stat().st_size == file.size
            if len(file.languages) == 1:
                code = file.languages[0]
                assert re.search(rf"(^|_){code}\.", path.name) or name == "xstest"
            half = "harmless" if name.endswith("harmless") else "harmful"
            assert "polyrefuse" not in name or path.name.startswith(half)
            given = {
                f"{name}/{code}" if name != "multijail" else name: path for code in file.languages
            }
            (read,) = make_suite(name, file.languages, prompts=given).benchmarks
            assert not read.absent
