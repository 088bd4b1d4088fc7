"""M-MMLU, M-ARC and M-HellaSwag: machine translations (Lai et al., 2023, arXiv 2307.16039), by
lm-evaluation-harness.

MergeBench measures a multilingual expert on them in French, Spanish, German and Russian. Every
language left out other questions: they are grouped by their id, which is that of the English one.
"""

from __future__ import annotations

from safeswap.evaluation.benchmarks.registry import HarnessTask, TaskBenchmark, register

_ALL = "ar bn ca da de es eu fr gu hi hr hu hy id it kn ml mr ne nl pt ro ru sk sr sv ta te uk vi"
LANGUAGES = {
    "m_mmlu": tuple(sorted([*_ALL.split(), "en", "is", "nb", "zh"])),
    "arc": tuple(sorted([*_ALL.split(), "zh"])),
    "hellaswag": tuple(_ALL.split()),
}
_FOLDERS = {"m_mmlu": "mmlu", "arc": "arc", "hellaswag": "hellaswag"}


def _register(name: str, title: str) -> None:
    languages, folder = LANGUAGES[name], f"okapi/{_FOLDERS[name]}_multilingual"

    def task(code: str) -> HarnessTask | str:
        if code in languages:
            return HarnessTask(code, f"{name}_{code}", cluster="id", folder=folder)
        return f"{title} has {len(languages)} languages, and {code} is none of them"

    register(TaskBenchmark(name, title, languages, task, suites=("mergebench",)), __name__)


_register("m_mmlu", "M-MMLU")
_register("arc", "M-ARC")
_register("hellaswag", "M-HellaSwag")
