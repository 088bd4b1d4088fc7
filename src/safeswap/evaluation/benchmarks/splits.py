"""Dev and test: what a method was chosen on is not what it is reported on.

A question's side is decided by a seeded hash of the name that groups it with its like: a prompt's
id, the passage of a BELEBELE question, the number of an MGSM one. So a prompt, its translations and
its hostile wording are always on the same side, on every machine, however many there are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from safeswap.errors import EvaluationError, nearest
from safeswap.evaluation.benchmarks.registry import whose_prompts
from safeswap.plan.chosen import ChosenOn

Part = Literal["dev", "test"]
PARTS: tuple[Part, ...] = get_args(Part)


@dataclass(frozen=True, slots=True)
class Split:
    """One side of a division of all questions.

    Attributes:
        part: ``dev``, where methods and parameters are chosen, or ``test``, for the report.
        fraction: of the questions that are dev, about.
        seed: another seed is another division.
    """

    part: Part
    fraction: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.part not in PARTS:
            raise EvaluationError(f"no part is called {self.part!r}{nearest(self.part, PARTS)}")
        if not 0.0 < self.fraction < 1.0:
            raise EvaluationError(
                f"the part of dev questions lies between 0 and 1, not {self.fraction}."
            )

    def holds(self, name: str) -> bool:
        """Whether a question (or the group that it belongs to) is on this side."""
        raw = hashlib.sha256(f"{self.seed}:{name}".encode()).digest()[:8]
        dev = int.from_bytes(raw, "big") < self.fraction * 2**64
        return dev == (self.part == "dev")

    def of(self, part: Part) -> Split:
        """The named side of the same division."""
        return replace(self, part=part)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for files."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.part}:{self.fraction:g}:{self.seed}"


def read_split(text: str) -> Split:
    """A split from ``PART[:FRACTION[:SEED]]``, such as ``test`` or ``dev:0.5:0``.

    Raises:
        EvaluationError: another form, an unknown part, a fraction that leaves a side empty.
    """
    part, *rest = text.split(":")
    try:
        if len(rest) > 2:
            raise ValueError
        fraction = float(rest[0]) if rest else 0.5
        seed = int(rest[1]) if len(rest) == 2 else 0
    except ValueError:
        raise EvaluationError(
            f"--split {text}: is dev or test, with the part of dev questions and a seed if you "
            "like: test:0.5:0."
        ) from None
    return split_of({"part": part, "fraction": fraction, "seed": seed})


def split_of(content: Mapping[str, Any]) -> Split:
    """A split from what :meth:`Split.as_dict` gave."""
    return Split(content["part"], float(content["fraction"]), int(content["seed"]))


def seen_cells(
    settings: Mapping[str, Any],
    chosen: ChosenOn | None,
    asked: Mapping[str, Collection[str]] | None = None,
) -> list[str]:
    """The cells of a results folder that hold questions on which a model was chosen.

    A benchmark's questions are the same in every language and in its hostile wording: unless the
    results are the other side of the same division, they hold dev questions. Prompts are also known
    by their words, under whatever name.

    Args:
        settings: of the results (``split`` and ``cells``).
        chosen: of the model, as a plan records it; None where it was not chosen by figures.
        asked: per cell, what tells its prompts (`Prompt.identities`).
    """
    if chosen is None:
        return []
    test = None if chosen.split is None else {**chosen.split, "part": "test"}
    other_side = test is not None and settings.get("split") == test
    benchmarks = {_asked(cell) for cell in chosen.cells}
    seen = []
    for cell, about in settings.get("cells", {}).items():
        same = _asked(cell) in benchmarks and not (about or {}).get("absent")
        # lm-eval's own data may ask the same words twice, once on each side
        divided = same and other_side and "task" in (about or {})
        words = not divided and not chosen.prompts.isdisjoint((asked or {}).get(cell, ()))
        if words or (same and not other_side):
            seen.append(cell)
    return seen


def _asked(cell: str) -> str:
    """Whose prompts a cell asks: the same in every language, and in a hostile wording."""
    return whose_prompts(cell.rpartition("/")[0])
