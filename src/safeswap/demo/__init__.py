"""The small world: a test bed with real, trained checkpoints and exact answers.

A lead language and three smaller made-up ones, 176 made-up items, five shipped checkpoints
of 1.25 M parameters (a base, a safety expert, one expert per smaller language) that were trained
from scratch by ``small_world.train``. What may be asked of any checkpoint of that family:

    from safeswap.demo import measure, models_folder
    print(measure(models_folder() / "safety").languages["qab"].harmful_refused)

Importing this package needs neither torch nor transformers; ``measure`` imports them when called.

The world shows the mechanism: safety learned in one language carries over in part to others, and
learning a language without safety loses it. It is no evidence about large models.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from safeswap.demo.documents import Document, Question, exam
from safeswap.demo.measure import (
    Count,
    LanguageMeasurement,
    Measurement,
    Response,
    generate,
    judge,
    measure,
)
from safeswap.demo.world import (
    LANGUAGES,
    LEAD_LANGUAGE,
    SMALL_LANGUAGES,
    Item,
    Language,
    World,
    default_world,
)

__all__ = [
    "LANGUAGES",
    "LEAD_LANGUAGE",
    "SMALL_LANGUAGES",
    "Count",
    "Document",
    "Item",
    "Language",
    "LanguageMeasurement",
    "Measurement",
    "Question",
    "Response",
    "World",
    "default_world",
    "exam",
    "generate",
    "judge",
    "measure",
    "models_folder",
]


def models_folder() -> Path:
    """The folder of the shipped checkpoints: base, safety, and one folder per smaller language."""
    folder = Path(str(resources.files(__name__) / "models"))
    if not folder.is_dir():
        raise FileNotFoundError(
            f"the small world's checkpoints are not at {folder}; reinstall safeswap, or train them "
            "with `python -m small_world.train --out DIR`"
        )
    return folder
