"""What was merged from what: the inputs with their digests, and the merges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from safeswap.plan import Plan
from safeswap.profile import Profile
from safeswap.report.page.runs import MergeRun
from safeswap.roles import BASE, SAFETY
from safeswap.selectors.words import describe
from safeswap.tables import Cell, Column, Row, Table


def inputs_table(merges: Sequence[MergeRun], profiles: Sequence[Profile]) -> Table | None:
    """A row per checkpoint that was merged or measured: role, name, revision, digest, files.

    Local folders are called by their own names. None where there is nothing of the kind.
    """
    rows: dict[tuple[str, str], Row] = {}
    for profile in (*profiles, *(one.profile for one in merges if one.profile)):
        for role, record in profile.inputs.items():
            size = sum(file.size for file in record.files)
            files = f"{len(record.files)}, {_size(size)}"
            revision = record.revision or "–"
            digest = record.digest or "not known: a sample of the weights was read"
            key = (role, digest if record.digest else record.called)
            rows[key] = Row.of(_title(role), record.called, revision, digest, files)
    for merge in merges:
        for role, given in merge.plan.inputs.items() if merge.profile is None else ():
            name = _own_name(given.given)
            row = Row.of(_title(role), name, "–", given.digest or "none in the plan", "–")
            rows.setdefault((role, given.digest or name), row)
    if not rows:
        return None
    columns = ("role", "checkpoint", "revision", "digest of its weights", "weight files")
    return Table(
        "Inputs",
        tuple(Column(name, align="left") for name in columns),
        tuple(rows.values()),
        ("Digests are BLAKE3 over tensors: another sharding of the same weights has the same.",),
        "inputs",
    )


def merges_table(merges: Sequence[MergeRun], names: Mapping[Path, str]) -> Table | None:
    """A row per merge: how it was decided and joined, from where the rest came, its own digest."""
    if not merges:
        return None
    columns = (
        "merge",
        "language",
        "decided by",
        "joined by",
        "donor",
        "tensors",
        "digest",
    )
    rows = []
    for merge in merges:
        plan, content = merge.plan, merge.manifest
        digest = str(content.get("digest", "")) if content else "a plan: nothing was made of it yet"
        rows.append(
            Row.of(
                names[merge.path],
                plan.language,
                described(plan),
                plan.operator.name,
                plan.donor,
                Cell(str(len(content["tensors"])) if content else "–"),
                digest or "none: made by an earlier version",
            )
        )
    note = (
        "The donor gave configuration and tokenizer. The digest is of the whole manifest, which "
        "holds one of every tensor and file: `safeswap verify` compares all."
    )
    return Table(
        "Merges", tuple(Column(c, align="left") for c in columns), tuple(rows), (note,), "merges"
    )


def described(plan: Plan) -> str:
    """What filled a plan, in words; and on what it was chosen, where it was."""
    said = describe(plan.selector, list(plan.units))
    return f"{said}; chosen among others on dev questions" if plan.chosen else said


def _title(role: str) -> str:
    return {BASE: "base", SAFETY: "safety expert"}.get(role, f"language expert, {role}")


def _own_name(given: str) -> str:
    """A hub id as it is; a folder by its own name."""
    return Path(given).name if Path(given).is_absolute() or given.startswith(".") else given


def _size(size: int) -> str:
    from safeswap.io.progress import shown_bytes

    return shown_bytes(size)
