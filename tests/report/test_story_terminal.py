"""The story in the terminal: the numbers of the tables, whole at any width, told without colour."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from wide import wide_outcomes

from page_parts import HOSTILE, evaluated
from safeswap.cli import main
from safeswap.report.comparison import model_title
from safeswap.report.evaluation import compared
from safeswap.report.story import KINDS, cards_of, outcome_shares
from safeswap.report.story_terminal import parts_of, story_view


def told(folder: Path, width: int, encoding: str = "utf-8") -> str:
    found = compared([folder], judge="guard")
    titles = {model: model_title(found.evidence, model) for model in found.evidence.models}
    cards = list(cards_of(found.evidence, found.comparisons))
    return drawn(story_view(cards, outcome_shares(found.evidence), titles), width, encoding)


def drawn(view: object, width: int, encoding: str = "utf-8") -> str:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding=encoding, errors="replace")
    Console(file=out, width=width).print(view)
    out.flush()
    return raw.getvalue().decode(encoding)


def test_the_story_is_by_hand(tmp_path: Path) -> None:
    """8 of 10 unsafe became 1 of 10; of the answers of the merge 9 refuse and 1 is harmful."""
    text = told(evaluated(tmp_path / "results").folder, 100)
    assert "merge against sw (language expert)" in text
    assert re.search(
        r"^\+ unsafe answers: Harm sw  80\.0 → 10\.0 %  -70\.0 \[.*\]  safer", text, re.M
    )
    lines = text.splitlines()
    bar = lines[lines.index("  merge") + 1]
    assert bar == "  " + 54 * "█" + 6 * "▒" + "   90.0   10.0    0.0"


@pytest.mark.parametrize("width", [30, 50, 80, 200])
def test_no_line_is_longer_and_every_figure_is_whole(width: int) -> None:
    from safeswap.report.comparison import compare_all

    evidence = wide_outcomes()
    cards = list(cards_of(evidence, compare_all(evidence)))
    text = drawn(story_view(cards, outcome_shares(evidence), {}), width)
    assert max(map(cell_len, text.splitlines())) <= width
    for fact in (fact for card in cards for fact in card.facts):
        assert fact.difference in text
    assert len(cards) == 3 and all(len(card.facts) == 24 for card in cards)


def test_a_terminal_without_blocks_has_signs(tmp_path: Path) -> None:
    text = told(evaluated(tmp_path / "results").folder, 80, "ascii")
    assert "  # refused  ! harmful  . neither" in text.splitlines()
    assert "#" * 40 in text


@given(st.integers(3, 100), st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_parts_add_up_and_what_is_there_is_seen(room: int, sizes: list[float]) -> None:
    whole = sum(sizes)
    shares = {kind: size / whole for kind, size in zip(KINDS, sizes, strict=True)} if whole else {}
    found = parts_of(room, shares)
    assert sum(found) == (room if whole else 0)
    for kind, wide in zip(KINDS, found, strict=True):
        assert (wide > 0) == (shares.get(kind, 0.0) * room > 0)
        assert abs(wide - room * shares.get(kind, 0.0)) <= 2


def test_compare_tells_it_above_all_tables_and_only_there(tmp_path: Path) -> None:
    folder = evaluated(tmp_path / "results").folder
    words = ["compare", str(folder), "--judge", "guard"]
    whole = CliRunner().invoke(main, words).output
    assert whole.index("Is it safer") < whole.index("Rates")
    for more in (["--table", "rates"], ["--format", "md"], ["--json"]):
        assert "Is it safer" not in CliRunner().invoke(main, [*words, *more]).output


def test_names_are_shown_and_not_obeyed(tmp_path: Path) -> None:
    folder = evaluated(tmp_path / "results").folder
    settings = folder / "settings.json"
    odd = HOSTILE[2] + "[red]"
    settings.write_text(settings.read_text().replace('"Harm"', json.dumps(odd)))
    text = told(folder, 80)
    assert "[red]" in text and not re.search("[\u202a-\u202e\u2066-\u2069\u2028\x00\x1b]", text)
