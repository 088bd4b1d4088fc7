"""MultiJail: 315 harmful prompts in ten languages (Deng et al., ICLR 2024, arXiv 2310.06474)."""

from __future__ import annotations

from safeswap.evaluation.benchmarks.registry import PromptBenchmark, register

register(
    PromptBenchmark(
        name="multijail",
        title="MultiJail",
        kind="harmful",
        source="github.com/DAMO-NLP-SG/multilingual-safety-for-LLMs, data/MultiJail.csv",
        suites=("paper", "safety"),
        hostile_title="MultiJail, intentional",
    ),
    __name__,
)
