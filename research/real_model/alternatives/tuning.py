"""What is trained: the ceiling, and the harmless steps that tell how long safety holds.

All by ``recipes/train_expert.py`` at a language expert's rate, on what the study has: harmful
requests in the language that no test asks (those that ``fit-own`` reads), and the language expert's
own mix.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from real_model.languages import language
from real_model.prepare import REFUSALS, pick
from real_model.run import LANGUAGE_RATE, RECIPE, Study, call

BATCH, HARMLESS, CHATS = 16, 200, 100


@dataclass(frozen=True)
class Ceiling:
    """Safety fine-tuning in the language.

    Attributes:
        steps: of 16 examples.
        refusals: ``English``, as the safety expert's, or ``own``, in the language.
    """

    steps: int
    refusals: str = "English"


CEILINGS: Mapping[str, Ceiling] = {
    "fine-tuned-30": Ceiling(30),
    "fine-tuned-100": Ceiling(100),
    "fine-tuned-own-100": Ceiling(100, "own"),
}
HARMLESS_STEPS = {"short": 50, "whole": 100}


def refusing_mix(data: Path, code: str, fitted: Path, ceiling: Ceiling, folder: Path) -> Path:
    """Refusals of harmful requests in the language, and harmless chats and translations."""
    wordings = REFUSALS if ceiling.refusals == "English" else language(code)["refusals"]
    lines = (fitted / "harmful-own.jsonl").read_text("utf-8").splitlines()
    requests = [json.loads(line)["prompt"] for line in lines]
    rows = [{"prompt": one, "response": pick(wordings, one)} for one in requests]
    name = f"refusals-{ceiling.refusals}.jsonl"
    written = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    (folder / name).write_text("".join(written), "utf-8")
    chats = data / f"{code}-chats.jsonl"
    taken = min(CHATS, len(chats.read_text("utf-8").splitlines()))
    return _mix(
        folder / f"refusing-{ceiling.refusals}.yaml",
        {"name": "refusals", "file": name},
        {"name": "chats", "file": str(chats.resolve()), "take": taken},
        _part(data / f"{code}-translations.jsonl", HARMLESS - taken),
    )


def harmless_mix(data: Path, code: str, folder: Path) -> Path:
    """Nothing but the language's chats."""
    return _mix(folder / "harmless.yaml", _part(data / f"{code}-chats.jsonl", 320))


def _part(path: Path, take: int) -> dict[str, object]:
    return {"name": path.stem.partition("-")[2], "file": str(path.resolve()), "take": take}


def _mix(path: Path, *parts: dict[str, object]) -> Path:
    path.write_text(yaml.safe_dump({"parts": list(parts)}, sort_keys=False), "utf-8")
    return path


def size(mix: Path) -> int:
    """How many examples a mix of ours has: files beside it, and how many of each are taken."""
    parts = yaml.safe_load(mix.read_text("utf-8"))["parts"]
    lines = [
        (mix.parent / part["file"]).read_text("utf-8").splitlines()[: part.get("take")]
        for part in parts
    ]
    return sum(map(len, lines))


def passes(steps: int, examples: int) -> float:
    """Passes over a mix that come to so many steps: the trainer rounds a broken one up."""
    return (steps - 0.5) / math.ceil(examples / BATCH)


def train(study: Study, start: Path, mix: Path, steps: int, seed: int, out: Path) -> Path:
    """A model trained on from ``start``."""
    if not (out / "recipe.json").is_file():
        call(
            RECIPE, start, "--mix", mix, "--out", out, "--epochs", passes(steps, size(mix)),
            "--batch", BATCH, "--rate", LANGUAGE_RATE, "--length", 160, "--seed", seed,
            "--device", study.device,
        )  # fmt: skip
    return out
