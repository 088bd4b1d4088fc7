"""The measuring part of the mask study: one file of verdicts per kind, seed and language.

Kinds are ``masks`` (a module of the safety expert in place of the language expert's), ``gates``
(safety's task vector added to the language expert's module, as a merge rounds it) and
``candidates`` (all methods and operators). A file that is there and was made from the same
checkpoints is kept, so an interrupted run continues.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import numpy as np

from safeswap.api import make_profile
from safeswap.checkpoint.family import open_family
from safeswap.demo.documents import exam
from safeswap.demo.world import LANGUAGES, LEAD_LANGUAGE, SMALL_LANGUAGES, default_world
from safeswap.plan import fill_plan
from safeswap.profile import Profile
from safeswap.roles import BASE, SAFETY
from small_world.masks.candidates import Candidate, all_candidates, merged_state
from small_world.masks.exhaustive import every_mask
from small_world.masks.forward import Network, Shape, answer, modules_of, pack, read_state
from small_world.masks.verdicts import Verdicts

Kind = Literal["candidates", "masks", "gates"]


@dataclass(frozen=True)
class Trio:
    """A base, a safety expert and the language experts of one expert seed, and their files.

    Attributes:
        models: what `python -m small_world.train --out` wrote.
        out: folder of the verdicts.
    """

    models: Path
    out: Path
    seed: int

    def folder(self, role: str) -> Path:
        """The checkpoint of a role."""
        return self.models / BASE if role == BASE else self.models / f"seed-{self.seed}" / role

    @cached_property
    def profile(self) -> Profile:
        """Measured anew: it takes less than a second."""
        languages: dict[str, str | Path] = {code: self.folder(code) for code in SMALL_LANGUAGES}
        return make_profile(
            self.folder(BASE), safety=self.folder(SAFETY), languages=languages, workers=1
        )

    def inputs(self, code: str) -> str:
        """Digests of the checkpoints that a language's verdicts are about."""
        roles = (BASE, SAFETY) if code == LEAD_LANGUAGE else (BASE, SAFETY, code)
        return " ".join(self.profile.inputs[role].digest for role in roles)

    def path(self, kind: Kind, code: str) -> Path:
        """Where verdicts lie."""
        return self.out / f"{kind}-{self.seed}-{code}.npz"

    def load(self, kind: Kind, code: str) -> Verdicts:
        """Verdicts that `collect` made."""
        return Verdicts.load(self.path(kind, code))

    def has(self, kind: Kind, code: str) -> bool:
        """Whether the verdicts are there, of these checkpoints and with all candidates."""
        path = self.path(kind, code)
        if not path.exists():
            return False
        found = Verdicts.load(path)
        return found.inputs == self.inputs(code) and found.names == names_of(kind, code)


def names_of(kind: Kind, code: str) -> tuple[str, ...]:
    """The models of a file of verdicts; masks have no names."""
    return tuple(c.name for c in _candidates(code)) if kind == "candidates" else ()


def _candidates(code: str) -> tuple[Candidate, ...]:
    # Nothing is merged for the lead language: base and safety expert are all there is.
    return all_candidates()[:2] if code == LEAD_LANGUAGE else all_candidates()


def collect(trios: Sequence[Trio], jobs: int, kinds: Mapping[Kind, Sequence[int]]) -> None:
    """Make all verdicts that are missing, in processes of one thread each, and say how it goes.

    Args:
        kinds: what is measured, in this order, of which seeds.
    """
    wanted = [(kind, trio) for kind, seeds in kinds.items() for trio in trios if trio.seed in seeds]
    pending = [task for kind, trio in wanted for task in _tasks(trio, kind)]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        started = {pool.submit(_make, *task): task for task in pending}
        for number, done in enumerate(as_completed(started), 1):
            trio, kind, code = started[done]
            print(
                f"{number}/{len(pending)}: seed {trio.seed} {code} {kind}, {done.result():.0f} s",
                flush=True,
            )


def _tasks(trio: Trio, kind: Kind) -> Iterator[tuple[Trio, Kind, str]]:
    languages = LANGUAGES if kind == "candidates" else SMALL_LANGUAGES
    yield from ((trio, kind, code) for code in languages if not trio.has(kind, code))


def _make(trio: Trio, kind: Kind, code: str) -> float:
    """Measure and write one file; returns the seconds it took."""
    import torch

    torch.set_num_threads(1)
    begun = time.monotonic()
    if trio.has(kind, code):  # another run of the study may have been faster
        return 0.0
    made = _answers(trio, code) if kind == "candidates" else _masks(trio, kind, code)
    made.save(trio.path(kind, code))
    return time.monotonic() - begun


def shape_of(folder: Path) -> Shape:
    """The shape of a checkpoint folder's model."""
    return Shape.of(json.loads((folder / "config.json").read_text(encoding="utf-8")))


def _answers(trio: Trio, code: str) -> Verdicts:
    language = SMALL_LANGUAGES[0] if code == LEAD_LANGUAGE else code
    world, shape = default_world(), shape_of(trio.folder(BASE))
    family = open_family(trio.folder(BASE), trio.folder(SAFETY), {language: trio.folder(language)})
    packed = pack(world, exam(world, code))
    found = []
    for candidate in _candidates(code):
        state = merged_state(family, candidate.plan(trio.profile, language))
        found.append(answer(Network(shape, state, packed), modules_of(state, shape)))
    refused, right = (np.array(part) for part in zip(*found, strict=True))
    return Verdicts(trio.inputs(code), names_of("candidates", code), refused, right)


def _masks(trio: Trio, kind: Kind, code: str) -> Verdicts:
    world = default_world()
    zeros = read_state(trio.folder(code))
    if kind == "masks":
        ones = read_state(trio.folder(SAFETY))
    else:
        # the linear merge decides every unit by itself, so that one model holds all open gates
        opened = fill_plan(trio.profile, code, method="uniform", form="chat-vector", gamma=1.0)
        family = open_family(trio.folder(BASE), trio.folder(SAFETY), {code: trio.folder(code)})
        ones = merged_state(family, opened)
    refused, right = every_mask(world, shape_of(trio.folder(BASE)), ones, zeros, exam(world, code))
    return Verdicts(trio.inputs(code), (), refused, right)
