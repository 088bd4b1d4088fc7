"""Candidates on a cluster: each worker holds one model and exchanges its weights, plan after plan.

A worker answers all that a candidate is asked and gives its rows back; the process that runs the
sweep stores them. A candidate whose worker is lost is asked anew by another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

from safeswap.checkpoint.family import Family
from safeswap.cluster import Pool
from safeswap.evaluation import generate, pipeline
from safeswap.evaluation.backends import BackendOptions, find_backend
from safeswap.evaluation.backends.clustered import (
    mark_of,
    refuse_other_folder,
    travelling,
    with_gpus,
    with_template,
)
from safeswap.evaluation.benchmarks.suites import Suite
from safeswap.evaluation.models import EvaluatedModel
from safeswap.evaluation.results.journal import Journal, read_rows
from safeswap.evaluation.results.store import (
    REQUESTS,
    RESPONSES,
    SCORES,
    Results,
    start_results,
)
from safeswap.plan import Plan
from safeswap.search.hotswap import HotSwapModel
from safeswap.search.sweep_config import Sweep

ROWS = (RESPONSES, REQUESTS, SCORES)
"""The files of a model's rows."""
Rows = Mapping[str, Sequence[Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class CandidateSpec:
    """What a worker needs to make candidates of one language.

    Attributes:
        marks: each checkpoint's folder → what tells its content.
        template: the text of the chat template that takes the place of the model's own.
        workers: threads that read and compute.
    """

    sweep: Sweep
    language: str
    options: BackendOptions
    marks: Mapping[str, str]
    template: str | None
    workers: int | None


class CandidateWorker:
    """What a worker holds: the experts' weights at hand, and one model that becomes candidates.

    Raises:
        ClusterError: a checkpoint is not on the node, or is another one there.
        SafeswapError: as :class:`~safeswap.search.hotswap.HotSwapModel`.
    """

    def __init__(self, spec: CandidateSpec) -> None:
        for folder, mark in spec.marks.items():
            refuse_other_folder(folder, mark)
        with with_template(spec.options, spec.template) as options:
            family = spec.sweep.family(force=True)
            self.hot = HotSwapModel(family, spec.language, options, spec.workers)

    def ready(self) -> dict[str, Any]:
        """What goes into the results."""
        return self.hot.loaded.description

    def measure(
        self,
        model: EvaluatedModel,
        plan: Plan,
        suite: Suite,
        generation: pipeline.Generation,
        known: Rows,
    ) -> Rows:
        """All rows of a candidate: those known before, and what it says to the rest."""
        settings = generate.settings_of(suite, generation)
        with TemporaryDirectory(prefix="safeswap-candidate-") as folder:
            store = start_results(folder, settings, [model.name])
            add_rows(store, model.name, known)
            with self.hot.answering(plan) as loaded:
                pipeline.answer(store, model, suite, loaded, generation)
            return rows_of(store, model.name)


class ClusterCandidates:
    """The workers of one language, to be asked for many candidates.

    Args:
        family: the sweep's, as it was opened.
        most: there are no more candidates than this.

    Attributes:
        description: of the model that a worker holds, for the results.

    Raises:
        ClusterError: as :class:`~safeswap.cluster.Pool`.
    """

    def __init__(
        self,
        family: Family,
        sweep: Sweep,
        language: str,
        options: BackendOptions,
        workers: int | None,
        most: int,
    ) -> None:
        assert options.cluster is not None
        alone, template = travelling(options)
        alone = with_gpus(alone, find_backend("hf"), options.cluster)
        marks = {str(one.folder): mark_of(str(one.folder)) for one in family.members.values()}
        spec = CandidateSpec(sweep, language, alone, marks, template, workers)
        self.pool = Pool(CandidateWorker, (spec,), options.cluster, most)
        self.description: dict[str, Any] = self.pool.about

    def answer(
        self,
        todo: Sequence[tuple[EvaluatedModel, Plan]],
        suite: Suite,
        generation: pipeline.Generation,
        store: Results,
    ) -> Iterator[EvaluatedModel]:
        """Ask all candidates; each one's rows are stored when it comes back."""
        chunks = [
            (model, plan, suite, generation, rows_of(store, model.name)) for model, plan in todo
        ]
        for number, rows in self.pool.spread("measure", chunks):
            model = todo[number][0]
            generate.write_model_record(store, model, self.description)
            add_rows(store, model.name, rows)
            yield model

    def close(self) -> None:
        """End the workers."""
        self.pool.close()


def rows_of(store: Results, model: str) -> Rows:
    """A model's rows as they are stored, file by file."""
    folder = store.folder / model
    return {name: list(read_rows(folder / name)) for name in ROWS if (folder / name).exists()}


def add_rows(store: Results, model: str, rows: Rows) -> None:
    """Store the rows that are not stored yet."""
    folder = store.folder / model
    folder.mkdir(parents=True, exist_ok=True)
    for name, own in rows.items():
        with Journal(folder / name) as journal:
            journal.add([row for row in own if row["key"] not in journal])
