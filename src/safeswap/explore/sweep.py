"""A sweep: every cell of a grid on the dev side, one choice, and the test side for the report.

::

    RESULTS/profile.json            measured once
    RESULTS/dev/LANGUAGE/           rows as of `safeswap evaluate`: one model per table of weights
    RESULTS/test/LANGUAGE/          the models it was made from, the paper's rule, the chosen one
    RESULTS/plans/LANGUAGE/         every cell's plan; merge the one you want
    RESULTS/chosen-LANGUAGE.yaml    the chosen plan
    RESULTS/report-dev, -test/      tables and figures of both sides

Cells that come to the same table are asked once. Models and judge never share memory: all answers
are stored before a judge is loaded. Whatever stops it, the same command goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from safeswap.api import make_profile, open_family
from safeswap.checkpoint.family import BASE, SAFETY, Family
from safeswap.errors import EvaluationError
from safeswap.evaluation import collect, run
from safeswap.evaluation.arms import Arm
from safeswap.evaluation.judges import make_judge
from safeswap.evaluation.progress import items_bar
from safeswap.evaluation.responders import BackendOptions
from safeswap.evaluation.splits import PARTS
from safeswap.evaluation.store import Results, digest_of, start_results
from safeswap.evaluation.suites import Suite
from safeswap.explore.choice import Choice, choose, mark
from safeswap.explore.measured import read_measured
from safeswap.explore.sweepfile import GridCell, Sweep
from safeswap.operators import Operation
from safeswap.plan import Plan, PlannedUnit, fill_plan
from safeswap.profile import Profile, unchanged
from safeswap.report.ablation import write_ablation

PAPER = "paper"
"""The arm of the paper's rule at its defaults on the test side."""
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A table of weights that is to be measured, under its first cell's name."""

    arm: Arm
    plan: Plan


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
    quiet: bool = True,
    say: Say = lambda line: None,
) -> list[Swept]:
    """Carry a sweep out, or go on with one.

    Args:
        results: a new folder, or that of the same sweep.
        backend: ``hf``; with ``reload`` also ``vllm``.
        reload: write and load every candidate instead of exchanging units in memory.
        say: called with each line that a reader should see.

    Raises:
        SafeswapError: what is wrong, before a model is loaded where it can be known before.
    """
    if backend != "hf" and not (reload and backend == "vllm"):
        raise EvaluationError(
            f"--backend {backend}: candidates live in a model of transformers (hf); vllm needs "
            "--reload, which writes and loads each of them."
        )
    options = options or BackendOptions()
    if sweep.judge:
        make_judge(sweep.judge, kind=sweep.judge_kind)  # a wrong name shows now, not in hours
    family = open_family(sweep.base, safety=sweep.safety, languages=sweep.languages)
    profile = load_profile(family, sweep, results, workers, quiet)
    ask = Asking(family, sweep, backend, options, reload, workers, quiet)
    judging = partial(_judge, sweep, judge_backend, judge_options or BackendOptions(), quiet=quiet)
    every = {code: grid_candidates(sweep, profile, code) for code in sweep.languages}
    for code, candidates in every.items():
        _save_plans(candidates, sweep, profile, results / "plans" / code)
        say(f"{code}: {len(sweep.cells)} cells, {len(candidates) - 3} different tables")
        ask.answer(code, "dev", candidates, results / "dev" / code)
    for code in every:
        judging(results / "dev" / code)
    swept = [_choose(sweep, code, every[code], results) for code in every]
    for one in swept:
        say(f"{one.language}: chosen {one.choice.name or 'nothing'}: {one.choice.why}")
    done = [report_on_test(ask, profile, every[one.language], one, results) for one in swept]
    for one in done:
        if one.test is not None:
            judging(one.test)
    for part in PARTS:
        found = [m for code in every for m in read_measured(results / part / code, code)]
        written = write_ablation(found, part, results / f"report-{part}", sweep.rule.loss)
        say(f"{written[0]}: {part} questions, with {len(written) - 1} more files beside it")
    return done


def load_profile(
    family: Family, sweep: Sweep, results: Path, workers: int | None, quiet: bool
) -> Profile:
    """The profile of an earlier run where the checkpoints are the same, else a new one."""
    path = results / "profile.json"
    if path.exists():
        known = Profile.load(path)
        roles = set(family.members) == set(known.inputs)
        if roles and all(unchanged(known.inputs[role], family, role) for role in family.members):
            return known
    profile = make_profile(
        sweep.base, safety=sweep.safety, languages=sweep.languages, workers=workers, quiet=quiet
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    profile.save(path)
    return profile


def grid_candidates(sweep: Sweep, profile: Profile, language: str) -> list[Candidate]:
    """The models that it is all made from, and every different table of the grid."""
    found = origins(profile, language)
    tables: dict[str, list[GridCell]] = {}
    plans: dict[str, Plan] = {}
    for cell in sweep.cells:
        plan = cell.plan(profile, language)
        digest = table_digest(plan)
        tables.setdefault(digest, []).append(cell)
        plans.setdefault(digest, plan)
    record = {"split": sweep.dev.as_dict(), "cells": cells_of(sweep.suites[language], language)}
    for digest, cells in tables.items():
        about = describe(cells[0].method, cells[0].settings, plans[digest].operator)
        about |= {"aliases": [cell.name for cell in cells[1:]]}
        arm = candidate_arm(cells[0].name, language, digest, about, record)
        found.append(Candidate(arm, plans[digest]))
    return in_order(found)


def describe(method: str, settings: Mapping[str, Any], operator: Operation) -> dict[str, Any]:
    """How a candidate was made, for its model.json."""
    return {"method": method, "settings": dict(settings), "operator": str(operator)}


def candidate_arm(
    name: str, language: str, digest: str, about: Mapping[str, Any], chosen: Mapping[str, Any]
) -> Arm:
    """A candidate as the results know it; its digest is that of its inputs and table."""
    return Arm(
        name,
        "in memory",
        "",
        digest,
        "merged",
        reference=language,
        chosen=chosen,
        candidate=about,
    )


def cells_of(suite: Suite, language: str) -> list[str]:
    """``BENCHMARK/LANGUAGE`` of all that a suite asks in a language."""
    return [f"{b.name}/{language}" for b in suite.benchmarks if language not in b.absent]


def table_digest(plan: Plan) -> str:
    """What decides a candidate's answers: the weights of its inputs, and its effective table."""
    units = {unit: [plan.parts(unit), plan.operation(unit).plain] for unit in plan.units}
    inputs = {role: given.digest for role, given in plan.inputs.items()}
    return digest_of(["candidate", inputs, plan.donor, units])


def origins(profile: Profile, language: str) -> list[Candidate]:
    """Base and experts as tables: all weights 0, or 1 for one expert."""
    whole = fill_plan(profile, language, method="uniform", alpha=0.5)
    found = []
    for role in (BASE, SAFETY, language):
        weights = {SAFETY: float(role == SAFETY), language: float(role == language)}
        units = dict.fromkeys(whole.units, PlannedUnit(weights))
        plan = replace(whole, units=units, selector={})
        kind: Any = role if role in (BASE, SAFETY) else "language"
        found.append(Candidate(Arm(role, "in memory", "", table_digest(plan), kind), plan))
    return found


def in_order(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Neighbours alike, so that few units change between them: always the nearest of the rest.

    The distance of two tables is the number of units with other weights or another operator.
    """
    rest = list(candidates)
    ordered = [rest.pop(0)]
    while rest:
        last = ordered[-1].plan
        nearest = min(range(len(rest)), key=lambda n: _distance(last, rest[n].plan))
        ordered.append(rest.pop(nearest))
    return ordered


def _distance(one: Plan, other: Plan) -> int:
    return sum(
        one.units[unit].weights != other.units[unit].weights
        or one.operation(unit) != other.operation(unit)
        for unit in one.units
    )


class Asking:
    """Lets candidates answer one side of a suite, and stores what they say."""

    def __init__(
        self,
        family: Family,
        sweep: Sweep,
        backend: str,
        options: BackendOptions,
        reload: bool,
        workers: int | None,
        quiet: bool,
    ) -> None:
        self.family, self.sweep, self.quiet = family, sweep, quiet
        template = sweep.chat_template
        self.options = replace(
            options,
            chat_template=None if template in ("on", "off") else Path(template),
            use_template=template != "off",
        )
        self.generation = run.with_template(sweep.generation, self.options)
        self.backend, self.reload, self.workers = backend, reload, workers

    def answer(
        self, language: str, part: Any, candidates: Sequence[Candidate], folder: Path
    ) -> None:
        """Ask the candidates what they have not answered yet.

        Raises:
            EvaluationError: the folder holds results of other settings or models.
        """
        suite = self.sweep.suites[language].on(self.sweep.dev.of(part))
        donor = self.family.members[language].folder
        arms = [replace(one.arm, location=str(donor)) for one in candidates]
        collect.templates_agree(arms[:1], self.backend, self.options)
        settings = collect.settings_of(suite, self.generation)
        store = start_results(folder, settings, [arm.name for arm in arms])
        for arm in arms:
            collect.refuse_other_model(store, arm)
        todo = [
            (arm, one.plan)
            for arm, one in zip(arms, candidates, strict=True)
            if run.is_missing(store, arm, suite)
        ]
        if todo:
            self._ask(language, f"{language}: {part}", todo, suite, store)

    def _ask(
        self,
        language: str,
        title: str,
        todo: Sequence[tuple[Arm, Plan]],
        suite: Suite,
        store: Results,
    ) -> None:
        candidates = self.candidates(language)
        try:
            with items_bar(title, len(todo), self.quiet) as advance:
                for arm, plan in todo:
                    with candidates.answering(plan) as responder:
                        collect.introduce(store, arm, responder)
                        run.answer(store, arm, suite, responder, self.generation, untold)
                    advance(1)
        finally:
            candidates.close()

    def candidates(self, language: str) -> Any:
        """What makes plans of a language answer; it holds a model until it is closed."""
        try:
            from safeswap.explore.candidates import InPlace, Reloaded
        except ImportError as error:
            raise EvaluationError(
                f"candidates need {error.name}: pip install 'safeswap[eval]'."
            ) from error
        if self.reload:
            return Reloaded(self.backend, self.options)
        return InPlace(self.family, language, self.options, self.workers)


@contextmanager
def untold(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Candidates are counted, not their questions."""
    yield lambda count: None


def _judge(
    sweep: Sweep, backend: str, options: BackendOptions, folder: Path, *, quiet: bool
) -> None:
    if sweep.judge:
        run.judge(
            folder,
            sweep.judge,
            kind=sweep.judge_kind,
            backend=backend,
            options=options,
            quiet=quiet,
        )


def _save_plans(
    candidates: Sequence[Candidate], sweep: Sweep, profile: Profile, folder: Path
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for one in candidates:
        if one.arm.role == "merged":
            one.plan.save(folder / f"{one.arm.name}.yaml")


def _choose(sweep: Sweep, language: str, candidates: Sequence[Candidate], results: Path) -> Swept:
    dev = results / "dev" / language
    choice = choose(read_measured(dev, language), sweep.rule)
    if not choice.name:
        return Swept(language, dev, None, choice, None)
    plan = next(one.plan for one in candidates if one.arm.name == choice.name)
    path = results / f"chosen-{language}.yaml"
    mark(plan, sweep.dev, cells_of(sweep.suites[language], language)).save(path)
    return Swept(language, dev, results / "test" / language, choice, path)


def report_on_test(
    ask: Asking, profile: Profile, candidates: Sequence[Candidate], one: Swept, results: Path
) -> Swept:
    """The test side: the models it was all made from, the paper's rule, and what was chosen."""
    paper = fill_plan(profile, one.language)
    about = describe("share-difference", {}, paper.operator)
    shown = [c for c in candidates if c.arm.role != "merged"]
    shown.append(
        Candidate(candidate_arm(PAPER, one.language, table_digest(paper), about, {}), paper)
    )
    shown += [c for c in candidates if c.arm.name == one.choice.name]
    folder = results / "test" / one.language
    ask.answer(one.language, "test", shown, folder)
    return replace(one, test=folder)


__all__ = ["PAPER", "Candidate", "Swept", "run_sweep"]
