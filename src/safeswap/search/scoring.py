"""One candidate at a time: asked on the dev side, judged, and its figures read.

Rows go where those of ``safeswap evaluate`` go. A candidate that has answered is never asked again,
and of several workers that share the folder one asks it while the others wait.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from safeswap.errors import EvaluationError
from safeswap.evaluation import generate, pipeline
from safeswap.evaluation.judging import JudgeConfig
from safeswap.evaluation.models import EvaluatedModel, name_models
from safeswap.evaluation.results.candidates import CandidateResult, read_measured
from safeswap.evaluation.results.store import one_at_a_time, start_results
from safeswap.search.candidates import Candidate
from safeswap.search.runner import CandidateRunner

if TYPE_CHECKING:  # which loads torch
    from safeswap.search.hotswap import Candidates


def check_judge(judges: JudgeConfig) -> None:
    """Refuse a judge that cannot judge between two candidates, the model under test still loaded.

    Raises:
        EvaluationError: no such judge, or a model that would have to be loaded here.
    """
    if not judges.spec or not judges.make().asks_model:
        return
    if judges.backend != "api":
        raise EvaluationError(
            f"judge {judges.spec}: a search judges each table before it proposes the next, and a "
            "model that is loaded here would share memory with the one under test. Put the "
            "judge on a server (--judge-backend api --judge-url URL), or judge by rules "
            "(rule:FILE.yaml)."
        )
    if not judges.options.base_url:
        raise EvaluationError(
            f"judge {judges.spec}: on which server? Give --judge-url URL, ending in /v1."
        )
    name_models([f"judge={judges.spec}"], judges.backend, judges.options.base_url)


class CandidateScorer:
    """Measures candidates of one language into one results folder; a model stays loaded between.

    Raises:
        EvaluationError: the folder holds results of other settings, or no chat template fits.
    """

    def __init__(
        self, ask: CandidateRunner, language: str, folder: Path, judges: JudgeConfig
    ) -> None:
        self.ask, self.language, self.folder, self.judges = ask, language, folder, judges
        self.suite = ask.sweep.suites[language].on(ask.sweep.dev)
        self.settings = generate.settings_of(self.suite, ask.generation)
        self._candidates: Candidates | None = None

    def prepare(self, candidates: list[Candidate]) -> None:
        """Start the folder with these first; what cannot be is refused before a model is loaded."""
        models = [self._located(one) for one in candidates]
        generate.templates_agree(models[:1], self.ask.backend, self.ask.options)
        names, anew = [model.name for model in models], self.ask.overwrite
        store = start_results(self.folder, self.settings, names, overwrite=anew)
        for model in models:
            generate.refuse_other_model(store, model, overwrite=anew)

    def measure(self, one: Candidate) -> CandidateResult:
        """The candidate's figures; it is asked what it has not answered yet.

        Raises:
            EvaluationError: the backend or the judge failed; what was answered is stored.
        """
        model = self._located(one)
        store = start_results(self.folder, self.settings, [model.name])
        home = self.folder / model.name
        home.mkdir(exist_ok=True)
        with one_at_a_time(home):
            generate.refuse_other_model(store, model, overwrite=self.ask.overwrite)
            if pipeline.is_missing(store, model, self.suite):
                with self._loaded().answering(one.plan) as loaded:
                    generate.write_model_record(
                        store, model, loaded.description, overwrite=self.ask.overwrite
                    )
                    pipeline.answer(store, model, self.suite, loaded, self.ask.generation)
            pipeline.judge_by(self.folder, self.judges, models=[model.name])
            (found,) = read_measured(
                self.folder, self.language, judge=self.judges.name, models=[model.name]
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

    def _located(self, one: Candidate) -> EvaluatedModel:
        donor = self.ask.family.members[self.language].tokenizer_folder
        return replace(one.model, location=str(donor))
