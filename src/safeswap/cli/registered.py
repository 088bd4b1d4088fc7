"""Names of what comes with safeswap, for help texts.

The registries import numpy and YAML, which ``--help`` cannot wait for; a test holds these equal to
them.
"""

from __future__ import annotations

from collections.abc import Sequence

BACKENDS = ("hf", "vllm", "api")
JUDGE_KINDS = (
    *("qwen3guard", "qwen3guard-prompt", "llamaguard", "polyguard", "nemotronguard"),
    *("gpt-oss-safeguard", "shieldgemma", "threeway", "rule", "majority"),
)
MAJORITY = "majority"


def either(names: Sequence[str]) -> str:
    """``a, b or c``."""
    return f"{', '.join(names[:-1])} or {names[-1]}"
