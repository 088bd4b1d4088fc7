"""The search in one language, as one worker carries it out.

What is measured, what is proposed, and the report that the last worker makes.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safeswap.errors import EvaluationError, PlanError, listed
from safeswap.evaluation import pipeline
from safeswap.evaluation.benchmarks.suites import Suite
from safeswap.evaluation.judging import JudgeConfig
from safeswap.evaluation.measures import Measure
from safeswap.evaluation.records import CandidateRecord
from safeswap.evaluation.results.candidates import CandidateResult
from safeswap.evaluation.results.pareto import OBJECTIVES, losses, pareto_set, write_pareto
from safeswap.evaluation.results.store import digest_of, one_at_a_time
from safeswap.io.progress import items_bar
from safeswap.plan import Plan
from safeswap.profile import Profile
from safeswap.search.candidates import (
    Candidate,
    candidate_model,
    chosen_on,
    grid_candidates,
    table_digest,
    with_questions,
)
from safeswap.search.runner import CandidateRunner
from safeswap.search.scoring import CandidateScorer
from safeswap.search.search_config import Search
from safeswap.search.selection import Choice, choose, record_choice
from safeswap.search.space import template_of
from safeswap.search.sweep import Swept, report_on_test
from safeswap.search.sweep_config import GridCell

if TYPE_CHECKING:
    from safeswap.search.study import SearchStudy

_log = logging.getLogger("safeswap.search")
_TABLE, _MEASURED = "table", "measured"


@dataclass(frozen=True, slots=True)
class Searched:
    """What a search found in one language.

    Attributes:
        trials, tables: how many proposals are done, and different tables measured.
        objectives: the figures that it went for; those that the suite has.
        front: the Pareto set on the dev questions, from the safest on.
        pareto: the folder of its plans; None while other workers are still at trials.
        choice: by the file's rule; None likewise.
        plan, test: the chosen plan, and the folder of what is reported; None without them.
    """

    language: str
    trials: int
    tables: int
    objectives: tuple[Measure, ...]
    front: tuple[CandidateResult, ...]
    dev: Path
    pareto: Path | None = None
    choice: Choice | None = None
    plan: Path | None = None
    test: Path | None = None


def objectives_of(suite: Suite, language: str) -> tuple[Measure, ...]:
    """What the suite can tell of a language, in the order of ``OBJECTIVES``."""
    told = {b.measures for b in suite.benchmarks if language not in b.absent}
    return tuple(kind for kind in OBJECTIVES if kind in told)


class LanguageSearch:
    """The search in one language, as one worker carries it out."""

    def __init__(
        self,
        search: Search,
        ask: CandidateRunner,
        profile: Profile,
        language: str,
        results: Path,
        judges: JudgeConfig,
    ) -> None:
        self.ask, self.profile, self.language = ask, profile, language
        self.results, self.judges = results, judges
        self.space = search.space
        self.template = template_of(profile, language)
        self.sweep = replace(search.sweep, cells=self._fitting(search))
        self.chosen = chosen_on(self.sweep, language)
        self.objectives = objectives_of(self.sweep.suites[language], language)
        if not self.objectives:
            raise EvaluationError(
                f"{language}: the suite asks nothing in it: nothing to search by."
            )
        self.fixed = self._fixed()
        self.measuring = CandidateScorer(ask, language, results / "dev" / language, judges)
        self.study: SearchStudy

    def _fitting(self, search: Search) -> tuple[GridCell, ...]:
        """The start; what was not asked for and this model cannot have is left out."""
        cells = []
        for cell in search.start:
            try:
                cell.plan(self.profile, self.language)
            except PlanError as error:
                if search.asked_for:
                    raise
                _log.info(f"{self.language}: {cell.name} is left out of the start: {error}")
            else:
                cells.append(cell)
        return tuple(cells)

    def _fixed(self) -> dict[str, Candidate]:
        """Digest → model or closed-form table that is measured whatever is proposed."""
        found: dict[str, Candidate] = {}
        for one in grid_candidates(self.sweep, self.profile, self.language):
            found.setdefault(one.model.digest, one)
        return found

    def run(
        self,
        opened: Callable[[str, Sequence[str]], SearchStudy],
        trials: int,
        worker: str,
    ) -> Searched:
        """Run the search to its end; the last worker of several makes the report."""
        self.measuring.prepare(list(self.fixed.values()))
        directions = ["maximize" if m.higher_is_better else "minimize" for m in self.objectives]
        with one_at_a_time(self.results):
            self.study = opened(f"safeswap {self.language} {self._digest()}", directions)
            self.study.take_over()
            for one in self.fixed.values():
                self.study.queue(self.space.nearest(one.plan), one.model.name)
        self._say_what_is_to_do(trials)
        try:
            self._measure_fixed(worker)
            self._run_trials(trials)
        finally:
            self.measuring.close()
        tally = self.study.tally()
        if tally.complete < trials:
            _log.info(
                f"{self.language}: {tally.complete} of {trials} trials done, {tally.running} still "
                "with other workers; the last of them reports. If one of them died, give the "
                "command again."
            )
            return self._searched(tally.complete, self.everything())
        with one_at_a_time(self.results):
            return self._report(tally.complete)

    def _digest(self) -> str:
        """What must be equal for figures to stand beside each other, and proposals, too."""
        inputs = {role: given.digest for role, given in self.template.inputs.items()}
        asked = {key: value for key, value in self.measuring.settings.items() if key != "arms"}
        answers = [self.ask.backend, self.ask.options.dtype, self.judges.version]
        return digest_of([inputs, asked, answers, self.space.as_dict(), self.objectives])[:16]

    def _say_what_is_to_do(self, trials: int) -> None:
        done = self.study.tally().complete
        count = len(self.space.parameters(tuple(self.template.units)))
        begun = f", {done} done" if done else ""
        _log.info(
            f"{self.language}: {trials} trials{begun}, {count} weights by {self.space.group}, "
            f"{len(self.fixed)} models and tables to start from"
        )
        lacking = [kind.words for kind in OBJECTIVES if kind not in self.objectives]
        if lacking:
            _log.info(f"{self.language}: not an objective, the suite lacks it: {listed(lacking)}")

    # Measuring ----------------------------------------------------------------------------------

    def everything(self) -> dict[str, tuple[CandidateResult, Plan]]:
        """Digest → figures and plan of all that any worker has measured."""
        noted = self.study.noted()
        found = {
            digest: (_read(noted[f"{_TABLE}:{digest}"]), one.plan)
            for digest, one in self.fixed.items()
            if f"{_TABLE}:{digest}" in noted
        }
        for trial in self.study.complete():
            digest = trial.user_attrs[_TABLE]
            if digest not in found:
                plan = self.space.plan(self.template, trial.params)
                found[digest] = (_read(trial.user_attrs[_MEASURED]), plan)
        return found

    def _measure_fixed(self, worker: str) -> None:
        todo = [d for d in self.fixed if f"{_TABLE}:{d}" not in self.study.noted()]
        random.Random(worker).shuffle(todo)  # workers side by side begin at different ends
        with items_bar(f"{self.language}: start", len(todo)) as advance:
            for digest in todo:
                if f"{_TABLE}:{digest}" not in self.study.noted():
                    one = self.measuring.measure(self.fixed[digest])
                    self._values(one)
                    self.study.note(f"{_TABLE}:{digest}", one.as_dict())
                advance(1)

    def _run_trials(self, total: int) -> None:
        ranges = dict.fromkeys(self.space.parameters(tuple(self.template.units)), self.space.steps)
        told = self.study.tally().complete
        with items_bar(f"{self.language}: trials", max(0, total - told)) as advance:
            while (now := self.study.tally()).complete < total:
                advance(now.complete - told)
                told = now.complete
                if now.complete + now.running >= total and not self._take_over():
                    return
                self.study.run_one(self._try, ranges, total)
            advance(now.complete - told)

    def _take_over(self) -> int:
        with one_at_a_time(self.results):
            return self.study.take_over()

    def _try(self, trial: Any) -> list[float]:
        plan = self.space.plan(self.template, trial.params)
        digest = table_digest(plan)
        known = self.everything().get(digest)
        one = known[0] if known else self.measuring.measure(self._candidate(digest, plan, trial))
        trial.set_user_attr(_TABLE, digest)
        trial.set_user_attr(_MEASURED, one.as_dict())
        return self._values(one)

    def _candidate(self, digest: str, plan: Plan, trial: Any) -> Candidate:
        if digest in self.fixed:
            return self.fixed[digest]
        about = CandidateRecord("search", self.space.weights_of(trial.params), plan.operator)
        name = f"table-{digest[:10]}"
        return Candidate(candidate_model(name, self.language, digest, about, self.chosen), plan)

    def _values(self, one: CandidateResult) -> list[float]:
        """The objectives' values of one result, in the study's order.

        Raises:
            EvaluationError: one is missing.
        """
        if losses(one, self.objectives) is None:
            lost = [kind.words for kind in self.objectives if one.figure(kind) is None]
            raise EvaluationError(
                f"{self.measuring.folder / one.name}: no figure for {listed(lost)}, so nothing can "
                f"be searched by it. `safeswap compare {self.measuring.folder} --dev` says why; "
                "take its benchmarks out of the suite, or give a judge that tells."
            )
        figures = map(one.figure, self.objectives)
        return [figure.value for figure in figures if figure is not None]

    # The report ---------------------------------------------------------------------------------

    def _searched(self, trials: int, found: dict[str, tuple[CandidateResult, Plan]]) -> Searched:
        front = pareto_set([one for one, _ in found.values()], self.objectives)
        dev = self.measuring.folder
        return Searched(self.language, trials, len(found), self.objectives, tuple(front), dev)

    def _report(self, trials: int) -> Searched:
        everything = self.everything()
        found = self._searched(trials, everything)
        plans = {one.name: plan for one, plan in everything.values()}
        folder = self._save_front(found, plans)
        choice = self._choose([one for one, _ in everything.values()])
        _log.info(f"{self.language}: chosen {choice.name or 'nothing'}: {choice.why}")
        candidates = list(self.fixed.values())
        path: Path | None = None
        if choice.name:
            path = self.results / f"chosen-{self.language}.yaml"
            self._warn_of_second_look(path, plans[choice.name])
            chosen = with_questions(self.chosen, found.dev / choice.name)
            record_choice(plans[choice.name], chosen).save(path)
            candidates += self._chosen(choice.name, everything)
        swept = Swept(self.language, found.dev, None, choice, path)
        test = report_on_test(self.ask, self.profile, candidates, swept, self.results).test
        assert test is not None
        pipeline.judge_by(test, self.judges)
        return replace(found, pareto=folder, choice=choice, plan=path, test=test)

    def _save_front(self, found: Searched, plans: dict[str, Plan]) -> Path:
        folder = self.results / "pareto" / self.language
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("*.yaml"):
            old.unlink()
        for one in found.front:
            chosen = with_questions(self.chosen, found.dev / one.name)
            plan = record_choice(plans[one.name], chosen)
            plan.save(folder / f"{one.name}.yaml")
        about = {
            "language": self.language,
            **self.chosen.as_dict(),
            "objectives": list(self.objectives),
            "space": self.space.as_dict(),
            "trials": found.trials,
            "tables": found.tables,
        }
        write_pareto(folder / "pareto.json", found.front, about)
        return folder

    def _choose(self, found: list[CandidateResult]) -> Choice:
        if Measure.UNSAFE not in self.objectives:
            return Choice("", "the rule goes by the unsafe rate, which the suite does not measure")
        return choose(found, self.sweep.rule)

    def _warn_of_second_look(self, path: Path, plan: Plan) -> None:
        """A choice that follows an earlier one was made with the test figures at hand."""
        if path.exists() and table_digest(Plan.load(path)) != table_digest(plan):
            _log.warning(
                f"{self.language}: another table was chosen and reported here before. The test "
                "questions have been looked at; fix --trials before the first look."
            )

    def _chosen(
        self, name: str, everything: dict[str, tuple[CandidateResult, Plan]]
    ) -> list[Candidate]:
        """The chosen table, where the search proposed it."""
        for digest, (one, plan) in everything.items():
            if one.name == name and digest not in self.fixed:
                about = CandidateRecord("search", one.settings, plan.operator)
                model = candidate_model(name, self.language, digest, about, self.chosen)
                return [Candidate(model, plan)]
        return []


def _read(content: Mapping[str, Any]) -> CandidateResult:
    """A candidate's figures from the study's plain data."""
    return CandidateResult.from_dict(content, "the search's memory")
