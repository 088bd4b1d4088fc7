"""The verbs around the choice of a plan, as functions: diagnose, explore, sweep, search, fit and
attribute.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safeswap.profile import Profile

if TYPE_CHECKING:
    from safeswap.profile.attribution import Attribution
    from safeswap.search.diagnose import Diagnosed
    from safeswap.search.fit import Fitted
    from safeswap.search.sweep import Swept

_log = logging.getLogger("safeswap.api")


def diagnose(base: str | Path, *, out: str | Path | None = None, **options: Any) -> Diagnosed:
    """Say whether a merge is likely to work, as ``safeswap diagnose`` does.

    Args:
        base: the checkpoint that both experts were fine-tuned from.
        out: the file that gets every figure; or None.
        options: those of :func:`safeswap.search.diagnose.diagnose`: ``safety``, ``languages``,
            ``harmful`` and ``harmless`` (role → file, ``safety`` for English), ``options``, …

    Returns:
        A diagnosis per language: its grade, the reasons and all figures.

    Raises:
        SafeswapError: what is wrong, before a model is loaded where it can be known before.

    >>> found = api.diagnose("base", safety="safety", languages={"sw": "swahili"},
    ...                      harmful={"safety": "refusals.jsonl", "sw": "own.jsonl"},
    ...                      harmless={"safety": "english.jsonl", "sw": "chats.jsonl"})
    ...                                                                    # doctest: +SKIP
    >>> found.languages[0].grade                                           # doctest: +SKIP
    'likely'
    """
    from safeswap.search.diagnose import diagnose as diagnosed

    for kind in ("harmful", "harmless"):
        options[kind] = {role: Path(path) for role, path in options[kind].items()}
    found = diagnosed(base, **options)
    if out is not None:
        found.save(Path(out))
    return found


def explore(
    profile: str | Path | Profile,
    out: str | Path | None = None,
    *,
    force: bool = False,
    port: int = 0,
    ready: Callable[[str], None] = lambda address: None,
    **options: Any,
) -> Path | None:
    """Write the page on which a plan is chosen, or serve it, as ``safeswap explore`` does.

    Args:
        profile: a profile or its file.
        out: the page's file; without one the page is served on loopback, under a path that nobody
            guesses, until the process is interrupted.
        force: explore plans for an expert too that is no fine-tune of the base.
        port, ready: where to serve (0: where it is free), and what is told the address.
        options: those of :func:`safeswap.report.explore.write_explorer`: ``sweep``, ``judge``,
            ``strict``, ``title``.

    Returns:
        The file, or None once the page is no longer served.

    Raises:
        SafeswapError: the profile is damaged or of experts that are no fine-tunes of the base, the
            sweep's folder is none, jinja2 is missing.

    >>> profile = api.make_profile("base", safety="safety", languages={"sw": "swahili"})
    >>> api.explore(profile, "explore.html").name
    'explore.html'
    """
    from safeswap.api.merging import check_plannable
    from safeswap.report.explore import serve_explorer, write_explorer

    place = None if isinstance(profile, Profile) else Path(profile)
    measured = profile if isinstance(profile, Profile) else Profile.load(Path(profile))
    check_plannable(measured, measured.languages, force=force)
    if out is not None:
        return write_explorer(measured, out, place=place, **options)
    serve_explorer(measured, port=port, ready=ready, place=place, **options)
    return None


def sweep(
    file: str | Path, out: str | Path, *, allow_outside: bool = False, **options: Any
) -> list[Swept]:
    """Carry out the sweep of a YAML file and write its reports, as ``safeswap sweep`` does.

    Args:
        file: as docs/sweep.md describes.
        out: the results folder: new, or that of the same sweep to go on in.
        allow_outside: its suite's YAML may name files outside the suite's own folder.
        options: those of :func:`safeswap.search.sweep.run_sweep`: back ends, ``reload``, …

    Returns:
        What was chosen, a record per language.

    Raises:
        SafeswapError: what is wrong, before a model is loaded where it can be known before.

    >>> api.sweep("sweep.yaml", "results")                                 # doctest: +SKIP
    """
    from safeswap.report.ablation import write_sweep_reports
    from safeswap.search.sweep import run_sweep
    from safeswap.search.sweep_config import read_sweep

    asked = read_sweep(Path(file), allow_outside=allow_outside)
    done = run_sweep(asked, Path(out), **options)
    for written in write_sweep_reports(asked, Path(out)):
        _log.info(f"{written[0]}: written, with {len(written) - 1} more files beside it")
    return done


def search(file: str | Path, out: str | Path, *, group: str = "layer", **options: Any) -> list[Any]:
    """Carry out the search of a YAML file, as ``safeswap search`` does.

    Args:
        file: as docs/search.md describes.
        out: the results folder: new, or that of the same search to go on in or to join.
        group: what shares its weights: ``unit``, ``layer``, ``kind`` or ``band``.
        options: those of :func:`safeswap.search.search.run_search`: ``trials``, ``seed``, …

    Returns:
        What was found, a record per language.

    Raises:
        SafeswapError: what is wrong, before a model is loaded where it can be known before.

    >>> api.search("search.yaml", "results", trials=200)                   # doctest: +SKIP
    """
    from safeswap.search.search import read_search, run_search

    return list(run_search(read_search(Path(file), group), Path(out), **options))


def fit(base: str | Path, **options: Any) -> list[Fitted]:
    """Fit each unit's two weights on what the merged model does, as ``safeswap fit`` does.

    Args:
        base: the checkpoint that both experts were fine-tuned from.
        options: those of :func:`safeswap.search.fit.fit`: ``safety``, ``languages``, ``harmful``,
            ``harmless``, ``out``, ``settings``, ``options``, …

    Returns:
        A record per language, with its plan's file and readings of held-back texts.

    Raises:
        SafeswapError: what is wrong, before a model is loaded where it can be known before.

    >>> api.fit("base", safety="safety", languages={"sw": "swahili"},
    ...         harmful="refusals.jsonl", harmless={"sw": "chats.jsonl"}, out="fitted")
    ...                                                                    # doctest: +SKIP
    """
    from safeswap.search.fit import fit as fitted

    texts = {role: Path(path) for role, path in options.pop("harmless").items()}
    harmful, out = Path(options.pop("harmful")), Path(options.pop("out"))
    return fitted(base, harmful=harmful, harmless=texts, out=out, **options)


def attribute(base: str | Path, **options: Any) -> Attribution:
    """Say what each unit's part of the safety vector brings, as ``safeswap attribute`` does.

    Args:
        base: the checkpoint that both experts were fine-tuned from.
        options: those of :func:`safeswap.search.attribute.attribute`: ``safety``, ``languages``
            (one), ``harmful``, ``harmless``, ``out``, ``settings``, ``options``, …

    Returns:
        What the file ``out`` holds.

    Raises:
        SafeswapError: what is wrong, before a model is loaded where it can be known before.

    >>> api.attribute("base", safety="safety", languages={"sw": "swahili"}, out="found.json",
    ...               harmful="refusals.jsonl", harmless={"sw": "chats.jsonl"})
    ...                                                                    # doctest: +SKIP
    """
    from safeswap.search.attribute import attribute as attributed

    texts = {role: Path(path) for role, path in options.pop("harmless").items()}
    harmful, out = Path(options.pop("harmful")), Path(options.pop("out"))
    return attributed(base, harmful=harmful, harmless=texts, out=out, **options)
