"""The majority of a results folder: who is in it, and what was known when it was defined.

A folder has one definition, ``majority.json``. Its verdicts are not stored: they are worked out
from those of its members whenever they are read, so they are never older than these. The record
says how many verdicts each member had when the majority was defined, and what it was before it was
defined anew: a choice that was made after the fact is seen to be one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NotRequired, TypedDict, cast

from safeswap.errors import EvaluationError
from safeswap.evaluation.judges import MajorityJudge
from safeswap.evaluation.judges.names import file_name
from safeswap.evaluation.results import checked as checks
from safeswap.evaluation.results.journal import read_rows
from safeswap.evaluation.results.names import MAJORITY_FILE, VERDICTS
from safeswap.evaluation.results.rows import VerdictRow
from safeswap.evaluation.results.store import Results, one_at_a_time, read_json, write_json

FORMAT = "safeswap-majority/1"


class EarlierMajority(TypedDict):
    """What a majority was before it was defined anew."""

    judges: list[str]
    had: dict[str, int]


class MajorityRecord(TypedDict):
    """``majority.json``: the one majority of a results folder."""

    format: str
    judges: list[str]
    """The names that the members' verdicts are filed under."""
    version: str
    """Of the rule by which they vote."""
    had: dict[str, int]
    """How many verdicts each member had here when it was defined; all 0 if that was beforehand."""
    earlier: NotRequired[list[EarlierMajority]]
    """What it was before, the first one first; left out where it was never defined anew."""


def read_majority(results: Results) -> MajorityRecord | None:
    """The majority of a results folder; None where none is defined.

    Raises:
        EvaluationError: a damaged record.
    """
    path = results.folder / MAJORITY_FILE
    if not path.is_file():
        return None
    found = read_json(path)
    checks.checked(found, checks.MAJORITY, path)
    for one in (found, *found.get("earlier", [])):
        for name in one["judges"]:
            if file_name(name) != name:
                raise EvaluationError(
                    f"{path}: {name!r} is the name of no judge's file. The file was edited or "
                    "damaged: restore it, or remove it and define the majority again."
                )
    return cast(MajorityRecord, found)


def define_majority(
    results: Results, judge: MajorityJudge, *, overwrite: bool = False
) -> MajorityRecord:
    """Record whose votes count, or find that they are recorded already.

    Args:
        overwrite: another majority is replaced, and stays in the record as an earlier one.

    Raises:
        EvaluationError: another majority is defined here, or the record cannot be written.
    """
    with one_at_a_time(results.folder):
        found = read_majority(results)
        if found is not None and sorted(found["judges"]) == sorted(judge.members):
            return found
        if found is not None and not overwrite:
            raise EvaluationError(
                f"{results.folder / MAJORITY_FILE}: the majority here is of "
                f"{', '.join(found['judges'])}, not of {', '.join(judge.members)}. One that is "
                "chosen by its result is no majority: keep it, or define it anew with "
                "--overwrite, which every table will say."
            )
        made: MajorityRecord = {
            "format": FORMAT,
            "judges": list(judge.members),
            "version": judge.version,
            "had": {name: _count(results, name) for name in judge.members},
        }
        if found is not None:
            before: EarlierMajority = {"judges": found["judges"], "had": found["had"]}
            made["earlier"] = [*found.get("earlier", []), before]
        write_json(results.folder / MAJORITY_FILE, made)
        return made


def voted(
    record: MajorityRecord, said: Mapping[str, Mapping[str, VerdictRow]]
) -> dict[str, VerdictRow]:
    """Key → verdict row of the majority, of the responses that every member has judged.

    Args:
        said: member → key → its verdict row.
    """
    judge = MajorityJudge(record["judges"])
    first, *others = (said[name] for name in judge.members)
    found: dict[str, VerdictRow] = {}
    for key, row in first.items():
        if not all(key in one for one in others):
            continue
        rows = [row, *(one[key] for one in others)]
        judgement = judge.decide_by([(one["verdict"], one["refusal"]) for one in rows])
        found[key] = {
            **row,
            "verdict": judgement.verdict,
            "categories": [],
            "refusal": judgement.refusal,
            "judge_version": judge.version,
            "raw": judgement.raw,
        }
    return found


def one_majority(opened: Sequence[Results]) -> MajorityRecord:
    """The majority of folders that stand in one table.

    Raises:
        EvaluationError: one of them has none, or another.
    """
    records = [(results, read_majority(results)) for results in opened]
    for results, record in records:
        if record is None:
            raise EvaluationError(
                f"{results.folder}: has no majority. `safeswap judge {results.folder} --judge "
                "majority:JUDGE,JUDGE,JUDGE` defines it, best before any of them has judged."
            )
        first = records[0][1]
        if first is not None and sorted(first["judges"]) != sorted(record["judges"]):
            raise EvaluationError(
                f"{opened[0].folder} and {results.folder} have different majorities "
                f"({', '.join(first['judges'])}; {', '.join(record['judges'])}). Results of "
                "different judges must not stand in one table."
            )
    return _latest([one for _, one in records if one is not None])


def _latest(records: Sequence[MajorityRecord]) -> MajorityRecord:
    """That of the folder where most was known when it was defined."""
    return max(records, key=lambda one: (len(one.get("earlier", [])), sum(one["had"].values())))


def defined_late(record: MajorityRecord) -> bool:
    """Whether it may have been chosen by its result: verdicts of its members were there when it was
    defined, or it was defined before in another way.
    """
    return any(record["had"].values()) or bool(record.get("earlier"))


def majority_note(record: MajorityRecord) -> str:
    """Who votes, and whether they were named before anybody knew their verdicts; no sentence."""
    note = f"majority of {', '.join(record['judges'])}"
    known = [f"{name} {count}" for name, count in record["had"].items() if count]
    if known:
        note += f", defined when verdicts were there already ({', '.join(known)})"
    else:
        note += ", defined before any of them had judged"
    for one in record.get("earlier", []):
        note += f"; before that, of {', '.join(one['judges'])}"
    return note


def _count(results: Results, judge: str) -> int:
    paths = results.folder.glob(f"*/{VERDICTS}/{judge}.jsonl")
    return sum(1 for path in paths for _ in read_rows(path))
