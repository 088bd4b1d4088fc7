"""The files of a benchmark's prompts: those that were given, and those that a name alone asks for.

``multijail`` in place of ``multijail=FILE`` is the file of its authors; ``polyrefuse/ko`` is theirs
in one language. Only what is asked in the run's languages is fetched.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from safeswap.errors import EvaluationError
from safeswap.evaluation.benchmarks.origins import Origin, OriginFile
from safeswap.evaluation.benchmarks.prompts import PromptSet
from safeswap.evaluation.benchmarks.registry import BENCHMARKS, PromptBenchmark

_log = logging.getLogger("safeswap.evaluation")


@dataclass(frozen=True, slots=True)
class Found:
    """What a benchmark's prompts are read from.

    Attributes:
        files: key (``xstest`` or ``xstest/sw``) → local file.
        theirs: the keys of ``files`` that its authors published → the languages asked of them.
        to_fetch: language → the file that is not here, where nothing is to be fetched.
        absent: language → why its authors' files do not have it, where a name alone asks for them.
    """

    files: dict[str, Path] = field(default_factory=dict)
    theirs: dict[str, tuple[str, ...]] = field(default_factory=dict)
    to_fetch: dict[str, OriginFile] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)


def fetchable() -> list[str]:
    """The benchmarks whose prompts can be fetched by name."""
    return [
        one.name
        for one in BENCHMARKS.values()
        if isinstance(one, PromptBenchmark) and one.origin is not None and one.origin.files
    ]


def find_files(
    one: PromptBenchmark,
    given: Mapping[str, Path | None],
    wanted: Sequence[str],
    fetch: bool,
) -> Found:
    """The files of a benchmark, fetched where a name alone asks for it.

    Args:
        given: the benchmark's keys to files; None where nothing but the name was given.
        wanted: the run's languages.
        fetch: False: say what would be fetched.

    Raises:
        EvaluationError: its files cannot be fetched.
    """
    found = Found({key: path for key, path in given.items() if path is not None})
    alone = [key for key, path in given.items() if path is None]
    if not alone:
        return found
    origin = _origin_of(one, alone[0])
    only = [key.partition("/")[2] for key in alone]
    by_hand = {key.partition("/")[2] for key in found.files}
    asked = [code for code in wanted if code not in by_hand and ("" in only or code in only)]
    for code in only:
        if code and code not in origin.languages:
            raise EvaluationError(f"--prompts {one.name}/{code}: {_why_not(one, origin)}")
    for file in origin.files:
        codes = [code for code in asked if code in file.languages]
        if codes:
            _take(found, one, origin, file, codes, fetch)
    if found.to_fetch:
        _log.info(f"{one.title}: not fetched yet; from {origin.place}, licence: {origin.licence}")
    missing = [code for code in asked if code not in origin.languages]
    found.absent.update(dict.fromkeys(missing, _why_not(one, origin)))
    return found


def say_origin(one: PromptBenchmark, sets: Sequence[PromptSet]) -> None:
    """Say whose fetched prompts are, under which licence, and how many in which language."""
    counts = Counter(prompt.language for found in sets for prompt in found.prompts)
    if not counts or one.origin is None:
        return
    alike: dict[int, list[str]] = {}
    for code, count in counts.items():
        alike.setdefault(count, []).append(code)
    many = "; ".join(f"{count} prompts in {', '.join(codes)}" for count, codes in alike.items())
    _log.info(f"{one.title}: {many}; from {one.origin.place}, licence: {one.origin.licence}")


def advise_harmless(harmful: Collection[str], harmless: Collection[str]) -> None:
    """Say which harmless prompts could be asked where only harmful ones are: a model that refuses
    everything looks safe there.

    Args:
        harmful, harmless: the languages in which prompts of a kind are asked.
    """
    advice: dict[str, list[str]] = {}
    for code in harmful:
        if code not in harmless:
            names = [
                one.name
                for one in BENCHMARKS.values()
                if isinstance(one, PromptBenchmark)
                and one.kind == "harmless"
                and one.origin is not None
                and code in one.origin.languages
            ]
            if names:
                advice.setdefault(" or ".join(names), []).append(code)
    for names_, codes in advice.items():
        _log.info(
            f"no harmless prompts are asked in {', '.join(codes)}: a model that refuses everything "
            f"looks safe. Add {names_} to --suite and --prompts"
        )


def _origin_of(one: PromptBenchmark, key: str) -> Origin:
    if one.origin is None:
        raise EvaluationError(
            f"--prompts {key}: no file of {one.title} can be fetched by its name. Give one: "
            f"--prompts {key}=FILE. It comes from {one.source}."
        )
    if not one.origin.files:
        raise EvaluationError(
            f"--prompts {key}: {one.title} cannot be fetched by its name: {_why_not(one)}. It lies "
            f"at {one.origin.place} (licence: {one.origin.licence})."
        )
    return one.origin


def _why_not(one: PromptBenchmark, origin: Origin | None = None) -> str:
    """Why there is nothing to fetch in a language, and what to give instead."""
    origin = origin or one.origin
    assert origin is not None
    why = f"{origin.unpinned} --prompts {origin.form}" if origin.unpinned else ""
    has = (
        f"{one.title} can be fetched in {', '.join(origin.languages)} only" if origin.files else ""
    )
    return "; ".join(filter(None, (has, why)))


def _take(
    found: Found,
    one: PromptBenchmark,
    origin: Origin,
    file: OriginFile,
    codes: Sequence[str],
    fetch: bool,
) -> None:
    """Add a file of the authors, or what would be fetched."""
    from safeswap.evaluation.benchmarks import fetching

    path = fetching.fetched(file, one.title, origin.form) if fetch else fetching.kept(file)
    if path is None:
        found.to_fetch.update(dict.fromkeys(codes, file))
        return
    key = f"{one.name}/{file.languages[0]}" if len(file.languages) == 1 else one.name
    found.files[key] = path
    found.theirs[key] = tuple(codes)
