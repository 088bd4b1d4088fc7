"""One switch turns all bars on or off, and what is not asked for is not shown."""

from __future__ import annotations

import io
import logging
import sys

import pytest

from safeswap.io import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A screen in place of stderr; made in the test, for pytest sets stderr before each."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.delenv(progress.SILENCED, raising=False)
    for name, value in {"TERM": "xterm", "COLUMNS": "120", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    return screen


def draw() -> None:
    with progress.items_bar("outer", 2) as advance:
        advance(2)
        with progress.bytes_bar("inner", 5) as inside:
            inside(5)


def test_a_library_shows_no_bar_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch)
    draw()
    assert screen.getvalue() == ""
    with progress.switched(True):
        draw()
    shown = screen.getvalue()
    assert "outer" in shown and "2/2" in shown
    assert "inner" not in shown  # a part of what the outer one counts
    draw()
    assert screen.getvalue() == shown


def test_bytes_and_a_switch_within_a_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch)
    with progress.switched(True):
        with progress.switched(False):
            draw()
        assert screen.getvalue() == ""
        progress.disable()
        draw()
        assert screen.getvalue() == ""
        progress.enable()
        with progress.bytes_bar("read", 5) as advance:
            advance(5)
    assert "read" in screen.getvalue() and "5/5 bytes" in screen.getvalue()


@pytest.mark.parametrize(("value", "shown"), [("1", False), ("0", True), ("", True)])
def test_the_environment_keeps_bars_off(
    monkeypatch: pytest.MonkeyPatch, value: str, shown: bool
) -> None:
    screen = terminal(monkeypatch)
    monkeypatch.setenv(progress.SILENCED, value)
    with progress.switched(True):
        draw()
    assert bool(screen.getvalue()) == shown


def test_the_package_is_silent_unless_logging_is_set_up() -> None:
    handlers = logging.getLogger("safeswap").handlers
    assert any(isinstance(one, logging.NullHandler) for one in handlers)


def test_a_log_file_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a minute apart, with what is done, the rate and the time left as they are."""
    now, log = [100.0], io.StringIO()
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(sys, "stderr", log)
    monkeypatch.delenv(progress.SILENCED, raising=False)

    def run() -> None:
        with progress.suffixed(", model 2 of 4"), progress.items_bar("merge: answers", 100) as tell:
            for _ in range(8):
                now[0] += 10
                tell(5)
        with progress.bytes_bar("read", 4_000_000) as tell:
            now[0] += 60
            tell(1_000_000)

    run()
    assert log.getvalue() == ""
    with progress.switched(True):
        run()
    assert log.getvalue().splitlines() == [
        "merge: answers, model 2 of 4: 15 of 100, 0.5/s, 0:02:50 left",
        "merge: answers, model 2 of 4: 30 of 100, 0.5/s, 0:02:20 left",
        "read: 1 MB of 4 MB, 16.7 kB/s, 0:03:00 left",
    ]
