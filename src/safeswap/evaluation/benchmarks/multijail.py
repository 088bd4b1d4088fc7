"""MultiJail: 315 harmful prompts in ten languages (Deng et al., ICLR 2024, arXiv 2310.06474)."""

from __future__ import annotations

from safeswap.evaluation.benchmarks.origins import Origin, OriginFile, github
from safeswap.evaluation.benchmarks.registry import PromptBenchmark, register

REPOSITORY = "DAMO-NLP-SG/multilingual-safety-for-LLMs"
COMMIT = "577ac511437e07a256130945ef312a99158a18ad"
LANGUAGES = ("en", "zh", "it", "vi", "ar", "ko", "th", "bn", "sw", "jv")
ORIGIN = Origin(
    place=f"github.com/{REPOSITORY} at {COMMIT[:7]}",
    licence="MIT",
    files=(
        OriginFile(
            github(REPOSITORY, COMMIT, "data/MultiJail.csv"),
            "2798ed6fe470b80b1f486976e0fb3baa3ce008e62b6ca0abbf2e1ed5b1dfb355",
            344_375,
            LANGUAGES,
        ),
    ),
    form="multijail=FILE",
)

register(
    PromptBenchmark(
        name="multijail",
        title="MultiJail",
        kind="harmful",
        source=f"github.com/{REPOSITORY}, data/MultiJail.csv",
        suites=("paper", "safety"),
        hostile_title="MultiJail, intentional",
        origin=ORIGIN,
    ),
    __name__,
)
