"""The files beside the weights of a merge: are they what it wrote, and is there nothing else?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safeswap.checkpoint import digests
from safeswap.checkpoint.family import Family
from safeswap.checkpoint.inside import files_below, why_not_read
from safeswap.checkpoint.loaded_names import LARGEST, is_loaded, is_weights, looks_like_weights
from safeswap.errors import VerificationError, listed
from safeswap.io.regular import is_there
from safeswap.merge.companions import OURS, PLAN_FILE, small_files
from safeswap.merge.manifest import AGAIN
from safeswap.operators import place_operation
from safeswap.plan import Plan


def check_small_files(out: Path, manifest: Mapping[str, Any]) -> None:
    """Configuration, tokenizer and the like are there as they were written.

    Raises:
        VerificationError: one is missing, changed, or holds weights.
    """
    for name, digest in manifest["files"].items():
        path = out / name
        if not is_there(path):
            raise VerificationError(
                f"{path}: is missing; it was there when the merge was made. {AGAIN}"
            )
        if not is_file_with(path, digest):
            raise VerificationError(f"{path}: was changed after the merge was made. {AGAIN}")
        if not name.endswith(".index.json") and (is_weights(name) or looks_like_weights(path)):
            raise VerificationError(
                f"{path}: holds weights or an archive that are not the merge's. A copy of an "
                f"input's weights is not safe to hand on. {AGAIN}"
            )


def is_file_with(path: Path, digest: str) -> bool:
    """Whether it is a plain file with this digest; larger ones than ever go along are not read."""
    if not path.is_file() or path.stat().st_size > LARGEST:
        return False
    return digests.of_small_file(path) == digest


def refuse_links(out: Path) -> None:
    """What the merge wrote are plain files: no link is followed out of a stranger's folder, nothing
    waited for at a pipe, no device read.

    Raises:
        VerificationError: names the first that is none.
    """
    for name in files_below(out):
        reason = why_not_read(out, out / name)
        if reason is not None:
            raise VerificationError(
                f"{out / name}: is {reason}, which no merge writes. Remove it; if it stands for a "
                "file of the merge, merge again from the plan."
            )


def unexpected_files(out: Path, manifest: Mapping[str, Any]) -> list[str]:
    """Loaders pick files by name: a stray one may be loaded in place of, or on top of, the merge;
    and weights of whatever format are not the merge's, and may be the unsafe expert's.

    Returns:
        A note for every other file that the merge did not write.

    Raises:
        VerificationError: files that a loader would take, or that hold weights.
    """
    known = {record["name"] for record in manifest["outputs"]}
    known |= {*manifest["files"], *OURS}
    found = [name for name in files_below(out) if name not in known]
    strange = [name for name in found if not name.startswith(_TOOLS)]
    kept = sorted({f"{name.partition('/')[0]}/" for name in found if name.startswith(_TOOLS)})
    loaded = [name for name in strange if "/" not in name and is_loaded(name)]
    if loaded:
        raise VerificationError(
            f"{out}: holds {listed(loaded)}, which the merge did not write. A loader may take them "
            "for the model's own; move them elsewhere."
        )
    weights = [name for name in strange if is_weights(name) or looks_like_weights(out / name)]
    if weights:
        raise VerificationError(
            f"{out}: holds {listed(weights)}, which the merge did not write and which hold weights "
            "or an archive; they may be an expert's. Move them elsewhere."
        )
    return [f"{name} was not written by the merge" for name in (*strange, *kept)]


_TOOLS = (".git/", ".cache/")
"""Folders in which git and the hub's client keep copies of what is beside them."""


def changed_small_files(manifest: Mapping[str, Any], family: Family) -> list[str]:
    """Inputs' small files that are not as they were: a note for each."""
    places = {role: small_files(member) for role, member in family.members.items()}
    return [
        f"{places[role].get(name, name)} is not as it was when the merge was made"
        for role, files in manifest["input_files"].items()
        if role in family.members
        for name, digest in files.items()
        if name not in places[role] or not is_file_with(places[role][name], digest)
    ]


def check_plan_file(out: Path, plan: Plan) -> None:
    """The plan's file says what the manifest's plan says.

    Raises:
        VerificationError: it is missing or says something else.
    """
    path = out / PLAN_FILE
    if not path.exists():
        raise VerificationError(
            f"{path}: is missing; it was there when the merge was made. Merge again; safeswap.json "
            "still holds the plan."
        )
    placed = plan.with_operations(lambda operation: place_operation(operation, out))
    if Plan.load(path).as_dict() != placed.as_dict():
        raise VerificationError(
            f"{path}: was changed after the merge was made. To carry the edited plan out, run "
            f"safeswap merge --plan {path} --out NEW."
        )
