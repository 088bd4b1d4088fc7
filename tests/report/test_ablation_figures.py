"""The ablation's figures are drawn, say what was measured, and leave no label under another."""

from __future__ import annotations

import random
import struct
import sys
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest

from safeswap.errors import EvaluationError, OutputError, SafeswapError
from safeswap.evaluation.results.candidates import CandidateResult
from safeswap.report.ablation import draw_heat_maps, draw_pareto, write_ablation
from safeswap.report.ablation.heat_maps import grids, steps
from safeswap.report.ablation.labels import Label, place_labels
from safeswap.report.plan_figure import COLOURS, canvas
from safeswap.tables import Column, Table, as_html
from swept import ALPHAS, TAUS, candidate, made_from, model, sweep

BOTH = (draw_heat_maps, draw_pareto)
MINE = "share-difference"


def size(png: Path) -> tuple[int, int]:
    header = png.read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", header[16:24])
    return width, height


def few() -> list[CandidateResult]:
    """Three models and five candidates, on a grid with a hole."""
    cells = [(0.0, 0.3), (0.0, 0.7), (0.01, 0.3), (0.01, 0.7), (0.1, 0.7)]
    dice = random.Random(1)
    return [
        *made_from("sw"),
        *(candidate("sw", MINE, {"tau": t, "alpha": a}, a + t, dice=dice) for t, a in cells),
    ]


def pixels(png: Path, colour: str) -> int:
    """How many pixels have this colour, but for rounding."""
    from matplotlib.image import imread

    image = (imread(png)[..., :3] * 255).round().astype(int)
    wanted = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
    return int((abs(image - wanted) <= 1).all(-1).sum())


def remove_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where it is not installed, though other tests have imported it."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)


# Both ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("draw", BOTH)
def test_the_same_measurements_give_the_same_figure_and_others_another(draw, tmp_path) -> None:
    first, second, third = (tmp_path / f"{n}.png" for n in range(3))
    draw(few(), "sw", first)
    draw(few(), "sw", second)
    assert first.read_bytes() == second.read_bytes()
    found = few()
    found[4] = replace(found[4], unsafe=found[1].unsafe)
    draw(found, "sw", third)
    assert first.read_bytes() != third.read_bytes()


@pytest.mark.parametrize("draw", BOTH)
def test_the_part_is_written_into_the_figure(draw, tmp_path) -> None:
    for part in ("dev", "test", None):
        draw(few(), "sw", tmp_path / f"{part}.png", part)
    assert len({(tmp_path / f"{part}.png").read_bytes() for part in ("dev", "test", None)}) == 3


@pytest.mark.parametrize("draw", BOTH)
def test_other_languages_do_not_matter_but_for_the_numbers(draw, tmp_path) -> None:
    draw(few(), "sw", tmp_path / "alone.png")
    draw([*few(), *made_from("te")], "sw", tmp_path / "both.png")
    assert (tmp_path / "alone.png").read_bytes() == (tmp_path / "both.png").read_bytes()


@pytest.mark.parametrize("draw", BOTH)
def test_what_cannot_be_drawn_is_refused(draw, tmp_path) -> None:
    png = tmp_path / "x.png"
    with pytest.raises(EvaluationError, match="nothing is measured in 'swa'; did you mean 'sw'"):
        draw(few(), "swa", png)
    with pytest.raises(EvaluationError, match="no candidate is measured here"):
        draw(made_from("sw"), "sw", png)
    assert not png.exists()


@pytest.mark.parametrize("draw", BOTH)
def test_without_matplotlib_the_error_names_the_extra(draw, tmp_path, monkeypatch) -> None:
    remove_matplotlib(monkeypatch)
    with pytest.raises(SafeswapError, match=r"needs matplotlib: install safeswap\[figures\]"):
        draw(few(), "sw", tmp_path / "x.png")


# Heat maps ----------------------------------------------------------------------------------------


def test_aliases_fill_their_cells_and_holes_stay_holes() -> None:
    module, layer = grids(sweep("sw"))
    assert (module.title, layer.title) == (f"{MINE} by module", f"{MINE} by layer")
    assert (module.taus, module.alphas) == (list(TAUS), list(ALPHAS))
    assert len(module.cells) == 25  # 21 candidates, one of which stands for five cells
    assert len({id(module.cells[0.0, alpha]) for alpha in ALPHAS}) == 1
    (grid,) = grids(few())
    assert (0.1, 0.3) not in grid.cells and len(grid.cells) == 5


def test_a_setting_besides_tells_grids_apart() -> None:
    found = [
        candidate("sw", MINE, {"tau": tau, "norms": norms, **more}, 0.5)
        for more in ({}, {"tau_relative": True})
        for norms in ("language", "blend")
        for tau in (0.01, 0.1)
    ]
    ties = {"name": "ties", "density": 0.2}
    found += [candidate("sw", MINE, {"tau": tau}, 0.5, operator=ties) for tau in (0.01, 0.1)]
    made = grids(found)
    assert [(grid.title, grid.relative, len(grid.cells)) for grid in made] == [
        (f"{MINE} by module, norms = language", False, 2),
        (f"{MINE} by module, norms = blend", False, 2),
        (f"{MINE} by module, norms = language", True, 2),
        (f"{MINE} by module, norms = blend", True, 2),
        (f"{MINE} by module, ties density 0.2", False, 2),
    ]


def test_a_single_cell_is_no_grid(tmp_path) -> None:
    found = [*made_from("sw"), candidate("sw", MINE, {"tau": 0.01}, 0.5)]
    with pytest.raises(EvaluationError, match=r"at two values of tau or alpha.*lists of them"):
        draw_heat_maps(found, "sw", tmp_path / "x.png")


def test_one_value_of_a_setting_makes_a_strip(tmp_path) -> None:
    strip = [*made_from("sw"), *(candidate("sw", MINE, {"alpha": a}, a) for a in ALPHAS)]
    draw_heat_maps(strip, "sw", tmp_path / "strip.png")
    width, height = size(tmp_path / "strip.png")
    assert width == 2070 and 600 < height < 1500
    (grid,) = grids(strip)
    assert (grid.taus, grid.alphas) == ([0.001], list(ALPHAS))


def test_the_strongest_colour_is_the_highest_value(tmp_path) -> None:
    draw_heat_maps(few(), "sw", tmp_path / "x.png")
    for name in ("safety", "language"):
        assert pixels(tmp_path / "x.png", COLOURS[name]) > 5000, name


def test_a_hole_is_hatched(tmp_path) -> None:
    hatched = "#f4f4f4"
    whole = [one for one in few() if one.settings.get("tau") != 0.1]
    draw_heat_maps(whole, "sw", tmp_path / "whole.png")
    draw_heat_maps(few(), "sw", tmp_path / "hole.png")
    assert pixels(tmp_path / "whole.png", hatched) < 1000  # edges of letters
    assert pixels(tmp_path / "hole.png", hatched) > 5000


def test_a_kind_that_nobody_measured_is_hatched_throughout(tmp_path) -> None:
    found = [replace(one, right=None) for one in few()]
    draw_heat_maps(found, "sw", tmp_path / "x.png")
    assert pixels(tmp_path / "x.png", COLOURS["language"]) < 50
    assert pixels(tmp_path / "x.png", "#f4f4f4") > 50_000


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ((0.001, 0.01), ""),
        ((0.1, 0.3, 0.5, 0.7), ""),
        ((0.001, 0.01, 0.1), "  (logarithmic)"),
        ((0.001, 0.003, 0.01, 0.03), "  (logarithmic)"),
        ((0.0, 0.001, 0.01, 0.1), "  (0, then logarithmic)"),
        ((0.0, 0.001, 0.01), "  (steps not to scale)"),
        ((0.001, 0.002, 0.1), "  (steps not to scale)"),
    ],
)
def test_an_axis_says_how_its_steps_go(values: tuple[float, ...], said: str) -> None:
    assert steps(values) == said


# The Pareto figure --------------------------------------------------------------------------------


@pytest.mark.parametrize("found", [few(), sweep("sw"), few()[:4]], ids=["5", "80", "1"])
def test_the_figure_fits_a_column(found: list[CandidateResult], tmp_path: Path) -> None:
    draw_pareto(found, "sw", tmp_path / "x.png")
    width, height = size(tmp_path / "x.png")
    assert width == 1050 and 900 < height < 1600
    assert pixels(tmp_path / "x.png", COLOURS["safety"]) > 50
    assert pixels(tmp_path / "x.png", COLOURS["language"]) > 50


def test_the_band_shows_the_loss_that_is_allowed(tmp_path: Path) -> None:
    for loss in (0.01, 0.05):
        draw_pareto(few(), "sw", tmp_path / f"{loss}.png", loss=loss)
    alone = [one for one in few() if one.role != "language"]
    draw_pareto(alone, "sw", tmp_path / "none.png")
    shade = "#e6ecf2"  # the language's colour at 12 % on white
    counts = [pixels(tmp_path / f"{name}.png", shade) for name in ("none", 0.01, 0.05)]
    assert counts[0] < 1000 and 5000 < counts[1] < counts[2] / 1.5


def test_a_model_that_refuses_more_of_the_harmless_is_drawn_larger(tmp_path: Path) -> None:
    more = [*made_from("sw")[:2], model("sw", "sw", "language", (0.55, 0.15, 0.56))]
    draw_pareto(few(), "sw", tmp_path / "less.png")
    draw_pareto([*more, *few()[3:]], "sw", tmp_path / "more.png")
    colour = COLOURS["language"]
    assert pixels(tmp_path / "more.png", colour) > 1.5 * pixels(tmp_path / "less.png", colour)


def test_without_over_refusal_markers_are_hollow(tmp_path: Path) -> None:
    draw_pareto(few(), "sw", tmp_path / "filled.png")
    found = [replace(one, refused=None) for one in few()]
    draw_pareto(found, "sw", tmp_path / "hollow.png")
    filled, hollow = (
        pixels(tmp_path / f"{name}.png", COLOURS["safety"]) for name in ("filled", "hollow")
    )
    assert hollow < filled / 5


def test_a_model_without_a_figure_is_counted_in_the_title(tmp_path: Path) -> None:
    found = few()
    draw_pareto(found[:-1], "sw", tmp_path / "less.png")
    draw_pareto([*found[:-1], replace(found[-1], unsafe=None)], "sw", tmp_path / "none.png")
    assert (tmp_path / "less.png").read_bytes() != (tmp_path / "none.png").read_bytes()
    nothing = [replace(one, right=None) for one in found]
    with pytest.raises(EvaluationError, match="no candidate has both unsafe and right"):
        draw_pareto(nothing, "sw", tmp_path / "x.png")


def test_no_label_lies_on_another_or_on_a_marker() -> None:
    dice = random.Random(3)
    points = [(dice.uniform(0, 10), dice.uniform(0, 10)) for _ in range(25)]
    figure = canvas(3.5, 3.5)
    axes = figure.subplots()
    axes.set(xlim=(-1, 11), ylim=(-1, 11))
    figure.canvas.draw()
    labels = [Label(f"{n}{'x' * (n % 5)}", point, 6.0) for n, point in enumerate(points)]
    place_labels(axes, labels, [(*point, 2.0) for point in points])
    boxes = [text.get_tightbbox() for text in axes.texts]
    texts = [type(text).__mro__[1].get_window_extent(text) for text in axes.texts]
    assert len(boxes) == 25
    for one, other in combinations(texts, 2):
        assert not one.overlaps(other)
    for x, y in axes.transData.transform(points):
        assert not any(box.contains(x, y) for box in texts)
    inside = axes.get_window_extent()
    assert all(inside.contains(box.x0, box.y0) and inside.contains(box.x1, box.y1) for box in texts)


# All in one folder --------------------------------------------------------------------------------


def test_a_folder_with_everything(tmp_path: Path) -> None:
    found = [*few(), *(replace(one, language="te") for one in few())]
    written = write_ablation(found, "dev", tmp_path / "out")
    names = [path.name for path in written]
    tables = [f"ablation.{suffix}" for suffix in ("md", "tex", "html")]
    tables += ["ablation-candidates.csv", "ablation-matched.csv"]
    pngs = [f"ablation-{kind}-{x}.png" for x in ("sw", "te") for kind in ("pareto", "heat-maps")]
    assert names == [*tables, *pngs]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(names)
    markdown = (tmp_path / "out/ablation.md").read_text()
    html = (tmp_path / "out/ablation.html").read_text()
    for png in pngs:
        assert size(tmp_path / "out" / png)[0] > 1000
        assert f"]({png})" in markdown and f'<img src="{png}"' in html
    for text in (markdown, html, (tmp_path / "out/ablation.tex").read_text()):
        assert "dev questions, no test result" in text
        assert "1 point of ability lost" in text


def test_what_cannot_be_drawn_is_left_out_with_the_reason(tmp_path: Path) -> None:
    stale = tmp_path / "ablation-heat-maps-sw.png"
    stale.write_bytes(b"of an earlier run")
    written = write_ablation(few()[:4], "test", tmp_path)
    assert [path.name for path in written if path.suffix == ".png"] == ["ablation-pareto-sw.png"]
    assert not stale.exists()
    assert "No figure of unsafe and right answers over τ and α: sw: no method is" in (
        tmp_path / "ablation.md"
    ).read_text(encoding="utf-8")


def test_tables_are_written_without_matplotlib(tmp_path, monkeypatch) -> None:
    remove_matplotlib(monkeypatch)
    written = write_ablation(few(), "test", tmp_path)
    assert [path.suffix for path in written] == [".md", ".tex", ".html", ".csv", ".csv"]
    text = (tmp_path / "ablation.md").read_text(encoding="utf-8")
    assert "drawing needs matplotlib: install safeswap" in text and "![" not in text


def test_nothing_is_written_for_nothing(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="no candidate"):
        write_ablation(made_from("sw"), "dev", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_ablation(few(), "dev", tmp_path / "file")


def test_the_name_of_a_figure_cannot_break_the_page() -> None:
    table = Table("t", (Column("a"),), ())
    page = as_html(table, figures={'a"b<.png': "x & <y>"})
    assert '<img src="a%22b%3C.png" alt="x &amp; &lt;y&gt;">' in page
