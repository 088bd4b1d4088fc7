"""The plan: for every unit, the weight of each expert's task vector. To read, edit and rerun.

``table`` holds what a plan is, ``file`` how one is written and read, ``fill`` makes one of a
profile.
"""

from safeswap.plan.chosen import ChosenOn
from safeswap.plan.file import Plan
from safeswap.plan.fill import check_options, edited_units, fill_plan
from safeswap.plan.table import (
    PlannedInput,
    PlannedUnit,
    check_operators,
    check_units,
    pin_operators,
    rows_for,
)
from safeswap.selectors import GRANULARITIES, NORMS, OUTSIDE

__all__ = [
    "GRANULARITIES",
    "NORMS",
    "OUTSIDE",
    "ChosenOn",
    "Plan",
    "PlannedInput",
    "PlannedUnit",
    "check_operators",
    "check_options",
    "check_units",
    "edited_units",
    "fill_plan",
    "pin_operators",
    "rows_for",
]
