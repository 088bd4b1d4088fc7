"""The explorer's file and server without a browser: locked, and what it says of bad input."""

from __future__ import annotations

import http.client
import json
import random
import shlex
import shutil
import socket
import struct
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner, Result

pytest.importorskip("jinja2")

from page_parts import HOSTILE, Page, check_locked
from profiles import HAND, make_profile
from random_profiles import random_profile
from report.explore.test_same_as_python import random_case, run_script
from safeswap import api
from safeswap.cli import main
from safeswap.errors import ConfigError, FamilyError, PlanError, ProfileError, SafeswapError
from safeswap.operators import Operation
from safeswap.plan import Plan, fill_plan
from safeswap.profile import Interval, Profile, Sample
from safeswap.report.explore import write_explorer
from safeswap.report.explore.data import facts_of
from safeswap.report.explore.serve import PageServer
from safeswap.report.explore.write import page_script, rules_script
from swept_folder import PLANS, swept_folder

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="needs node")


def small() -> Profile:
    """The profile by hand with updates that a fine-tune has."""
    return make_profile(HAND, base_norm=100.0)


def typed(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def page_of(folder: Path, profile: Profile, **how: Any) -> Page:
    path = write_explorer(profile, folder / "page.html", **how)
    read = Page(path.read_text(encoding="utf-8"))
    check_locked(read)
    return read


def data_of(page: Page) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(page.all("script", id="data")[0].text)
    return found


def test_the_page_is_locked_and_has_the_profile(tmp_path: Path) -> None:
    data = data_of(page_of(tmp_path, small()))
    assert [unit["name"] for unit in data["units"]] == [*small().units]
    # by hand: 2.5 of 8.5 and 0.5 of 8.5
    own = data["languages"][0]["tables"]["module"]
    assert own["safety"][0] == pytest.approx(2.5 / 8.5)
    assert own["language"][0] == pytest.approx(0.5 / 8.5)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_stay_text(tmp_path: Path, text: str) -> None:
    profile = small()
    inputs = {role: replace(own, name=text, source=text) for role, own in profile.inputs.items()}
    place = tmp_path / "profile.json"
    page = page_of(tmp_path, replace(profile, inputs=inputs), title=text, place=place)
    assert len(page.all("script")) == 2


@needs_node
def test_all_modules_are_one_script(tmp_path: Path) -> None:
    """No name twice, nothing imported or exported any more: without a page it stops at the page."""
    script = page_script()
    assert "\nimport " not in script and "\nexport " not in script
    caught = "try { start } catch (e) {} process.stdout.write('whole');"
    loaded = script.replace("\nstart(JSON", "\nif (globalThis.document) start(JSON") + caught
    assert run_script(loaded, "", tmp_path) == "whole"


@needs_node
def test_the_command_makes_the_same_plan(tmp_path: Path) -> None:
    """What the page says to type writes the very file that it downloads."""
    dice = random.Random(5)
    driver = """
    const { data, cases } = JSON.parse(require("fs").readFileSync(0, "utf8"));
    const hand = data.languages.map(() => new Map());
    const said = cases.map(({ language, method, given }) => {
      const chosen = { method, given, hand };
      const now = made(data, chosen, language);
      if (now.refused !== null) return null;
      const settings = settingsOf(data, chosen);
      const text = planText(data, data.languages[language], method, settings, now.rows);
      return [commandOf(data, chosen, language), text];
    });
    process.stdout.write(JSON.stringify(said));
    """
    compared = 0
    for number in range(12):
        profile, place = random_profile(dice), tmp_path / f"it's {number}.json"
        profile.save(place)
        facts = facts_of(profile, str(place.resolve())) | {"profile": str(place), "points": []}
        for language in facts["languages"]:
            language["shown"] = language["name"]
        cases = [random_case(dice, profile, facts) for _ in range(6)]
        asked = json.dumps({"data": facts, "cases": cases})
        for pair in json.loads(run_script(rules_script() + driver, asked, tmp_path)):
            if pair is None:
                continue
            words = shlex.split(pair[0])
            done = typed(*words[1:-1], tmp_path / "plan.yaml", "--force")
            if "have the same weights" in done.output:
                continue
            assert done.exit_code == 0, (pair[0], done.output)
            assert (tmp_path / "plan.yaml").read_text(encoding="utf-8") == pair[1], pair[0]
            compared += 1
    assert compared > 30


def test_points_of_a_sweep_have_their_tables_weights(tmp_path: Path) -> None:
    profile = small()
    folder = swept_folder(tmp_path / "swept", profile)
    page = page_of(tmp_path, profile, sweep=folder)
    points = {one["name"]: one for one in data_of(page)["points"][0]}
    assert set(points) == {"base", "safety", "sw", *PLANS}
    assert points["base"]["weights"] == [[0, 0]] * len(profile.units)
    assert points["chat"]["weights"] == [[1.5, 1]] * len(profile.units)
    wanted = fill_plan(profile, "sw").units
    assert points["paper"]["weights"] == [[*row.weights.values()] for row in wanted.values()]
    assert "unsafe" in points["wide"]["told"] and "30.0 %" in points["wide"]["told"]
    marks = [one.attributes["data-name"] for one in page.all("g") if "data-name" in one.attributes]
    assert sorted(marks) == sorted(points)


def test_points_joined_otherwise_are_no_neighbours(tmp_path: Path) -> None:
    profile = small()
    folder = swept_folder(tmp_path / "swept", profile)
    path = folder / "plans" / "sw" / "chat.yaml"
    replace(Plan.load(path), operator=Operation("ties", {"density": 0.5})).save(path)
    (folder / "plans" / "sw" / "wide.yaml").unlink()
    points = data_of(page_of(tmp_path, profile, sweep=folder))["points"][0]
    unknown = {one["name"] for one in points if one["weights"] is None}
    assert unknown == {"chat", "wide"}


def test_a_sample_says_what_it_leaves_open(tmp_path: Path) -> None:
    profile = small()
    keys = [unit for unit in profile.units if unit.endswith((".attention", ".mlp"))]
    open_ = dict.fromkeys(keys, Interval(0.0, -0.01, 0.01))
    sample = Sample(
        0, 1, 10, 0.99, {t.name: 0.1 for t in profile.tensors}, {"sw": {"module": open_}}
    )
    page = page_of(tmp_path, replace(profile, sample=sample))
    data = data_of(page)
    assert data["sampled"] == 0.99
    assert data["languages"][0]["intervals"] == {"module": [[-0.01, 0.01]] * len(keys)}


def test_what_cannot_be_explored_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"nowhere\.json: cannot be read"):
        api.explore(tmp_path / "nowhere.json", tmp_path / "page.html")
    with pytest.raises(FamilyError, match="no fine-tune of the base"):
        api.explore(make_profile(HAND), tmp_path / "page.html")
    assert api.explore(make_profile(HAND), tmp_path / "page.html", force=True)
    twin = small()
    inputs = {role: replace(own, digest="same") for role, own in twin.inputs.items()}
    with pytest.raises(PlanError, match="have the same weights"):
        api.explore(replace(twin, inputs=inputs), tmp_path / "page.html")
    with pytest.raises(ConfigError, match="no folder of a sweep"):
        api.explore(small(), tmp_path / "page.html", sweep=_results(tmp_path))
    other = swept_folder(tmp_path / "swept", small())
    (other / "dev" / "sw").rename(other / "dev" / "th")
    with pytest.raises(ConfigError, match="no dev results of the profile's languages"):
        api.explore(small(), tmp_path / "page.html", sweep=other)
    with pytest.raises(SafeswapError):
        api.explore(small(), tmp_path / "no" / "folder" / "page.html")


def _results(folder: Path) -> Path:
    return swept_folder(folder / "another", small()) / "dev" / "sw"


def test_the_verb(tmp_path: Path) -> None:
    place, out = tmp_path / "profile.json", tmp_path / "page.html"
    small().save(place)
    said = typed("explore", place, "-o", out)
    assert said.exit_code == 0 and "open it in a browser" in said.output
    read = json.loads(typed("explore", place, "-o", out, "--json").stdout)
    assert read == {"kind": "explorer", "page": str(out), "bytes": out.stat().st_size}
    assert (
        f"profile: {place.resolve()}" in data_of(Page(out.read_text()))["languages"][0]["between"]
    )
    refused = typed("explore", place, "-o", out, "--port", 8080)
    assert refused.exit_code == 1 and "--port and --out exclude each other" in refused.output


def test_the_server_answers_its_path_and_name_alone() -> None:
    with PageServer("<p>page</p>") as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        parts = urlsplit(server.address)
        assert parts.hostname == "127.0.0.1" and len(parts.path) > 30

        def asked(method: str, path: str, **headers: str) -> tuple[int, bytes, Any]:
            link = http.client.HTTPConnection("127.0.0.1", parts.port, timeout=5)
            link.request(method, path, headers=headers)
            answer = link.getresponse()
            return answer.status, answer.read(), answer.headers

        status, body, headers = asked("GET", parts.path)
        assert (status, body) == (200, b"<p>page</p>")
        assert headers["Cache-Control"] == "no-store" and headers["X-Frame-Options"] == "DENY"
        assert "Python" not in headers["Server"]
        assert asked("HEAD", parts.path)[:2] == (200, b"")
        assert asked("GET", "/")[0] == asked("GET", parts.path + "x")[0] == 404
        assert asked("GET", parts.path, Host="evil.example")[0] == 404
        assert asked("POST", parts.path)[0] == 501
        server.shutdown()


def test_the_server_asks_nobody_what_it_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's own looks its address up, which asks a name server where no file has it."""
    monkeypatch.setattr("socket.getfqdn", lambda *_: pytest.fail("asked for its own name"))
    with PageServer("") as server:
        assert server.address.startswith("http://127.0.0.1:")


def test_a_browser_that_goes_away_is_no_error(capfd: pytest.CaptureFixture[str]) -> None:
    with PageServer("x" * 50_000_000) as server:
        asked = threading.Thread(target=server.handle_request, daemon=True)
        asked.start()
        link = socket.create_connection(("127.0.0.1", server.server_port), timeout=5)
        link.sendall(f"GET {server.path} HTTP/1.1\r\nHost: {server.hosts[0]}\r\n\r\n".encode())
        assert link.recv(100).startswith(b"HTTP/1.0 200")
        # closed with a reset, before all of the page is taken
        link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        link.close()
        asked.join(10)
        for thread in threading.enumerate():
            if "process_request_thread" in thread.name:
                thread.join(10)
    assert capfd.readouterr().err == ""


def test_one_that_says_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    with PageServer("") as server:
        handler = server.RequestHandlerClass
        assert handler.timeout is not None and handler.timeout <= 60
        monkeypatch.setattr(handler, "timeout", 0.1)
        threading.Thread(target=server.handle_request, daemon=True).start()
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=5) as link:
            assert link.recv(1) == b""


def test_a_taken_port_is_told() -> None:
    with PageServer("") as server, pytest.raises(ConfigError, match="cannot be listened on"):
        api.explore(small(), port=server.server_port)
