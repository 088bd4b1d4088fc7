"""Selectors fill the plan's table from a profile. One file each, registered by name.

``registry`` holds what a selector is, ``common`` what several share. Importing this package
registers all of them; docs/methods.md has a section for each and shows how to write another.
"""

from safeswap.parameters import Parameter
from safeswap.selectors.common import GRANULARITIES, NORMS, OUTSIDE, Decision, UnitChoice
from safeswap.selectors.registry import (
    OPTIONS,
    Row,
    Selector,
    find,
    option_of,
    paths_in,
    registered,
    selector,
)
from safeswap.selectors.words import describe, points

# the order of `safeswap methods`
from safeswap.selectors.share_difference import share_difference  # isort: skip
from safeswap.selectors import gated, uniform, band, cosine, safe_lora, attribution, controls  # noqa: F401 # isort: skip

__all__ = [
    "GRANULARITIES",
    "NORMS",
    "OPTIONS",
    "OUTSIDE",
    "Decision",
    "Parameter",
    "Row",
    "Selector",
    "UnitChoice",
    "describe",
    "find",
    "option_of",
    "paths_in",
    "points",
    "registered",
    "selector",
    "share_difference",
]
