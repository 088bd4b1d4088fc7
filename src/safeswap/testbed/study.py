"""The study: base, experts and merges at the paper's defaults, over several expert seeds.

    python -m safeswap.testbed.study --models DIR --out FOLDER [--expert-seeds 0 1 2]

reads what `python -m safeswap.testbed.train --out DIR --expert-seeds 0 1 2` wrote, merges each
seed's experts by layer and by module with safeswap itself, measures everything in the small world
and writes FOLDER/study.json (all counts) and FOLDER/study.md (the table). Nothing is chosen or left
out: all seeds and both granularities are reported as they come out.

The world shows a mechanism; its figures are no evidence about large models.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safeswap.testbed.measure import Measurement, measure
from safeswap.testbed.world import LEAD_LANGUAGE, SMALL_LANGUAGES

GRANULARITIES = ("layer", "module")
FIGURES = ("harmful_refused", "harmless_refused", "answers_right")

# row of the table → language → figure → {"k", "n"}
Rows = dict[str, dict[str, dict[str, Any]]]


def study_seed(base: Path, experts: Mapping[str, Path], measured_base: Measurement) -> Rows:
    """Measure one seed: base and safety expert in all languages, the rest in their own.

    Args:
        base: the base's folder.
        experts: ``"safety"`` and each smaller language's code to folder.
        measured_base: the base's measurement, the same for all seeds.
    """
    rows: Rows = {
        "base": measured_base.as_dict(),
        "safety expert": measure(experts["safety"]).as_dict(),
        "language expert": {},
    }
    for code in SMALL_LANGUAGES:
        rows["language expert"].update(measure(experts[code], [code]).as_dict())
    for by in GRANULARITIES:
        row = rows[f"merged by {by}"] = {}
        with tempfile.TemporaryDirectory(prefix="safeswap-study-") as scratch:
            for code, folder in _merge(base, experts, by, Path(scratch) / by).items():
                row.update(measure(folder, [code]).as_dict())
    return rows


def _merge(base: Path, experts: Mapping[str, Path], by: str, out: Path) -> dict[str, Path]:
    """Merge for all languages in one run at the paper's defaults; language to folder."""
    from safeswap import swap

    languages: dict[str, str | Path] = {code: experts[code] for code in SMALL_LANGUAGES}
    done = swap(base, safety=experts["safety"], languages=languages, out=out, by=by, figure=False)
    return {merged.plan.language: merged.folder for merged in done}


def as_markdown(seeds: Mapping[str, Rows]) -> str:
    """The table: per language and row, the rates' mean over the seeds, smallest and largest."""
    lines = [
        f"Means over {len(seeds)} expert seeds (smallest to largest), one base. Harmful: requests "
        "for dangerous items the safety expert was not trained on.",
        "",
        "| language | model | harmful refused | harmless refused | answers right |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    names = list(next(iter(seeds.values())))
    for code in (LEAD_LANGUAGE, *SMALL_LANGUAGES):
        for name in names:
            found = [rows[name][code] for rows in seeds.values() if code in rows[name]]
            if found:
                cells = " | ".join(_cell([f[figure] for f in found]) for figure in FIGURES)
                lines.append(f"| {code} | {name} | {cells} |")
    return "\n".join(lines) + "\n"


def _cell(counts: Sequence[Mapping[str, int]]) -> str:
    rates = [100 * count["k"] / count["n"] for count in counts]
    mean = f"{sum(rates) / len(rates):.0f} %"
    same = min(rates) == max(rates)
    return mean if same else f"{mean} ({min(rates):.0f}–{max(rates):.0f})"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the study and write both files."""
    parser = argparse.ArgumentParser(
        prog="python -m safeswap.testbed.study",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--models", type=Path, required=True, help="what train --out wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder for the tables")
    parser.add_argument("--expert-seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N")
    chosen = parser.parse_args(arguments)
    base = chosen.models / "base"
    measured_base = measure(base)
    seeds: dict[str, Rows] = {}
    for seed in chosen.expert_seeds:
        folder = chosen.models / f"seed-{seed}"
        experts = {role: folder / role for role in ("safety", *SMALL_LANGUAGES)}
        missing = [str(path) for path in experts.values() if not path.is_dir()]
        if missing:
            parser.error(
                f"no checkpoint at {missing[0]}; train it with `python -m safeswap.testbed.train "
                f"--out {chosen.models} --expert-seeds {seed}`"
            )
        seeds[str(seed)] = study_seed(base, experts, measured_base)
        print(f"seed {seed} measured", flush=True)
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "study.json").write_text(json.dumps(seeds, indent=1) + "\n", encoding="utf-8")
    table = as_markdown(seeds)
    (chosen.out / "study.md").write_text(table, encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
