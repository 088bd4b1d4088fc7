"""Workers of tests, in a module that workers' processes can import."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from safeswap.errors import EvaluationError


class Doubler:
    """Doubles numbers; dies or fails where it is told to.

    Args:
        folder: where it leaves a file for each time that it worked, and finds what kills it.
    """

    def __init__(self, folder: str, ready: Any = "here") -> None:
        self.folder, self.said = Path(folder), ready

    def ready(self) -> Any:
        if isinstance(self.said, Exception):
            raise self.said
        return self.said

    def double(self, number: int, deaths: int = 0) -> int:
        tried = self.folder / f"{number}-{time.time_ns()}"
        tried.touch()
        if len(list(self.folder.glob(f"{number}-*"))) <= deaths:
            os.kill(os.getpid(), signal.SIGKILL)
        return 2 * number

    def refuse(self, number: int) -> int:
        if number == 3:
            raise EvaluationError("three is refused. Take another.")
        return number

    def stumble(self, number: int) -> int:
        return number // 0
