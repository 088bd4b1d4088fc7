"""The verb ``diagnose``: will a merge work here? Asked before anything is merged.

Every model is opened by itself, read by forward passes on the given texts, and let go: nothing is
generated, trained or merged. The base and the safety expert are read once for all languages.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safeswap.calibration.run import run_settings
from safeswap.checkpoint.family import Family, open_family
from safeswap.errors import ConfigError
from safeswap.evaluation.backends import BackendOptions
from safeswap.io.files import save_text
from safeswap.merge.run import measure
from safeswap.profile import Profile
from safeswap.roles import BASE, SAFETY
from safeswap.search.diagnose.collision import collisions
from safeswap.search.diagnose.measures import Measures, deciding_layer
from safeswap.search.diagnose.reading import ModelReading, Reader
from safeswap.search.diagnose.record import FORMAT, Diagnosis, HitRate
from safeswap.search.diagnose.texts import TextSets, read_text_sets
from safeswap.search.diagnose.verdict import WORKED, criteria, grade_of, way_of

LIMIT, MAX_TOKENS = 100, 256


@dataclass(frozen=True, slots=True)
class Diagnosed:
    """All languages of one run.

    Attributes:
        languages: in the order given.
        record: what goes into the file: format, inputs, settings, texts, and the languages.
    """

    languages: tuple[Diagnosis, ...]
    record: Mapping[str, Any]

    def save(self, path: Path) -> None:
        """Write the record as JSON.

        Raises:
            OutputError: the place cannot be written.
        """
        save_text(path, json.dumps(self.record, indent=1, ensure_ascii=False) + "\n")


def diagnose(
    base: str | Path,
    *,
    safety: str | Path,
    languages: Mapping[str, str | Path],
    harmful: Mapping[str, Path],
    harmless: Mapping[str, Path],
    options: BackendOptions | None = None,
    limit: int = LIMIT,
    max_tokens: int = MAX_TOKENS,
    seed: int = 0,
    workers: int | None = None,
    force: bool = False,
) -> Diagnosed:
    """Say for each language whether a merge is likely to work.

    Args:
        harmful, harmless: role → file of chats, see
            :func:`~safeswap.search.diagnose.texts.read_text_sets`.
        options: of the models: dtype, device, tokens per batch; a chat template is used unless it
            is turned off.
        limit: texts of a file at most.
        max_tokens: of a request with its answer; longer answers are cut.
        seed: of the drawing of texts, of halves and of the bootstrap.
        force: take experts too that are no fine-tunes of the base, and texts in whatever language.

    Raises:
        CalibrationError: texts that are missing or not valid.
        EvaluationError: a model that does not load or compute.
        FamilyError, CheckpointError: as the steps do.
    """
    if limit < 1:
        raise ConfigError(f"--limit {limit}: at least 1 text of each file.")
    options = options or BackendOptions()
    texts = read_text_sets(harmful, harmless, list(languages), limit=limit, seed=seed, force=force)
    family = open_family(base, safety, languages, force=force)
    profile = measure(family, workers, force=force)
    readings = _read(family, texts, Reader(options, texts.openings, max_tokens))
    found = tuple(_language(code, profile, readings, texts, seed) for code in languages)
    record = {
        "format": FORMAT,
        "inputs": {role: profile.inputs[role].digest for role in family.members},
        "settings": run_settings(options, max_tokens) | {"limit": limit, "seed": seed},
        "texts": dict(texts.digests),
        "openings": list(texts.openings),
        "languages": {one.language: one.as_dict() for one in found},
    }
    return Diagnosed(found, record)


def _read(family: Family, texts: TextSets, reader: Reader) -> dict[str, ModelReading]:
    """Role → what was read of its model, one model in memory at a time."""
    readings = {}
    for role, member in family.members.items():
        spoken = family.languages if role in (BASE, SAFETY) else (role,)
        readings[role] = reader.read(member, role, texts.of((SAFETY, *spoken)))
    return readings


def _language(
    code: str,
    profile: Profile,
    readings: Mapping[str, ModelReading],
    texts: TextSets,
    seed: int,
) -> Diagnosis:
    sets = texts.of((SAFETY, code))
    measures = Measures(readings, sets, code, seed)
    layers, refusing, knowledge = measures.layers(), measures.refusing(), measures.knowledge()
    layer = deciding_layer(layers)
    reasons = criteria(code, layers[layer], refusing, knowledge)
    grade = grade_of(reasons)
    return Diagnosis(
        language=code,
        grade=grade,
        measured=HitRate(*WORKED[grade]),
        reasons=reasons,
        way=way_of(code, layers[layer]),
        unknown=_unknown(code, measures.asked),
        layer=layer,
        layers=layers,
        spelling=measures.spelling(),
        refusing=refusing,
        knowledge=knowledge,
        units=collisions(profile, code),
        texts={":".join(kind): len(found) for kind, found in sets.items()},
    )


def _unknown(code: str, asked: bool) -> tuple[str, ...]:
    """What no figure here says."""
    never = "what a merge answers: only answers to other prompts say that (safeswap evaluate)"
    if asked:
        return (never,)
    return (
        f"how harmful requests in {code} lie in any model, and how often the safety expert refuses "
        f"them: no --harmful {code}=FILE was given, so the grade is never likely",
        never,
    )
