"""SIB-200: the topic of a sentence, one of seven, in 205 languages (Adelani et al., EACL 2024,
arXiv 2309.07445), by lm-evaluation-harness.

lm-eval has a task per African language, all worded alike; its English one is asked with the other
languages' sentences, so that the wording is the same everywhere. Its second metric is left out: it
would be fetched from a hub as code.
"""

from __future__ import annotations

from safeswap.evaluation.benchmarks.belebele import BELEBELE
from safeswap.evaluation.benchmarks.registry import HarnessTask, TaskBenchmark, register


def task(code: str) -> HarnessTask | str:
    """The task in a language, by ISO 639-1 or FLORES-200; a sentence has one number everywhere."""
    flores = BELEBELE.get(code, code if "_" in code else "")
    if not flores:
        return "SIB-200 does not have it under this code; try FLORES-200's, such as hau_Latn"
    settings = {"dataset_name": flores, "metric_list": [{"metric": "acc"}]}
    return HarnessTask(
        code, "sib_eng_prompt_1", settings=settings, cluster="index_id", folder="afrobench/sib"
    )


register(
    TaskBenchmark("sib200", "SIB-200", tuple(BELEBELE), task, suites=("low-resource",)), __name__
)
