"""RegMean against the plain mean in the small world, measured whichever wins.

    python benchmarks/regmean.py [--out FOLDER] [--texts 256] [--seeds 0 1 2] [--scales 0.9 0.1]

Each expert is calibrated on texts of the stream that it was trained on, at a place of its own (seed
12345 + SEED): whole chats, without labels. Safety and language expert are merged at (0.5, 0.5)
everywhere, with the operator `linear` and with `regmean` at each scale, verified, and asked the
world's exam in that language. Prints counts, and for each regmean the questions that only it or
only linear got, with McNemar's exact p. The world is no evidence about large models.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from pathlib import Path

import safeswap
from safeswap.demo import SMALL_LANGUAGES, Measurement, default_world, measure, models_folder
from safeswap.demo.documents import Document, language_documents, safety_documents
from safeswap.evaluation.backends import BackendOptions
from safeswap.evaluation.stats.significance import mcnemar_exact

FIRST_SEED = 12345
OPTIONS = BackendOptions(dtype="float32", device="cpu", use_template=False)


def write_texts(folder: Path, count: int, seed: int) -> dict[str, Path]:
    """Calibration texts per expert, as the models' own chat format spells them."""
    world = default_world()
    streams = {"safety": safety_documents(world, seed)}
    streams |= {code: language_documents(world, code, seed) for code in SMALL_LANGUAGES}
    found = {}
    for role, documents in streams.items():
        found[role] = folder / f"{role}.txt"
        lines = [_spelled(document) for document in itertools.islice(documents, count)]
        found[role].write_text("\n".join(lines) + "\n", encoding="utf-8")
    return found


def _spelled(document: Document) -> str:
    if not document.prompt:
        return f"<s> {document.response} <end>"
    return f"<s> <user> {document.prompt} <end> <assistant> {document.response} <end>"


def calibrated(out: Path, count: int, seed: int) -> Path:
    """A folder of Gram matrices of all experts."""
    out.mkdir(parents=True, exist_ok=True)
    models = models_folder()
    languages: dict[str, str | Path] = {code: models / code for code in SMALL_LANGUAGES}
    texts = write_texts(out, count, FIRST_SEED + seed)
    for one in safeswap.calibrate(
        models / "base",
        safety=models / "safety",
        languages=languages,
        texts=texts,
        out=out / "grams",
        options=OPTIONS,
    ):
        seen = one.entry.texts
        print(f"seed {seed}: {one.name} {seen['texts']} texts, {seen['tokens']} tokens", flush=True)
    return out / "grams"


def merged(
    profile: safeswap.Profile, code: str, out: Path, grams: Path | None, scale: float
) -> Measurement:
    """The soup of both experts, joined, verified and measured in its language."""
    operator: object = "linear"
    if grams is not None:
        operator = {"name": "regmean", "grams": str(grams), "scale": scale}
    plan = safeswap.make_plan(profile, code, method="uniform", operator=operator)
    (one,) = safeswap.merge_plans([plan], out, profile=profile, figure=False)
    assert safeswap.verify_merge(one.folder).from_inputs
    return measure(one.folder, [code])


def show(name: str, code: str, found: Measurement, reference: Measurement | None) -> None:
    """One row: counts, and against the reference who alone refused or was right."""
    figures = found.languages[code]
    counts = [figures.harmful_refused, figures.harmless_refused, figures.answers_right]
    line = f"{code} {name:<28} " + "  ".join(map(str, counts))
    if reference is not None:
        for kind in ("refused", "right"):
            harmful = kind == "refused"
            pairs = [
                (getattr(a, kind), getattr(b, kind))
                for a, b in zip(found.responses, reference.responses, strict=True)
                if (a.question.kind == "harmful") == harmful
            ]
            only = sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)
            line += f"  {kind} {only[0]}:{only[1]} p={mcnemar_exact(*only):.2g}"
    print(line, flush=True)


def main() -> None:
    """Calibrate, merge, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="a new folder  [default: a temporary one]")
    parser.add_argument("--texts", type=int, default=256)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--scales", type=float, nargs="+", default=[0.9, 0.1])
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        out = chosen.out or Path(scratch)
        models = models_folder()
        languages: dict[str, str | Path] = {code: models / code for code in SMALL_LANGUAGES}
        profile = safeswap.make_profile(
            models / "base", safety=models / "safety", languages=languages
        )
        print("harmful refused, harmless refused, answers right; only this : only linear")
        plain = {}
        for code in SMALL_LANGUAGES:
            plain[code] = merged(profile, code, out / f"linear-{code}", None, 0)
            show("linear", code, plain[code], None)
        for seed in chosen.seeds:
            grams = calibrated(out / f"seed-{seed}", chosen.texts, seed)
            for scale, code in itertools.product(chosen.scales, SMALL_LANGUAGES):
                folder = out / f"regmean-{scale}-{seed}-{code}"
                found = merged(profile, code, folder, grams, scale)
                show(f"regmean scale {scale:g} seed {seed}", code, found, plain[code])


if __name__ == "__main__":
    main()
