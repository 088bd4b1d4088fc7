"""MMMLU, and Global-MMLU (full) for languages that it lacks, by lm-evaluation-harness."""

from __future__ import annotations

from safeswap.evaluation.benchmarks.registry import HarnessTask, TaskBenchmark, register

# ISO 639-1 → what the benchmark calls the language.
MMMLU = {
    "ar": "ar_xy", "bn": "bn_bd", "de": "de_de", "es": "es_la", "fr": "fr_fr", "hi": "hi_in",
    "id": "id_id", "it": "it_it", "ja": "ja_jp", "ko": "ko_kr", "pt": "pt_br", "sw": "sw_ke",
    "yo": "yo_ng", "zh": "zh_cn",
}  # fmt: skip
GLOBAL_MMLU = (
    "am ar bn cs de el en es fa fil fr ha he hi id ig it ja ko ky lt mg ms ne nl ny pl pt ro ru si "
    "sn so sr sv sw te tr uk vi yo zh"
)


def task(code: str) -> HarnessTask | str:
    """The task in a language, or why there is none."""
    if code in MMMLU:
        return HarnessTask(code, f"mmmlu_{MMMLU[code]}", folder="openai-mmmlu")
    if code in GLOBAL_MMLU.split():
        label = f"{code}: Global-MMLU (full), not MMMLU, which lacks it"
        return HarnessTask(code, f"global_mmlu_full_{code}", label=label, folder="global_mmlu")
    return "neither MMMLU's 14 languages nor Global-MMLU's 42 include it"


CODES = tuple(dict.fromkeys((*MMMLU, *GLOBAL_MMLU.split())))
register(TaskBenchmark("mmmlu", "MMMLU", CODES, task, suites=("paper", "ability")), __name__)
