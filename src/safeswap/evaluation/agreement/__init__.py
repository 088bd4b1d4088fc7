"""How far a judge agrees with human labels, and two annotators with each other.

The convention, which reproduces the published figures of XSTest's labels: the labels are compared
as they stand, every class of its own; every row with a human label counts; and an answer of the
judge that is none of the labels is a disagreement, shown as ``unparsed``, never left out.
"""

from safeswap.evaluation.agreement.measure import (
    UNPARSED,
    VERDICTS,
    Agreement,
    ClassRates,
    agreements,
    cohen_kappa,
    compare_labels,
)
from safeswap.evaluation.agreement.sheets import LabelSheet, need_column, read_labels, read_sheet
from safeswap.evaluation.agreement.tables import (
    agreement_tables,
    render,
    render_confusion,
    render_rates,
)

__all__ = [
    "UNPARSED",
    "VERDICTS",
    "Agreement",
    "ClassRates",
    "LabelSheet",
    "agreement_tables",
    "agreements",
    "cohen_kappa",
    "compare_labels",
    "need_column",
    "read_labels",
    "read_sheet",
    "render",
    "render_confusion",
    "render_rates",
]
