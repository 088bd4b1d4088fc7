"""Human labels: sheets to fill in, labels read back, and how far a judge agrees with them.

``sampling`` draws a blind, stratified sheet: it shows prompts and responses, not which model
answered (a letter stands for it) nor what the judge said; what was hidden is kept beside it, in
``SHEET.key.json``, with how many responses every stratum had. ``labels`` reads the filled-in sheet,
``judge_errors`` weights a judge's error rates back to all responses.

``label_sheet`` reads any table of labels, ``agreement`` compares its columns. The convention, which
reproduces the published figures of XSTest's labels: labels are compared as they stand, every class
of its own; every row with a human label counts; and an answer of the judge that is none of the
labels is a disagreement, shown as ``unparsed``, never left out.
"""

from safeswap.evaluation.human.agreement import (
    UNPARSED,
    VERDICTS,
    Agreement,
    ClassRates,
    PairAgreement,
    agreement_of_pair,
    agreements,
    cohen_kappa,
    compare_labels,
)
from safeswap.evaluation.human.judge_errors import (
    WeightedErrorRates,
    WeightedRate,
    models_differ,
    of_language,
    weighted_error_rates,
)
from safeswap.evaluation.human.label_sheet import LabelSheet, is_blind, read_labels, read_sheet
from safeswap.evaluation.human.labels import Annotation, Annotations, read_annotations
from safeswap.evaluation.human.sampling import (
    COLUMNS,
    KEY_FORMAT,
    LABELS,
    Sample,
    key_of,
    sample_for_annotation,
    stratum,
    write_sample,
)

__all__ = [
    "COLUMNS",
    "KEY_FORMAT",
    "LABELS",
    "UNPARSED",
    "VERDICTS",
    "Agreement",
    "Annotation",
    "Annotations",
    "ClassRates",
    "LabelSheet",
    "PairAgreement",
    "Sample",
    "WeightedErrorRates",
    "WeightedRate",
    "agreement_of_pair",
    "agreements",
    "cohen_kappa",
    "compare_labels",
    "is_blind",
    "key_of",
    "models_differ",
    "of_language",
    "read_annotations",
    "read_labels",
    "read_sheet",
    "sample_for_annotation",
    "stratum",
    "weighted_error_rates",
    "write_sample",
]
