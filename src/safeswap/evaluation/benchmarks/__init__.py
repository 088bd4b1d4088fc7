"""Benchmarks: what the models are asked, in which languages, and in which suites.

A new benchmark is a file that registers one, and its name in the import below; docs/extend.md shows
one. ``suites`` puts them together.
"""

# registers each; their order in suites and tables
from safeswap.evaluation.benchmarks import (  # isort: skip
    multijail,  # noqa: F401
    xstest,  # noqa: F401
    polyrefuse,  # noqa: F401
    sea_safeguard,  # noqa: F401
    xsafety,  # noqa: F401
    strongreject,  # noqa: F401
    mmmlu,  # noqa: F401
    belebele,  # noqa: F401
    mgsm,  # noqa: F401
    okapi,  # noqa: F401
    sib200,  # noqa: F401
    xcopa,  # noqa: F401
    afri,  # noqa: F401
    include,  # noqa: F401
)
from safeswap.evaluation.benchmarks.registry import (
    BENCHMARKS,
    HarnessTask,
    PromptBenchmark,
    TaskBenchmark,
    register,
)

__all__ = ["BENCHMARKS", "HarnessTask", "PromptBenchmark", "TaskBenchmark", "register"]
