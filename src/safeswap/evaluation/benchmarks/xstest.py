"""XSTest: harmless prompts that look harmful (Röttger et al., NAACL 2024, arXiv 2308.01263)."""

from __future__ import annotations

from safeswap.evaluation.benchmarks.registry import PromptBenchmark, register

register(
    PromptBenchmark(
        name="xstest",
        title="XSTest",
        kind="harmless",
        source="github.com/paul-rottger/exaggerated-safety, xstest_prompts.csv (English; add "
        "translations with --prompts xstest/sw=FILE)",
        suites=("paper", "safety"),
    ),
    __name__,
)
