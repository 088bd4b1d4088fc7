"""Tables, the map and the figure say what the plan and the profile hold."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from profiles import HAND, make_profile
from safeswap.errors import SafeswapError
from safeswap.merge.card import write_card
from safeswap.plan import Plan, PlannedUnit, fill_plan
from safeswap.profile import Profile
from safeswap.report import plan_figure, plan_terminal
from safeswap.report.plan_figure import COLOURS, decision_colour, draw
from safeswap.selectors.words import threshold
from tiny import png_size


def hand_plan(norms: str | None = None) -> Plan:
    return fill_plan(make_profile(HAND), tau=0.1, norms=norms)


def threshold_of(plan: Plan) -> float | None:
    return threshold(plan.selector, list(plan.units))


def printed(view: object, capsys: pytest.CaptureFixture[str]) -> str:
    plan_terminal.print_view(view)  # type: ignore[arg-type]
    return capsys.readouterr().out


def row_of(text: str, unit: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.split()[:1] == [unit]]
    return line.split()


def test_the_map_has_a_letter_per_unit(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(plan_terminal.plan_view(hand_plan(norms="follow")), capsys)
    rows = dict(re.findall(r"^ *(attention|mlp|norms) ([SLB·?]+)$", text, re.MULTILINE))
    assert rows == {"attention": "S·L", "mlp": "S·L", "norms": "S·L"}
    assert "S safety   L sw   · blend" in text


def test_the_table_has_the_effective_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(plan_terminal.plan_view(hand_plan()), capsys)
    # 2.5 and 0.5 of 8.5, as worked by hand in test_selectors
    wanted = ["0.attention", "safety", "1", "0", "29.412", "5.882", "+23.529"]
    assert row_of(text, "0.attention") == wanted
    assert row_of(text, "embeddings") == ["embeddings", "blend", "0.5", "0.5"]


def test_a_uniform_plan_shows_shares_in_place_of_one_letter(
    capsys: pytest.CaptureFixture[str],
) -> None:
    plan = fill_plan(make_profile(HAND), method="chat-vector")
    text = printed(plan_terminal.plan_view(plan), capsys)
    assert "every unit of the layers: mix; the shares decide nothing here" in text
    assert "***" not in text and "█" in text
    assert row_of(text, "0.attention")[4:] == ["29.412", "5.882", "+23.529"]
    assert list(plan_figure.panels_of(plan)) == ["attention", "mlp"]


def test_a_uniform_plan_shows_norms_where_they_are_known(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    profile = make_profile(HAND)
    plan = fill_plan(profile, method="chat-vector")
    text = printed(plan_terminal.plan_view(plan, profile), capsys)
    # roots of sums of squares, as worked by hand in profiles.py
    assert row_of(text, "0.attention")[4:6] == ["2.50000", "0.50000"]
    assert row_of(text, "2.mlp")[4:6] == ["1.00000", "2.50000"]
    assert "2.50000" not in printed(plan_terminal.plan_view(hand_plan(), profile), capsys)
    write_card(profile, plan, tmp_path, figure=False)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "| 0.attention | mix | 1 | 1 | 2.50000 | 0.50000 | 29.412 | 5.882 | +23.529 |" in card
    assert "norm of safety's update, relative" in card


def test_a_uniform_plans_figure_is_no_wall_of_one_colour(tmp_path: Path) -> None:
    from matplotlib.image import imread

    profile = make_profile(HAND)
    plan = fill_plan(profile, method="chat-vector")
    draw(plan, tmp_path / "plain.png")
    draw(plan, tmp_path / "normed.png", profile)
    assert png_size(tmp_path / "normed.png")[1] > png_size(tmp_path / "plain.png")[1] + 200
    for name in ("plain.png", "normed.png"):
        pixels = (imread(tmp_path / name)[..., :3] * 255).round().astype(int)
        counts = {
            colour: (pixels == [int(value[at : at + 2], 16) for at in (1, 3, 5)]).all(-1).sum()
            for colour, value in COLOURS.items()
        }
        assert counts["mix"] == 0 and min(counts["safety"], counts["language"]) > 500, counts


UNITS = {0.1: ("10 points", "0.1"), 0.001: ("0.1 points", "0.001")}


@pytest.mark.parametrize("tau", UNITS)
def test_one_unit_in_everything_that_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tau: float
) -> None:
    """Terminal, card, figure, the plan's comment: τ and differences in points, shares in %."""
    from matplotlib.text import Text

    wanted, fraction = UNITS[tau]
    profile = make_profile(HAND)
    plan = fill_plan(profile, tau=tau)
    texts: list[str] = []
    original = Text.set_text
    monkeypatch.setattr(
        Text, "set_text", lambda self, s: (texts.append(str(s)), original(self, s))[1]
    )
    draw(plan, tmp_path / "plan.png")
    write_card(profile, plan, tmp_path, figure=False)
    shown = {
        "show": printed(plan_terminal.plan_view(plan), capsys),
        "card": (tmp_path / "README.md").read_text(encoding="utf-8"),
        "figure": "\n".join(texts),
    }
    for place, text in shown.items():
        assert f"τ = {wanted}" in text, place
        assert f"tau {fraction}" not in text and f"τ = {fraction}," not in text, place
    for place in ("show", "card"):
        assert "29.412" in shown[place] and "+23.529" in shown[place], place
        assert "[%]" in shown[place] and "[points]" in shown[place], place
    assert "share of update [%]" in shown["figure"]
    assert f"[points], ±τ: {wanted.split()[0]}" in shown["figure"]
    head = plan.text().partition("format:")[0]
    assert "0.001 is what safeswap shows as a share of 0.1 % or a difference of 0.1 points" in head
    assert f"tau: {fraction}" in plan.text()  # files keep fractions


def test_the_threshold_is_said_in_the_tables_unit_too(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(plan_terminal.plan_view(hand_plan()), capsys)
    assert "τ = 10 points" in text
    relative = fill_plan(make_profile(HAND), tau=0.06, tau_relative=True)
    assert "τ = 0.06 × mean share = 1 point" in printed(plan_terminal.plan_view(relative), capsys)


def test_counts_and_how_much_of_each_expert_went_in(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(plan_terminal.plan_view(hand_plan()), capsys)
    assert "attention: 1 safety, 1 blend, 1 sw" in text
    assert "norms: 3 sw" in text
    # safety: (2.5 + 2.5 + half of 2) / 8.5; sw: (2 + 2.5 + half of 2) / 8.5
    assert "safety: 70.6 % of its update in the layers went in" in text
    assert "sw: 64.7 % of its update in the layers went in" in text


def test_a_profile_shows_update_share_and_cosine(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(plan_terminal.profile_view(make_profile(HAND)), capsys)
    wanted = ["1.mlp", "1.00000", "11.765", "1.00000", "11.765", "+0.000"]
    assert row_of(text, "1.mlp") == wanted
    assert "safety: safety" in text


def test_a_profile_shows_a_map_of_shares(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(plan_terminal.profile_view(make_profile(HAND)), capsys)
    rows = {
        (kind, expert): bars
        for kind, expert, bars in re.findall(r"^ *(attention|mlp) +(\w+) ([▁-█]+)$", text, re.M)
    }
    # of the largest share, 2.5 of 8.5: 2.5, 1, 0.5 and 2.5, 1, 1; 0.5, 1, 2 and 1.5, 1, 2.5
    assert rows == {
        ("attention", "safety"): "█▄▂",
        ("mlp", "safety"): "█▄▄",
        ("attention", "sw"): "▂▄▇",
        ("mlp", "sw"): "▅▄█",
    }
    assert "█ is 29.41 %" in text


def tall_profile() -> Profile:
    """102 layers and three languages, one with a long name."""
    one = make_profile(HAND * 34)
    more = ("te", "northern-sotho")
    inputs = one.inputs | dict.fromkeys(more, one.inputs["sw"])
    tensors = [
        replace(
            tensor,
            update_norm=tensor.update_norm | dict.fromkeys(more, 1.0),
            inner=dict.fromkeys(("sw", *more), 0.3 * tensor.update_norm["safety"]),
        )
        for tensor in one.tensors
    ]
    return Profile(inputs, one.units, tuple(tensors))


@pytest.mark.parametrize("width", [40, 60, 80, 132, 200])
def test_no_line_is_longer_and_no_number_is_cut(
    capsys: pytest.CaptureFixture[str], width: int
) -> None:
    profile = tall_profile()
    console = Console(width=width)
    wanted = {f"{n}.{kind}" for n in range(102) for kind in ("attention", "mlp")}
    for view in (
        plan_terminal.profile_view(profile),
        plan_terminal.plan_view(fill_plan(profile, "te")),
    ):
        console.print(view)
        text = capsys.readouterr().out
        assert max(map(cell_len, text.splitlines())) <= width
        assert wanted <= set(re.findall(r"^\d+\.\w+", text, re.M))
        figures = re.findall(r"(?<=\s)[+-]?\d+\.\d+(?=\s)", text)
        assert {len(figure.partition(".")[2]) for figure in figures} <= {1, 2, 3, 5}
        assert len([one for one in figures if len(one.partition(".")[2]) > 2]) >= 3 * len(wanted)
    assert "northern" not in text  # the plan is for te


def test_a_long_table_waits_until_it_is_asked_for_on_a_terminal_alone() -> None:
    profile = tall_profile()

    def shown(terminal: bool, units: bool | None) -> str:
        out = io.StringIO()
        console = Console(file=out, width=80, height=40, force_terminal=terminal, no_color=True)
        console.print(plan_terminal.profile_view(profile, units))
        return re.sub(r"\x1b\[[\d;]*m", "", out.getvalue())

    assert "204 units: --units prints their numbers" in shown(True, None)
    for terminal, units in ((True, True), (False, None), (False, True)):
        said = shown(terminal, units)
        assert "--units" not in said and re.search(r"^101\.mlp .*\d", said, re.M)


def test_the_differences_are_a_row_for_each_side(capsys: pytest.CaptureFixture[str]) -> None:
    """By hand, of 8.5: attention 2, 0, −1.5 and mlp 1, 0, −1.5; the largest is 2 of 8.5."""
    text = printed(plan_terminal.plan_view(hand_plan()), capsys)
    rows = dict(re.findall(r"^ *((?:attention|mlp) +\w+) \+ (.*)$", text, re.M))
    rows = {" ".join(key.split()): bars.rstrip() for key, bars in rows.items()}
    assert rows == {
        "attention safety": "█", "attention sw": "  ▇", "mlp safety": "▅", "mlp sw": "  ▇",
    }  # fmt: skip
    assert "█ is 23.5 points, grey is within τ = 10 points" in text


def test_colours_are_left_out_where_they_are_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    def shown() -> str:
        out = io.StringIO()
        Console(file=out, width=80, force_terminal=True).print(plan_terminal.plan_view(hand_plan()))
        return out.getvalue()

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "48;5;" in shown()  # a letter on its colour
    monkeypatch.setenv("NO_COLOR", "1")
    bare = shown()
    assert not re.search(r"\x1b\[[\d;]*[34]8;", bare) and "S·L" in bare


def test_the_plan_shows_inputs_and_rule(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(plan_terminal.plan_view(hand_plan()), capsys)
    assert "base: base\nsafety: safety\nsw: sw\n" in text
    assert "selector: share-difference by module, τ = 10 points, α = 0.5" in text
    mixed = {**hand_plan().units, "0.mlp": PlannedUnit({"safety": 0.5, "sw": 1.0})}
    plan = hand_plan()
    text = printed(plan_terminal.plan_view(Plan(plan.inputs, mixed, "sw")), capsys)
    assert re.search(r"^ +mlp \*·L$", text, re.M) and "* mix" in text
    assert "selector: written by hand" in text


def test_the_figures_panels_are_what_has_a_share() -> None:
    by_layer = fill_plan(make_profile(HAND), by="layer", tau=0.2, tau_relative=True)
    assert list(plan_figure.panels_of(by_layer)) == ["layer"]
    assert threshold_of(by_layer) == pytest.approx(0.2 / 3)
    assert list(plan_figure.panels_of(hand_plan())) == ["attention", "mlp"]
    assert threshold_of(hand_plan()) == 0.1
    relative = fill_plan(make_profile(HAND), tau=0.3, tau_relative=True)
    assert threshold_of(relative) == pytest.approx(0.3 / 6)
    plan = hand_plan()
    by_hand = Plan(plan.inputs, {u: PlannedUnit(r.weights) for u, r in plan.units.items()}, "sw")
    assert plan_figure.panels_of(by_hand) == {} and threshold_of(by_hand) is None


def test_a_profiles_figure_shows_every_expert(tmp_path: Path) -> None:
    from matplotlib.image import imread

    plan_figure.draw_profile(make_profile(HAND), tmp_path / "profile.png")
    pixels = (imread(tmp_path / "profile.png")[..., :3] * 255).round().astype(int)
    for name in ("safety", "language"):
        colour = [int(COLOURS[name][at : at + 2], 16) for at in (1, 3, 5)]
        assert (pixels == colour).all(-1).sum() > 500, name


@pytest.mark.parametrize("draw_one", [plan_figure.draw, plan_figure.draw_profile])
def test_a_figure_that_cannot_be_written_is_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, draw_one: Any
) -> None:
    from matplotlib.figure import Figure

    def full(self: Figure, path: Path, **how: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", full)
    shown = hand_plan() if draw_one is plan_figure.draw else make_profile(HAND)
    with pytest.raises(SafeswapError, match=r"No space left on device.*Free some space"):
        draw_one(shown, tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()


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
    command = [sys.executable, "-m", "safeswap.report.plan_figure"]
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
    text = printed(plan_terminal.plan_view(short), capsys)
    assert re.search(r"mlp S\?L", text)
    assert decision_colour(short, "1.mlp") == "#ffffff"
    draw(short, tmp_path / "short.png")
    assert png_size(tmp_path / "short.png")[0] >= 1000
