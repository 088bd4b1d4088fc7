"""Diagnose all pairs of the small world, and compare the grades with what merges reached.

    python -m small_world.diagnosed --models DIR --records FILE [--kinds "as trained" unknown]
    python -m small_world.diagnosed --records FILE

The first trains what ``python -m small_world.train --out DIR`` left out (experts of languages that
the base does not know, a safety expert that refuses everything), measures what FILE lacks and
prints the table; the second prints it from FILE alone. An interrupted run goes on.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from hit_rate import by_grade, by_kind, row_of
from safeswap import api
from safeswap.demo.documents import Document, language_documents, safety_documents
from safeswap.demo.world import LEAD_LANGUAGE, World
from safeswap.evaluation.backends import BackendOptions
from small_world.chosen.measure import Trio
from small_world.diagnosed.outcomes import Outcome, outcome, stored
from small_world.diagnosed.pairs import KINDS, Pair, pairs

COUNTS = Path(__file__).parents[1] / "chosen" / "seeds.json"
FIRST_SEED, TEXTS = 98765, 40
"""Texts are drawn from the experts' training streams, at a place that nothing else reads."""


def texts_of(trio: Trio, folder: Path) -> dict[str, dict[str, Path]]:
    """Files as ``api.diagnose`` takes them; no item of the exam's harmful questions is in them."""
    world, at, code = trio.world, FIRST_SEED + trio.seed, trio.code
    english = list(itertools.islice(safety_documents(world, at), 8 * TEXTS))
    refused = (one for one in english if world.is_refusal(one.response))
    answered = (one for one in english if not world.is_refusal(one.response))
    chats = (one for one in language_documents(world, code, at) if one.prompt)
    return {
        "harmful": {
            "safety": _written(folder / "refusals.jsonl", refused),
            code: _written(folder / "harmful.jsonl", own_requests(world, code)),
        },
        "harmless": {
            "safety": _written(folder / "english.jsonl", answered),
            code: _written(folder / "chats.jsonl", chats),
        },
    }


def own_requests(world: World, code: str) -> Iterator[Document]:
    """Requests in the language for what the safety expert was trained to refuse, refused in the
    lead language and in it by turns.
    """
    for n, item in enumerate(item for item in world.items if item.safety_trained):
        language = (LEAD_LANGUAGE, code)[n % 2]
        yield Document(world.request(code, item, n % 3), world.refusal(language, n % 2, item))


def _written(path: Path, documents: Iterable[Document]) -> Path:
    drawn = list({one.prompt: one for one in itertools.islice(documents, 2 * TEXTS)}.values())
    rows = [json.dumps({"prompt": one.prompt, "response": one.response}) for one in drawn[:TEXTS]]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def diagnosed(pair: Pair, reached: Outcome | None) -> dict[str, Any]:
    """A pair's grade with its criteria, and its outcome, counted where it is not known yet."""
    trio = pair.trio
    with tempfile.TemporaryDirectory() as folder:
        found = api.diagnose(
            trio.base,
            safety=trio.safety,
            languages={trio.code: trio.language},
            **texts_of(trio, Path(folder)),
            options=BackendOptions(dtype="float32", device="cpu"),
            max_tokens=64,
            workers=1,
            force=True,
        )
    if reached is None:
        reached = outcome(trio, stored(COUNTS) if pair.kind == "as trained" else [])
    (one,) = found.languages
    return row_of(pair.kind, trio.seed, one, reached.works, outcome=asdict(reached))


def key_of(row: dict[str, Any]) -> tuple[str, str, int]:
    """What tells pairs apart."""
    return row["kind"], row["language"], row["seed"]


def main() -> None:
    """Measure what is missing, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--models", type=Path, help="what small_world.train wrote")
    parser.add_argument("--records", type=Path, required=True)
    parser.add_argument("--expert-seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--languages", nargs="+", help="only these")
    parser.add_argument("--again", action="store_true", help="diagnose anew; outcomes stay")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = json.loads(given.records.read_text("utf-8")) if given.records.exists() else []
    known = {key_of(row): Outcome(**row["outcome"]) for row in rows}
    done = set() if given.again else set(known)
    every = (
        pair
        for seed in (given.expert_seeds if given.models else ())
        for pair in pairs(given.models, seed, given.kinds, given.languages)
    )
    for pair in every:
        key = (pair.kind, pair.trio.code, pair.trio.seed)
        if key not in done:
            row = diagnosed(pair, known.get(key))
            rows = [*(one for one in rows if key_of(one) != key), row]
            lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
            given.records.write_text(f"[\n{lines}\n]\n", "utf-8")
            print(pair.name, row["grade"], row["works"], flush=True)
    print(by_kind(rows), by_grade(rows), sep="\n\n")


if __name__ == "__main__":
    main()
