"""A web server with the trio, a cache of its own, and waits that are none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from safeswap.checkpoint.remote import asked, fetch
from web import Web


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(60))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAFESWAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fetch, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(asked, "_asked", False)
    return tmp_path / "cache"


@pytest.fixture
def web(trio: dict[str, Path]) -> Iterator[Web]:
    """Serves the trio: `web.url` and a role's name are its address."""
    served = Web(trio["base"].parent)
    yield served
    served.stop()
