"""The safety expert as a guard in front of the language expert, composed of what both answered.

No guard model is at hand here, and an English safety expert is what the study has. Where it refuses
a request, its refusal is the answer; else the language expert's answer is. Both have answered every
request already, so nothing is generated. In use it costs two models in memory, and the guard's
first words before the first word of an answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from real_model.figures import REFUSED


def behind(guard: str, answers: str) -> str:
    """Outcomes of a benchmark, letter by letter: the guard's where it refuses.

    Raises:
        ValueError: the two were not asked the same number of prompts.
    """
    pairs = zip(guard, answers, strict=True)
    return "".join(first if first in REFUSED else answer for first, answer in pairs)


def all_behind(guard: Mapping[str, str], answers: Mapping[str, str]) -> dict[str, str]:
    """Outcomes by benchmark, of those that were asked of the model behind the guard."""
    return {name: behind(guard[name], outcomes) for name, outcomes in answers.items()}


def guarded(
    safety: Mapping[str, Any], expert: Mapping[str, Any], refused: Iterable[int]
) -> dict[str, Any]:
    """The model of a record that guard and language expert are together.

    What is scored by likelihood is the language expert's: the guard writes nothing there.

    Args:
        refused: numbers of the translations to be written that the guard refuses.
    """
    stopped = set(refused)
    chrf = [
        of_guard if number in stopped else of_expert
        for number, (of_guard, of_expert) in enumerate(
            zip(safety["chrf"], expert["chrf"], strict=True)
        )
    ]
    outcomes = all_behind(safety["outcomes"], expert["outcomes"])
    return {**expert, "outcomes": outcomes, "chrf": chrf}
