"""Figures of a merge, drawn in a process of their own: matplotlib takes a second to import."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


class FigureProcess:
    """Draws plans beside other work.

    Args:
        places: (plan file, PNG to write) of every figure.
    """

    def __init__(self, places: Sequence[tuple[Path, Path]]) -> None:
        files = [str(path) for place in places for path in place]
        # numpy's BLAS would start a thread per core, which nothing here uses
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "safeswap.report.plan_figure", *files]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment)

    def finish(self) -> bool:
        """Wait for the figures; whether all were drawn."""
        return self._process.wait() == 0

    def cancel(self) -> None:
        """Stop drawing; does nothing when it is finished."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
