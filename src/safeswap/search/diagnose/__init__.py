"""Will a merge work here? Asked before anything is merged: the verb ``diagnose``."""

from __future__ import annotations

from safeswap.search.diagnose.record import Diagnosis
from safeswap.search.diagnose.run import Diagnosed, diagnose

__all__ = ["Diagnosed", "Diagnosis", "diagnose"]
