"""The main job from end to end in the small world: profile, plan, merge, verify, measure.

Every step is the public function that a user calls on real checkpoints. The world shows the
mechanism; its figures are no evidence about large models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from safeswap.api import make_plan, make_profile, merge_plans, verify_merge
from safeswap.checkpoint.staging import refuse_existing
from safeswap.plan import GRANULARITIES
from safeswap.testbed import LEAD_LANGUAGE, SMALL_LANGUAGES, Count, measure, models_folder
from safeswap.testbed.gates import wilson

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Row:
    """One model measured in one language."""

    language: str
    model: str
    harmful_refused: Count
    harmless_refused: Count
    answers_right: Count


def run_demo(out: Path, say: Say) -> list[Row]:
    """Merge the small world's experts by layer and by module and measure before and after.

    Args:
        out: a new folder for profile, plans, merged checkpoints, table and responses.
        say: called with each line that a reader should see.

    Raises:
        OutputError: ``out`` exists already.
    """
    refuse_existing(out)
    out.mkdir(parents=True, exist_ok=True)
    models = models_folder()
    languages: dict[str, str | Path] = {code: models / code for code in SMALL_LANGUAGES}
    say(f"profile: base, safety expert and {len(languages)} language experts, in one pass")
    profile = make_profile(models / "base", safety=models / "safety", languages=languages)
    profile.save(out / "profile.json")
    for by in GRANULARITIES:
        plans = [make_plan(profile, code, by=by) for code in languages]
        merged = merge_plans(plans, out / f"by-{by}", profile=profile)
        for one in merged:
            one.plan.save(out / f"plan-{by}-{one.plan.language}.yaml")
            counts = one.plan.counts()
            decided = ", ".join(
                f"{kind} " + "/".join(f"{n} {what}" for what, n in counts[kind].items())
                for kind in ("attention", "mlp")
            )
            verified = verify_merge(one.folder)
            checked = f"{verified.tensors} tensors verified"
            say(f"merge by {by}, {one.plan.language}: {decided}; {checked}")
    say("measure: base, experts and merges answer the world's exam")
    rows = list(_measure(models, out))
    table = "\n".join(table_lines(rows))
    (out / "table.md").write_text(table + "\n", encoding="utf-8")
    say("\n" + table + "\n")
    say(f"files: {out}/profile.json, plan-*.yaml, by-module/, by-layer/, responses/, table.md")
    return rows


def _measure(models: Path, out: Path) -> Iterator[Row]:
    responses = out / "responses"
    responses.mkdir()

    def rows(name: str, folder: Path, languages: tuple[str, ...]) -> Iterator[Row]:
        measured = measure(folder, languages)
        measured.write_responses(responses / f"{name.replace(' ', '-')}-{languages[0]}.jsonl")
        for code, figures in measured.languages.items():
            yield Row(
                code,
                name,
                figures.harmful_refused,
                figures.harmless_refused,
                figures.answers_right,
            )

    every = (LEAD_LANGUAGE, *SMALL_LANGUAGES)
    yield from rows("base", models / "base", every)
    yield from rows("safety expert", models / "safety", every)
    for code in SMALL_LANGUAGES:
        yield from rows("language expert", models / code, (code,))
        for by in reversed(GRANULARITIES):
            yield from rows(f"merged by {by}", out / f"by-{by}" / code, (code,))


def table_lines(rows: list[Row]) -> list[str]:
    """The table in Markdown: rates with Wilson 95 % intervals, languages together."""
    lines = [
        "| language | model | harmful refused (want 100 %) | harmless refused (want 0) | right |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in sorted(rows, key=lambda row: row.language):
        cells = (row.harmful_refused, row.harmless_refused, row.answers_right)
        figures = " | ".join(_with_interval(count) for count in cells)
        lines.append(f"| {row.language} | {row.model} | {figures} |")
    return lines


def _with_interval(count: Count) -> str:
    low, high = wilson(count.k, count.n)
    return f"{100 * count.rate:.0f} % [{100 * low:.0f}, {100 * high:.0f}] of {count.n}"
