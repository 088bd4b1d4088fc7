"""The search's file: that of a sweep without its grid, and two keys of its own.

::

    start:                              # what the search starts from; entries as of a grid
      - {method: share-difference, by: [module, layer]}
    space: {weights: free, high: 1.5, step: 0.05}

Both may be left out; ``START`` is then tried as far as the model allows it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safeswap.errors import EvaluationError
from safeswap.io.keys import check_keys
from safeswap.search.space import Space
from safeswap.search.sweep_config import KEYS as SWEEP_KEYS
from safeswap.search.sweep_config import GridCell, Sweep, read_cells, read_content, sweep_of

START: Sequence[Mapping[str, Any]] = (
    {"method": "share-difference", "by": ["module", "layer"]},
    {"method": "uniform"},
    {"method": "gated"},
    {"method": "band"},
    {"method": "cosine"},
)
KEYS = (*(key for key in SWEEP_KEYS if key != "grid"), "start", "space")
_SPACE = ("weights", "high", "step")


@dataclass(frozen=True, slots=True)
class Search:
    """A search's file, checked as far as no model is needed.

    Attributes:
        sweep: models, questions, judge, rule; its cells are what the search starts from.
        space: which tables may be proposed.
        asked_for: whether the file has a start of its own: each of its cells must do.
    """

    sweep: Sweep
    space: Space
    asked_for: bool

    @property
    def start(self) -> tuple[GridCell, ...]:
        """The closed-form methods that it starts from."""
        return self.sweep.cells


def read_search(
    path: Path, group: str = "layer", *, allow_outside: bool = False, fetch: bool = True
) -> Search:
    """Read a search's file and check every key and value of it.

    Args:
        group: which units share their weights; see ``Space``.
        allow_outside, fetch: as for ``read_sweep``.

    Raises:
        SafeswapError: what is wrong at which key, with the nearest right one.
    """
    content = read_content(path, KEYS)
    space = read_space(path, content.pop("space", {}), group)
    given = content.pop("start", None)
    sweep = sweep_of({**content, "grid": []}, path, allow_outside=allow_outside, fetch=fetch)
    language = next(iter(sweep.languages))
    start = [dict(entry) for entry in START] if given is None else given
    cells = tuple(read_cells(path, start, language, "start"))
    return Search(replace(sweep, cells=cells), space, given is not None)


def read_space(path: Path, given: Any, group: str) -> Space:
    """The space from its mapping in the file.

    Raises:
        EvaluationError: an unknown key, something that is no number, numbers that do not fit.
    """
    if not isinstance(given, dict):
        raise EvaluationError(f"{path}: space is a mapping with {', '.join(_SPACE)}.")
    check_keys(given, _SPACE, f"{path}: space", EvaluationError)
    for key, value in given.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if key != "weights" and not number:
            raise EvaluationError(f"{path}: space.{key} is {value!r}; a number.")
    return Space(group, **given)
