"""The manifest: everything that is needed to check and repeat a merge; written, and read back."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import blake3
import ml_dtypes
import numpy

from safeswap.checkpoint import digests
from safeswap.checkpoint.dtypes import DTYPES
from safeswap.checkpoint.family import Family
from safeswap.checkpoint.header import read_header
from safeswap.checkpoint.source import read_json
from safeswap.errors import CheckpointError, VerificationError, nearest
from safeswap.merge.companions import CARD, FIGURE, MANIFEST, RestOfCheckpoint, small_files
from safeswap.merge.prepare import MergeJob
from safeswap.plan import Plan
from safeswap.profile import Profile
from safeswap.version import __version__

FORMAT = "safeswap-merge/1"
AGAIN = "Merge again from the plan in its safeswap-plan.yaml."


def write_manifest(
    family: Family,
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
    content = {
        "format": FORMAT,
        "versions": _versions(),
        "plan": job.plan.as_dict(),
        "profile": profile.only(job.plan.language).as_dict(),
        "outputs": outputs,
        "tensors": tensor_log(family, job, tensors),
        "not_used": not_used(family, job.plan),
        "files": dict(rest.copied),
        "files_left_out": dict(rest.left_out),
        "input_files": {role: small_files(family.members[role].folder) for role in job.plan.inputs},
        "about": {
            name: digests.of_small_file(folder / name)
            for name in (CARD, FIGURE)
            if (folder / name).exists()
        },
    }
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    return content


def _versions() -> dict[str, str]:
    """What the bytes may depend on."""
    libraries = {module.__name__: module.__version__ for module in (numpy, ml_dtypes, blake3)}
    return {"safeswap": __version__, "python": platform.python_version(), **libraries}


def tensor_log(
    family: Family, job: MergeJob, tensors: Mapping[str, str]
) -> dict[str, dict[str, str]]:
    """What became of every tensor of the output; ``tensors``: name → digest."""
    return {
        name: {
            "unit": family.anatomy.placements[name].unit,
            "fate": str(job.recipes[name]),
            "dtype": job.dtypes[name].name,
            "digest": tensors[name],
        }
        for name in family.names
    }


def not_used(family: Family, plan: Plan) -> dict[str, str]:
    """The tensors of a plan's inputs that are not merged, and why."""
    return {
        f"{role}: {name}": f"tied: the same bytes as {original}"
        for (role, name), original in family.aliases.items()
        if role in plan.inputs
    }


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
    for key in content:
        if key not in _KEYS:
            raise VerificationError(f"{path}: unknown key {key!r}{nearest(key, _KEYS)}")
    for key, sound in _KEYS.items():
        if key not in content or not sound(content[key]):
            raise VerificationError(f"{path}: is damaged (no {key}). {AGAIN}")
    return content


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
    return kinds == {(str, int, str)} and all(Path(r["name"]).name == r["name"] for r in value)


_KEYS: dict[str, Callable[[Any], bool]] = {
    "format": lambda value: isinstance(value, str),
    "versions": _texts,
    "plan": lambda value: isinstance(value, dict),
    "profile": lambda value: isinstance(value, dict),
    "outputs": _outputs,
    "tensors": _tensors,
    "not_used": _texts,
    "files": _texts,
    "files_left_out": _texts,
    "input_files": lambda value: isinstance(value, dict) and all(map(_texts, value.values())),
    "about": _texts,
}
"""The manifest's keys, and whether a value may stand there."""
