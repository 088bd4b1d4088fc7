"""Attributions without models: what four units bring, by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from safeswap.profile.attribution import Attribution, Readouts

BRINGS = {
    "0.attention": Readouts(refusing=0.5, overrefusing=0.0, keeping=-0.2),
    "0.mlp": Readouts(refusing=2.0, overrefusing=0.1, keeping=0.1),
    "1.attention": Readouts(refusing=1.0, overrefusing=0.4, keeping=-0.1),
    "1.mlp": Readouts(refusing=0.0, overrefusing=0.0, keeping=0.0),
}

AFTER = Readouts(refusing=1.0, overrefusing=-7.5, keeping=-20.2)


def make_attribution(
    units: Mapping[str, Readouts] = BRINGS,
    *,
    by: str = "module",
    after: Readouts = AFTER,
    **changed: Any,
) -> Attribution:
    """Of the inputs of ``profiles.make_profile``, whose digests are their roles."""
    content: dict[str, Any] = {
        "language": "sw",
        "inputs": {role: role for role in ("base", "safety", "sw")},
        "settings": {"by": by, "points": 4},
        "texts": {"harmful": "h", "sw": "c"},
        "prompts": "0123456789ab cdef01234567",
        "read": {"harmful": 8, "harmless": 8, "others": 0},
        "openings": ("I cannot",),
        "backend": {"backend": "hf"},
        "before": Readouts(-3.0, -8.0, -20.0),
    }
    return Attribution(by=by, after=after, units=dict(units), **(content | changed))
