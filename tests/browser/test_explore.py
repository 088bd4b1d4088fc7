"""The explorer in a browser: sliders, units by hand, files, keys, small and dark windows."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("jinja2")

from chromium import OpenPage, broken, sideways
from page_parts import HOSTILE
from profiles import HAND, make_profile
from random_profiles import random_profile
from safeswap import api
from safeswap.demo import models_folder
from safeswap.plan import Plan, fill_plan
from safeswap.profile import Interval, Profile, Sample
from safeswap.report.explore import write_explorer
from swept_folder import swept_folder

WORDS = ("safety", "language", "blend")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The profile of the small world's models, two languages, and its page beside it."""
    folder, models = tmp_path_factory.mktemp("explore"), models_folder()
    languages = {name: models / name for name in ("qab", "qac")}
    profile = api.make_profile(models / "base", safety=models / "safety", languages=languages)
    profile.save(folder / "profile.json")
    api.explore(folder / "profile.json", folder / "explore.html")
    return folder


def ready(page: Any) -> Any:
    """The page, once it has drawn what is in the window."""
    page.wait_for_selector("html[data-ready]")
    frame = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
    page.evaluate(f"() => {frame}.then(() => {frame})")
    return page


def downloaded(page: Any, folder: Path, language: int = 0) -> Path:
    with page.expect_download() as got:
        page.locator(f"article[data-language='{language}'] .download").click()
    path = folder / got.value.suggested_filename
    got.value.save_as(path)
    return path


def slide(page: Any, name: str, value: float) -> None:
    page.locator(f"#{name}").evaluate(
        "(range, value) => { range.value = value;"
        " range.dispatchEvent(new Event('input', {bubbles: true})); }",
        str(value),
    )


def cell(page: Any, unit: str, view: str = "module") -> Any:
    where = f"article[data-language='0'] .map[data-view='{view}']"
    return page.locator(f"{where} g.unit[data-unit='{unit}']")


def test_the_first_plan_is_that_of_the_command_line(
    open_page: OpenPage, demo: Path, tmp_path: Path
) -> None:
    page = ready(open_page(demo / "explore.html"))
    for at, language in enumerate(("qab", "qac")):
        path = downloaded(page, tmp_path, at)
        assert path.name == f"plan-{language}.yaml"
        place = str((demo / "profile.json").resolve())
        wanted = fill_plan(Profile.load(demo / "profile.json"), language, profile_path=place)
        assert path.read_text(encoding="utf-8") == wanted.text()


def test_sliders_move_decisions_numbers_and_the_file(
    open_page: OpenPage, demo: Path, tmp_path: Path
) -> None:
    page = ready(open_page(demo / "explore.html"))
    before = page.locator("article[data-language='0'] .counts").inner_text()
    slide(page, "tau", 1000)  # above all differences: everything is a blend
    slide(page, "alpha", 0.3)
    assert "0.3" in page.locator("#told").inner_text()
    after = page.locator("article[data-language='0'] .counts").inner_text()
    assert after != before and "safety" not in after and "language" not in after
    assert page.locator("article[data-language='0'] .bytes-words").inner_text().count("Copied: ")
    plan = Plan.load(downloaded(page, tmp_path))
    inside = [row for unit, row in plan.units.items() if unit.endswith((".attention", ".mlp"))]
    assert {tuple(row.weights.values()) for row in inside} == {(0.3, 0.7)}
    page.locator("#tau-number").fill("0")
    assert "blend" not in page.locator("article[data-language='0'] .counts").inner_text()
    page.get_by_role("radio", name="layers").check()
    settings = {"by": "layer", "tau": 0.0, "alpha": 0.3}
    profile = Profile.load(demo / "profile.json")
    path = downloaded(page, tmp_path)
    wanted = fill_plan(profile, "qab", profile_path=Plan.load(path).profile, **settings)
    assert path.read_text(encoding="utf-8") == wanted.text()


@pytest.mark.parametrize(
    ("method", "name", "value"),
    [("chat-vector", "gamma", 1.5), ("gated", "gamma", 0.5), ("cosine", "threshold", 0.1)],
)
def test_other_methods(
    open_page: OpenPage, demo: Path, tmp_path: Path, method: str, name: str, value: float
) -> None:
    page = ready(open_page(demo / "explore.html"))
    page.locator("#method").select_option(method)
    page.locator(f"#{name}-number").fill(str(value))
    assert page.locator("#alpha").is_visible() == (method != "chat-vector")
    path = downloaded(page, tmp_path)
    where = Plan.load(path).profile
    settings = {name: value}
    profile = Profile.load(demo / "profile.json")
    wanted = fill_plan(profile, "qab", method=method, profile_path=where, **settings)
    assert path.read_text(encoding="utf-8") == wanted.text()


def test_the_command_on_the_page_writes_the_same_file(
    open_page: OpenPage, demo: Path, tmp_path: Path
) -> None:
    page = ready(open_page(demo / "explore.html"))
    page.locator("#method").select_option("band")
    page.locator("#more summary").click()
    page.locator("#bottom").fill("1")
    page.locator("#outside").select_option("language")
    page.locator("article[data-language='0'] .again summary").click()
    command = page.locator("article[data-language='0'] .again code").inner_text().splitlines()[0]
    words = command.split()
    assert words[:2] == ["safeswap", "plan"]
    words[2] = str(demo / "profile.json")
    subprocess.run([sys.executable, "-m", "safeswap", *words[1:]], cwd=tmp_path, check=True)
    assert (tmp_path / "plan-qab.yaml").read_text() == downloaded(page, demo).read_text()


def test_units_are_set_by_click_and_merged(open_page: OpenPage, demo: Path, tmp_path: Path) -> None:
    """A click goes safety, language, blend, rule; `safeswap merge` takes the file."""
    page = ready(open_page(demo / "explore.html"))
    one = cell(page, "1.mlp")
    rule = one.get_attribute("class")
    seen = []
    for _ in range(4):
        one.click()
        seen.append(one.get_attribute("class"))
    words = [next(w for w in kind.split() if w in WORDS) for kind in seen[:3]]
    assert words == ["safety", "language", "blend"]
    assert all("hand" in c for c in seen[:3]) and "hand" not in seen[3]
    assert seen[3].replace(" on", "") == rule.replace(" on", "")
    one.click()
    cell(page, "0.norms").click()
    assert "2 by hand" in page.locator("article[data-language='0'] .counts").inner_text()
    path = downloaded(page, tmp_path)
    plan = Plan.load(path)
    wanted = fill_plan(Profile.load(demo / "profile.json"), "qab")
    changed = {u for u, row in plan.units.items() if row.weights != wanted.units[u].weights}
    assert {"0.norms"} <= changed <= {"1.mlp", "0.norms"}
    assert plan.units["1.mlp"].decision == plan.units["0.norms"].decision == "safety"
    out = tmp_path / "merged"
    command = [sys.executable, "-m", "safeswap", "merge", "--plan", str(path), "--out", str(out)]
    subprocess.run([*command, "--no-figure", "--quiet"], check=True)
    assert (out / "safeswap.json").is_file()
    assert api.verify_merge(out).from_inputs
    page.locator("article[data-language='0'] .undo").click()
    again = replace(wanted, profile=plan.profile)
    assert downloaded(page, tmp_path).read_text(encoding="utf-8") == again.text()


def test_the_keyboard_does_all(open_page: OpenPage, demo: Path) -> None:
    page = ready(open_page(demo / "explore.html"))
    page.locator("#tau").focus()
    before = page.locator("#tau-number").input_value()
    page.keyboard.press("ArrowRight")
    assert page.locator("#tau-number").input_value() != before
    map_ = page.locator("article[data-language='0'] .map[data-view='module']")
    map_.focus()
    readout = page.locator("article[data-language='0'] .readout")
    assert readout.inner_text().startswith("0.attention: ")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    assert readout.inner_text().startswith("1.mlp: ")
    page.keyboard.press("Enter")
    assert readout.inner_text().startswith("1.mlp: safety, by hand")
    for key, said in (("l", "1.mlp: language, by hand"), ("B", "1.mlp: blend, by hand")):
        page.keyboard.press(key)
        assert readout.inner_text().startswith(said)
    page.keyboard.press("r")
    assert "by hand" not in readout.inner_text()
    for _ in range(60):  # everything that can be used is reached by Tab
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.className") == "download":
            return
    pytest.fail("Tab does not reach the download")


def test_the_command_is_readable_on_a_phone(open_page: OpenPage, demo: Path) -> None:
    page = ready(open_page(demo / "explore.html", width=400))
    page.locator("article[data-language='0'] .again summary").click()
    page.locator("article[data-language='0'] .map:visible").focus()
    page.keyboard.press("B")
    assert broken(page, "article[data-language='0'] .again") == []
    told = page.locator("article[data-language='0'] .again code").inner_text()
    assert told.startswith("# without the 1 unit set by hand")


def test_the_table_of_all_fits_beside_the_form(open_page: OpenPage, demo: Path) -> None:
    page = ready(open_page(demo / "explore.html", width=1280))
    box = page.locator(".scroll:has(> #summary)")
    assert box.evaluate("e => e.scrollWidth - e.clientWidth") <= 0


def test_the_table_sets_single_units(open_page: OpenPage, demo: Path) -> None:
    page = ready(open_page(demo / "explore.html"))
    page.locator("article[data-language='0'] .units summary").click()
    page.get_by_label("0.mlp is").first.select_option("base")
    assert "base" in (cell(page, "0.mlp").get_attribute("class") or "")
    form = page.locator("article[data-language='0'] .one-unit")
    form.locator("input").fill("0.mpl")
    form.locator("button").click()
    assert "No row of this plan" in form.locator("output").inner_text()
    form.locator("input").fill("embeddings")
    form.locator("select").select_option("safety")
    form.locator("button").click()
    assert page.get_by_label("embeddings is").first.input_value() == "safety"


def test_languages_stand_side_by_side(open_page: OpenPage, demo: Path) -> None:
    page = ready(open_page(demo / "explore.html", width=2600))
    boxes = [page.locator(f"article[data-language='{n}']").bounding_box() for n in (0, 1)]
    assert boxes[0]["y"] == boxes[1]["y"] and boxes[0]["x"] < boxes[1]["x"]
    rows = page.locator("#summary tbody tr")
    numbers = [rows.nth(n).locator("td").all_inner_texts() for n in (0, 1)]
    profile = Profile.load(demo / "profile.json")
    for at, language in enumerate(("qab", "qac")):
        counts = fill_plan(profile, language).counts()
        inside = [counts["attention"], counts["mlp"]]
        wanted = [sum(c.get(d, 0) for c in inside) for d in ("safety", language, "blend")]
        assert [int(n) for n in numbers[at][:3]] == wanted
    page.locator("#summary input").nth(1).uncheck()
    assert not page.locator("article[data-language='1']").is_visible()


def test_the_nearest_measured_point_is_marked(open_page: OpenPage, tmp_path: Path) -> None:
    profile = make_profile(HAND)
    folder = swept_folder(tmp_path / "swept", profile)
    write_explorer(profile, tmp_path / "page.html", sweep=folder)
    page = ready(open_page(tmp_path / "page.html"))

    def nearest() -> tuple[str, list[str]]:
        rings = page.locator("g.model.near").evaluate_all("all => all.map(g => g.dataset.name)")
        return page.locator(".nearest").inner_text(), rings

    said, rings = nearest()
    assert said.startswith("This very table was measured: paper:") and rings == ["paper"]
    assert "unsafe answers 40.0 %" in said
    page.locator("#tau-number").fill("20")
    assert nearest()[0].startswith("This very table was measured: wide:")
    page.locator("#method").select_option("chat-vector")
    page.locator("#gamma-number").fill("1.4")
    said, rings = nearest()  # 0.1 of safety's weight away, of the two weights' mean
    assert said.startswith("The nearest measured point is 5 %") and rings == ["chat"]


def test_what_a_sample_leaves_open_is_marked(open_page: OpenPage, tmp_path: Path) -> None:
    profile = make_profile(HAND)
    own = {"0.attention": Interval(0.2, 0.1, 0.3), "0.mlp": Interval(0.1, -0.1, 0.3)}
    rest = [u for u in profile.units if u.endswith((".attention", ".mlp")) and u not in own]
    own |= dict.fromkeys(rest, Interval(-0.1, -0.2, -0.05))
    read = {tensor.name: 0.1 for tensor in profile.tensors}
    sample = Sample(0, 1, 10, 0.99, read, {"sw": {"module": own}})
    write_explorer(replace(profile, sample=sample), tmp_path / "page.html")
    page = ready(open_page(tmp_path / "page.html"))
    marked = page.locator("g.unit.unsure").evaluate_all("all => all.map(g => g.dataset.unit)")
    assert marked == ["0.mlp"]
    page.locator("#tau-number").fill("7")  # between two ends: what was certain no longer is
    marked = page.locator("g.unit.unsure").evaluate_all("all => all.map(g => g.dataset.unit)")
    assert set(marked) == {"0.mlp", *rest}


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [400, 768, 1280, 3840])
def test_it_fits_and_everybody_can_use_it(
    open_page: OpenPage, demo: Path, check_access: Callable[[Any], None], width: int, dark: bool
) -> None:
    scheme = "dark" if dark else "light"
    page = ready(open_page(demo / "explore.html", width=width, color_scheme=scheme))
    assert sideways(page) <= 0
    for summary in page.locator("summary").all():
        summary.click()
    cell(page, "1.mlp").click()
    assert sideways(page) <= 0
    check_access(page)
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    light = sum(int(n) for n in paper.strip("rgb()").split(",")) > 380
    assert light != dark


def test_what_cannot_be_is_told(open_page: OpenPage, tmp_path: Path) -> None:
    still = make_profile([[(0.0, 1.0), (0.0, 2.0), (0.0, 1.0)]])
    write_explorer(still, tmp_path / "page.html")
    page = ready(open_page(tmp_path / "page.html"))
    assert "identical to the base" in page.locator(".refused-words").inner_text()
    assert not page.locator(".download").is_visible()
    page.locator("#method").select_option("soup")  # needs no shares
    assert page.locator(".download").is_visible()
    page.locator("#method").select_option("band")
    assert "leave none of the 1 layers" in page.locator(".refused-words").inner_text()


@pytest.mark.parametrize("text", HOSTILE)
def test_names_are_text(open_page: OpenPage, tmp_path: Path, text: str) -> None:
    """Names of languages, models and files that try to be more: shown, and never run."""
    profile = _renamed(make_profile(HAND), text)
    write_explorer(profile, tmp_path / "page.html", title=text, place=tmp_path / "profile.json")
    page = ready(open_page(tmp_path / "page.html", width=500))
    slide(page, "alpha", 0.25)
    assert page.locator("script").count() == 2 and page.locator("img").count() == 0
    assert sideways(page) <= 0
    visible = page.evaluate("document.body.innerText")
    assert not any(mark in visible for mark in "\u202e\u2066\u2028\x1b")
    path = downloaded(page, tmp_path)
    assert set(path.name.removeprefix("plan-").removesuffix(".yaml")) <= set(
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"
    )
    wanted = fill_plan(profile, alpha=0.25, profile_path=str((tmp_path / "profile.json").resolve()))
    assert path.read_text(encoding="utf-8") == wanted.text()


def _renamed(profile: Profile, name: str) -> Profile:
    """The language is called so, and every model."""

    def new(table: Any) -> Any:
        return {name if role == "sw" else role: value for role, value in table.items()}

    tensors = [
        replace(
            one, update_norm=new(one.update_norm), inner=new(one.inner), digests=new(one.digests)
        )
        for one in profile.tensors
    ]
    inputs = {role: replace(own, name=name, source=name) for role, own in profile.inputs.items()}
    return replace(profile, inputs=new(inputs), tensors=tuple(tensors))


@pytest.mark.parametrize("name", ["العربية", "ภาษาไทย", "हिन्दी", "தமிழ்"])
def test_every_script_is_shown(open_page: OpenPage, tmp_path: Path, name: str) -> None:
    write_explorer(_renamed(make_profile(HAND), name), tmp_path / "page.html", title=name)
    page = ready(open_page(tmp_path / "page.html", width=400))
    assert page.locator("article h2").inner_text() == name == page.locator("h1").inner_text()
    assert sideways(page) <= 0
    assert page.locator("article h2 bdi").count() == 1


def test_experts_of_a_mixture(open_page: OpenPage, tmp_path: Path) -> None:
    dice = random.Random(3)
    profile = next(
        one
        for one in (random_profile(dice) for _ in range(200))
        if "0.mlp" in one.units
        and any((t.part or "").startswith("0.experts") for t in one.tensors)
        and all(sum(t.update_norm[e] for t in one.tensors) > 1 for e in ("safety", *one.languages))
    )
    write_explorer(profile, tmp_path / "page.html")
    page = ready(open_page(tmp_path / "page.html"))
    page.locator("#more summary").click()
    page.locator("#shared_experts").select_option("own")
    assert "by expert only" in page.locator(".refused-words").first.inner_text()
    page.locator("#shared_experts").select_option("")
    page.get_by_role("radio", name="experts").check()
    path = downloaded(page, tmp_path)
    language = profile.languages[0]
    assert path.read_text(encoding="utf-8") == fill_plan(profile, language, by="expert").text()
    mixed = page.locator("article[data-language='0'] .map[data-view='expert'] g[data-experts='0']")
    mixed.click()
    plan = Plan.load(downloaded(page, tmp_path))
    found = {r.decision for unit, r in plan.units.items() if unit.startswith("0.experts.")}
    assert found == {"safety"}


def test_the_printed_page_is_sane(open_page: OpenPage, demo: Path, tmp_path: Path) -> None:
    page = ready(open_page(demo / "explore.html", width=794))
    page.emulate_media(media="print")
    assert broken(page, "#summary thead") == [] and sideways(page) <= 0
    assert not page.locator("#settings").is_visible()
    assert page.locator("#told").is_visible() and page.locator(".map svg").first.is_visible()
    page.pdf(path=tmp_path / "page.pdf", format="A4")
    assert (tmp_path / "page.pdf").read_bytes().count(b"/Type /Page\n") <= 6


def test_the_served_page(open_page: OpenPage, demo: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "safeswap", "explore", str(demo / "profile.json"), "--json"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        timer = threading.Timer(60, process.kill)
        timer.start()
        said = ""
        while "}" not in said:
            said += process.stdout.readline()
        address = json.loads(said)["address"]
        page = ready(open_page(address))
        assert page.locator("article").count() == 2
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(address.rsplit("/", 2)[0] + "/")
    finally:
        timer.cancel()
        process.terminate()
        assert process.wait(20) == 0
