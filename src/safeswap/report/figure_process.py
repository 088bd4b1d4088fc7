"""Figures of a merge, drawn in a process of their own: matplotlib takes a second to import."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from safeswap.profile import Profile


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


class FigureProcess:
    """Draws plans beside other work.

    Args:
        places: (plan file, PNG to write) of every figure.
        profile: what was measured, for plans whose figure shows norms.
    """

    def __init__(self, places: Sequence[tuple[Path, Path]], profile: Profile | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="safeswap-")
        files = [str(path) for place in places for path in place]
        if profile is not None:
            profile.save(Path(self._folder.name) / "profile.json")
            files.append(str(Path(self._folder.name) / "profile.json"))
        # numpy's BLAS would start a thread per core, which nothing here uses
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "safeswap.report.plan_figure", *files]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment)

    def finish(self) -> bool:
        """Wait for the figures; whether all were drawn."""
        drawn = self._process.wait() == 0
        self._folder.cleanup()
        return drawn

    def cancel(self) -> None:
        """Stop drawing; does nothing when it is finished."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._folder.cleanup()
