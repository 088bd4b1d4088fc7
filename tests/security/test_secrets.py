"""Keys, tokens and passwords of the user's reach their own host, and no file, screen or log."""

from __future__ import annotations

import base64
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub import Hub
from safeswap.checkpoint.source import resolve
from safeswap.display import without_password
from safeswap.errors import CheckpointError
from safeswap.io.address import split_login
from tiny import make_trio

USER, PASSWORD, TOKEN, KEY = "ausername", "pa55%40phrase", "hf_" + "t" * 34, "sk-" + "k" * 40
SECRETS = (PASSWORD, "pa55@phrase", TOKEN, KEY)
BASIC = "Basic " + base64.b64encode(f"{USER}:pa55@phrase".encode()).decode()


def with_login(url: str) -> str:
    return url.replace("://", f"://{USER}:{PASSWORD}@")


class Told:
    """A server that answers with one status and remembers who authorized themselves how."""

    def __init__(self, status: int = 404, location: str = "", body: bytes = b"{}") -> None:
        self.authorizations: list[str | None] = []
        self.keys: list[str] = []
        told = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *arguments: Any) -> None:
                pass

            def answer(self) -> None:
                told.authorizations.append(self.headers.get("Authorization"))
                told.keys += [f"{key}: {value}" for key, value in self.headers.items()]
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self.send_response(status)
                if location:
                    self.send_header("Location", f"{location}{self.path}")
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_POST = do_HEAD = answer  # noqa: N815

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def run(
    home: Path, arguments: Sequence[str], **more: str
) -> tuple[subprocess.CompletedProcess[str], str]:
    """A verb as a process that says all it can; and all that it wrote and printed, in one text."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING", "OPENAI"))}
    there = {"HF_HOME": str(home), "NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    there |= {"HF_TOKEN": TOKEN, "OPENAI_API_KEY": KEY, "HF_HUB_DISABLE_XET": "1"}
    there |= {"HF_HUB_VERBOSITY": "debug", "OPENAI_LOG": "debug", "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "safeswap", "--verbose", *arguments],
        cwd=home,
        env={**kept, **there, **more},
        capture_output=True,
        text=True,
        timeout=90,
        stdin=subprocess.DEVNULL,
    )
    files = [p for p in home.rglob("*") if p.is_file()]
    texts = [f"{p.name}: {p.read_bytes().decode('latin-1')}" for p in files]
    return done, "\n".join([done.stdout, done.stderr, *map(str, files), *texts])


def assert_none(everything: str) -> None:
    for secret in (*SECRETS, BASIC.split()[1]):
        at = everything.find(secret)
        assert at < 0, everything[max(0, at - 300) : at + 60]


@pytest.fixture
def trio(tmp_path: Path) -> dict[str, Path]:
    return make_trio(tmp_path / "trio", layers=1, width=8, inner=8, words=16)


@pytest.fixture
def hub(trio: dict[str, Path]) -> Iterator[Hub]:
    served = Hub(trio)
    yield served
    served.stop()


def experts(prefix: str) -> list[str]:
    return [f"{prefix}/base", "--safety", f"{prefix}/safety", "--language", f"sw={prefix}/sw"]


def test_a_password_in_a_hubs_address_is_used_and_stands_nowhere(hub: Hub, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    login, clean = with_login(f"{hub.url}/org"), f"{hub.url}/org"
    merged = ["merge", *experts(login), "--out", "out"]
    profiled = ["profile", *experts(login), "-o", "profile.json"]
    for words in (
        merged,
        profiled,
        ["plan", "profile.json"],
        ["show", "plan.yaml"],
        ["merge", "--plan", "plan.yaml", "--allow-remote", "--out", "again", "--dry-run"],
        ["convert", "plan.yaml", "--to", "mergekit"],
        ["verify", "out", *(f"--{r}={login}/{r}" for r in ("base", "safety"))],
    ):
        done, everything = run(home, words)
        assert "Traceback" not in done.stderr, done.stderr
        assert_none(everything)
        if words in (merged, profiled):
            assert done.returncode == 0, done.stderr
    assert set(hub.authorizations) <= {BASIC, None} and BASIC in hub.authorizations
    manifest = json.loads((home / "out" / "safeswap.json").read_text())
    assert manifest["plan"]["inputs"]["base"]["source"].startswith(clean)


@pytest.mark.parametrize("status", [401, 404, 500])
def test_what_the_hubs_client_says_of_a_failure_has_no_password(
    trio: dict[str, Path], tmp_path: Path, status: int
) -> None:
    told, home = Told(status), tmp_path / "home"
    home.mkdir()
    url = with_login(told.url)
    words = ["merge", f"{url}/org/base", "--safety", str(trio["safety"])]
    words += ["--language", f"sw={trio['sw']}", "--out", "out"]
    done, everything = run(home, words)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert_none(everything)
    done, everything = run(home, [*words[:1], "org/base", *words[2:]], HF_ENDPOINT=url)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert_none(everything)
    assert set(told.authorizations) == {BASIC}
    told.stop()


@pytest.mark.parametrize("shape", ["://{}@", "://x:{}@", "://{}:x@"])
@pytest.mark.parametrize("host", ["127.0.0.1:9", "[::1", "nowhere.invalid", "a b", "x:port"])
def test_an_address_that_leads_nowhere_is_said_without_its_login(
    shape: str, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    url = f"http{shape.format('pa55phrase')}{host}/org/name"
    with pytest.raises(CheckpointError) as caught:
        resolve(url)
    assert "pa55" not in str(caught.value), caught.value


def test_a_hub_that_sends_on_to_another_host_does_not_send_the_token_there(
    hub: Hub, trio: dict[str, Path], tmp_path: Path
) -> None:
    other, home = Hub(trio), tmp_path / "home"
    home.mkdir()
    hub.elsewhere = other.url
    merge = ["merge", *experts("org"), "--out", "out", "--no-figure"]
    run(home, merge, HF_ENDPOINT=hub.url)
    assert f"Bearer {TOKEN}" in hub.authorizations
    assert other.authorizations == [None] * len(other.authorizations)
    hub.asked.clear()
    run(home, ["merge", *experts(with_login(hub.url) + "/org"), "--out", "out2"])
    assert BASIC in hub.authorizations
    assert other.authorizations == [None] * len(other.authorizations)
    other.stop()


# ---- servers of models ---------------------------------------------------------------------------


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "mine.csv").write_text("id,source,tags,sw\n0,t,[],maji\n1,t,[],moto\n")
    (tmp_path / "home" / "suite.yaml").write_text("benchmarks:\n  mine: {prompts: mine.csv}\n")
    (tmp_path / "home" / "rules.yaml").write_text(
        "default: unsafe\nrules:\n  - {pattern: '^$', verdict: invalid}\n"
    )
    return tmp_path / "home"


ADDRESS = ("--backend", "api", "--base-url")


def evaluating(url: str, *more: str) -> list[str]:
    words = ["evaluate", "m", *ADDRESS, url, "--suite", "suite.yaml"]
    return [*words, "--only", "sw", "--out", "results", *more]


SAID = b'{"id":"x","object":"chat.completion","created":0,"model":"m","choices":[{"index":0,' + (
    b'"finish_reason":"stop","message":{"role":"assistant","content":"chai"}}]}'
)


def test_an_address_of_a_server_keeps_its_password_out_of_everything(prompts: Path) -> None:
    pytest.importorskip("openai")
    told = Told(200, body=SAID)
    url = with_login(f"{told.url}/v1") + f"?api-key={KEY}"
    for words in (
        evaluating(url),
        ["judge", "results", "--judge", "m", "--kind", "llamaguard", *ADDRESS, url],
        ["compare", "results"],
        ["compare", "results", "--format", "html"],
        evaluating(url, "--dry-run"),
    ):
        done, everything = run(prompts, words)
        assert "Traceback" not in done.stderr, done.stderr
        assert_none(everything)
    assert BASIC in told.authorizations and set(told.authorizations) == {BASIC}
    told.stop()


@pytest.mark.parametrize("status", [307, 401, 500])
def test_what_a_server_says_of_a_failure_has_no_password_and_no_key(
    prompts: Path, status: int
) -> None:
    pytest.importorskip("openai")
    other = Told(404)
    echo = json.dumps({"error": {"message": f"key {KEY} for {with_login(other.url)} is wrong"}})
    told = Told(status, other.url if status < 400 else "", echo.encode())
    for url in (with_login(f"{told.url}/v1"), f"{told.url}/v1"):
        done, everything = run(prompts, evaluating(url, "--retries", "0"))
        assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
        assert_none(everything)
    assert {BASIC, f"Bearer {KEY}"} <= set(told.authorizations)
    assert other.authorizations == [None] * len(other.authorizations)
    assert not any(s in line for line in other.keys for s in SECRETS)
    other.stop(), told.stop()


def test_the_harness_client_keeps_them_too_and_sends_none_elsewhere(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("openai")
    pytest.importorskip("lm_eval")
    from evaluation.standin import MODEL
    from safeswap.errors import EvaluationError
    from safeswap.evaluation.backends import APIOptions
    from safeswap.evaluation.backends.api import APIBackend

    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    for status in (307, 500):
        other = Told(200)
        told = Told(status, other.url if status < 400 else "", b"{}")
        monkeypatch.setattr(APIBackend, "_check_reachable", lambda self: None)
        options = APIOptions(base_url=with_login(f"{told.url}/v1"), tokenizer=str(MODEL), retries=0)
        client = APIBackend("m", options).harness()
        ask = type("R", (), {"args": ("maji", {"until": ["x"], "max_gen_toks": 2})})()
        with pytest.raises(EvaluationError) as caught:
            client.generate_until([ask])
        assert_none(str(caught.value) + caplog.text)
        assert set(told.authorizations) == {BASIC}
        assert other.authorizations == [None] * len(other.authorizations)
        other.stop(), told.stop()


# ---- the two functions ---------------------------------------------------------------------------

WORD = st.text("abcXYZ019-._~%!$&'()*+,;=", min_size=1, max_size=12)


@given(WORD, WORD, st.sampled_from(["host", "host:8000", "[::1]:80", "a.b.c"]))
def test_a_login_is_taken_out_whole(user: str, password: str, host: str) -> None:
    clean = f"https://{host}/v1/x"
    address = f"https://{user}:Q{password}Q@{host}/v1/x"
    assert without_password(f"see {address}: odd") == f"see {clean}: odd"
    found, header = split_login(address)
    assert found == clean and header is not None and header.startswith("Basic ")
    assert split_login(clean) == (clean, None)


@pytest.mark.parametrize("password", ["a/b", "a?b", "a#b", "12/3", "a@b", "a:b", "a[b"])
def test_a_password_that_should_have_been_escaped_is_not_shown_either(password: str) -> None:
    shown = without_password(f"https://me:Q{password}Q@host:80/v1, and u@x")
    assert "Q" not in shown and shown.endswith("host:80/v1, and u@x")


@pytest.mark.parametrize(
    "text",
    [
        "http://host:8000/v1?a=b@c",
        "https://host/org/name@main",
        "https://host:443/org/name@v1",
        "http://a and mail to x@y",
        "http://host: refused by x@y",
        "http://localhost:1\nsee x@y",
    ],
)
def test_what_is_no_login_stays(text: str) -> None:
    assert without_password(text) == text


@pytest.mark.parametrize("name", ["key", "api-key", "apikey", "access_token", "sig", "X-Auth"])
def test_keys_in_a_query_are_cut_out(name: str) -> None:
    shown = without_password(f"http://h/v1?{name}=abc&version=2#x")
    assert shown == f"http://h/v1?{name}=…&version=2#x"
