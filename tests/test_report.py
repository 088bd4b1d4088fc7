"""Tables, the map and the figure say what the plan and the profile hold."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from safeswap.plan import Plan, PlannedUnit, fill_plan
from safeswap.report import terminal
from safeswap.report.figure import COLOURS, decision_colour, draw
from test_selectors import HAND, make_profile


def png_size(path: Path) -> tuple[int, int]:
    """Width and height from a PNG's own header."""
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n" and content[-8:-4] == b"IEND"
    width, height = struct.unpack(">II", content[16:24])
    return width, height


def hand_plan(norms: str | None = None) -> Plan:
    return fill_plan(make_profile(HAND), tau=0.1, norms=norms)


def printed(view: object, capsys: pytest.CaptureFixture[str]) -> str:
    terminal.print_view(view)  # type: ignore[arg-type]
    return capsys.readouterr().out


def row_of(text: str, unit: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.split()[:1] == [unit]]
    return line.split()


def test_the_map_has_a_letter_per_unit(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(terminal.plan_view(hand_plan(norms="follow")), capsys)
    rows = dict(re.findall(r"^ *(attention|mlp|norms) ([SLB·?]+)$", text, re.MULTILINE))
    assert rows == {"attention": "S·L", "mlp": "S·L", "norms": "S·L"}
    assert "S safety   L sw   · blend" in text


def test_the_table_has_the_effective_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(terminal.plan_view(hand_plan()), capsys)
    # 2.5 and 0.5 of 8.5, as worked by hand in test_selectors
    wanted = ["0.attention", "safety", "1", "0", "29.412", "5.882", "+23.529"]
    assert row_of(text, "0.attention") == wanted
    assert row_of(text, "embeddings") == ["embeddings", "blend", "0.5", "0.5"]


def test_counts_and_how_much_of_each_expert_went_in(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(terminal.plan_view(hand_plan()), capsys)
    assert "attention: 1 safety, 1 blend, 1 sw" in text
    assert "norms: 3 sw" in text
    # safety: (2.5 + 2.5 + half of 2) / 8.5; sw: (2 + 2.5 + half of 2) / 8.5
    assert "safety: 70.6 % of its update in the layers went in" in text
    assert "sw: 64.7 % of its update in the layers went in" in text


def test_a_profile_shows_update_share_and_cosine(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(terminal.profile_view(make_profile(HAND)), capsys)
    wanted = ["1.mlp", "1.00000", "11.765", "1.00000", "11.765", "+0.000"]
    assert row_of(text, "1.mlp") == wanted
    assert "safety: safety" in text


def test_the_figure_is_a_png_of_a_readable_size(tmp_path: Path) -> None:
    draw(hand_plan(), tmp_path / "one.png")
    width, height = png_size(tmp_path / "one.png")
    assert width >= 1000 and height >= 900
    draw(hand_plan(), tmp_path / "two.png")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_the_figure_shows_the_decisions_in_their_colours(tmp_path: Path) -> None:
    from matplotlib.image import imread

    draw(hand_plan(), tmp_path / "plan.png")
    pixels = (imread(tmp_path / "plan.png")[..., :3] * 255).round().astype(int)
    for name in ("safety", "language", "blend"):
        colour = [int(COLOURS[name][at : at + 2], 16) for at in (1, 3, 5)]
        assert (pixels == colour).all(-1).sum() > 500, name


def test_a_figure_drawn_by_a_process_of_its_own(tmp_path: Path) -> None:
    hand_plan().save(tmp_path / "plan.yaml")
    command = [sys.executable, "-m", "safeswap.report.figure"]
    command += [str(tmp_path / "plan.yaml"), str(tmp_path / "plan.png")]
    subprocess.run(command, check=True, timeout=60)
    assert png_size(tmp_path / "plan.png")[0] >= 1000


def test_a_short_plan_by_hand_is_shown_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without shares and without some rows: the merge refuses it, but looking at it may help."""
    plan = hand_plan()
    units = {u: PlannedUnit(row.weights) for u, row in plan.units.items() if u != "1.mlp"}
    short = Plan(plan.inputs, units, plan.donor)
    text = printed(terminal.plan_view(short), capsys)
    assert re.search(r"mlp S\?L", text)
    assert decision_colour(short, "1.mlp") == "#ffffff"
    draw(short, tmp_path / "short.png")
    assert png_size(tmp_path / "short.png")[0] >= 1000
