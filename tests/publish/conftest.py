"""A bucket and a hub for each test, and the environment that leads to them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from bucket import Bucket, served, use
from stand_in import TOKEN, WritableHub, serving

from safeswap.publish import hub as hub_module
from tiny import swap


@pytest.fixture(scope="session")
def s3_server() -> Iterator[Bucket]:
    """One server for all tests: it takes a while to start."""
    pytest.importorskip("moto")
    pytest.importorskip("s3fs")
    with served() as bucket:
        yield bucket


@pytest.fixture
def bucket(s3_server: Bucket, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """An empty bucket, named ``models``."""
    s3_server.clear()
    use(monkeypatch, s3_server)
    return s3_server


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, short_pauses: None) -> Iterator[WritableHub]:
    """A hub that is the configured one, with a token in the environment."""
    from huggingface_hub import constants
    from huggingface_hub.utils import close_session

    with serving() as found:
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(constants, "ENDPOINT", found.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        close_session()
        yield found
    close_session()


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "_PAUSES", (0.01, 0.01, 0.01))
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)


@pytest.fixture
def merged(trio: dict[str, Path], tmp_path: Path) -> Path:
    return swap(trio, tmp_path / "merged")
