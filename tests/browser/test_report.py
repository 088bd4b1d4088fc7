"""The report's page in a browser: filters, keys, what may harm behind a click, paper."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("jinja2")

from chromium import OpenPage, broken, sideways
from page_parts import HOSTILE, evaluated, with_answer
from profiles import HAND, make_profile
from safeswap.evaluation.results.candidates import CandidateResult, RateEstimate
from safeswap.plan import fill_plan
from safeswap.report.page import write_report
from safeswap.report.page.trade import trade_chart

RUN = "document.title = 'owned'"
OWNED = (
    f"</script><script>{RUN}</script>",
    f'<img src=x onerror="{RUN}">',
    f'<svg onload="{RUN}"><iframe srcdoc="<script>parent.{RUN}</script>">',
    f'" autofocus onfocus="{RUN}" x="',
    f'<a href="javascript:{RUN}">a link</a>',
    "<style>*{display:none}</style><base href='//example.org/'><meta http-equiv=refresh content=0>",
)


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything a page can have: answers of two judges, a map, lines over depth."""
    folder = tmp_path_factory.mktemp("report")
    results = evaluated(folder / "results").folder
    for model in ("base", "sw", "merge"):
        with_answer(results / model, "harm/sw/3", tags=["weapons"])
    with_answer(results / "merge", "harm/sw/0", response="<think>let me see</think>I will not.")
    profile = make_profile(HAND * 20)
    profile.save(folder / "profile.json")
    fill_plan(profile, "sw").save(folder / "plan.yaml")
    runs = [results, folder / "profile.json", folder / "plan.yaml"]
    return write_report(runs, folder / "page.html", samples=14)


def keys(page: Any) -> list[str]:
    """Benchmark and number of the questions that are shown."""
    heads = page.locator(".question .head")
    return [
        f"{head.locator('b').inner_text()} {head.locator('bdi').inner_text()}"
        for head in heads.all()
    ]


def place(page: Any) -> str:
    return str(page.locator("#place").inner_text())


def test_questions_where_models_differ_come_first_and_pages_turn(
    page_file: Path, open_page: OpenPage
) -> None:
    page = open_page(page_file)
    assert place(page) == "1 to 10 of 14"
    assert keys(page)[:9] == [f"harm · sw {n}" for n in range(9)]
    first = page.locator(".question").first
    assert "models differ" in first.inner_text() and "judges disagree" in first.inner_text()
    page.get_by_role("button", name="Next").first.click()
    assert place(page) == "11 to 14 of 14" and len(keys(page)) == 4
    assert page.get_by_role("button", name="Next").first.is_disabled()
    page.get_by_role("button", name="Previous").first.click()
    assert place(page) == "1 to 10 of 14"


def test_filters_leave_what_they_say(page_file: Path, open_page: OpenPage) -> None:
    page = open_page(page_file)
    assert "(9)" in page.get_by_label("models differ").locator("..").inner_text()
    page.get_by_label("judges disagree").check()
    assert place(page) == "1 to 1 of 1" and keys(page) == ["harm · sw 0"]
    disputed = page.locator(".answer", has=page.locator(".disputed"))
    assert disputed.count() == 1 and "merge" in disputed.locator("h4").inner_text()
    assert "guard: safe" in disputed.inner_text() and "rules: unsafe" in disputed.inner_text()
    page.get_by_label("judges disagree").uncheck()
    page.get_by_label("Benchmark").select_option("benign")
    assert place(page) == "1 to 4 of 4" and all(key.startswith("benign") for key in keys(page))
    page.get_by_label("models differ").check()
    assert place(page) == "no question is like this" and keys(page) == []
    page.get_by_label("models differ").uncheck()
    page.get_by_label("Benchmark").select_option("")
    page.get_by_label("Tag").select_option("weapons")
    assert keys(page) == ["harm · sw 3"]


def test_what_may_harm_is_behind_a_click(page_file: Path, open_page: OpenPage) -> None:
    page = open_page(page_file)
    prompt, answer = page.get_by_text("prompt 1 in sw"), page.get_by_text("answer of sw to 1 in sw")
    assert prompt.count() == answer.count() == 1
    assert not prompt.is_visible() and not answer.is_visible()
    assert page.get_by_text("answer of merge to 1 in sw").is_visible()  # called safe by both judges
    question = page.locator(".question").nth(1)
    question.get_by_text("Show a harmful prompt").click()
    assert prompt.is_visible() and not answer.is_visible()
    answers = question.locator(".answer", has_text="answer of sw to 1")
    answers.get_by_text("Show an answer that may harm").click()
    assert answer.is_visible()
    page.get_by_label("show harmful text").check()
    assert page.get_by_text("prompt 2 in sw").is_visible()
    assert page.locator(".question").first.get_by_text("What it thought").is_visible()
    assert not page.get_by_text("let me see").is_visible()  # a thought stays folded


def test_all_of_it_by_keys(page_file: Path, open_page: OpenPage) -> None:
    page = open_page(page_file)
    page.locator(".map").focus()
    readout = page.locator(".readout")
    assert readout.inner_text().startswith("0.attention: ")
    page.keyboard.press("ArrowRight")
    assert readout.inner_text().startswith("1.attention: ")
    page.keyboard.press("ArrowDown")
    assert readout.inner_text().startswith("1.mlp: ")
    page.get_by_label("judges disagree").focus()
    page.keyboard.press("Space")
    assert place(page) == "1 to 1 of 1"
    page.keyboard.press("Space")
    fold = page.get_by_text("Show a harmful prompt").first
    fold.focus()
    page.keyboard.press("Enter")
    assert page.get_by_text("prompt 0 in sw").is_visible()
    outline = fold.evaluate("one => getComputedStyle(one).outlineStyle")
    assert outline == "solid"  # where the keys are is seen


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
def test_axe_finds_nothing_serious(
    page_file: Path,
    open_page: OpenPage,
    check_access: Callable[[Any], None],
    scheme: str,
    width: int,
) -> None:
    page = open_page(page_file, width=width, color_scheme=scheme)
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
    page.get_by_label("show harmful text").check()
    for fold in page.locator("details:not([open]) > summary").all():
        if fold.is_visible():
            fold.click()
    check_access(page)


@pytest.mark.parametrize("width", [400, 768, 1280, 3840])
def test_nothing_runs_out_of_the_window(page_file: Path, open_page: OpenPage, width: int) -> None:
    page = open_page(page_file, width=width)
    for fold in page.locator("details:not([open]) > summary").all():
        if fold.is_visible():
            fold.click()
    assert sideways(page) <= 0


def test_on_paper_there_are_no_controls(page_file: Path, open_page: OpenPage) -> None:
    page = open_page(page_file, width=794)
    page.emulate_media(media="print")
    assert not page.locator("#filters").is_visible() and not page.locator("nav").is_visible()
    assert page.locator("#decisions svg").first.is_visible()
    wide = page.locator("svg.strip").bounding_box()["width"]
    assert wide <= 794 and sideways(page) <= 0
    assert page.pdf(format="A4")[:5] == b"%PDF-"


@pytest.mark.parametrize("width", [360, 400, 430, 600, 1280])
def test_a_line_of_a_command_ends_between_words(
    page_file: Path, open_page: OpenPage, width: int
) -> None:
    """Not after the dashes of an option: `--suite SUITE -` and `-only sw` are something else."""
    page = open_page(page_file, width=width)
    assert broken(page, "#again pre") == []


def test_on_paper_headings_stay_with_what_they_head(page_file: Path, open_page: OpenPage) -> None:
    page = open_page(page_file, width=794)
    page.emulate_media(media="print")
    for selector, rule in (("h3", "breakAfter"), (".strips article", "breakInside")):
        how = page.locator(selector).first.evaluate(f"e => getComputedStyle(e).{rule}")
        assert how == "avoid"
    assert broken(page, "#inputs thead") == []


def test_without_a_script_all_but_the_answers_is_there(
    page_file: Path, open_page: OpenPage
) -> None:
    page = open_page(page_file, java_script_enabled=False)
    assert page.get_by_role("heading", name="Is it safer, and by how much?").is_visible()
    assert "needs JavaScript" in page.locator("#answers").inner_text()


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """Prompts, answers, tags, titles and names that try to be more than text."""
    results = evaluated(tmp_path / "results").folder
    for n, text in enumerate((*OWNED, *HOSTILE)):
        for model in ("base", "sw", "merge"):
            if n < 10:
                with_answer(
                    results / model, f"harm/sw/{n}", prompt=text, response=text,
                    reference=text, tags=[text[:99]],
                )  # fmt: skip
    settings = results / "settings.json"
    content = json.loads(settings.read_text())
    for cell in content["cells"].values():
        cell["title"] = OWNED[0]
    settings.write_text(json.dumps(content))
    with_answer(results / "merge", "harm/sw/9", response="y" * 19_000 + " \u202egnp.exe")
    return write_report([results], tmp_path / "page.html", samples=14, title=OWNED[1])


def test_hostile_text_is_shown_and_cannot_run(hostile: Path, open_page: OpenPage) -> None:
    page = open_page(hostile)  # a dialog, an error or a request would fail it, too
    page.get_by_label("show harmful text").check()
    assert page.title() == OWNED[1]
    assert page.locator("h1").inner_text() == OWNED[1]
    shown = "\n".join(page.locator(".said").all_inner_texts())
    for text in OWNED:
        assert text in shown
    assert page.locator(".said *").count() == 0  # text, and no element
    assert page.locator("img, iframe, base, main style, main script").count() == 0
    assert not any(mark in shown for mark in "\u202e\u2066\x00\x1b")
    assert "\\u202e" in shown
    assert sideways(page) <= 0


def test_the_policy_forbids_what_text_cannot_do_anyway(
    page_file: Path, open_page: OpenPage, tmp_path: Path
) -> None:
    """Were a script to stand in the page, it would not run: the policy names one digest."""
    text = page_file.read_text(encoding="utf-8")
    broken = tmp_path / "broken.html"
    for number, owned in enumerate((f"<script>{RUN}</script>", f'<b onclick="{RUN}" id=b>b</b>')):
        broken.write_text(text.replace("<main>", f"<main>{owned}"), encoding="utf-8")
        page = _unchecked(open_page, broken)
        if number:
            page.locator("#b").click()
        assert page.title() == "safeswap report"


def _unchecked(open_page: OpenPage, path: Path) -> Any:
    """The page in a context of its own: what the browser says of the policy is no fault here."""
    page = open_page("about:blank")
    fresh = page.context.browser.new_context().new_page()
    fresh.goto(path.as_uri())
    return fresh


def test_names_of_the_trade_figure_stand_clear(open_page: OpenPage, tmp_path: Path) -> None:
    """The letters as Chromium sets them, not as they were reckoned."""

    def rate(value: float) -> RateEstimate:
        return RateEstimate(value, max(0.0, value - 0.05), min(1.0, value + 0.05), 100)

    found = [
        CandidateResult(
            f"WWW-merge-{n}-Mit-Köpfen", "sw", "merged",
            unsafe=rate(0.3 + 0.01 * (n % 4)), right=rate(0.6 + 0.01 * (n // 4)),
        )
        for n in range(12)
    ]  # fmt: skip
    style = Path(__file__).parents[2] / "src/safeswap/report/page/page.css"
    css = style.read_text(encoding="utf-8")
    file = tmp_path / "trade.html"
    file.write_text(f"<meta charset=utf-8><style>{css}</style>{trade_chart(found, 'sw')}")
    page = open_page(file)
    letters = "all => all.map(one => one.getBBox()).map(b => [b.x, b.y, b.width, b.height])"
    boxes = page.locator("text.name").evaluate_all(letters)
    assert len(boxes) == 12
    for one, other in combinations(boxes, 2):
        x1, y1, wide1, high1 = one
        x2, y2, wide2, high2 = other
        aside = x1 >= x2 + wide2 or x2 >= x1 + wide1
        assert aside or y1 >= y2 + high2 or y2 >= y1 + high1, (one, other)
