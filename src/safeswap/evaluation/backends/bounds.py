"""What a loader would do for a stranger's files without asking: refused before anything is loaded.

Loaders open the paths that an index of shards or a tokenizer's configuration names, wherever they
lead, build as many layers as a configuration claims, and let a tokenizer make gigabytes of a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safeswap.checkpoint.inside import is_plain_name
from safeswap.checkpoint.source import WEIGHT_FILES, read_json
from safeswap.errors import EvaluationError
from safeswap.io.regular import is_there, shortened

LAYERS = 10_000
"""Of anything that is stacked in a model; the deepest that there are have some hundred layers."""
GROWTH = 256
"""How many letters a tokenizer's replacements may make of one; sound ones make three of it."""
PIECES = 64
"""In a template of a tokenizer's special tokens."""
_COUNTS = re.compile(r"(n|num)_(\w+_)?(layers?|blocks?|experts)|depth|depths")


def refuse_unbounded(folder: Path) -> None:
    """Refuse a checkpoint whose files lead a loader out of the folder, or have no sane bounds.

    Raises:
        EvaluationError: says which file and key.
        CheckpointError: one of the files cannot be read.
    """
    for name in WEIGHT_FILES:
        if name.endswith(".index.json") and (folder / name).is_file():
            table = read_json(folder / name).get("weight_map")
            for file in set(table.values()) if isinstance(table, Mapping) else ():
                if not isinstance(file, str) or not is_plain_name(file):
                    raise EvaluationError(
                        f"{folder / name}: names the shard {shortened(file)!r}, which is outside "
                        "its own folder. Fetch the index again."
                    )
    if (folder / "config.json").is_file():
        for key, value in _numbers(read_json(folder / "config.json")):
            if _COUNTS.fullmatch(key) and value > LAYERS:
                raise EvaluationError(
                    f"{folder / 'config.json'}: {key} is {shortened(value)}, more than any model "
                    f"has ({LAYERS} at most). Fetch the file again."
                )
    if (folder / "tokenizer_config.json").is_file():
        _refuse_paths(folder)
    if (folder / "tokenizer.json").is_file():
        _refuse_growth(folder / "tokenizer.json")


def _numbers(content: Mapping[str, Any], depth: int = 4) -> Iterator[tuple[str, int]]:
    for key, value in content.items():
        if isinstance(value, Mapping) and depth:
            yield from _numbers(value, depth - 1)
        elif isinstance(value, list):
            yield from ((key, one) for one in value if isinstance(one, int))
        elif isinstance(value, int):
            yield key, value


def _refuse_paths(folder: Path) -> None:
    """Paths of the machine where a tokenizer was saved are common; here they lead nowhere."""
    path = folder / "tokenizer_config.json"
    for key, value in read_json(path).items():
        if key.endswith("_file") and isinstance(value, str) and is_there(Path(value)):
            if Path(value).resolve().is_relative_to(folder.resolve()):
                continue
            raise EvaluationError(
                f"{path}: {key} names {shortened(value)!r}, a file of this machine outside the "
                "checkpoint's folder, which the loader would read. Remove the key."
            )


def _refuse_growth(path: Path) -> None:
    content = read_json(path)
    for part in ("normalizer", "pre_tokenizer", "decoder"):
        growth = 1
        for step in _steps(content.get(part)):
            growth *= max(
                1,
                *(
                    len(step[k])
                    for k in ("content", "replacement", "prepend")
                    if isinstance(step.get(k), str)
                ),
                1,
            )
        if growth > GROWTH:
            raise EvaluationError(
                f"{path}: the replacements of its {part} make up to {shortened(growth)} letters of "
                f"one ({GROWTH} at most), more than any text needs. Fetch the file again."
            )
    for step in _steps(content.get("post_processor")):
        pieces = max(
            (len(v) for k in ("single", "pair") if isinstance(v := step.get(k), list)), default=0
        )
        if pieces > PIECES:
            raise EvaluationError(
                f"{path}: its post_processor repeats a text in {pieces} pieces ({PIECES} at most). "
                "Fetch the file again."
            )


def _steps(step: Any, depth: int = 8) -> Iterator[Mapping[str, Any]]:
    """A step of a tokenizer and, of a sequence, all of its steps."""
    if isinstance(step, Mapping):
        yield step
        for key in ("normalizers", "pretokenizers", "decoders", "processors"):
            inner = step.get(key)
            for one in inner if isinstance(inner, list) and depth else ():
                yield from _steps(one, depth - 1)
