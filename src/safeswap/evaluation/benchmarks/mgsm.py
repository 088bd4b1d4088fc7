"""MGSM: sums in words, with reasoning in the question's language, by lm-evaluation-harness."""

from __future__ import annotations

from safeswap.evaluation.benchmarks.registry import HarnessTask, TaskBenchmark, register

MGSM = "bn de en es fr ja ru sw te th zh"


def task(code: str) -> HarnessTask | str:
    """The task in a language; its answer is a number."""
    if code in MGSM.split():
        return HarnessTask(code, f"mgsm_native_cot_{code}", numbers=True, folder="mgsm")
    return f"MGSM is in {', '.join(MGSM.split())} only"


CODES = tuple(MGSM.split())
register(TaskBenchmark("mgsm", "MGSM", CODES, task, suites=("paper", "ability")), __name__)
