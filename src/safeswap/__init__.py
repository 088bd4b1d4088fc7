"""safeswap: give a fine-tuned language model its safety back, without training."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from safeswap.errors import SafeswapError
from safeswap.version import __version__

if TYPE_CHECKING:
    from safeswap.api import Merged, make_plan, make_profile, merge_plans, swap, verify_merge
    from safeswap.calibration.run import calibrate
    from safeswap.plan import Plan
    from safeswap.profile import Profile

logging.getLogger("safeswap").addHandler(logging.NullHandler())  # heard by those who ask

_HOMES = {
    "Merged": "safeswap.api",
    "make_plan": "safeswap.api",
    "make_profile": "safeswap.api",
    "merge_plans": "safeswap.api",
    "swap": "safeswap.api",
    "verify_merge": "safeswap.api",
    "Plan": "safeswap.plan",
    "Profile": "safeswap.profile",
    "calibrate": "safeswap.calibration.run",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that ``safeswap --help`` answers at once."""
    from importlib import import_module

    if name == "api":
        return import_module("safeswap.api")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'safeswap' has no attribute {name!r}")


__all__ = [
    "Merged",
    "Plan",
    "Profile",
    "SafeswapError",
    "__version__",
    "calibrate",
    "make_plan",
    "make_profile",
    "merge_plans",
    "swap",
    "verify_merge",
]
