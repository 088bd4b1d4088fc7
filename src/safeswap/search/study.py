"""The search's memory: an Optuna study in a database, shared by any number of workers.

A worker may die at any moment. Whoever notices fails its running trial and queues the same proposal
again: at once where the worker's file in the results shows that it is gone (its lock was let go by
the system), else once its heartbeat in the database has stopped for a while.
"""

from __future__ import annotations

import os
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import optuna
import sqlalchemy
from optuna.exceptions import ExperimentalWarning, StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from safeswap.errors import EvaluationError, nearest
from safeswap.io.files import remedy
from safeswap.io.locks import HeldError, has_record_locks, take_lock

SAMPLERS = ("tpe", "nsga2")
POPULATION = 20
"""Of NSGA-II: a search of this kind has hundreds of trials, not thousands."""
HEARTBEAT = 30
GRACE = 120
"""Seconds between signs of life, and without one until a worker is taken for dead."""
_RETRIES = 3
_WORKER = "worker"


class Seeded(optuna.samplers.BaseSampler):  # type: ignore[misc,unused-ignore]
    """A sampler that starts anew with each trial, from the search's seed and the trial's number.

    So what it proposes follows from the trials before and from the number alone: workers side by
    side do not propose the same, and a search that was stopped goes on as if it had not been.
    """

    def __init__(self, kind: str, seed: int) -> None:
        self.kind, self.seed = kind, seed
        self._inner = self._made(0)

    def before_trial(self, study: Any, trial: Any) -> None:
        """Start a sampler seeded by the search's seed and the trial's number."""
        self._inner = self._made(trial.number)
        self._inner.before_trial(study, trial)

    def infer_relative_search_space(self, study: Any, trial: Any) -> Any:
        """Ask this trial's sampler for the parameters that it draws together."""
        return self._inner.infer_relative_search_space(study, trial)

    def sample_relative(self, study: Any, trial: Any, search_space: Any) -> Any:
        """Ask this trial's sampler for a value of each of them."""
        return self._inner.sample_relative(study, trial, search_space)

    def sample_independent(self, study: Any, trial: Any, param_name: str, param: Any) -> Any:
        """Ask this trial's sampler for the value of one parameter."""
        return self._inner.sample_independent(study, trial, param_name, param)

    def after_trial(self, study: Any, trial: Any, state: Any, values: Any) -> None:
        """Tell this trial's sampler how the trial ended."""
        self._inner.after_trial(study, trial, state, values)

    def _made(self, number: int) -> Any:
        seed = int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])
        if self.kind == "nsga2":
            return optuna.samplers.NSGAIISampler(population_size=POPULATION, seed=seed)
        return optuna.samplers.TPESampler(seed=seed)


def check_sampler(name: str) -> None:
    """Refuse an unknown sampler.

    Raises:
        EvaluationError: names the nearest.
    """
    if name not in SAMPLERS:
        raise EvaluationError(f"no sampler is called {name!r}{nearest(name, SAMPLERS)}")


@dataclass(frozen=True, slots=True)
class Tally:
    """How many trials are done, and how many some worker is at."""

    complete: int
    running: int


class SearchStudy:
    """A study of one language's search, as one worker sees it.

    Args:
        url: of the database, such as ``sqlite:///search.db``.
        name: of the study; equal names are one search.
        directions: ``minimize`` or ``maximize`` per objective.
        worker: this worker's name, as ``working`` gives it.
        folder: where the workers' files are.

    Raises:
        EvaluationError: no such database, no driver for it, another study under that name.
    """

    def __init__(
        self,
        url: str,
        name: str,
        directions: Sequence[str],
        sampler: optuna.samplers.BaseSampler,
        worker: str,
        folder: Path,
    ) -> None:
        self.worker, self.folder = worker, folder
        with explained(url), quiet_optuna():
            try:
                self._study = optuna.create_study(
                    study_name=name,
                    storage=_storage(url),
                    directions=list(directions),
                    sampler=sampler,
                    load_if_exists=True,
                )
            except (ImportError, sqlalchemy.exc.NoSuchModuleError) as error:
                raise EvaluationError(
                    f"--storage {_shown(url)}: its driver is not installed ({error}). Install it, "
                    "or use sqlite:///FILE."
                ) from error
            except (RuntimeError, ValueError) as error:  # as of a database of another version
                raise EvaluationError(f"--storage {_shown(url)}: {error}") from error

    def tally(self) -> Tally:
        """Count the trials that are finished and those that are running."""
        states = [t.state for t in self._study.get_trials(deepcopy=False)]
        return Tally(states.count(TrialState.COMPLETE), states.count(TrialState.RUNNING))

    def complete(self) -> list[Any]:
        """The finished trials, in the order of their numbers."""
        states = (TrialState.COMPLETE,)
        found = self._study.get_trials(deepcopy=False, states=states)
        return sorted(found, key=lambda trial: trial.number)

    def queue(self, proposal: Mapping[str, int], start: str) -> None:
        """Let a proposal be tried before all others, unless it is known."""
        with quiet_optuna():
            self._study.enqueue_trial(
                dict(proposal), user_attrs={"start": start}, skip_if_exists=True
            )

    def note(self, key: str, value: Any) -> None:
        """Remember something beside the trials."""
        self._study.set_user_attr(key, value)

    def noted(self) -> dict[str, Any]:
        """Everything that was noted, by whichever worker."""
        attributes: dict[str, Any] = self._study.user_attrs
        return attributes

    def run_one(
        self, objective: Callable[[Any], Sequence[float]], ranges: Mapping[str, int], total: int
    ) -> None:
        """Try one proposal. If it fails, or is interrupted, it is queued again.

        Args:
            objective: from a trial with its parameters to the values.
            ranges: parameter → largest number of steps.
            total: of trials wanted; one that a worker beside this one made superfluous is dropped.

        Raises:
            Whatever the objective raises.
        """
        begun: list[Any] = []
        done: list[Any] = []

        def try_it(trial: Any) -> Sequence[float] | None:
            trial.set_user_attr(_WORKER, self.worker)
            if self._ahead(trial.number) >= total:
                return None  # failed, which to a sampler is as if it had not been
            for name, high in ranges.items():
                trial.suggest_int(name, 0, high)
            begun.append(trial)
            values = None
            with suppress(UpdateFinishedTrialError):  # see below
                values = objective(trial)
            done.append(trial)
            return values

        with quiet_optuna():
            try:
                self._study.optimize(try_it, n_trials=1)
            except BaseException as error:
                # After a silence another worker may have taken this one for dead, and its trial
                # over: it cannot be told any more, and need not be.
                if done and isinstance(error, ValueError | UpdateFinishedTrialError):
                    return
                if begun:
                    _queue_again(self._study, self._study.get_trials()[begun[0].number])
                raise

    def take_over(self) -> int:
        """Fail the running trials of workers that are gone, and queue them again; how many."""
        taken = 0
        with quiet_optuna():
            optuna.storages.fail_stale_trials(self._study)
            for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                if is_gone(self.folder, trial.user_attrs.get(_WORKER, "")):
                    self._study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
                    _queue_again(self._study, trial)
                    taken += 1
        return taken

    def _ahead(self, number: int) -> int:
        states = (TrialState.COMPLETE, TrialState.RUNNING)
        found = self._study.get_trials(deepcopy=False, states=states)
        return sum(trial.number < number for trial in found)


def _queue_again(study: optuna.Study, trial: Any) -> None:
    """A trial that came to nothing, once more; not for ever, for it may be what kills workers."""
    proposal = trial.params or trial.system_attrs.get("fixed_params", {})
    tries = trial.user_attrs.get("tries", 0) + 1
    if proposal and tries <= _RETRIES:
        about = {key: trial.user_attrs[key] for key in ("start",) if key in trial.user_attrs}
        study.enqueue_trial(proposal, user_attrs={**about, "tries": tries})


def _storage(url: str) -> RDBStorage:
    # Writers wait for each other; SQLite's own limit of 5 s is short on a busy disk.
    waiting = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
    return RDBStorage(
        _without_locks(url),
        engine_kwargs=waiting,
        heartbeat_interval=HEARTBEAT,
        grace_period=GRACE,
        heartbeat_stale_trial_callback=_queue_again,
    )


def _without_locks(url: str) -> str:
    """The URL; of an SQLite file where the file system has no locks, one that asks for none: SQLite
    would wait a minute for them, and then take them for another process's.
    """
    made = sqlalchemy.engine.make_url(url)
    file = made.database or ""
    if made.get_backend_name() != "sqlite" or not file or file.startswith((":", "file:")):
        return url
    if not Path(file).parent.is_dir() or has_record_locks(Path(file).parent):
        return url
    plain = f"file:{quote(str(Path(file).absolute()))}"
    given = made.set(database=plain).update_query_dict({"vfs": "unix-none", "uri": "true"})
    return given.render_as_string(hide_password=False)


def _shown(url: str) -> str:
    """A database's URL without its password.

    Raises:
        EvaluationError: it is none.
    """
    try:
        shown: str = sqlalchemy.engine.make_url(url).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError as error:
        raise EvaluationError(
            f"--storage {url}: is no database URL. Give one such as sqlite:///search.db or "
            "postgresql+psycopg://USER@HOST/NAME."
        ) from error
    return shown


@contextmanager
def explained(url: str) -> Iterator[None]:
    """Turn errors of the database into an ``EvaluationError`` that says what to check."""
    shown = _shown(url)
    try:
        yield
    except (sqlalchemy.exc.DBAPIError, StorageInternalError) as error:
        cause = error.__cause__ or error
        reason = str(getattr(cause, "orig", None) or cause).splitlines()[0]
        raise EvaluationError(
            f"--storage {shown}: cannot be used ({reason}). Check that the database is there, and "
            "that you may write to it."
        ) from error


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Without Optuna's log; its experimental parts are used on purpose."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


# Workers ----------------------------------------------------------------------------------------


@contextmanager
def working(folder: Path) -> Iterator[str]:
    """A name for this worker, and a file that is locked as long as it lives."""
    name = uuid.uuid4().hex
    path = folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT)
    except OSError as error:
        raise EvaluationError(
            f"{folder}: cannot be written ({error.strerror}). {remedy(error)}"
        ) from error
    try:
        take_lock(handle, path, EvaluationError, wait=True)
        yield name
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def is_gone(folder: Path, name: str) -> bool:
    """Whether a worker died. One whose file is not here may live on another machine; where the file
    system has no locks, only its heartbeat in the database says so.
    """
    path = folder / name
    if not name or not path.is_file():
        return False
    try:
        handle = os.open(path, os.O_WRONLY)
    except FileNotFoundError:  # it has just finished
        return False
    except OSError as error:
        raise EvaluationError(
            f"{path}: cannot be opened ({error.strerror}). {remedy(error)}"
        ) from error
    try:
        return take_lock(handle, path, EvaluationError, wait=False)
    except HeldError:
        return False
    finally:
        os.close(handle)
