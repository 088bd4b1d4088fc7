"""Pages as people use them: Chromium, driven by Playwright. `make browser` runs these tests.

They are left out of `make test`: they need Debian's chromium, the extra `browser`, and what
`make browser` fetches with npm (axe-core). Each page that a test opens is checked as it closes:
no script failed, nothing was asked of a network.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chromium import ARGUMENTS, CHROMIUM, MODULES, OpenPage


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = [item for item in items if Path(item.path).parent == Path(__file__).parent]
    for item in here:
        if not os.environ.get("SAFESWAP_BROWSER"):
            item.add_marker(pytest.mark.skip(reason="a test of `make browser`"))


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM:
        pytest.skip("chromium is not installed")
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield found
        found.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[OpenPage]:
    """Opens pages; fails where one of them had an error, a dialog, or asked for anything else."""
    contexts, faults = [], []

    def opened(place: Path | str, width: int = 1280, height: int = 900, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        address = place.as_uri() if isinstance(place, Path) else place
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
        page.on("dialog", lambda dialog: (faults.append(dialog.message), dialog.dismiss()))
        page.on(
            "request",
            lambda asked: (
                faults.append(asked.url)
                if asked.url != address and not asked.url.startswith(("blob:", "data:"))
                else None
            ),
        )
        page.goto(address)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not faults, faults


@pytest.fixture
def check_access() -> Callable[[Any], None]:
    """Has axe look at a page, and fails where it finds anything serious or critical."""
    script = MODULES / "axe-core" / "axe.min.js"
    if not script.is_file():
        pytest.skip("axe-core is fetched by `make browser`")
    source = script.read_text(encoding="utf-8")

    def check(page: Any) -> None:
        page.evaluate(source)
        found = page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
        serious = [
            (one["id"], one["help"], [node["html"][:200] for node in one["nodes"][:3]])
            for one in found["violations"]
            if one["impact"] in ("serious", "critical")
        ]
        assert not serious, serious

    return check
