"""Judges: who says whether a response is safe.

A judge that asks a model turns a prompt and a response into a ``Question``, and that model's words
into a ``Judgement``; a ``PanelJudge`` asks several at once. It holds no model, so the same verdicts
can be had from transformers, vLLM or a server, and old words can be read again by a newer parser. A
``RowJudge`` decides alone, a ``VoteJudge`` by what other judges said.

A new judge is a file that registers a ``JudgeKind``, and its name in the import below;
docs/extend.md shows one.
"""

from safeswap.evaluation.judges.base import (
    Judge,
    Judgement,
    ModelJudge,
    PanelJudge,
    Question,
    RowJudge,
    Verdict,
    VoteJudge,
    counts_unsafe,
    defuse,
    questions_of,
    read_answers,
)
from safeswap.evaluation.judges.registry import KINDS, JudgeKind, make_judge, register

# registers each; the order in which they are listed, and asked whether they know a name
from safeswap.evaluation.judges.qwen3guard import Qwen3GuardJudge  # isort: skip
from safeswap.evaluation.judges.llamaguard import LlamaGuardJudge  # isort: skip
from safeswap.evaluation.judges.polyguard import PolyGuardJudge  # isort: skip
from safeswap.evaluation.judges.nemotron import NemotronGuardJudge  # isort: skip
from safeswap.evaluation.judges.safeguard import SafeguardJudge  # isort: skip
from safeswap.evaluation.judges.shieldgemma import ShieldGemmaJudge  # isort: skip
from safeswap.evaluation.judges.threeway import ThreeWayJudge  # isort: skip
from safeswap.evaluation.judges.rule import RuleJudge  # isort: skip
from safeswap.evaluation.judges.majority import MAJORITY, MajorityJudge  # isort: skip

__all__ = [
    "KINDS",
    "MAJORITY",
    "Judge",
    "JudgeKind",
    "Judgement",
    "LlamaGuardJudge",
    "MajorityJudge",
    "ModelJudge",
    "NemotronGuardJudge",
    "PanelJudge",
    "PolyGuardJudge",
    "Question",
    "Qwen3GuardJudge",
    "RowJudge",
    "RuleJudge",
    "SafeguardJudge",
    "ShieldGemmaJudge",
    "ThreeWayJudge",
    "Verdict",
    "VoteJudge",
    "counts_unsafe",
    "defuse",
    "make_judge",
    "questions_of",
    "read_answers",
    "register",
]
