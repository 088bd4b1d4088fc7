"""One candidate at a time: asked on the dev side, judged, and its figures read.

Rows go where those of `safeswap evaluate` go. A candidate that has answered is never asked again,
and of several workers that share the folder one asks it while the others wait.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from safeswap.errors import EvaluationError
from safeswap.evaluation import collect, judging, run
from safeswap.evaluation.arms import Arm, make_arms
from safeswap.evaluation.judges import make_judge
from safeswap.evaluation.responders import BackendOptions
from safeswap.evaluation.store import one_at_a_time, start_results
from safeswap.explore.asking import Asking, untold
from safeswap.explore.measured import Measured, read_measured
from safeswap.explore.tables import Candidate

if TYPE_CHECKING:  # which loads torch
    from safeswap.explore.candidates import Candidates


@dataclass(frozen=True, slots=True)
class Judging:
    """Who judges between two candidates, while the model under test stays loaded.

    Attributes:
        spec, kind: as for ``safeswap judge``; spec is empty where nothing needs a judge.
        backend: ``api`` for a judge on a server; rules need none.

    Raises:
        EvaluationError: no such judge, or a model that would have to be loaded here.
    """

    spec: str
    kind: str | None
    backend: str
    options: BackendOptions

    def __post_init__(self) -> None:
        if not self.spec:
            return
        judge = make_judge(self.spec, kind=self.kind)
        if judge.asks_model and self.backend != "api":
            raise EvaluationError(
                f"judge {self.spec}: a search judges each table before it proposes the next, and a "
                "model that is loaded here would share memory with the one under test. Put the "
                "judge on a server (--judge-backend api --judge-url URL), or judge by rules "
                "(rule:FILE.yaml)."
            )
        if judge.asks_model and not self.options.base_url:
            raise EvaluationError(
                f"judge {self.spec}: on which server? Give --judge-url URL, ending in /v1."
            )
        if judge.asks_model:
            make_arms([f"judge={self.spec}"], self.backend, self.options.base_url)

    @property
    def name(self) -> str | None:
        """What the verdicts are filed under."""
        if not self.spec:
            return None
        return judging.judge_name(make_judge(self.spec, kind=self.kind), self.spec)

    @property
    def version(self) -> str:
        """What changes when the judge would judge otherwise."""
        return f"{self.name} {make_judge(self.spec, kind=self.kind).version}" if self.spec else ""

    def judge(self, folder: Path, models: tuple[str, ...] = ()) -> None:
        """Judge what was not judged yet."""
        if self.spec:
            run.judge(
                folder,
                self.spec,
                kind=self.kind,
                backend=self.backend,
                options=self.options,
                models=models,
            )


class Measuring:
    """Measures candidates of one language into one results folder; a model stays loaded between.

    Raises:
        EvaluationError: the folder holds results of other settings, or no chat template fits.
    """

    def __init__(self, ask: Asking, language: str, folder: Path, judges: Judging) -> None:
        self.ask, self.language, self.folder, self.judges = ask, language, folder, judges
        self.suite = ask.sweep.suites[language].on(ask.sweep.dev)
        self.settings = collect.settings_of(self.suite, ask.generation)
        self._candidates: Candidates | None = None

    def prepare(self, candidates: list[Candidate]) -> None:
        """Start the folder with these first; what cannot be is refused before a model is loaded."""
        arms = [self._located(one) for one in candidates]
        collect.templates_agree(arms[:1], self.ask.backend, self.ask.options)
        store = start_results(self.folder, self.settings, [arm.name for arm in arms])
        for arm in arms:
            collect.refuse_other_model(store, arm)

    def measure(self, one: Candidate) -> Measured:
        """The candidate's figures; it is asked what it has not answered yet.

        Raises:
            EvaluationError: the backend or the judge failed; what was answered is stored.
        """
        arm = self._located(one)
        store = start_results(self.folder, self.settings, [arm.name])
        home = self.folder / arm.name
        home.mkdir(exist_ok=True)
        with one_at_a_time(home):
            collect.refuse_other_model(store, arm)
            if run.is_missing(store, arm, self.suite):
                with self._loaded().answering(one.plan) as responder:
                    collect.introduce(store, arm, responder)
                    run.answer(store, arm, self.suite, responder, self.ask.generation, untold)
            self.judges.judge(self.folder, (arm.name,))
            (found,) = read_measured(
                self.folder, self.language, judge=self.judges.name, models=[arm.name]
            )
        return found

    def close(self) -> None:
        """Let go of the model."""
        if self._candidates is not None:
            self._candidates.close()
            self._candidates = None

    def _loaded(self) -> Candidates:
        if self._candidates is None:
            self._candidates = self.ask.candidates(self.language)
        return self._candidates

    def _located(self, one: Candidate) -> Arm:
        donor = self.ask.family.members[self.language].folder
        return replace(one.arm, location=str(donor))
