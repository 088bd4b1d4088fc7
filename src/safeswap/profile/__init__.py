"""How far each expert moved each tensor: measured once, in one pass over all checkpoints.

Kept per tensor, so that any granularity, threshold or blend is planned without reading weights
again: ‖W_base‖, ‖τ_expert‖ for every expert and ⟨τ_safety, τ_language⟩ for every language, where
τ = expert − base. Sums run in float64 over chunks whose arithmetic is float32 (float64 for stored
F32 and F64), and are the same for any number of workers.

``table`` holds what a profile is and its file, ``records`` what it is made of, ``measure`` how it
is made, ``sample`` how from a part of the weights, ``inputs`` what told each checkpoint then,
``experts`` takes mixtures apart.
"""

from safeswap.profile.descent import check_descent, refuse_strangers
from safeswap.profile.experts import by_expert
from safeswap.profile.inputs import unchanged
from safeswap.profile.measure import bytes_to_measure, measure_family
from safeswap.profile.records import (
    AdapterRecord,
    ExpertNumbers,
    FileRecord,
    InputRecord,
    Interval,
    Sample,
    TensorProfile,
)
from safeswap.profile.table import Profile

__all__ = [
    "AdapterRecord",
    "ExpertNumbers",
    "FileRecord",
    "InputRecord",
    "Interval",
    "Profile",
    "Sample",
    "TensorProfile",
    "by_expert",
    "bytes_to_measure",
    "check_descent",
    "measure_family",
    "refuse_strangers",
    "unchanged",
]
