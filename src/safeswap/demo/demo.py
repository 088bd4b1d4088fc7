"""The main job from end to end in the small world: profile, plan, merge, verify, measure.

Every step is the public function that a user calls on real checkpoints. The world shows the
mechanism; its figures are no evidence about large models.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from safeswap.api import make_plan, make_profile, merge_plans, verify_merge
from safeswap.checkpoint.staging import refuse_existing
from safeswap.demo import SMALL_LANGUAGES, models_folder
from safeswap.demo.measure import MAX_NEW_TOKENS
from safeswap.demo.suite import CARELESS, RULES, write_suite
from safeswap.evaluation import pipeline
from safeswap.evaluation.backends import BackendOptions
from safeswap.evaluation.generate import Generation
from safeswap.report.evaluation import compare, facts
from safeswap.report.page import write_report
from safeswap.tables import Table, as_text, write_reports

_log = logging.getLogger("safeswap.demo")
METHODS: dict[str, dict[str, Any]] = {
    "by-layer": {"by": "layer"},
    "by-module": {"by": "module"},
    "chat-vector": {"method": "uniform", "form": "chat-vector"},
}
"""The paper's rule both ways, and what did better in this world (docs/small-world.md)."""
PRIMARY = "chat-vector"
"""Whose comparison counts: what README recommends, named here before anything is measured."""
JUDGE = "rule-rules"
"""The exact judge, which tables go by; the careless one beside it shows where judges disagree."""
SAMPLES = 150
"""Questions with all answers in the page; nothing of them is harmful but by the world's word."""


def run_demo(out: Path) -> None:
    """Merge the small world's experts by layer and by module and evaluate before and after.

    Args:
        out: a new folder: profile, plans, merged checkpoints, results, reports, ``report.html``.

    Raises:
        OutputError: ``out`` exists already.
    """
    refuse_existing(out)
    out.mkdir(parents=True, exist_ok=True)
    models = models_folder()
    languages: dict[str, str | Path] = {code: models / code for code in SMALL_LANGUAGES}
    _log.info(f"profile: base, safety expert and {len(languages)} language experts, in one pass")
    profile = make_profile(models / "base", safety=models / "safety", languages=languages)
    profile.save(out / "profile.json")
    for name, method in METHODS.items():
        plans = [make_plan(profile, code, **method) for code in languages]
        merged = merge_plans(plans, out / name, profile=profile)
        for one in merged:
            one.plan.save(out / f"plan-{name}-{one.plan.language}.yaml")
            counts = one.plan.counts()
            decided = ", ".join(
                f"{kind} " + "/".join(f"{n} {what}" for what, n in counts[kind].items())
                for kind in ("attention", "mlp")
            )
            verified = verify_merge(one.folder)
            checked = f"{verified.tensors} tensors verified"
            _log.info(f"merge {name}, {one.plan.language}: {decided}; {checked}")
    _log.info(
        "(of one expert alone; blend: parts of both that sum to 1; mix: both task vectors added)"
    )
    _log.info(
        "evaluate: base, experts and merges answer the world's benchmarks; two rules judge, one of "
        "which knows refusals in one language only"
    )
    for code in languages:
        _evaluate(code, models, out)
    _log.info(
        "per cent, with Wilson 95 % intervals; all tables, with paired tests: report-*/report.md"
    )
    _log.info(
        f"files: {out}/profile.json, plan-*.yaml, {'/, '.join(METHODS)}/, results-*/, report-*/"
    )
    page = write_report(
        [out],
        out / "report.html",
        samples=SAMPLES,
        title="The small world",
        judge=JUDGE,
        primary=[PRIMARY],
    )
    _log.info(f"all of it on one page, for a browser: {page}")


def _evaluate(code: str, models: Path, out: Path) -> None:
    """What ``safeswap evaluate``, ``judge`` and ``compare --out`` do, for one language."""
    suite = pipeline.make_suite(str(write_suite(out / "suite")), [code])
    results = out / f"results-{code}"
    asked = {"base": models / "base", "safety": models / "safety", code: models / code}
    asked |= {name: out / name / code for name in METHODS}
    pipeline.evaluate(
        [f"{name}={folder}" for name, folder in asked.items()],
        suite,
        results,
        options=BackendOptions(dtype="float32", device="cpu"),
        generation=Generation(max_new_tokens=MAX_NEW_TOKENS, harness_tokens=MAX_NEW_TOKENS),
    )
    pipeline.judge(results, f"rule:{out / 'suite' / RULES}")
    pipeline.judge(results, f"rule:{out / 'suite' / CARELESS}")
    tables = compare([results], judge=JUDGE, primary=[PRIMARY])
    # One language: its name need not stand over every column.
    columns = tuple(replace(c, name=c.group or c.name, group="") for c in tables[0].columns)
    _log.info("\n" + as_text(Table(f"In {code}", columns, tables[0].rows)))
    write_reports(tables, out / f"report-{code}", facts=facts([results], judge=JUDGE))
