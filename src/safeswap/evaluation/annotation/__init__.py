"""A sample of responses to label by hand, and the labels back.

The sheet is blind: it shows prompts and responses, not which model answered (a letter stands for
it) nor what the judge said. What was hidden is kept beside it, in ``SHEET.key.json``. The sample is
stratified by arm, benchmark, language and verdict, so that rare verdicts are seen too; the key
keeps how many responses every stratum had, so that error rates can be weighted back to all of them.
"""

from __future__ import annotations

from safeswap.evaluation.annotation.errors import (
    WeightedErrorRates,
    WeightedRate,
    weighted_error_rates,
)
from safeswap.evaluation.annotation.labels import (
    Annotation,
    Annotations,
    read_annotations,
)
from safeswap.evaluation.annotation.sampling import (
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
    "Annotation",
    "Annotations",
    "Sample",
    "WeightedErrorRates",
    "WeightedRate",
    "key_of",
    "read_annotations",
    "sample_for_annotation",
    "stratum",
    "weighted_error_rates",
    "write_sample",
]
