"""Sweep and search: the verbs that measure many plans, as functions."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from safeswap.search.sweep import Swept

_log = logging.getLogger("safeswap.api")


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
