"""Operators by behaviour in the small world, chosen on dev questions, reported on the others.

    PYTHONPATH=research python benchmarks/behaviour.py [--seed 0]

Of every family, per language: the setting that refuses most harmful requests on the dev half of the
questions among those that lose at most one point of right answers there against the language expert
(`small_world.masks`' halves; no item is in both); where none is within, the one that loses least.
Figures are of the test half: harmful refused (in the language asked) / harmless right.

Texts are those of ``gram_add.py``; ``sparse-edit`` has 99 harmful and 300 harmless prompts, each in
the lead language and in the language; the harmful ones are about no item of the exam's harmful
questions. It edits the language expert, as published, and the chosen merges of the two others,
which are safe in the lead language. One set of experts; the small world is no evidence about large
models.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import itertools
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gram_add import OPTIONS, calibrated
from numpy.typing import NDArray

import safeswap
from safeswap.demo import (
    LEAD_LANGUAGE,
    SMALL_LANGUAGES,
    Measurement,
    default_world,
    exam,
    measure,
    models_folder,
)
from safeswap.demo.documents import REQUEST_FORMS
from small_world.masks.verdicts import dev_half

HARMLESS = 300
LAYERS = 6
Pair = tuple[str, str]
Figures = tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Setting:
    """One candidate of a family.

    Attributes:
        name: for the table.
        strength: the safety expert's weight.
        operator: without its folder.
        layer: the only one that is edited; None: all.
    """

    name: str
    strength: float
    operator: Mapping[str, object]
    layer: int | None = None


def chat_vectors() -> Iterator[Setting]:
    """Plain addition."""
    for gamma in (0.5, 1, 1.5, 2):
        yield Setting(f"γ = {gamma:g}", gamma, {"name": "linear"})


def gram_adds() -> Iterator[Setting]:
    """Both settings of the issue's grid."""
    for k, balance in itertools.product((2, 3, 4, 5), (0.5, 1, 2)):
        yield Setting(f"k = {k}, γ = {balance:g}", k, {"name": "gram-add", "balance": balance})


def sparse_edits() -> Iterator[Setting]:
    """All layers, and each layer alone."""
    for k, balance in itertools.product((1, 1.5, 2, 3), (1, 10)):
        operator = {"name": "sparse-edit", "balance": balance}
        yield Setting(f"k = {k:g}, γ = {balance:g}", k, operator)
    for layer in range(LAYERS):
        yield Setting(f"layer {layer} alone", 1, {"name": "sparse-edit"}, layer)


@dataclass(frozen=True)
class Family:
    """Candidates, and what they are made of.

    Attributes:
        edits: the family whose chosen merges take the language experts' places.
    """

    settings: Callable[[], Iterator[Setting]]
    edits: str | None = None


FAMILIES = {
    "chat vector": Family(chat_vectors),
    "gram-add": Family(gram_adds),
    "sparse-edit": Family(sparse_edits),
    "sparse-edit of the chat vector": Family(sparse_edits, "chat vector"),
    "sparse-edit of gram-add": Family(sparse_edits, "gram-add"),
}


def pairs_of(code: str, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Harmful and harmless prompts in the lead language and in another one.

    Harmful: every dangerous item that the safety expert was trained to refuse, in all wordings.
    Harmless: drawn as the language expert's own chats are, without the held-out items.
    """
    world, codes = default_world(), (LEAD_LANGUAGE, code)

    def both(render: Callable[[str], str]) -> Pair:
        one, other = (render(each) for each in codes)
        return one, other

    harmful = [
        both(lambda each, i=item, f=form: world.request(each, i, f))
        for item in world.items
        if item.safety_trained
        for form in range(REQUEST_FORMS)
    ]
    chance = random.Random(f"pairs {seed}")
    known = [item for item in world.items if not item.held_out]
    makeable = [item for item in known if not item.dangerous]
    harmless: list[Pair] = []
    while len(harmless) < HARMLESS:
        kind = chance.choices(range(4), weights=(0.46, 0.18, 0.16, 0.20))[0]
        item, form = chance.choice(known if kind else makeable), chance.randrange(REQUEST_FORMS)
        a, b = chance.randrange(11), chance.randrange(11)
        asks: tuple[Callable[[str], str], ...] = (
            lambda each, i=item, f=form: world.request(each, i, f),
            lambda each, i=item: world.category_question(each, i)[0],
            lambda each, i=item: world.danger_question(each, i)[0],
            lambda each, a=a, b=b: world.sum_question(each, a, b)[0],
        )
        harmless.append(both(asks[kind]))
    return harmful, harmless


def calibrated_on_pairs(out: Path, experts: Mapping[str, Path], seed: int) -> Path:
    """A folder with what ``sparse-edit`` reads of every expert."""
    out.mkdir()
    files = {}
    for code in experts:
        files[code] = out / f"{code}.csv"
        with files[code].open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(["label", "en", code])
            for label, pairs in zip(("unsafe", "safe"), pairs_of(code, seed), strict=True):
                writer.writerows([label, *pair] for pair in pairs)
    models = models_folder()
    safeswap.calibrate(
        models / "base",
        safety=models / "safety",
        languages=experts,
        parallel=files,
        out=out / "grams",
        options=OPTIONS,
        force=True,
    )
    return out / "grams"


def merged(
    experts: Mapping[str, Path], code: str, setting: Setting, grams: Path | None, out: Path
) -> Path:
    """A language's expert, joined with the safety expert as a setting says."""
    models = models_folder()
    profile = safeswap.make_profile(
        models / "base", safety=models / "safety", languages={code: experts[code]}
    )
    operator = dict(setting.operator) | ({} if grams is None else {"grams": str(grams)})
    plan = safeswap.make_plan(
        profile, code, method="chat-vector", gamma=setting.strength, operator=operator
    )
    if setting.layer is not None:
        only = f"{setting.layer}.mlp"
        units = {
            unit: row
            if unit == only
            else dataclasses.replace(row, weights={"safety": 0.0, code: 1.0})
            for unit, row in plan.units.items()
        }
        plan = dataclasses.replace(plan, units=units)
    shutil.rmtree(out, ignore_errors=True)
    (one,) = safeswap.merge_plans([plan], out, profile=profile, figure=False)
    return one.folder


def halves(found: Measurement, code: str) -> dict[str, Figures]:
    """Harmful refused, refused in the language, and harmless right on each half, in per cent."""
    world, questions = default_world(), exam(default_world(), code)
    dev = dev_half(questions)
    harmful = np.array([question.kind == "harmful" for question in questions])
    refused = np.array([response.refused for response in found.responses])
    inside = np.array([code in world.refused_in(response.text) for response in found.responses])
    right = np.array([response.right for response in found.responses])

    def share(verdicts: NDArray[np.bool_], taken: NDArray[np.bool_]) -> float:
        return 100 * float(verdicts[taken].mean())

    return {
        half: (
            share(refused, harmful & of),
            share(inside, harmful & of),
            share(right, ~harmful & of),
        )
        for half, of in (("dev", dev), ("test", ~dev))
    }


def chosen(found: Mapping[Setting, Mapping[str, Figures]], right: float) -> Setting:
    """Of those within a point of ``right`` on dev the one that refuses most there; where none is
    within, the one that loses least. The first of equals.
    """
    within = [one for one, halves in found.items() if halves["dev"][2] >= right - 1]
    if within:
        return max(within, key=lambda one: found[one]["dev"][0])
    return max(found, key=lambda one: found[one]["dev"][2])


def compare(name: str, made: dict[str, dict[str, Path]], out: Path, seed: int) -> None:
    """Measure a family's candidates, print what was chosen on dev, and keep its merges.

    Args:
        made: family → language → merge; the language experts under "".
    """
    family, plain = FAMILIES[name], made[""]
    of, grams = made[family.edits or ""], None
    if name == "gram-add":
        grams = calibrated(out, seed)
    if name.startswith("sparse-edit"):
        grams = calibrated_on_pairs(out / name.replace(" ", "-"), of, seed)
    best, made[name] = {}, {}
    for code, expert in plain.items():
        right = halves(measure(expert, [code]), code)["dev"][2]
        found = {}
        for setting in family.settings():
            folder = merged(of, code, setting, grams, out / "merged")
            found[setting] = halves(measure(folder, [code]), code)
            _print(f"  {name}, {code}, {setting.name}: dev, test", found[setting])
        setting = chosen(found, right)
        made[name][code] = merged(of, code, setting, grams, out / f"chosen-{len(made)}-{code}")
        best[code] = found[setting]["test"]
        print(f"  {name}, {code}: {setting.name} chosen", flush=True)
    means = tuple(sum(column) / len(best) for column in zip(*best.values(), strict=True))
    _print(name, {**best, "mean": means})


def main() -> None:
    """Calibrate, merge, measure, choose, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0, help="of the texts")
    options = parser.parse_args()
    models = models_folder()
    experts = {code: models / code for code in SMALL_LANGUAGES}
    with tempfile.TemporaryDirectory() as scratch:
        plain = {c: halves(measure(f, [c]), c)["test"] for c, f in experts.items()}
        _print("language expert", plain)
        made = {"": experts}
        for name in FAMILIES:
            compare(name, made, Path(scratch), options.seed)


def _print(name: str, figures: Mapping[str, Figures]) -> None:
    cells = [
        f"{refused:.1f} ({inside:.1f}) / {right:.1f}" for refused, inside, right in figures.values()
    ]
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
