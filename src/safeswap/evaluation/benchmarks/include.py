"""INCLUDE: exam questions from where a language is spoken, not translated (Romanou et al., ICLR
2025, arXiv 2411.19799), by lm-evaluation-harness.
"""

from __future__ import annotations

from safeswap.evaluation.benchmarks.registry import HarnessTask, TaskBenchmark, register

# ISO 639-1 → what the benchmark calls the language.
INCLUDE = {
    "ar": "Arabic", "az": "Azerbaijani", "be": "Belarusian", "bg": "Bulgarian", "bn": "Bengali",
    "de": "German", "el": "Greek", "es": "Spanish", "et": "Estonian", "eu": "Basque",
    "fa": "Persian", "fi": "Finnish", "fr": "French", "he": "Hebrew", "hi": "Hindi",
    "hr": "Croatian", "hu": "Hungarian", "hy": "Armenian", "id": "Indonesian", "it": "Italian",
    "ja": "Japanese", "ka": "Georgian", "kk": "Kazakh", "ko": "Korean", "lt": "Lithuanian",
    "mk": "North Macedonian", "ml": "Malayalam", "ms": "Malay", "ne": "Nepali", "nl": "Dutch",
    "pl": "Polish", "pt": "Portuguese", "ru": "Russian", "sq": "Albanian", "sr": "Serbian",
    "ta": "Tamil", "te": "Telugu", "tl": "Tagalog", "tr": "Turkish", "uk": "Ukrainian",
    "ur": "Urdu", "uz": "Uzbek", "vi": "Vietnamese", "zh": "Chinese",
}  # fmt: skip


def task(code: str) -> HarnessTask | str:
    """The task in a language: a group with a part per field of knowledge."""
    if code in INCLUDE:
        language = INCLUDE[code]
        name = f"include_base_44_{language.lower().replace(' ', '_')}"
        return HarnessTask(code, name, folder=f"include/default/{language}")
    return f"INCLUDE has {len(INCLUDE)} languages, and {code} is none of them"


register(
    TaskBenchmark("include", "INCLUDE", tuple(INCLUDE), task, suites=("low-resource",)), __name__
)
