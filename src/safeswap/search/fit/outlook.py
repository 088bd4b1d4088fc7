"""What a fit would do, without reading a weight: a record, and it in words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safeswap.checkpoint.family import Family, open_family
from safeswap.io.progress import shown_bytes
from safeswap.search.fit.settings import FitSettings
from safeswap.search.fit.texts import SplitTexts, read_fit_texts
from safeswap.selectors.common import keys_of

Record = dict[str, Any]


def fit_outlook(
    base: str | Path,
    *,
    safety: str | Path,
    languages: Mapping[str, str | Path],
    harmful: Path,
    harmless: Mapping[str, Path],
    out: Path,
    settings: FitSettings,
    force: bool = False,
) -> Record:
    """The texts, weights and steps of each language, and what is held in memory.

    Raises:
        SafeswapError: a checkpoint or file of texts that is not there or not valid.
    """
    texts = {
        code: read_fit_texts(code, harmful, harmless, settings.seed, force=force)
        for code in languages
    }
    family = open_family(base, safety, languages, force=force)
    found = [_language(family, code, texts[code], settings, out) for code in languages]
    return {"kind": "outlook", "verb": "fit", "out": str(out), "languages": found}


def _language(
    family: Family, code: str, texts: SplitTexts, settings: FitSettings, out: Path
) -> Record:
    placements = family.anatomy.placements
    groups = keys_of(family.anatomy.units, settings.by)
    moved = {unit for members in groups.values() for unit in members}
    tensors = family.members[code].tensors
    vectors = sum(t.nbytes for n, t in tensors.items() if placements[n].unit in moved)
    sides = {"fitted": texts.fitted, "held": texts.held}
    return {
        "language": code,
        "source": family.members[code].text,
        "weights": 2 * len(groups),
        "steps": settings.steps,
        "openings": list(texts.fitted.openings),
        "texts": {
            side: {
                "harmful": len(one.harmful),
                "harmless": len(one.harmless),
                "others": len(one.others),
            }
            for side, one in sides.items()
        },
        "weights_bytes": family.members[code].nbytes,
        "vectors_bytes": 2 * vectors,
        "there": (out / f"{code}.yaml").is_file(),
    }


def lines_of(record: Record) -> list[str]:
    """The record in words."""
    lines = []
    for one in record["languages"]:
        fitted, held = one["texts"]["fitted"], one["texts"]["held"]
        vectors, there = shown_bytes(one["vectors_bytes"]), ""
        if one["there"]:
            there = f"; {record['out']} holds a plan already"
        lines += [
            f"{one['language']}: {one['source']}, {one['weights']} weights in {one['steps']} "
            f"steps; in memory the model, {shown_bytes(one['weights_bytes'])}, both experts' "
            f"updates, {vectors}, and a batch{there}",
            f"  fitted on {fitted['harmful']} harmful requests, {fitted['harmless']} chats, "
            f"{fitted['others']} of safety's; held back: {held['harmful']}, {held['harmless']}, "
            f"{held['others']}",
            f"  refusals open with: {', '.join(map(repr, one['openings']))}",
        ]
    return [*lines, "no model was loaded, and nothing written"]
