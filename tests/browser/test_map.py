"""The map that both pages share, on a page of `safeswap report`: pointer, arrow keys, readout."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("jinja2")

from chromium import OpenPage
from profiles import HAND, make_profile
from safeswap.plan import fill_plan
from safeswap.report.page import write_report


def test_arrows_and_pointer_tell_cells(open_page: OpenPage, tmp_path: Path) -> None:
    fill_plan(make_profile(HAND), "sw").save(tmp_path / "plan.yaml")
    page = open_page(write_report([tmp_path / "plan.yaml"], tmp_path / "page.html"))
    readout = page.locator(".readout")
    page.locator(".map").focus()
    assert readout.inner_text().startswith("0.attention: safety; weights safety 1, sw 0")
    for key, unit in (("ArrowDown", "0.mlp"), ("ArrowRight", "1.mlp"), ("ArrowUp", "1.attention")):
        page.keyboard.press(key)
        assert readout.inner_text().startswith(f"{unit}: ")
    page.keyboard.press("ArrowUp")  # nothing is above
    assert readout.inner_text().startswith("1.attention: ")
    page.locator("g.unit[data-unit='2.norms']").hover()
    assert readout.inner_text().startswith("2.norms: sw")
