"""Figures for a paper: those of the page, sharp, without fonts, told apart by anybody."""

from __future__ import annotations

import re
import sys
import warnings
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

from page_parts import HOSTILE, evaluated
from profiles import HAND, make_profile
from safeswap.errors import OutputError, SafeswapError
from safeswap.plan import fill_plan
from safeswap.report.page import write_report
from safeswap.report.page.paper import FILLS, PaperFigure, lightness, paint, save_figures, titled
from safeswap.report.page.strip import legend, strip
from safeswap.report.page.svg import drawing, element, words
from tiny import png_size

# Machado, Oliveira and Fernandes 2009, severity 1.0, in linear RGB: what is left of a colour
BLIND = {
    "no red": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "no green": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
    "no blue": (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ),
}
TOGETHER = (("safety", "language", "blend", "base"), ("refused", "harmful", "neither"))


def linear(colour: str) -> np.ndarray:
    c = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    white = xyz @ np.ones(3)
    t = (xyz @ np.clip(rgb, 0, 1)) / white
    f = np.where(t > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("names", TOGETHER)
def test_colours_are_told_apart_in_grey_and_by_the_colour_blind(names: tuple[str, ...]) -> None:
    for one, other in combinations(names, 2):
        assert abs(lightness(FILLS[one]) - lightness(FILLS[other])) > 10, (one, other)
        for kind, matrix in BLIND.items():
            seen = [lab(np.array(matrix) @ linear(FILLS[name])) for name in (one, other)]
            assert np.linalg.norm(seen[0] - seen[1]) > 15, (kind, one, other)


def test_lightness_is_that_of_the_standard() -> None:
    for colour in ("#000000", "#ffffff", "#8f2a17", "#5a9fd4"):
        assert lightness(colour) == pytest.approx(lab(linear(colour))[0], abs=0.1)


def plan_figure() -> PaperFigure:
    plan = fill_plan(make_profile(HAND), tau=0.1)
    return PaperFigure("decisions", "Decisions", strip(plan), legend(plan))


def test_a_map_has_its_colours_in_their_places(tmp_path: Path) -> None:
    from matplotlib.image import imread

    save_figures([plan_figure()], tmp_path)
    pixels = (imread(tmp_path / "decisions.png")[..., :3] * 255).round().astype(int)
    for name in ("safety", "language", "blend"):
        colour = [int(FILLS[name][at : at + 2], 16) for at in (1, 3, 5)]
        assert (pixels == colour).all(-1).sum() > 2000, name
    rgb = {name: [int(FILLS[name][at : at + 2], 16) for at in (1, 3, 5)] for name in FILLS}
    middle = {n: np.argwhere((pixels == rgb[n]).all(-1))[:, 1].mean() for n in ("safety", "blend")}
    assert middle["safety"] < middle["blend"]  # safety's layer is the first


def test_both_files_are_fit_for_a_paper(tmp_path: Path) -> None:
    from PIL import Image

    written = save_figures([plan_figure()], tmp_path / "figures")
    assert [path.name for path in written] == ["decisions.svg", "decisions.png"]
    with Image.open(tmp_path / "figures" / "decisions.png") as image:
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.01)
    text = (tmp_path / "figures" / "decisions.svg").read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    tags = {one.tag.rpartition("}")[2] for one in root.iter()}
    assert "path" in tags and not tags & {"text", "image", "script", "style"} - {"style"}
    assert "font-family" not in text  # outlines: no font has to be there
    again = save_figures([plan_figure()], tmp_path / "again")
    for one, other in zip(written, again, strict=True):
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_no_figure_is_written_through_a_link(tmp_path: Path, suffix: str) -> None:
    mine = tmp_path / "mine"
    mine.write_text("mine")
    (tmp_path / f"decisions.{suffix}").symlink_to(mine)
    with pytest.raises(OutputError, match=f"decisions.{suffix}: is a link"):
        save_figures([plan_figure()], tmp_path)
    assert mine.read_text() == "mine"


def test_every_figure_of_a_page_is_a_file(tmp_path: Path) -> None:
    results = evaluated(tmp_path / "results").folder
    profile = make_profile(HAND)
    profile.save(tmp_path / "profile.json")
    fill_plan(profile, "sw").save(tmp_path / "plan.yaml")
    runs = [results, tmp_path / "profile.json", tmp_path / "plan.yaml"]
    page = write_report(runs, tmp_path / "page.html", figures=tmp_path / "figures")
    drawn = page.read_text(encoding="utf-8").count("<svg ")
    names = {path.stem for path in (tmp_path / "figures").iterdir()}
    assert len(names) == drawn == 7
    assert {"decisions-plan-yaml", "outcomes-harm-sw", "outcomes-harm-sw-2"} <= names
    for stem in names:
        width, height = png_size(tmp_path / "figures" / f"{stem}.png")
        assert 200 < width <= 2100 and height > 100  # no wider than a page: 7 inches
        assert (tmp_path / "figures" / f"{stem}.svg").is_file()


@pytest.mark.parametrize("text", [*HOSTILE[:9], "$\\frac{1}{0}$", "\ufffe\uffff", "日本語 తెలుగు"])
def test_names_are_drawn_and_not_obeyed(tmp_path: Path, text: str) -> None:
    chart = drawing(200, 40, text, [words(text, 10, 20, "name"), element("rect", x=1, y=1)])
    figure = paint(titled(PaperFigure("x", text, chart, [("blend", "·", text)])))
    shown = {one.get_text() for one in figure.axes[0].texts}
    assert any(re.sub(r"\W", "", text)[:3] in re.sub(r"\W", "", one) for one in shown)
    save_figures([PaperFigure("x", text, chart)], tmp_path)


def test_letters_without_a_font_are_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    odd = "\U0001f9ff\U00012000\U0001b000"  # which no plain font has
    chart = drawing(200, 40, "x", [words(odd, 10, 20, "name")])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_figures([PaperFigure("x", odd, chart)], tmp_path)
    assert caplog.text.count("have no font on this machine") <= 1
    assert (tmp_path / "x.png").is_file()


def test_without_matplotlib_nothing_is_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = evaluated(tmp_path / "results").folder
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SafeswapError, match=r"safeswap\[figures\]"):
        write_report([results], tmp_path / "page.html", figures=tmp_path / "figures")
    assert not (tmp_path / "page.html").exists()


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="--figures"):
        save_figures([plan_figure()], tmp_path / "file")
