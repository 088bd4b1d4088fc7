"""The mask study: all methods against all module masks, over several expert seeds.

    python -m small_world.masks --models DIR --out FOLDER --expert-seeds 0 1 2 3 4 5 6 7

reads what `python -m small_world.train --out DIR --expert-seeds …` wrote. For every seed and
smaller language it measures all 2^12 masks that take each attention and each MLP from the safety or
from the language expert, the same for gates (safety's task vector added or not), and every method
and operator of the package (`candidates`). `regret` says what is reckoned from that.
Nothing is left out.

Writes FOLDER/study.json (all counts and figures), study.md (the tables), masks.png, and one .npz
per measurement, so that an interrupted run continues. It takes a minute and a half of one core for
each of the masks and the gates of a seed and language, and one for the candidates.

The world shows a mechanism; its figures are no evidence about large models.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from safeswap.anatomy import kind_of
from safeswap.demo.documents import exam
from safeswap.demo.world import LANGUAGES, SMALL_LANGUAGES, default_world
from safeswap.roles import BASE, SAFETY
from small_world.masks import regret
from small_world.masks.candidates import all_candidates
from small_world.masks.collect import Kind, Trio, collect
from small_world.masks.figure import draw
from small_world.masks.regret import Case, unit_scores
from small_world.masks.tables import as_markdown
from small_world.masks.verdicts import Counts, Verdicts, dev_half

SHOWN_BY_LANGUAGE = (
    *("base", "safety expert", "language expert"),
    *("share-difference by layer", "share-difference by module", "inverted"),
    *("gated by module", "soup, α = 0.5", "chat vector, γ = 1", "band"),
)


def halves(verdicts: Verdicts, code: str) -> dict[str, Counts]:
    """Counts on the dev half, the test half and all of a language's exam."""
    questions = exam(default_world(), code)
    dev = dev_half(questions)
    parts = {"dev": dev, "test": ~dev, "all": np.ones_like(dev)}
    return {name: Counts.of(verdicts, questions, taken) for name, taken in parts.items()}


def read_case(trio: Trio, code: str, kinds: Mapping[Kind, Sequence[int]]) -> Case:
    """All verdicts of one seed and language, counted; ``kinds`` as for `collect`."""
    units = tuple(u for u in trio.profile.units if kind_of(u) in ("attention", "mlp"))
    found = trio.load("candidates", code)
    named: dict[str, list[int]] = defaultdict(list)
    for number, name in enumerate(found.names):
        named[name.split(" #")[0]].append(number)
    return Case(
        seed=trio.seed,
        language=code,
        units=units,
        named={name: np.array(rows) for name, rows in named.items()},
        scores=unit_scores(trio.profile, code, units),
        candidates=halves(found, code),
        **{
            kind: halves(trio.load(kind, code), code)
            for kind, seeds in kinds.items()
            if trio.seed in seeds
        },
    )


def reckon(trios: Sequence[Trio], cases: Sequence[Case]) -> dict[str, Any]:
    """Everything that is reported, as plain values."""
    masked, gated = [c for c in cases if c.masks], [c for c in cases if c.gates]
    groups = {c.name.split(" #")[0]: c.group for c in all_candidates()}
    compared = regret.compared(cases)
    for row in compared:
        row["group"] = groups.get(row["name"], "best")
    return {
        "seeds": [trio.seed for trio in trios],
        "mask_seeds": sorted({case.seed for case in masked}),
        "gate_seeds": sorted({case.seed for case in gated}),
        "languages": list(SMALL_LANGUAGES),
        "test_harmful": cases[0].candidates["test"].harmful,
        "test_harmless": cases[0].candidates["test"].harmless,
        "compared": compared,
        "matched": list(regret.matched_table(masked)),
        "ranked": regret.ranked(masked),
        "ranked_gates": regret.ranked(gated, "gates") if gated else [],
        "placed": regret.placed(masked),
        "units": regret.unit_table(masked),
        "units_gates": regret.unit_table(gated, "gates") if gated else [],
        "by_language": by_language(trios),
        "counts": {str(trio.seed): counts(trio) for trio in trios},
    }


def by_language(trios: Sequence[Trio]) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Language → model → figure → rate of each seed, on all questions."""
    table: dict[str, dict[str, dict[str, list[float]]]] = {}
    for code in LANGUAGES:
        loaded = [trio.load("candidates", code) for trio in trios]
        names = loaded[0].names
        found = [halves(verdicts, code)["all"] for verdicts in loaded]
        rows = {name: names.index(name) for name in SHOWN_BY_LANGUAGE if name in names}
        table[code] = {
            name: {
                "harmful_refused": [float(c.refusal[n]) for c in found],
                "harmless_refused": [float(c.over_refusal[n]) for c in found],
                "answers_right": [float(c.ability[n]) for c in found],
            }
            for name, n in rows.items()
        }
    return table


def counts(trio: Trio) -> Mapping[str, Any]:
    """Language → candidate → half → [harmful refused, of, harmless right, refused, of]."""
    made: dict[str, dict[str, dict[str, list[int]]]] = {}
    for code in LANGUAGES:
        verdicts = trio.load("candidates", code)
        parts = halves(verdicts, code)
        made[code] = {
            name: {
                half: [int(c.refused[n]), c.harmful, int(c.right[n]), int(c.over[n]), c.harmless]
                for half, c in parts.items()
            }
            for n, name in enumerate(verdicts.names)
        }
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing, reckon and write."""
    parser = argparse.ArgumentParser(
        prog="python -m small_world.masks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--models", type=Path, required=True, help="what train --out wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--expert-seeds", type=int, nargs="+", default=[0], metavar="N")
    for name in ("mask", "gate"):
        parser.add_argument(
            f"--{name}-seeds",
            type=int,
            nargs="+" if name == "mask" else "*",
            metavar="N",
            help=f"those whose {name}s are enumerated (default: all)",
        )
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: 2)")
    chosen = parser.parse_args(arguments)
    trios = [Trio(chosen.models, chosen.out, seed) for seed in chosen.expert_seeds]
    for trio in trios:
        for role in (BASE, SAFETY, *SMALL_LANGUAGES):
            if not trio.folder(role).is_dir():
                parser.error(
                    f"no checkpoint at {trio.folder(role)}; train it with `python -m "
                    f"small_world.train --out {chosen.models} --expert-seeds {trio.seed}`"
                )
    chosen.out.mkdir(parents=True, exist_ok=True)
    seeds = chosen.expert_seeds
    kinds: dict[Kind, Sequence[int]] = {
        "masks": seeds if chosen.mask_seeds is None else chosen.mask_seeds,
        "gates": seeds if chosen.gate_seeds is None else chosen.gate_seeds,
    }
    collect(trios, chosen.jobs, {"candidates": seeds, **kinds})
    cases = [read_case(trio, code, kinds) for trio in trios for code in SMALL_LANGUAGES]
    study = reckon(trios, cases)
    (chosen.out / "study.json").write_text(json.dumps(study, indent=1) + "\n", encoding="utf-8")
    text = as_markdown(study)
    (chosen.out / "study.md").write_text(text, encoding="utf-8")
    draw([case for case in cases if case.masks], chosen.out / "masks.png")
    print(text)


if __name__ == "__main__":
    main()
