"""What the processes of an engine write is passed on and kept; the cause in it is found."""

from __future__ import annotations

import subprocess
import sys

import pytest

from safeswap.evaluation.backends.overheard import KEPT, overheard, root_cause


def child(code: str) -> None:
    subprocess.run([sys.executable, "-c", f"import sys; {code}"], check=True)


def test_a_childs_words_are_kept_and_passed_on(capfd: pytest.CaptureFixture[str]) -> None:
    kept = None
    with pytest.raises(RuntimeError), overheard() as lines:
        kept = lines
        child("sys.stderr.write('from below\\n')")
        raise RuntimeError
    assert list(kept or ()) == ["from below"]
    print("after", file=sys.stderr)
    assert capfd.readouterr().err == "from below\nafter\n"
    assert list(kept or ()) == ["from below"]  # it listens no longer


def test_a_flood_is_passed_on_whole_and_kept_in_part(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError), overheard() as lines:
        child("sys.stderr.write('x' * 200_000 + '\\n' + 'y\\n' * 5000)")
        raise RuntimeError
    assert len(lines) == KEPT
    assert len(capfd.readouterr().err) == 200_001 + 10_000


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        ([], ""),
        (["INFO all is well", "0 errors: none"], ""),
        (
            [
                "(Worker pid=1) ERROR 11-26 19:53:07 [x.py:9] torch.OutOfMemoryError: out of it",
                "(EngineCore pid=2) ERROR [c.py:1] Exception: WorkerProc initialization failed",
                "RuntimeError: Engine core initialization failed. See root cause above.",
            ],
            "torch.OutOfMemoryError: out of it",
        ),
        (["RuntimeError: Engine core initialization failed. See root cause above."], ""),
    ],
)
def test_the_cause_is_the_first_error_that_points_nowhere_else(log: list[str], cause: str) -> None:
    assert root_cause(log) == cause
