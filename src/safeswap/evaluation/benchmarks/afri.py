"""AfriMGSM and AfriMMLU: sums in words and questions from school, translated by people into African
languages (IrokoBench: Adelani et al., NAACL 2025, arXiv 2406.03368), by lm-evaluation-harness.

Of lm-eval's five wordings the first is asked. AfriMMLU's second metric is left out: it would be
fetched from a hub as code.
"""

from __future__ import annotations

from safeswap.evaluation.benchmarks.registry import HarnessTask, TaskBenchmark, register

# ISO 639-1 → ISO 639-3, which the benchmarks use.
CODES = {
    "am": "amh", "ee": "ewe", "en": "eng", "fr": "fra", "ha": "hau", "ig": "ibo", "ln": "lin",
    "lg": "lug", "om": "orm", "rw": "kin", "sn": "sna", "st": "sot", "sw": "swa", "tw": "twi",
    "wo": "wol", "xh": "xho", "yo": "yor", "zu": "zul",
}  # fmt: skip
MGSM_CODES = {**CODES, "vai": "vai"}
LANGUAGES = tuple(CODES)


def mgsm_task(code: str) -> HarnessTask | str:
    """AfriMGSM in a language, with reasoning; its answer is a number."""
    if code in MGSM_CODES:
        name = f"afrimgsm_cot_{MGSM_CODES[code]}_prompt_1"
        return HarnessTask(code, name, numbers=True, folder="afrimgsm/direct_cot")
    return f"AfriMGSM is in {', '.join(MGSM_CODES)} only"


def mmlu_task(code: str) -> HarnessTask | str:
    """AfriMMLU in a language."""
    if code in CODES:
        settings = {"metric_list": [{"metric": "acc"}]}
        name = f"afrimmlu_direct_{CODES[code]}_prompt_1"
        return HarnessTask(code, name, settings=settings, folder="afrimmlu/direct")
    return f"AfriMMLU is in {', '.join(CODES)} only"


register(
    TaskBenchmark("afrimgsm", "AfriMGSM", tuple(MGSM_CODES), mgsm_task, suites=("low-resource",)),
    __name__,
)
register(
    TaskBenchmark("afrimmlu", "AfriMMLU", LANGUAGES, mmlu_task, suites=("low-resource",)), __name__
)
