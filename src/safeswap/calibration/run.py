"""The verb ``calibrate``: every expert over its texts, into a folder of Gram matrices."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safeswap.calibration.entry import Job
from safeswap.calibration.expert_run import ExpertRun
from safeswap.calibration.neurons import NOT_EDITED, PairJob
from safeswap.calibration.pairs import read_pairs
from safeswap.calibration.texts import read_chats, read_refusals, read_texts
from safeswap.checkpoint.digests import of_small_file
from safeswap.checkpoint.family import Family, open_family
from safeswap.checkpoint.inside import files_below, why_not_read
from safeswap.errors import CalibrationError, OutputError, listed
from safeswap.evaluation.backends import BackendOptions
from safeswap.io.locks import HeldError, take_lock
from safeswap.io.progress import bytes_bar
from safeswap.operators.calibrated import entry_of
from safeswap.operators.gram_guided import HARMFUL, HARMLESS
from safeswap.operators.gram_store import (
    MANIFEST,
    ExpertGrams,
    file_of,
    open_grams,
    write_manifest,
)
from safeswap.profile import check_descent, measure_family, refuse_strangers
from safeswap.version import __version__

_log = logging.getLogger("safeswap.calibration")
_LOCK = ".lock"


@dataclass(frozen=True, slots=True)
class Calibrated:
    """One entry's matrices: where, how many, and whether they were there before.

    Attributes:
        name: the entry: an expert's role, or with its chats (``sw@harmful``).
    """

    name: str
    path: Path
    entry: ExpertGrams
    kept: bool

    @property
    def matrices(self) -> int:
        """How many are stored; several tensors may share one."""
        return len({record.gram for record in self.entry.tensors.values()})


def calibrate(
    base: str | Path,
    *,
    safety: str | Path,
    languages: Mapping[str, str | Path],
    texts: Mapping[str, Path] | None = None,
    harmful: Path | None = None,
    harmless: Mapping[str, Path] | None = None,
    parallel: Mapping[str, Path] | None = None,
    out: Path,
    options: BackendOptions | None = None,
    memory: int = 8 * 10**9,
    max_tokens: int = 512,
    workers: int | None = None,
    force: bool = False,
    overwrite: bool = False,
) -> list[Calibrated]:
    r"""Sum the Gram matrices of every expert's layer inputs on its texts.

    Experts that ``out`` holds already, of the same weights, texts and settings, are kept; what a
    killed run had not finished is made again.

    Args:
        texts: role → file, see :func:`safeswap.calibration.texts.read_texts`; for ``regmean``.
        harmful: English harmful requests with refusals, and
        harmless: language → harmless chats in it, see
            :func:`~safeswap.calibration.texts.read_chats`. Both are run through the language
            experts; for ``gram-add`` and ``gram-swap``.
        parallel: language → pairs of prompts in English and in it, see
            :func:`safeswap.calibration.pairs.read_pairs`; both sides are run through the language
            expert; for ``sparse-edit``.
        options: device, dtype, tokens per batch, chat template (off by default: texts as they are).
        memory: bytes of the sums that are held at once, on the model's device; more layers than fit
            need more passes over the texts. The model, a batch and one product come on top.
        max_tokens: longer texts are cut.
        workers: threads that digest the checkpoints.
        force: take experts too whose configuration or weights say that they are no fine-tunes of
            the base.
        overwrite: matrices from other weights, texts or settings are made anew.

    Raises:
        CalibrationError: texts, settings or a folder that is not valid; says which.
        CheckpointError, FamilyError, EvaluationError, OutputError: as the steps do.

    >>> from safeswap.demo import models_folder
    >>> world, texts = models_folder(), Path("texts.txt")
    >>> _ = texts.write_text("qa qi\nqo qu\n")
    >>> experts = {"safety": world / "safety", "languages": {"qab": world / "qab"}}
    >>> of_each = {"safety": texts, "qab": texts}
    >>> found = calibrate(world / "base", **experts, texts=of_each, out=Path("grams"))
    >>> [one.name for one in found]
    ['safety', 'qab']
    """
    options = options or BackendOptions(use_template=False)
    jobs = read_jobs(texts or {}, harmful, harmless or {}, parallel or {}, force=force)
    family = open_family(base, safety, languages, force=force)
    if not force:
        refuse_strangers(family)
    settings = run_settings(options, max_tokens)
    with _taken(out):
        before = dict(open_grams(out).experts) if (out / MANIFEST).exists() else {}
        weights = _digests(family, workers, force)
        for job in jobs:
            _let_go(before, job, weights[job.role], settings, out, overwrite)
        found = []
        for job in jobs:
            kept = all(entry in before for entry in job.entries)
            if not kept:
                run = ExpertRun(family, job.role, options, settings, memory, out)
                before |= job.made(run, weights[job.role])
                write_manifest(out, before, __version__)
            for entry in job.entries:
                found.append(Calibrated(entry, file_of(out, entry), before[entry], kept))
                _report(found[-1])
    return found


def _let_go(
    before: dict[str, ExpertGrams],
    job: Job | PairJob,
    weights: str,
    settings: Mapping[str, Any],
    out: Path,
    overwrite: bool,
) -> None:
    """Take a job's entries out of what is there where they are to be made anew.

    Raises:
        CalibrationError: they are of other weights, texts or settings, or damaged.
    """
    for entry in job.entries:
        other = _other(before.get(entry), weights, job.texts.digest, settings)
        if other and overwrite:
            del before[entry]  # its file is replaced when the new one is whole
        elif other:
            raise CalibrationError(
                f"{out}: holds Gram matrices of {entry} from other {' and '.join(other)}. "
                "Choose another -o, or make them anew with --overwrite."
            )
        elif entry in before:
            open_grams(out).check_file(entry)


def read_jobs(
    texts: Mapping[str, Path],
    harmful: Path | None,
    harmless: Mapping[str, Path],
    parallel: Mapping[str, Path],
    *,
    force: bool = False,
) -> list[Job | PairJob]:
    """What is to be run, with all files read.

    Raises:
        CalibrationError: nothing, harmful or harmless chats alone, or a file that is not valid.
    """
    jobs: list[Job | PairJob] = [
        Job(role, role, read_texts(path, role)) for role, path in texts.items()
    ]
    if (harmful is None) != (not harmless):
        given, lacks = ("--harmful", "--harmless") if harmful else ("--harmless", "--harmful")
        raise CalibrationError(
            f"{given} goes with {lacks}: the two are weighed against each other."
        )
    if harmful is not None:
        refusals = read_refusals(harmful, checked=not force)
        for role, path in harmless.items():
            jobs.append(Job(entry_of(role, HARMFUL), role, refusals))
            chats = read_chats(path, None if force else role)
            jobs.append(Job(entry_of(role, HARMLESS), role, chats))
    for role, path in parallel.items():
        jobs.append(PairJob(role, read_pairs(path, role, checked=not force)))
    if not jobs:
        raise CalibrationError(
            "there is nothing to run: give --texts FILE (for regmean), --harmful and --harmless "
            "(for gram-add and gram-swap), or --parallel (for sparse-edit)."
        )
    return jobs


def _digests(family: Family, workers: int | None, force: bool) -> dict[str, str]:
    """Role → digest of its weights; they are read once, and strangers are refused."""
    total = sum(m.tensors[n].nbytes for m in family.members.values() for n in family.names)
    with bytes_bar("digest", total) as advance:
        profile = measure_family(family, workers=workers, advance=advance)
    check_descent(profile, force=force)
    return {role: profile.inputs[role].digest for role in family.experts}


def _report(done: Calibrated) -> None:
    """What was collected, and which tensors are left out for which reason."""
    seen, entry = done.entry.texts, done.entry
    _log.info(
        f"{done.path}: {len(entry.tensors)} tensors in {done.matrices} matrices, from "
        f"{seen['texts']} texts ({seen['tokens']} tokens, {seen['cut']} texts cut)"
        + ("; kept from before" if done.kept else "")
    )
    reasons: dict[str, list[str]] = {}
    for name, reason in entry.left_out.items():
        if reason == NOT_EDITED:  # as it is meant
            continue
        reasons.setdefault(reason, []).append(name)
    never = [name for name, record in entry.tensors.items() if not record.rows]
    reasons |= {"the layer never ran on these texts": never} if never else {}
    for reason, names in reasons.items():
        _log.warning(f"{done.name}: no matrices of {listed(names)}: {reason}")


def run_settings(options: BackendOptions, max_tokens: int) -> dict[str, Any]:
    """What decides how texts are read: dtype, chat template (a file's by its digest), length."""
    template: Any = options.use_template
    if options.chat_template is not None:
        template = of_small_file(options.chat_template)
    return {"dtype": options.dtype, "chat_template": template, "max_tokens": max_tokens}


def _other(
    earlier: ExpertGrams | None, weights: str, texts: str, settings: Mapping[str, Any]
) -> list[str]:
    """What an expert's matrices that are there were made from otherwise."""
    if earlier is None:
        return []
    differs = {
        "weights": earlier.weights != weights,
        "texts": earlier.texts.get("digest") != texts,
        "settings": dict(earlier.settings) != settings,
    }
    return [name for name, different in differs.items() if different]


@contextmanager
def _taken(out: Path) -> Iterator[None]:
    """The folder, ours alone until the end."""
    try:
        if out.exists() and any(out.iterdir()) and not (out / MANIFEST).exists():
            known = {
                _LOCK,
                *(p.name for p in out.glob(".*.partial")),
                f".{MANIFEST}.new",
                f".{MANIFEST}.part",
            }
            if {path.name for path in out.iterdir()} - known:
                raise OutputError(f"{out}: exists and holds no {MANIFEST}. Choose another -o.")
        for name in files_below(out):  # what lies there is read and written to
            if (reason := why_not_read(out, out / name)) is not None:
                raise OutputError(f"{out / name}: is {reason}. Remove it, or choose another -o.")
        out.mkdir(parents=True, exist_ok=True)
        lock = os.open(out / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise OutputError(
            f"{out}: cannot be written ({error.strerror}). Choose another -o, or fix the folder's "
            "permissions."
        ) from error
    try:
        try:
            take_lock(lock, out / _LOCK, OutputError, wait=False)
        except HeldError:
            raise OutputError(
                f"{out}: another safeswap is writing it. Wait for it, or choose another -o."
            ) from None
        yield
    finally:
        os.close(lock)
