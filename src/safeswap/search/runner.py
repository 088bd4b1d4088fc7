"""Asking candidates: one model in memory answers for table after table; rows are stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safeswap.checkpoint.family import Family
from safeswap.errors import EvaluationError
from safeswap.evaluation import generate, pipeline
from safeswap.evaluation.backends import BackendOptions
from safeswap.evaluation.benchmarks.suites import Suite
from safeswap.evaluation.models import EvaluatedModel
from safeswap.evaluation.results.store import Results, start_results
from safeswap.io.progress import items_bar
from safeswap.merge.run import is_current, measure
from safeswap.plan import Plan
from safeswap.profile import Profile, check_descent
from safeswap.search.candidates import Candidate
from safeswap.search.sweep_config import Sweep

if TYPE_CHECKING:  # which loads torch
    from safeswap.search.hotswap import Candidates


def check_backend(backend: str, reload: bool) -> None:
    """Refuse backends that cannot hold candidates.

    Raises:
        EvaluationError: says which can.
    """
    if backend != "hf" and not (reload and backend == "vllm"):
        raise EvaluationError(
            f"--backend {backend}: candidates live in a model of transformers (hf); vllm needs "
            "--reload, which writes and loads each of them."
        )


def load_profile(
    family: Family, results: Path, workers: int | None, *, force: bool = False
) -> Profile:
    """The profile of an earlier run where the checkpoints are the same, else a new one.

    Raises:
        FamilyError: an expert is no fine-tune of the base, and ``force`` was not given.
    """
    path = results / "profile.json"
    if path.exists():
        known = Profile.load(path)
        if set(known.inputs) == set(family.members) and is_current(known, family):
            check_descent(known, force=force)
            return known
    profile = measure(family, workers, force=force)
    path.parent.mkdir(parents=True, exist_ok=True)
    profile.save(path)
    return profile


Asked = tuple[EvaluatedModel, Plan]
"""A candidate that has not answered all yet."""


class CandidateRunner:
    """Lets candidates answer one side of a suite, and stores what they say."""

    def __init__(
        self,
        family: Family,
        sweep: Sweep,
        backend: str,
        options: BackendOptions,
        reload: bool,
        workers: int | None,
        *,
        overwrite: bool = False,
    ) -> None:
        self.overwrite = overwrite
        self.family, self.sweep = family, sweep
        template = sweep.chat_template
        self.options = replace(
            options,
            chat_template=None if template in ("on", "off") else Path(template),
            use_template=template != "off",
        )
        self.generation = pipeline.with_template(sweep.generation, self.options)
        self.backend, self.reload, self.workers = backend, reload, workers
        if reload and options.cluster is not None:
            raise EvaluationError(
                "--reload with --cluster: candidates on a cluster are exchanged in the workers' "
                "memory. Leave one of the two out."
            )
        generate.refuse_uncut(backend, self.generation)

    def answer(
        self, language: str, part: Any, candidates: Sequence[Candidate], folder: Path
    ) -> None:
        """Ask the candidates what they have not answered yet.

        Raises:
            EvaluationError: the folder holds results of other settings or models.
        """
        suite = self.sweep.suites[language].on(self.sweep.dev.of(part))
        donor = self.family.members[language].tokenizer_folder
        models = [replace(one.model, location=str(donor)) for one in candidates]
        generate.templates_agree(models[:1], self.backend, self.options)
        settings = generate.settings_of(suite, self.generation)
        names = [model.name for model in models]
        store = start_results(folder, settings, names, overwrite=self.overwrite)
        for model in models:
            generate.refuse_other_model(store, model, overwrite=self.overwrite)
        todo = [
            (model, one.plan)
            for model, one in zip(models, candidates, strict=True)
            if pipeline.is_missing(store, model, suite)
        ]
        if todo:
            self._ask(language, f"{language}: {part}", todo, suite, store)

    def _ask(
        self, language: str, title: str, todo: Sequence[Asked], suite: Suite, store: Results
    ) -> None:
        """The bar counts candidates; their questions get none."""
        asked = self._here if self.options.cluster is None else self._on_cluster
        with items_bar(title, len(todo)) as advance:
            for _ in asked(language, todo, suite, store):
                advance(1)

    def _here(
        self, language: str, todo: Sequence[Asked], suite: Suite, store: Results
    ) -> Iterator[EvaluatedModel]:
        candidates = self.candidates(language)
        try:
            for model, plan in todo:
                with candidates.answering(plan) as loaded:
                    generate.write_model_record(
                        store, model, loaded.description, overwrite=self.overwrite
                    )
                    pipeline.answer(store, model, suite, loaded, self.generation)
                yield model
        finally:
            candidates.close()

    def _on_cluster(
        self, language: str, todo: Sequence[Asked], suite: Suite, store: Results
    ) -> Iterator[EvaluatedModel]:
        from safeswap.search.clustered import ClusterCandidates

        held = ClusterCandidates(
            self.family, self.sweep, language, self.options, self.workers, len(todo)
        )
        try:
            for model, _ in todo:  # before any of them is asked for hours
                generate.refuse_other_backend(
                    store, model, held.description, overwrite=self.overwrite
                )
            yield from held.answer(todo, suite, self.generation, store)
        finally:
            held.close()

    def candidates(self, language: str) -> Candidates:
        """What makes plans of a language answer; it holds a model until it is closed."""
        try:
            from safeswap.search.hotswap import HotSwapModel, ReloadedModel
        except ImportError as error:
            raise EvaluationError(
                f"candidates need {error.name}: pip install 'safeswap[eval]'."
            ) from error
        if self.reload:
            return ReloadedModel(self.backend, self.options)
        return HotSwapModel(self.family, language, self.options, self.workers)
