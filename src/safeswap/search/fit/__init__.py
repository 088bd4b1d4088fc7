"""Coefficients fitted on behaviour: the verb ``fit``."""

from __future__ import annotations

from safeswap.search.fit.run import Fitted, fit
from safeswap.search.fit.settings import FitSettings

__all__ = ["FitSettings", "Fitted", "fit"]
