"""What came from elsewhere is shown: nothing in it moves a cursor, hides text or is markup."""

from __future__ import annotations

import io
import json
import logging
import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import safeswap
from safeswap.cli import main
from safeswap.display import json_visible, one_line, visible, without_password
from safeswap.errors import SafeswapError
from safeswap.io import progress
from safeswap.plan import Plan
from safeswap.profile import Profile
from safeswap.report.plan_terminal import plan_view, profile_view
from safeswap.tables import as_csv, as_markdown, print_tables
from safeswap.tables.model import Cell, Column, Row, Table
from stored import HARM, Stored
from tiny import make_trio, swap

HOSTILE = "\x1b]0;owned\x07\x1b[31m\x9b2J[red]x[/red]\u202egnp\u2066\ud800\u2028"
OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def harmless(text: str) -> str:
    assert not OBEYED.search(text.replace("\r\n", "\n")), ascii(text)
    return text


@given(st.text())
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    harmless(visible(text))
    assert "\n" not in one_line(text)
    assert visible(visible(text)) == visible(text)


def test_letters_of_every_script_stay() -> None:
    said = "Kiswahili ภาษาไทย বাংলা\u200c\u200d తెలుగు 日本語 עברית 🙂\tx\n"
    assert visible(said) == said


@given(st.text())
def test_json_stays_the_same_value(text: str) -> None:
    document = json.dumps({"a": text}, ensure_ascii=False)
    assert json.loads(harmless(json_visible(document))) == {"a": text}


def test_passwords_are_cut_out_of_addresses_only() -> None:
    assert without_password("https://u:p%40@host:1/v1") == "https://host:1/v1"
    assert without_password("u@x http://token@a/ and b@c") == "u@x http://a/ and b@c"
    assert without_password("http://host/v1?a=b@c") == "http://host/v1?a=b@c"


def test_tables_in_the_terminal_and_in_markdown() -> None:
    row = Row.of(HOSTILE, Cell("1", note=HOSTILE), group=HOSTILE)
    table = Table(HOSTILE, (Column(HOSTILE), Column("b", group=HOSTILE)), (row,), (HOSTILE,))
    out = io.StringIO()
    print_tables([table], Console(file=out, width=200))
    assert "[red]x[/red]" in harmless(out.getvalue())
    assert "\\[red\\]" in harmless(as_markdown(table))
    assert '"' in as_csv(table) or as_csv(table)


@pytest.mark.parametrize("note", ["# a", "## a", "- a", "+ a", "--- a", "=== a", "1. a", "12) a"])
def test_a_note_is_no_heading_and_no_list(note: str) -> None:
    table = Table("t", (Column("a"),), (Row.of("1"),), (note, "1.5 points # of - a"))
    *_, first, _, second = as_markdown(table).splitlines()
    assert first.replace("\\", "") == note and "\\" in first
    assert second == "1.5 points # of - a"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    trio = make_trio(folder, layers=1, width=8, inner=8, words=16)
    profile = safeswap.make_profile(
        trio["base"], safety=trio["safety"], languages={"sw": trio["sw"]}
    )
    profile.save(folder / "profile.json")
    safeswap.make_plan(profile).save(folder / "plan.yaml")
    swap(trio, folder / "out")
    return folder


def drawn(view: object) -> str:
    out = io.StringIO()
    Console(file=out, width=160).print(view)
    return out.getvalue()


def test_views_of_plans_and_profiles(made: Path) -> None:
    profile = Profile.load(made / "profile.json")
    named = "[red]l\x1b[31m"
    inputs = {r: replace(one, source=HOSTILE) for r, one in profile.inputs.items()}
    tensors = tuple(
        replace(t, update_norm=_renamed(t.update_norm, named), inner=_renamed(t.inner, named))
        for t in profile.tensors
    )
    odd = replace(profile, inputs=_renamed(inputs, named), tensors=tensors, notes=(HOSTILE,))
    assert "[red]" in harmless(drawn(profile_view(odd)))
    content = Plan.load(made / "plan.yaml").as_dict()
    text = json.dumps(content).replace('"sw"', json.dumps(named))
    shown = harmless(drawn(plan_view(Plan.from_dict(json.loads(text), "plan"))))
    assert "[red]l" in shown


def _renamed(table: dict, name: str) -> dict:  # type: ignore[type-arg]
    return {name if key == "sw" else key: value for key, value in table.items()}


def test_messages_notes_and_progress(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(json.dumps({"format": "safeswap-plan/1", HOSTILE[:9]: 1}))
    done = CliRunner().invoke(main, ["show", str(tmp_path / "plan.yaml")])
    assert done.exit_code == 1 and "unknown key" in harmless(done.output)

    def fail(*given: object, **named: object) -> None:
        logging.getLogger("safeswap").warning("odd: %s", HOSTILE)
        raise SafeswapError(HOSTILE)

    monkeypatch.setattr(Plan, "load", fail)
    done = CliRunner().invoke(main, ["show", str(tmp_path / "plan.yaml")])
    assert "note: odd" in harmless(done.output) and "[red]x[/red]" in done.output

    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Screen()
    monkeypatch.setattr("sys.stderr", screen)
    for name, value in {"TERM": "xterm", "COLUMNS": "200", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    with progress.switched(True), progress.items_bar("a\x1b]0;x\x07[red]b", 2) as advance:
        advance(2)
    assert "\\x1b]0;x\\x07[red]b" in screen.getvalue()


def test_rows_behind_a_number(tmp_path: Path) -> None:
    made = Stored(tmp_path / "results", {"harm/sw": HARM}).arm("one")
    made.judged("one", "harm/sw", "us")
    path = tmp_path / "results" / "one" / "responses.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({**r, "response": HOSTILE}) + "\n" for r in rows))
    verdicts = tmp_path / "results" / "one" / "verdicts" / "guard.jsonl"
    from safeswap.evaluation.results.store import digest_of

    judged = [json.loads(line) for line in verdicts.read_text().splitlines()]
    for row, asked in zip(judged, rows, strict=True):
        row["response_digest"] = digest_of([asked["prompt"], HOSTILE])
        row["flags"] = ["\x1b[31mflag"]
    verdicts.write_text("".join(json.dumps(row) + "\n" for row in judged))
    given = ["compare", str(tmp_path / "results"), "--explain", "harm/sw/one"]
    done = CliRunner().invoke(main, given)
    assert done.exit_code == 0, done.output
    assert "\\x1b]0;owned" in harmless(done.output)
    for form in ("terminal", "md", "csv", "html"):
        words = ["compare", given[1], "--format", form, "--table", "answers"]
        done = CliRunner().invoke(main, words)
        assert done.exit_code == 0, done.output
        harmless(done.output)


def test_the_card_names_models_as_text(tmp_path: Path) -> None:
    trio = make_trio(tmp_path / "trio", layers=1, width=8, inner=8, words=16)
    odd = trio["sw"].rename(trio["sw"].parent / "`<b>x` [a](b) *c*")
    card = (swap({**trio, "sw": odd}, tmp_path / "out") / "README.md").read_text()
    title = next(line for line in card.splitlines() if line.startswith("# "))
    assert "&lt;b&gt;" in title and "\\[a\\](b)" in title and "\\*c\\*" in title
    assert "`` `<b>x` [a](b) *c* ``" in card
