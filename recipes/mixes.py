"""Data mixes as files: which examples an expert is trained on, from where, and how many.

A mix is YAML::

    parts:
      - {name: refusals, file: refusals.jsonl, take: 320}
      - {name: aya, hub: CohereForAI/aya_dataset, revision: main, split: train,
         where: {language_code: swh}, prompt: inputs, response: targets, take: 4000}

A file is JSON Lines; a path is relative to the mix. ``prompt`` and ``response`` are names of
fields (these, where nothing is said), or texts with ``{field}`` in them; ``{a.b}`` is a field
in a field. ``take`` draws that many rows by the seed; without it all are taken. Unknown keys
are refused.
"""

from __future__ import annotations

import difflib
import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

KEYS = ("name", "file", "hub", "config", "revision", "split", "where", "prompt", "response", "take")


@dataclass(frozen=True)
class Example:
    """One chat of a request and its answer; ``part`` is where it comes from."""

    prompt: str
    response: str
    part: str


@dataclass(frozen=True)
class Mix:
    """The examples of a mix in their order; ``origins`` says where each part was read."""

    examples: tuple[Example, ...]
    origins: Mapping[str, str]

    def counts(self) -> dict[str, int]:
        """Examples per part."""
        return dict(Counter(example.part for example in self.examples))

    def digest(self) -> str:
        """SHA-256 of all examples in their order."""
        text = "\n".join(json.dumps([e.prompt, e.response]) for e in self.examples)
        return sha256(text.encode()).hexdigest()

    def record(self) -> dict[str, Any]:
        """What an expert's ``recipe.json`` keeps."""
        return {"parts": self.counts(), "origins": dict(self.origins), "sha256": self.digest()}


def read_mix(path: Path, seed: int) -> Mix:
    """Read, draw and shuffle.

    Raises:
        SystemExit: a file, key or field that is not there, in words.
    """
    document = yaml.safe_load(path.read_text("utf-8"))
    if not isinstance(document, dict) or set(document) != {"parts"} or not document["parts"]:
        raise SystemExit(f"{path}: a mix is `parts:`, a list of mappings")
    examples: list[Example] = []
    origins = {}
    for number, part in enumerate(document["parts"]):
        _check(part, f"{path}: part {number + 1}")
        name = str(part.get("name", part.get("file", part.get("hub"))))
        rows = [Example(p, r, name) for p, r in _pairs(part, path)]
        if "take" in part:
            # a text as seed: the same draw on every machine, another one for every part
            draw = random.Random(f"{seed} {name}")
            rows = draw.sample(rows, min(int(part["take"]), len(rows)))
        examples += rows
        origins[name] = str(part.get("file") or f"{part['hub']}@{part.get('revision', 'main')}")
    random.Random(f"{seed} order").shuffle(examples)
    return Mix(tuple(examples), origins)


def _check(part: object, where: str) -> None:
    """Refuse what is no part."""
    if not isinstance(part, dict):
        raise SystemExit(f"{where}: not a mapping")
    for key in part:
        if key not in KEYS:
            close = difflib.get_close_matches(str(key), KEYS, 1)
            hint = f", did you mean {close[0]!r}?" if close else f"; keys are {', '.join(KEYS)}"
            raise SystemExit(f"{where}: unknown key {key!r}{hint}")
    if ("file" in part) == ("hub" in part):
        raise SystemExit(f"{where}: give `file` or `hub`, one of them")


def _pairs(part: Mapping[str, Any], mix: Path) -> Iterable[tuple[str, str]]:
    """(request, answer) of each row that ``where`` lets through and that has both."""
    for row in _rows(part, mix):
        if any(str(row.get(key)) != str(value) for key, value in part.get("where", {}).items()):
            continue
        prompt = _field(row, part.get("prompt", "prompt"), part)
        response = _field(row, part.get("response", "response"), part)
        if prompt and response:
            yield prompt, response


def _rows(part: Mapping[str, Any], mix: Path) -> Iterable[Mapping[str, Any]]:
    """The rows of a JSON Lines file, or of a dataset of the hub, streamed."""
    if "file" in part:
        file = mix.parent / part["file"]
        if not file.is_file():
            raise SystemExit(f"{mix}: no file {file}")
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)
        return
    from datasets import load_dataset

    yield from load_dataset(
        part["hub"], part.get("config"), split=part.get("split", "train"),
        revision=part.get("revision"), streaming=True,
    )  # fmt: skip


def _field(row: Mapping[str, Any], template: str, part: Mapping[str, Any]) -> str:
    """A field by its name, or a text with ``{field}`` filled in; stripped.

    A dot leads into a field that is a mapping itself: ``{translation.swh_Latn}``.
    """
    if "{" not in template:
        return _value(row, template, part).strip()
    return re.sub(r"{([\w.]+)}", lambda match: _value(row, match[1], part), template).strip()


def _value(row: Any, path: str, part: Mapping[str, Any]) -> str:
    for name in path.split("."):
        if not isinstance(row, Mapping) or name not in row:
            have = ", ".join(map(str, row)) if isinstance(row, Mapping) else "no names"
            raise SystemExit(f"{part.get('name')}: rows have no field {path!r}; they have {have}")
        row = row[name]
    return "" if row is None else str(row)
