"""XSTest: harmless prompts that look harmful (Röttger et al., NAACL 2024, arXiv 2308.01263)."""

from __future__ import annotations

from safeswap.evaluation.benchmarks.origins import Origin, OriginFile, github
from safeswap.evaluation.benchmarks.registry import PromptBenchmark, register

REPOSITORY = "paul-rottger/exaggerated-safety"
COMMIT = "d7bb5bd738c1fcbc36edd83d5e7d1b71a3e2d84d"
ORIGIN = Origin(
    place=f"github.com/{REPOSITORY} at {COMMIT[:7]}",
    licence="CC BY 4.0",
    files=(
        OriginFile(
            github(REPOSITORY, COMMIT, "xstest_prompts.csv"),
            "11783fb294ed017473ee53c207d71f2161c7672c8d0b037501e78387f801cb5a",
            38_719,
            ("en",),
        ),
    ),
    form="xstest/LANGUAGE=FILE",
    unpinned="its authors wrote it in English; a translation is given with",
)

register(
    PromptBenchmark(
        name="xstest",
        title="XSTest",
        kind="harmless",
        source=f"github.com/{REPOSITORY}, xstest_prompts.csv (English; add "
        "translations with --prompts xstest/sw=FILE)",
        suites=("paper", "safety"),
        origin=ORIGIN,
    ),
    __name__,
)
