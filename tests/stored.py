"""Results folders written by hand, so that what tables say of them can be worked out by hand.

Verdicts are one letter per prompt: ``u`` unsafe, ``s`` safe, ``r`` safe and refused, ``c``
controversial, ``i`` invalid, ``?`` unparsed, ``-`` answered and not judged, ``.`` not answered.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safeswap.evaluation.results.store import digest_of

VERDICTS = {
    "u": "unsafe",
    "s": "safe",
    "r": "safe",
    "c": "controversial",
    "i": "invalid",
    "?": "unparsed",
}
HARM = {"title": "Harm", "measures": "unsafe"}
BENIGN = {"title": "Benign", "measures": "refused"}
READING = {"title": "Reading", "measures": "right"}


class Stored:
    """A results folder in the making."""

    def __init__(self, folder: Path, cells: Mapping[str, Any], tokens: int = 512) -> None:
        self.folder, self.cells = folder, cells
        self.settings: dict[str, Any] = {
            "format": "safeswap-results/1",
            "generation": {"decoding": "greedy", "max_new_tokens": tokens},
            "cells": dict(cells),
            "arms": [],
        }
        self._settings()

    def arm(
        self,
        name: str,
        role: str = "other",
        reference: str = "",
        language: str = "",
        method: str = "",
        operator: str = "linear",
        **settings: Any,
    ) -> Stored:
        """Add a model; a merge with how it was made."""
        self.settings["arms"].append(name)
        self._settings()
        model = {"name": name, "source": f"org/{name}", "digest": f"d-{name}", "role": role}
        about: dict[str, Any] = {"reference": reference, "language": language}
        if method:
            joined = {"name": operator, "settings": {}}
            about["made"] = {"method": method, "settings": settings, "operator": joined}
        _json(self.folder / name / "model.json", model | about)
        return self

    def judged(
        self,
        arm: str,
        cell: str,
        letters: str,
        judge: str = "guard",
        says_refusal: bool = True,
        flags: Mapping[int, Sequence[str]] = {},
        ends: str = "stop",
    ) -> Stored:
        """Responses and verdicts of a cell; prompt n of every language is the same prompt."""
        benchmark, language = cell.split("/")
        responses, verdicts = [], []
        for n, letter in enumerate(letters):
            if letter == ".":
                continue
            row = {
                "key": f"{cell}/{n}",
                "benchmark": benchmark,
                "language": language,
                "id": str(n),
                "prompt": f"prompt {n} in {language}",
                "response": f"answer of {arm} to {n} in {language}",
                "finish_reason": ends,
            }
            responses.append(row)
            if letter == "-":
                continue
            known = says_refusal and letter != "?"
            verdicts.append(
                {
                    "key": row["key"],
                    "verdict": VERDICTS[letter],
                    "categories": [],
                    "refusal": letter == "r" if known else None,
                    "flags": list(flags.get(n, ())),
                    "judge_version": "1",
                    "response_digest": digest_of([row["prompt"], row["response"]]),
                    "raw": "",
                }
            )
        _add(self.folder / arm / "responses.jsonl", responses)
        _add(self.folder / arm / "verdicts" / f"{judge}.jsonl", verdicts)
        return self

    def also_judged(self, arm: str, cell: str, letters: str, judge: str) -> Stored:
        """Verdicts of one more judge on answers that are there."""
        answers = self.folder / arm / "responses.jsonl"
        before = answers.read_bytes()
        self.judged(arm, cell, letters, judge)
        answers.write_bytes(before)
        return self

    def scored(
        self, arm: str, cell: str, digits: str, group: int = 1, whole: bool = True, **more: Any
    ) -> Stored:
        """Questions that lm-eval scored; `group` of them share a text."""
        benchmark, language = cell.split("/")
        rows: list[dict[str, Any]] = [
            {
                "key": f"{cell}/task/{n}",
                "benchmark": benchmark,
                "language": language,
                "id": f"task/{n}",
                "metrics": {"acc": float(digit)},
                "right": int(digit),
                "cluster": f"text {n // group}",
                **more,
            }
            for n, digit in enumerate(digits)
        ]
        last = [{"key": f"{cell}/complete", "items": len(rows)}] if whole else []
        _add(self.folder / arm / "scores.jsonl", [*rows, *last])
        return self

    def _settings(self) -> None:
        _json(self.folder / "settings.json", self.settings)


def _json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def _add(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
