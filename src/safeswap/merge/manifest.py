"""The manifest: everything that is needed to check and repeat a merge; written, and read back."""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import blake3
import ml_dtypes
import numpy

from safeswap.checkpoint import digests
from safeswap.checkpoint.dtypes import DTYPES
from safeswap.checkpoint.family import Family
from safeswap.checkpoint.header import read_header
from safeswap.checkpoint.inside import is_plain_name
from safeswap.checkpoint.source import read_json
from safeswap.checkpoint.vocabularies.view import RowsRecord
from safeswap.errors import CheckpointError, OutputError, VerificationError, listed
from safeswap.io.keys import check_keys
from safeswap.merge.companions import CARD, FIGURE, MANIFEST, RestOfCheckpoint, small_files
from safeswap.merge.prepare import MergeJob
from safeswap.profile import Profile
from safeswap.version import __version__

FORMAT = "safeswap-merge/1"
_PLACES = ("source", "path")
"""Where a local input lies, in the plan and in the profile."""
AGAIN = "Merge again from the plan in its safeswap-plan.yaml."


def write_manifest(
    profile: Profile,
    job: MergeJob,
    folder: Path,
    tensors: Mapping[str, str],
    rest: RestOfCheckpoint,
) -> dict[str, Any]:
    """Write ``safeswap.json``: everything that is needed to check and repeat the merge; the last
    of all files, for it holds the digests of card and figure (``about``) too.

    It holds no dates, so that the same inputs and plan give the same bytes. Inputs from local
    folders are named by their absolute paths, here and in the plan: ``verify`` finds them by these
    wherever OUT is moved. The card names them by the folder's own name alone.

    Raises:
        CheckpointError: a written shard does not read back as laid out.
    """
    outputs = []
    for shard in job.layout.shards:
        header = read_header(folder / shard.name)
        if header.raw != shard.header:
            raise CheckpointError(
                f"{folder / shard.name}: was changed while it was written. Run the command again."
            )
        digest = digests.of_weight_file(header.raw, header.tensors, tensors)
        outputs.append({"name": shard.name, "size": shard.size, "digest": digest})
    log = tensor_log(job, tensors)
    return write_content(profile, job, folder, outputs=outputs, tensors=log, rest=rest)


def write_content(
    profile: Profile,
    job: MergeJob,
    folder: Path,
    *,
    outputs: Sequence[Mapping[str, Any]],
    tensors: Mapping[str, Mapping[str, str]],
    rest: RestOfCheckpoint,
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write ``safeswap.json`` of whatever was written.

    Args:
        outputs: its files of weights.
        tensors: what became of every tensor, as `tensor_log`.
        more: further keys.
    """
    content: dict[str, Any] = {
        "format": FORMAT,
        "versions": _versions(job.family),
        "plan": job.plan.as_dict(),
        "profile": profile.only(job.plan.language).as_dict(),
        "outputs": list(outputs),
        "tensors": dict(tensors),
        "not_used": not_used(job),
        **rows_log(job),
        "files": dict(rest.copied),
        "files_left_out": dict(rest.left_out),
        "input_files": {
            role: {
                name: digests.of_small_file(path)
                for name, path in small_files(job.family.members[role]).items()
            }
            for role in job.plan.inputs
        },
        "about": {
            name: digests.of_small_file(folder / name)
            for name in (CARD, FIGURE)
            if (folder / name).exists()
        },
        **(more or {}),
    }
    content["digest"] = digest_of_content(content)
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    return content


def digest_of_content(content: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of what a manifest says, but for this digest itself and the places of local
    inputs, which may be edited before an upload.
    """
    plan, profile = content["plan"], content["profile"]
    local = {role for role, one in profile["inputs"].items() if one.get("revision") is None}
    put = {role: one["adapter"] for role, one in profile["inputs"].items() if one.get("adapter")}
    own = {role for role, one in put.items() if one.get("revision") is None}

    def without_places(inputs: Mapping[str, Any]) -> dict[str, Any]:
        found = {
            role: {k: v for k, v in one.items() if not (role in local and k in _PLACES)}
            for role, one in inputs.items()
        }
        for role in own & found.keys():
            adapter = found[role].pop("adapter", None)
            if isinstance(adapter, Mapping):  # in the plan it is the place alone
                found[role]["adapter"] = {k: v for k, v in adapter.items() if k not in _PLACES}
        return found

    said = {key: value for key, value in content.items() if key != "digest"} | {
        "plan": {k: v for k, v in plan.items() if k != "profile"}
        | {"inputs": without_places(plan["inputs"])},
        "profile": profile | {"inputs": without_places(profile["inputs"])},
    }
    text = json.dumps(said, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def check_digest(path: Path, content: Mapping[str, Any]) -> None:
    """Refuse a manifest that says something else than when it was written; one without a digest of
    itself, as they were before, passes.

    Raises:
        VerificationError: it was edited.
    """
    try:
        same = content.get("digest") in (None, digest_of_content(content))
    except (AttributeError, KeyError, TypeError):
        same = False
    if not same:
        raise VerificationError(
            f"{path}: was edited after the merge was made (sizes, versions, names, revisions or "
            f"what it says of tensors). Give back the original file. {AGAIN}"
        )


def _versions(family: Family) -> dict[str, str]:
    """What the bytes may depend on."""
    libraries = {module.__name__: module.__version__ for module in (numpy, ml_dtypes, blake3)}
    if any(member.facts is not None for member in family.members.values()):
        with suppress(PackageNotFoundError):
            libraries["gguf"] = version("gguf")
    return {"safeswap": __version__, "python": platform.python_version(), **libraries}


def tensor_log(job: MergeJob, tensors: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """What became of every tensor of the output; ``tensors``: name → digest."""
    return {
        output.name: {
            "unit": job.family.anatomy.placements[name].unit,
            "fate": job.fate(name),
            "dtype": output.dtype.name,
            "digest": tensors[output.name],
        }
        for name in job.family.names
        for output in job.outputs(name)
    }


def rows_log(job: MergeJob) -> dict[str, dict[str, dict[str, int | str]]]:
    """What became of the rows of the tables whose rows were matched by token, under the key
    ``rows``; nothing where none had to be.
    """
    rows = {name: record.as_dict() for name, record in job.family.rows.tables.items()}
    return {"rows": rows} if rows else {}


def not_used(job: MergeJob) -> dict[str, str]:
    """The tensors of a plan's inputs that are not merged, as their files name them, and why."""
    family, plan = job.family, job.plan
    used = {t for name in job.packings for t in job.extra(name).values()}
    reasons = {
        (role, name): f"tied: the same bytes as {original}"
        for (role, name), original in family.aliases.items()
    }
    for role, left in family.left_out.items():
        reasons |= {(role, name): reason for name, reason in left.items()}
    found = {
        f"{role}: {family.members[role].tensors[name].name}": reason
        for (role, name), reason in reasons.items()
        if role in plan.inputs
    }
    for role in plan.inputs:
        member = family.members[role]
        extra = {t.name for one in member.extra.values() for t in one if t in used}
        found |= {f"{role}: {n}": why for n, why in member.aside.items() if n not in extra}
    return found


def merged_folders(out: Path) -> list[Path]:
    """The merged checkpoints of a run: OUT itself, or the folders of its languages; OUT where there
    is none, so that `read_manifest` says why.
    """
    if (out / MANIFEST).exists():
        return [out]
    return sorted(found.parent for found in out.glob(f"*/{MANIFEST}")) or [out]


def refuse_foreign(out: Path) -> None:
    """Only what a merge wrote may be written over.

    Raises:
        OutputError: OUT exists and is nothing that a merge wrote.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    made = out.is_dir() and not out.is_symlink()
    made = made and all((folder / MANIFEST).is_file() for folder in merged_folders(out))
    if not made:
        raise OutputError(
            f"{out}: --overwrite replaces only what a merge wrote, and this has no {MANIFEST}. "
            "Choose another --out, or remove it yourself."
        )
    strangers = [] if (out / MANIFEST).exists() else [*out.iterdir()]
    others = sorted(one.name for one in strangers if not (one / MANIFEST).is_file())
    if others:
        raise OutputError(
            f"{out}: --overwrite replaces only what a merge wrote; this holds {listed(others)} "
            "too. Choose another --out, or remove it yourself."
        )


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a merged checkpoint.

    Raises:
        VerificationError: the folder was not made by safeswap, or by another version's format.
    """
    path = Path(folder) / MANIFEST
    if not path.exists():
        inside = sorted(found.parent.name for found in Path(folder).glob(f"*/{MANIFEST}"))
        hint = "safeswap did not make it. Give the folder that a merge wrote."
        if inside:
            hint = f"the merged checkpoints are the folders in it: {', '.join(inside)}. Give one."
        raise VerificationError(f"{folder}: has no {MANIFEST}; {hint}")
    try:
        content: dict[str, Any] = dict(read_json(path))
    except CheckpointError as error:
        raise VerificationError(str(error)) from error
    if content.get("format") != FORMAT:
        raise VerificationError(
            f"{path}: is of format {content.get('format')!r}, not {FORMAT}. Use the version of "
            "safeswap that made it, or merge again from its plan."
        )
    check_keys(content, _KEYS, str(path), VerificationError)
    _refuse_outside(path, content)
    for key, sound in _KEYS.items():
        if key in _OPTIONAL and key not in content:
            continue
        if key not in content or not sound(content[key]):
            raise VerificationError(f"{path}: is damaged (no {key}). {AGAIN}")
    return content


def _refuse_outside(path: Path, content: dict[str, Any]) -> None:
    """A manifest names files of its own folder; a stranger's might name any file of this machine.

    Raises:
        VerificationError: names the first that is elsewhere.
    """
    tables = [content.get("files"), content.get("about"), content.get("files_left_out")]
    inputs = content.get("input_files")
    tables += inputs.values() if isinstance(inputs, dict) else []
    names = [name for table in tables if isinstance(table, dict) for name in table]
    for name in names:
        if not isinstance(name, str) or not is_plain_name(name):
            raise VerificationError(
                f"{path}: names the file {str(name)[:80]!r}, which is outside its folder. safeswap "
                "wrote no such name: do not trust the folder, and merge again."
            )


def _texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def _rows(value: Any, *fields: str) -> bool:
    return all(isinstance(row, dict) and {*row} == {*fields} for row in value)


def _tensors(value: Any) -> bool:
    if not isinstance(value, dict) or not _rows(value.values(), "unit", "fate", "dtype", "digest"):
        return False
    return all(
        _texts(row) and row["dtype"] in DTYPES and _DIGEST.fullmatch(row["digest"])
        for row in value.values()
    )


_DIGEST = re.compile("[0-9a-f]{64}")


def _outputs(value: Any) -> bool:
    if not isinstance(value, list) or not _rows(value, "name", "size", "digest"):
        return False
    kinds = {(type(row["name"]), type(row["size"]), type(row["digest"])) for row in value}
    names = [row["name"] for row in value]
    return kinds == {(str, int, str)} and all(
        is_plain_name(name) and Path(name).name == name for name in names
    )


def _files(value: Any) -> bool:
    """Names of files below the folder → texts."""
    return _texts(value) and all(map(is_plain_name, value))


def _row_counts(value: Any) -> bool:
    """Table → counts and a digest."""
    if not isinstance(value, dict) or not _rows(value.values(), *RowsRecord.__slots__):
        return False
    return all(
        isinstance(row["digest"], str) and all(type(row[k]) is int for k in row if k != "digest")
        for row in value.values()
    )


def _adapter(value: Any) -> bool:
    keys = {"rank", "base", "ranks", "whole", "discarded"}
    keys |= {"biases", "tokens", "parameters", "dora"}
    if not isinstance(value, dict) or set(value) != keys:
        return False
    rank, lost = value["rank"], value["discarded"]
    sound = rank is None or (type(rank) is int and 0 < rank < 1 << 31)
    lists = [value[key] for key in ("whole", "biases", "parameters")]
    sound = sound and all(isinstance(one, list) for one in lists)
    sound = sound and isinstance(value["tokens"], dict) and type(value["dora"]) is bool
    return sound and isinstance(lost, dict) and all(type(n) is float for n in lost.values())


_OPTIONAL = ("digest", "rows", "adapter")
"""Manifests had no digest before; rows are named only where they were matched by token, an adapter
where one was written.
"""
_KEYS: dict[str, Callable[[Any], bool]] = {
    "format": lambda value: isinstance(value, str),
    "versions": _texts,
    "plan": lambda value: isinstance(value, dict),
    "profile": lambda value: isinstance(value, dict),
    "outputs": _outputs,
    "tensors": _tensors,
    "not_used": _texts,
    "rows": _row_counts,
    "files": _files,
    "files_left_out": _texts,
    "input_files": lambda value: isinstance(value, dict) and all(map(_files, value.values())),
    "about": _files,
    "adapter": _adapter,
    "digest": lambda value: isinstance(value, str),
}
"""The manifest's keys, and whether a value may stand there."""
