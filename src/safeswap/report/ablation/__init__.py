"""The ablation: every candidate of a sweep as tables and figures.

Pure functions of ``safeswap.evaluation.results.candidates.CandidateResult``; ``write_ablation``
puts all of them into a folder. Figures need matplotlib (the extra ``figures``), tables do not.
"""

from safeswap.evaluation.results.pareto import pareto_front
from safeswap.report.ablation.heat_maps import draw_heat_maps
from safeswap.report.ablation.matched import matched_table
from safeswap.report.ablation.pareto import draw_pareto
from safeswap.report.ablation.table import ablation_table, numbers
from safeswap.report.ablation.write import write_ablation, write_sweep_reports

__all__ = [
    "ablation_table",
    "draw_heat_maps",
    "draw_pareto",
    "matched_table",
    "numbers",
    "pareto_front",
    "write_ablation",
    "write_sweep_reports",
]
