"""The public files of the study, read from one folder; nothing is fetched here.

==============  ==========================================================================
folder          from where (each with its licence; the harmful text in them stays there)
==============  ==========================================================================
multijail       github.com/DAMO-NLP-SG/multilingual-safety-for-LLMs, data/MultiJail.csv
polyrefuse      github.com/mainlp/Multilingual-Refusal, PolyRefuse and dataset
sib200          github.com/dadelani/sib-200, data/annotated, as LANGUAGE_SPLIT.tsv
ntrex           github.com/MicrosoftTranslator/NTREX, NTREX-128
xcopa           github.com/cambridgeltl/xcopa, data, as SPLIT.LANGUAGE.jsonl
sea_safeguard   github.com/aisingapore/SEA-HELM, seahelm_tasks/safety, as LANGUAGE.jsonl
seed_tasks      github.com/yizhongw/self-instruct, data and human_eval
==============  ==========================================================================
"""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

FOLDERS = (
    "multijail", "polyrefuse", "sib200", "ntrex", "xcopa", "sea_safeguard", "seed_tasks",
)  # fmt: skip


def some(rows: Sequence[T], count: int, seed: str) -> list[T]:
    """``count`` of the rows, the same on every machine, in their own order."""
    chosen = random.Random(seed).sample(range(len(rows)), min(count, len(rows)))
    return [rows[n] for n in sorted(chosen)]


@dataclass(frozen=True)
class Corpora:
    """The files below one folder."""

    folder: Path

    def digests(self) -> dict[str, str]:
        """SHA-256 of every data file, by its path below the folder."""
        files = sorted(path for name in FOLDERS for path in (self.folder / name).iterdir())
        return {
            str(path.relative_to(self.folder)): sha256(path.read_bytes()).hexdigest()
            for path in files
            if path.suffix in (".csv", ".tsv", ".json", ".jsonl", ".txt")
        }

    def multijail(self) -> list[dict[str, str]]:
        """Rows with ``id`` and a column per language."""
        with (self.folder / "multijail" / "MultiJail.csv").open(encoding="utf-8-sig") as file:
            return list(csv.DictReader(file))

    def polyrefuse(self, name: str) -> list[dict[str, Any]]:
        """Rows with ``instruction``, and ``instruction_translated`` in tests of other languages."""
        found: list[dict[str, Any]] = json.loads(
            (self.folder / "polyrefuse" / f"{name}.json").read_text("utf-8")
        )
        return found

    def instructions(self, name: str) -> list[str]:
        """The English (or the only) instruction of each row."""
        return [row["instruction"].strip() for row in self.polyrefuse(name)]

    def sib(self, language: str, split: str) -> dict[str, tuple[str, str]]:
        """Index to (category, sentence)."""
        path = self.folder / "sib200" / f"{language}_{split}.tsv"
        lines = path.read_text("utf-8").splitlines()[1:]
        rows = [line.split("\t", 2) for line in lines]
        return {index: (category, text.strip()) for index, category, text in rows}

    def ntrex(self, language: str) -> list[str]:
        """1,997 sentences, line by line parallel; English is ``eng``."""
        kind = "src" if language == "eng" else "ref"
        path = self.folder / "ntrex" / f"newstest2019-{kind}.{language}.txt"
        return path.read_text("utf-8").splitlines()

    def jsonl(self, name: str) -> list[dict[str, Any]]:
        """A file of JSON lines by its path below the folder."""
        lines = (self.folder / name).read_text("utf-8").splitlines()
        return [json.loads(line) for line in lines if line.strip()]

    # What is trained on and what is asked share no request.

    def harmful_english(self) -> list[str]:
        """English harmful requests to refuse in training: none of PolyRefuse's test or val."""
        asked = {*self.instructions("harmful_test_en"), *self.instructions("harmful_val_en")}
        known = [*self.instructions("harmful_train_en"), *self.instructions("advbench_en")]
        return [text for text in dict.fromkeys(known) if text not in asked]

    def harmless_english(self) -> tuple[list[str], list[str]]:
        """English harmless requests to train on, and 100 to ask.

        The tests in other languages are translations; their English originals are not trained on.
        """
        translated = set(self.instructions("harmless_test_ko"))
        own = [text for text in self.instructions("harmless_test500_en") if text not in translated]
        asked = some(own, 100, "asked in English")
        train = [*self.instructions("harmless_train_en"), *own]
        return [text for text in dict.fromkeys(train) if text not in set(asked)], asked

    def seed_chats(self, words: int = 50) -> list[tuple[str, str]]:
        """Requests with an answer written by a human, of at most so many words."""
        rows = [
            *self.jsonl("seed_tasks/seed_tasks.jsonl"),
            *self.jsonl("seed_tasks/user_oriented_instructions.jsonl"),
        ]
        pairs = []
        for row in rows:
            one = row["instances"][0]
            prompt = f"{row['instruction']}\n{one['input']}".strip()
            answer = one["output"].strip()
            if answer and len(answer.split()) <= words and len(prompt.split()) <= 2 * words:
                pairs.append((prompt, answer))
        return pairs
