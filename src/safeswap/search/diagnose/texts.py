"""What a diagnosis reads: requests of two kinds in English and in the language, with answers."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safeswap.calibration.texts import (
    ENGLISH,
    Texts,
    parse_texts,
    read_chats,
    read_refusals,
    strange_texts,
)
from safeswap.errors import CalibrationError
from safeswap.evaluation.readouts import Exchange, learn_openings
from safeswap.roles import SAFETY

HARMFUL, HARMLESS = "harmful", "harmless"
Kind = tuple[str, str]
"""``harmful`` or ``harmless``, and the role whose language it is in: ``safety`` is English."""
FEWEST = 8
"""Texts of a kind below which nothing is said."""


@dataclass(frozen=True, slots=True)
class TextSets:
    """The texts of all languages.

    Attributes:
        sets: kind → its exchanges; harmful ones in a language are there where they were given.
        openings: how refusals open, of all harmful files.
        digests: ``harmful`` or ``harmless``, a colon and the role → SHA-256 of the whole file's
            texts.
    """

    sets: Mapping[Kind, tuple[Exchange, ...]]
    openings: tuple[str, ...]
    digests: Mapping[str, str]

    def of(self, roles: Sequence[str]) -> dict[Kind, tuple[Exchange, ...]]:
        """The sets in the languages of some roles."""
        return {kind: texts for kind, texts in self.sets.items() if kind[1] in roles}


def harmful_files(given: Sequence[str], languages: Sequence[str]) -> dict[str, Path]:
    """Role → file of harmful requests; a file without a role is English.

    Raises:
        CalibrationError: an unknown role, a role given twice, no English file.
    """
    files, rest = parse_texts(given, (SAFETY, *languages), "--harmful")
    if len(rest) + (SAFETY in files) != 1:
        many = "two files are" if rest else "no file is"
        raise CalibrationError(
            f"--harmful: {many} English. Give one file of English requests with refusals, and "
            "LANGUAGE=FILE for those in a language."
        )
    english = {SAFETY: rest[0]} if rest else {}
    return {role: Path(path) for role, path in (files | english).items()}


def read_text_sets(
    harmful: Mapping[str, Path],
    harmless: Mapping[str, Path],
    languages: Sequence[str],
    *,
    limit: int,
    seed: int,
    force: bool = False,
) -> TextSets:
    """Read and check all files.

    Args:
        harmful: ``safety`` → English requests with refusals; a language → such in it.
        harmless: ``safety`` → English chats; every language → chats in it.
        limit: texts of a file at most; of more so many are drawn.
        seed: of the drawing.
        force: take texts in whatever language.

    Raises:
        CalibrationError: a file that is missing or not valid, fewer than ``FEWEST`` texts, texts in
            another language, the same requests in two files.
    """
    _require(harmful, harmless, languages)
    given = {HARMFUL: harmful, HARMLESS: harmless}
    files = {  # in one order, however they were given
        (kind, role): given[kind][role]
        for kind in given
        for role in (SAFETY, *languages)
        if role in given[kind]
    }
    found = {kind: _read(path, kind, force) for kind, path in files.items()}
    _refuse_shared(files, found)
    refusals = [found[kind].answers for kind in found if kind[0] == HARMFUL]
    return TextSets(
        {kind: _some(texts, limit, f"{seed} {kind}") for kind, texts in found.items()},
        _openings(refusals),
        {":".join(kind): texts.digest for kind, texts in found.items()},
    )


def _require(
    harmful: Mapping[str, Path], harmless: Mapping[str, Path], languages: Sequence[str]
) -> None:
    for option, files, needed in (
        ("--harmful", harmful, [SAFETY]),
        ("--harmless", harmless, [SAFETY, *languages]),
    ):
        if missing := [role for role in needed if role not in files]:
            what = "English texts" if missing[0] == SAFETY else f"texts in {missing[0]}"
            raise CalibrationError(f"{option}: lacks {what}: add {option} {missing[0]}=FILE.")


def _read(path: Path, kind: Kind, force: bool) -> Texts:
    what, role = kind
    language = ENGLISH if role == SAFETY else role
    if kind == (HARMFUL, SAFETY):
        texts = read_refusals(path, checked=not force)
    else:
        answered = None if force or what == HARMFUL else language  # refusals may be English
        texts = read_chats(path, answered)
        if not force and (strange := strange_texts(texts.texts, language)):
            raise CalibrationError(
                f"{path}: {strange} of {len(texts)} requests are not in {language!r}. Give requests"
                " in it; --force takes them as they are."
            )
    if len(texts) < FEWEST:
        raise CalibrationError(
            f"{path}: {len(texts)} texts, and fewer than {FEWEST} say more of themselves than of "
            "the models. Give more, best some hundred."
        )
    return texts


def _refuse_shared(files: Mapping[Kind, Path], found: Mapping[Kind, Texts]) -> None:
    """A request in two files is no evidence of either kind."""
    kinds = list(found)
    for n, one in enumerate(kinds):
        for other in kinds[n + 1 :]:
            shared = set(found[one].texts) & set(found[other].texts)
            if shared and (one[0] != other[0] or 2 * len(shared) > len(set(found[other].texts))):
                raise CalibrationError(
                    f"{files[other]}: {len(shared)} of its requests are in {files[one]} too, which "
                    f"holds {' '.join(one)} requests. Give each request in one file."
                )


def _some(texts: Texts, limit: int, seed: str) -> tuple[Exchange, ...]:
    """``limit`` of the texts, in their order."""
    count = len(texts)
    places = sorted(random.Random(seed).sample(range(count), min(count, limit)))
    return tuple(Exchange(texts.texts[n], texts.answers[n]) for n in places)


def _openings(refusals: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """How refusals open in each file; one that begins with another is counted with it already."""
    every = list(dict.fromkeys(one for answers in refusals for one in learn_openings(answers)))
    return tuple(one for one in every if not any(one != o and one.startswith(o) for o in every))
