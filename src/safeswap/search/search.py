"""A search over tables of weights.

Optuna proposes them, each is measured on dev questions, and the Pareto set of all that was measured
comes back as plans.

::

    RESULTS/profile.json              measured once
    RESULTS/search.db                 Optuna's memory, unless --storage names another database
    RESULTS/dev/LANGUAGE/             rows as of `safeswap evaluate`: one model per table of weights
    RESULTS/pareto/LANGUAGE/          the Pareto set's plans, and pareto.json with their figures
    RESULTS/chosen-LANGUAGE.yaml      the one that the file's rule chooses
    RESULTS/test/LANGUAGE/            the models it was made from, the paper's rule, the chosen one

First the models themselves and the closed-form methods are measured; their tables, brought into
the space of the search, are its first proposals. Candidates are all tables measured, of both kinds.
What is found this way is the best of many on the dev questions, so its figures there are too good:
what is reported comes from the test questions, asked once the search is done. Whatever stops it,
the same command goes on; several workers may search at once.

>>> from safeswap.search.search import read_search, run_search            # doctest: +SKIP
>>> (found,) = run_search(read_search(path), results, trials=200)          # doctest: +SKIP
>>> [one.name for one in found.front]                                      # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from safeswap.errors import EvaluationError, nearest
from safeswap.evaluation.backends import BackendOptions
from safeswap.evaluation.judging import JudgeConfig
from safeswap.evaluation.results.store import one_at_a_time
from safeswap.search.runner import CandidateRunner, check_backend, load_profile
from safeswap.search.scoring import check_judge
from safeswap.search.search_config import Search, read_search
from safeswap.search.worker import LanguageSearch, Searched

if TYPE_CHECKING:
    from safeswap.search.study import SearchStudy

TRIALS = 200


def run_search(
    search: Search,
    results: Path,
    *,
    trials: int = TRIALS,
    languages: Sequence[str] = (),
    storage: str | None = None,
    sampler: str = "tpe",
    seed: int = 0,
    backend: str = "hf",
    options: BackendOptions | None = None,
    judge_backend: str = "hf",
    judge_options: BackendOptions | None = None,
    reload: bool = False,
    workers: int | None = None,
    force: bool = False,
    overwrite: bool = False,
) -> list[Searched]:
    """Carry a search out, go on with one, or join one that others carry out.

    Args:
        search: as ``read_search`` gives it.
        results: a new folder, or that of the same search.
        trials: proposals in total, in each language, by all workers together.
        languages: of the file's (default: all), one after the other.
        storage: a database's URL (default: SQLite in ``results``).
        sampler: ``tpe`` or ``nsga2``.
        seed: another seed makes other proposals.
        backend, reload, workers, force, overwrite: as for ``run_sweep``.
        judge_backend, judge_options: ``api`` with its server, where the judge is a model.

    Raises:
        SafeswapError: what is wrong, before a model is loaded where it can be known before.
    """
    study = _optuna()
    study.check_sampler(sampler)
    check_backend(backend, reload)
    if trials < 1:
        raise EvaluationError(f"--trials {trials}: at least one.")
    sweep = search.sweep
    codes = _languages(sweep.languages, languages)
    judges = JudgeConfig(
        sweep.judge, sweep.judge_kind, judge_backend, judge_options or BackendOptions()
    )
    check_judge(judges)
    family = sweep.family(force=force)
    asked = options or BackendOptions()
    ask = CandidateRunner(family, sweep, backend, asked, reload, workers, overwrite=overwrite)
    results.mkdir(parents=True, exist_ok=True)
    with study.working(results / "workers") as worker:
        with one_at_a_time(results):
            profile = load_profile(family, results, workers, force=force)
        url = storage or f"sqlite:///{results / 'search.db'}"
        chosen = study.Seeded(sampler, seed)

        def opened(name: str, directions: Sequence[str]) -> SearchStudy:
            made: SearchStudy = study.SearchStudy(
                url, name, directions, chosen, worker, results / "workers"
            )
            return made

        found = []
        for code in codes:
            one = LanguageSearch(search, ask, profile, code, results, judges)
            with study.explained(url):
                found.append(one.run(opened, trials, worker))
    return found


def _optuna() -> ModuleType:
    try:
        from safeswap.search import study
    except ImportError as error:
        raise EvaluationError(
            f"a search needs {error.name}: pip install 'safeswap[search]'."
        ) from error
    return study


def _languages(known: Mapping[str, str], wanted: Sequence[str]) -> list[str]:
    for code in wanted:
        if code not in known:
            raise EvaluationError(f"the search has no language {code!r}{nearest(code, known)}")
    return list(dict.fromkeys(wanted)) or list(known)


__all__ = ["TRIALS", "Search", "Searched", "read_search", "run_search"]
