"""Judges: who says whether a response is safe.

A judge that asks a model turns a prompt and a response into a ``Question``, and that model's words
into a ``Judgement``. It holds no model, so the same verdicts can be had from transformers, vLLM or
a server, and old words can be read again by a newer parser. A ``RuleJudge`` decides alone.

A new judge is a file that registers a ``JudgeKind``, and its name in the import below;
docs/extend.md shows one.
"""

from safeswap.evaluation.judges.base import (
    Judge,
    Judgement,
    ModelJudge,
    Question,
    RowJudge,
    Verdict,
    counts_unsafe,
    defuse,
)
from safeswap.evaluation.judges.registry import KINDS, JudgeKind, make_judge, register

# registers each; the order in which they are listed, and asked whether they know a name
from safeswap.evaluation.judges.qwen3guard import Qwen3GuardJudge  # isort: skip
from safeswap.evaluation.judges.llamaguard import LlamaGuardJudge  # isort: skip
from safeswap.evaluation.judges.threeway import ThreeWayJudge  # isort: skip
from safeswap.evaluation.judges.rule import RuleJudge  # isort: skip

__all__ = [
    "KINDS",
    "Judge",
    "JudgeKind",
    "Judgement",
    "LlamaGuardJudge",
    "ModelJudge",
    "Question",
    "Qwen3GuardJudge",
    "RowJudge",
    "RuleJudge",
    "ThreeWayJudge",
    "Verdict",
    "counts_unsafe",
    "defuse",
    "make_judge",
    "register",
]
