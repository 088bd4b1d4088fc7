"""The ablation: every candidate of a sweep as tables and figures.

Pure functions from what was measured (`safeswap.explore.measured.Measured`); `write_ablation` puts
all of them into a folder. Figures need matplotlib (the extra ``figures``), tables do not.
"""

from safeswap.report.ablation.front import pareto_front
from safeswap.report.ablation.matched import matched_table
from safeswap.report.ablation.table import ablation_table, numbers

__all__ = ["ablation_table", "matched_table", "numbers", "pareto_front"]
