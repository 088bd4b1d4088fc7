"""Judges: who says whether a response is safe.

A judge turns a prompt and a response into a `Question` for a model, and that model's words into a
`Judgement`. It holds no model, so the same verdicts can be had from transformers, vLLM or a server,
and old words can be read again by a newer parser. A `RuleJudge` decides alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from safeswap.errors import EvaluationError, nearest
from safeswap.evaluation.judges.base import (
    Judge,
    Judgement,
    Question,
    Verdict,
    counts_unsafe,
)
from safeswap.evaluation.judges.llamaguard import LlamaGuardJudge
from safeswap.evaluation.judges.qwen3guard import Qwen3GuardJudge
from safeswap.evaluation.judges.rule import RuleJudge
from safeswap.evaluation.judges.threeway import ThreeWayJudge

__all__ = [
    "KINDS",
    "Judge",
    "Judgement",
    "LlamaGuardJudge",
    "Question",
    "Qwen3GuardJudge",
    "RuleJudge",
    "ThreeWayJudge",
    "Verdict",
    "counts_unsafe",
    "make_judge",
]

KINDS: Final = ("qwen3guard", "qwen3guard-prompt", "llamaguard", "threeway", "rule")
_RULE: Final = "rule:"
_QWEN = re.compile(r"qwen-?3-?guard(?P<variant>.*)")
_LLAMA = re.compile(r"llama-?guard(?:-?(?P<generation>\d))?(?!\d)(?P<size>.*)")
_KNOWN: Final = (
    "Qwen/Qwen3Guard-Gen-0.6B",
    "Qwen/Qwen3Guard-Gen-4B",
    "Qwen/Qwen3Guard-Gen-8B",
    "meta-llama/Llama-Guard-3-1B",
    "meta-llama/Llama-Guard-3-8B",
    "meta-llama/Llama-Guard-4-12B",
)


def make_judge(spec: str, *, kind: str | None = None, rules: Path | None = None) -> Judge:
    """The judge for a model, or of rules.

    Args:
        spec: a model's name, a local folder, or ``rule:PATH.yaml``.
        kind: one of `KINDS`, where the name does not tell; ``threeway`` is for any chat model.
        rules: the file of rules, for ``kind="rule"``; without it ``spec`` is that file.
    """
    if kind is not None and kind not in KINDS:
        raise EvaluationError(f"unknown kind of judge {kind!r}{nearest(kind, KINDS)}")
    if spec.startswith(_RULE) and kind in (None, "rule"):
        if rules is not None:
            raise EvaluationError(f"rules are given twice: in {spec!r} and as {rules}; give one")
        return RuleJudge.load(Path(spec.removeprefix(_RULE)))
    if kind == "rule":
        return RuleJudge.load(rules if rules is not None else Path(spec))
    if rules is not None:
        raise EvaluationError(f"the rules {rules} are for kind 'rule', not for judge {spec!r}")
    if kind == "threeway":
        return ThreeWayJudge()
    if kind in ("qwen3guard", "qwen3guard-prompt"):
        return Qwen3GuardJudge(of_prompt=kind == "qwen3guard-prompt")
    if kind == "llamaguard":
        return _llamaguard(spec)
    return _by_name(spec)


def _by_name(spec: str) -> Judge:
    """The judge that the name of the model, or what a local folder says of itself, tells."""
    for name in _names(spec):
        qwen = _QWEN.search(name)
        if qwen and "gen" in qwen["variant"]:
            return Qwen3GuardJudge()
        if qwen:
            message = (
                f"judge {spec!r} is no Qwen3Guard-Gen, and only that answers in words (Stream "
                "scores tokens); use Qwen/Qwen3Guard-Gen-4B, or kind 'qwen3guard' if it is one"
            )
            raise EvaluationError(message)
        llama = _LLAMA.search(name)
        if llama and llama["generation"] in ("3", "4"):
            return _llamaguard(spec)
        if llama:
            message = (
                f"judge {spec!r} is no Llama Guard 3 or 4; earlier ones have other hazards. "
                "Use meta-llama/Llama-Guard-4-12B, or kind 'llamaguard' if it is one"
            )
            raise EvaluationError(message)
    message = (
        f"cannot tell how to ask judge {spec!r}; for any chat model use kind 'threeway', for rules "
        f"'rule:PATH.yaml', for a guard under another name its kind{nearest(spec, _KNOWN)}"
    )
    raise EvaluationError(message)


def _llamaguard(spec: str) -> LlamaGuardJudge:
    """Llama Guard as its generation and its chat template want it."""
    found = next((match for name in _names(spec) if (match := _LLAMA.search(name))), None)
    generation, size = (found["generation"], found["size"]) if found else (None, "")
    parts = _reads_parts(Path(spec))
    if parts is None:
        parts = not (generation == "3" and "8b" in size)
    return LlamaGuardJudge(parts=parts, add_generation_prompt=generation == "4")


def _names(spec: str) -> Iterator[str]:
    """Names that a spec may go by, the most telling first, in lower case with hyphens.

    A folder goes by what its configuration says, its own name, and in a hub cache
    (``models--ORG--NAME/snapshots/REVISION``) the name of the model's folder.
    """
    folder = Path(spec)
    if not folder.is_dir():
        yield _plain(spec)
        return
    told = _json(folder / "config.json").get("_name_or_path")
    if isinstance(told, str):
        yield _plain(told)
    folder = folder.resolve()
    yield _plain(folder.name)
    if folder.parent.name == "snapshots":
        yield _plain(folder.parent.parent.name)


def _plain(name: str) -> str:
    return re.sub(r"[-_.:/\s\\]+", "-", name.lower())


def _reads_parts(folder: Path) -> bool | None:
    """Whether a local chat template looks into typed parts; None where there is no template."""
    if not folder.is_dir():
        return None
    template = folder / "chat_template.jinja"
    if template.is_file():
        text: Any = template.read_text(encoding="utf-8", errors="replace")
    else:
        text = _json(folder / "tokenizer_config.json").get("chat_template")
        text = text or _json(folder / "chat_template.json").get("chat_template")
    if not isinstance(text, str):
        return None
    return bool(re.search(r"""['"]type['"]|\.type\b""", text))


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
