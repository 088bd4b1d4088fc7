"""The plan: for every unit, the weight of each expert's task vector. To read, edit and rerun.

`table` holds what a plan is, `file` how it is written and read, `fill` how a profile becomes one.
"""

from safeswap.plan.chosen import ChosenOn
from safeswap.plan.fill import check_options, edited_units, fill_plan
from safeswap.plan.table import (
    Plan,
    PlannedInput,
    PlannedUnit,
    check_operators,
    check_units,
    pin_operators,
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
]
