"""gram-add against the chat vector in the small world, on the shipped experts.

    python benchmarks/gram_add.py [--gammas 1 1.5 2] [--strengths 3 4 5] [--balances 0.5 1 2]

Gram matrices from 200 refusals in the lead language and 300 harmless chats of each language, both
drawn from the experts' own training streams at a place of their own; the exam's questions are in
neither. Prints, per language, harmful requests refused and harmless questions right, in per cent.
One set of experts, figures of all questions: it shows the mechanism, and is no
evidence about large models.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path

import safeswap
from safeswap.demo import SMALL_LANGUAGES, default_world, measure, models_folder
from safeswap.demo.documents import Document, language_documents, safety_documents
from safeswap.evaluation.backends import BackendOptions

FIRST_SEED = 54321
OPTIONS = BackendOptions(dtype="float32", device="cpu")


def write_chats(path: Path, documents: Iterable[Document], count: int) -> Path:
    """JSON Lines of the first chats that have a prompt; returns the file."""
    rows = [
        json.dumps({"prompt": document.prompt, "response": document.response})
        for document in itertools.islice((one for one in documents if one.prompt), count)
    ]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def calibrated(out: Path, seed: int) -> Path:
    """A folder with both matrices of every language expert."""
    world, models = default_world(), models_folder()
    refusals = (
        document
        for document in safety_documents(world, FIRST_SEED + seed)
        if world.is_refusal(document.response)
    )
    harmless = {
        code: write_chats(
            out / f"{code}.jsonl", language_documents(world, code, FIRST_SEED + seed), 300
        )
        for code in SMALL_LANGUAGES
    }
    safeswap.calibrate(
        models / "base",
        safety=models / "safety",
        languages={code: models / code for code in SMALL_LANGUAGES},
        harmful=write_chats(out / "refusals.jsonl", refusals, 200),
        harmless=harmless,
        out=out / "grams",
        options=OPTIONS,
        force=True,
    )
    return out / "grams"


def row(name: str, folders: dict[str, Path]) -> str:
    """Refused and right per language, and their means."""
    shares = []
    for code, folder in folders.items():
        found = measure(folder, [code]).languages[code]
        both = found.harmful_refused, found.answers_right
        shares.append(tuple(100 * one.k / one.n for one in both))
    means = tuple(sum(column) / len(shares) for column in zip(*shares, strict=True))
    cells = " | ".join(f"{refused:.1f} / {right:.1f}" for refused, right in (*shares, means))
    return f"| {name} | {cells} |"


def merged(
    profile: safeswap.Profile, out: Path, strength: float, operator: object
) -> dict[str, Path]:
    """The language expert with so much of safety's update, joined by the operator."""
    found = {}
    for code in SMALL_LANGUAGES:
        plan = safeswap.make_plan(
            profile, code, method="chat-vector", gamma=strength, operator=operator
        )
        (one,) = safeswap.merge_plans([plan], out / code, profile=profile, figure=False)
        found[code] = one.folder
    return found


def main() -> None:
    """Calibrate, merge, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0, help="of the texts")
    parser.add_argument("--gammas", type=float, nargs="+", default=[1, 1.5, 2])
    parser.add_argument("--strengths", type=float, nargs="+", default=[3, 4, 5])
    parser.add_argument("--balances", type=float, nargs="+", default=[0.5, 1, 2])
    parser.add_argument("--operators", nargs="+", default=["gram-add"])
    chosen = parser.parse_args()
    models = models_folder()
    languages: dict[str, str | Path] = {code: models / code for code in SMALL_LANGUAGES}
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch)
        profile = safeswap.make_profile(
            models / "base", safety=models / "safety", languages=languages
        )
        print(f"| refused / right, % | {' | '.join(SMALL_LANGUAGES)} | mean |")
        print(row("language expert", {code: models / code for code in SMALL_LANGUAGES}))
        print(row("safety expert", dict.fromkeys(SMALL_LANGUAGES, models / "safety")))
        for gamma in chosen.gammas:
            folders = merged(profile, out / f"chat-{gamma}", gamma, "linear")
            print(row(f"chat vector γ = {gamma:g}", folders), flush=True)
        grams = calibrated(out, chosen.seed)
        for name, strength, balance in itertools.product(
            chosen.operators, chosen.strengths, chosen.balances
        ):
            operator = {"name": name, "grams": str(grams), "balance": balance}
            folders = merged(profile, out / f"{name}-{strength}-{balance}", strength, operator)
            print(row(f"{name}, k = {strength:g}, γ = {balance:g}", folders), flush=True)


if __name__ == "__main__":
    main()
