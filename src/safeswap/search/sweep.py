"""A sweep: every cell of a grid on the dev side, one choice, and the test side for the report.

::

    RESULTS/profile.json            measured once
    RESULTS/dev/LANGUAGE/           rows as of `safeswap evaluate`: one model per table of weights
    RESULTS/test/LANGUAGE/          the models it was made from, the paper's rule, the chosen one
    RESULTS/plans/LANGUAGE/         every cell's plan; merge the one you want
    RESULTS/chosen-LANGUAGE.yaml    the chosen plan

Cells that come to the same table are asked once. Models and judge never share memory: all answers
are stored before a judge is loaded. Whatever stops it, the same command goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from safeswap.errors import SafeswapError
from safeswap.evaluation import pipeline
from safeswap.evaluation.backends import BackendOptions
from safeswap.evaluation.judging import JudgeConfig
from safeswap.evaluation.records import CandidateRecord
from safeswap.evaluation.results.candidates import read_measured
from safeswap.plan import Plan, fill_plan
from safeswap.profile import Profile
from safeswap.search.candidates import (
    Candidate,
    candidate_model,
    chosen_on,
    grid_candidates,
    table_digest,
    with_questions,
)
from safeswap.search.runner import CandidateRunner, check_backend, load_profile
from safeswap.search.selection import Choice, choose, record_choice
from safeswap.search.sweep_config import Sweep

PAPER = "paper"
"""The model of the paper's rule at its defaults on the test side."""
_log = logging.getLogger("safeswap.search")


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep made in one language: folders of results, and the choice with its plan."""

    language: str
    dev: Path
    test: Path | None
    choice: Choice
    plan: Path | None


def run_sweep(
    sweep: Sweep,
    results: Path,
    *,
    backend: str = "hf",
    options: BackendOptions | None = None,
    judge_backend: str = "hf",
    judge_options: BackendOptions | None = None,
    reload: bool = False,
    workers: int | None = None,
    force: bool = False,
    overwrite: bool = False,
) -> list[Swept]:
    """Carry a sweep out, or go on with one.

    Args:
        results: a new folder, or that of the same sweep.
        backend: ``hf``; with ``reload`` also ``vllm``.
        reload: write and load every candidate instead of exchanging units in memory.
        force: take experts too whose configuration or weights say that they are no fine-tunes of
            the base.
        overwrite: answers under other settings or of other candidates of the same name are removed,
            and the plans of cells that the grid no longer has.

    Raises:
        SafeswapError: what is wrong, before a model is loaded where it can be known before.
    """
    check_backend(backend, reload)
    options = options or BackendOptions()
    judges = JudgeConfig(
        sweep.judge, sweep.judge_kind, judge_backend, judge_options or BackendOptions()
    )
    if judges.spec:
        judges.make()  # a wrong name shows now, not in hours
    family = sweep.family(force=force)
    profile = load_profile(family, results, workers, force=force)
    ask = CandidateRunner(family, sweep, backend, options, reload, workers, overwrite=overwrite)
    every = {code: grid_candidates(sweep, profile, code) for code in sweep.languages}
    for code, candidates in every.items():
        _save_plans(candidates, results / "plans" / code, anew=overwrite)
        _log.info(f"{code}: {len(sweep.cells)} cells, {len(candidates) - 3} different tables")
        ask.answer(code, "dev", candidates, results / "dev" / code)
    for code in every:
        pipeline.judge_by(results / "dev" / code, judges, overwrite=overwrite)
    swept = [_choose(sweep, code, every[code], results) for code in every]
    for one in swept:
        _log.info(f"{one.language}: chosen {one.choice.name or 'nothing'}: {one.choice.why}")
    done = [report_on_test(ask, profile, every[one.language], one, results) for one in swept]
    for one in done:
        if one.test is not None:
            pipeline.judge_by(one.test, judges, overwrite=overwrite)
    return done


def _save_plans(candidates: Sequence[Candidate], folder: Path, *, anew: bool = False) -> None:
    """Every cell's plan; ``anew``: those of an earlier sweep that is started over go."""
    folder.mkdir(parents=True, exist_ok=True)
    plans = {f"{one.model.name}.yaml": one.plan for one in candidates if one.model.role == "merged"}
    for path in sorted(folder.glob("*.yaml")) if anew else ():
        if path.name not in plans and _is_plan(path):
            path.unlink()
    for name, plan in plans.items():
        plan.save(folder / name)


def _is_plan(path: Path) -> bool:
    """Whether a file is a plan of ours; others, and what a link leads to, are left alone."""
    if path.is_symlink() or not path.is_file():
        return False
    try:
        Plan.load(path)
    except SafeswapError:
        return False
    return True


def _choose(sweep: Sweep, language: str, candidates: Sequence[Candidate], results: Path) -> Swept:
    dev = results / "dev" / language
    grid = {one.model.name for one in candidates}  # an earlier grid's answers may lie beside them
    choice = choose([one for one in read_measured(dev, language) if one.name in grid], sweep.rule)
    if not choice.name:
        return Swept(language, dev, None, choice, None)
    plan = next(one.plan for one in candidates if one.model.name == choice.name)
    path = results / f"chosen-{language}.yaml"
    chosen = with_questions(chosen_on(sweep, language), dev / choice.name)
    record_choice(plan, chosen).save(path)
    return Swept(language, dev, results / "test" / language, choice, path)


def report_on_test(
    ask: CandidateRunner,
    profile: Profile,
    candidates: Sequence[Candidate],
    one: Swept,
    results: Path,
) -> Swept:
    """The test side: the models it was all made from, the paper's rule, and what was chosen."""
    paper = fill_plan(profile, one.language)
    about = CandidateRecord("share-difference", {}, paper.operator)
    shown = [c for c in candidates if c.model.role != "merged"]
    shown.append(Candidate(candidate_model(PAPER, one.language, table_digest(paper), about), paper))
    shown += [c for c in candidates if c.model.name == one.choice.name]
    folder = results / "test" / one.language
    ask.answer(one.language, "test", shown, folder)
    return replace(one, test=folder)


__all__ = ["PAPER", "Swept", "report_on_test", "run_sweep"]
