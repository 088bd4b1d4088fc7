"""The explorer's page as one file, and what it is made of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safeswap.report.web.html_file import joined

_PACKAGE = "safeswap.report.explore"
RULES = ("refusal.js", "numbers.js", "band.js", "rules.js", "plan.js")
"""What decides and writes plans; needs no page."""


def rules_script() -> str:
    return joined([(_PACKAGE, name) for name in RULES])
