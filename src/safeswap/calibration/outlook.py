"""What a calibration would do, without reading a weight: a record, and it in words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safeswap.calibration.run import read_jobs
from safeswap.checkpoint.family import open_family
from safeswap.io.progress import shown_bytes
from safeswap.operators.gram_store import MANIFEST, open_grams

Record = dict[str, Any]


def calibration_outlook(
    base: str | Path,
    *,
    safety: str | Path,
    languages: Mapping[str, str | Path],
    texts: Mapping[str, Path] | None = None,
    harmful: Path | None = None,
    harmless: Mapping[str, Path] | None = None,
    parallel: Mapping[str, Path] | None = None,
    out: Path,
    force: bool = False,
) -> Record:
    """The experts that would be run, each over how many texts.

    Raises:
        SafeswapError: a checkpoint or file of texts that is not there or not valid.
    """
    family = open_family(base, safety, languages, force=force)
    before = dict(open_grams(out).experts) if (out / MANIFEST).exists() else {}
    experts = [
        {
            "expert": entry,
            "source": family.members[job.role].text,
            "weights_bytes": family.members[job.role].nbytes,
            "texts": len(job.texts),
            "file": job.texts.name,
            "there": entry in before,
        }
        for job in read_jobs(texts or {}, harmful, harmless or {}, parallel or {}, force=force)
        for entry in job.entries
    ]
    return {"kind": "outlook", "verb": "calibrate", "out": str(out), "experts": experts}


def lines_of(record: Record) -> list[str]:
    """The record in words."""
    lines = [
        f"{one['expert']}: {one['source']}, weights {shown_bytes(one['weights_bytes'])} in memory; "
        f"{one['texts']} texts of {one['file']}"
        + (f"; {record['out']} holds matrices of it already" if one["there"] else "")
        for one in record["experts"]
    ]
    return [*lines, "no model was loaded, and nothing written"]
