"""XCOPA: which of two sentences is the cause or effect (Ponti et al., EMNLP 2020, arXiv
2005.00333), by lm-evaluation-harness.
"""

from __future__ import annotations

from safeswap.evaluation.benchmarks.registry import HarnessTask, TaskBenchmark, register

LANGUAGES = ("et", "ht", "id", "it", "qu", "sw", "ta", "th", "tr", "vi", "zh")


def task(code: str) -> HarnessTask | str:
    """The task in a language; the same number is the same question, translated."""
    if code in LANGUAGES:
        return HarnessTask(code, f"xcopa_{code}", folder="xcopa")
    return f"XCOPA is in {', '.join(LANGUAGES)} only"


register(TaskBenchmark("xcopa", "XCOPA", LANGUAGES, task, suites=("low-resource",)), __name__)
