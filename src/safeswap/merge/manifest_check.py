"""What a manifest says of a merge, against what its inputs and its plan say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safeswap.errors import VerificationError
from safeswap.merge.manifest import AGAIN, not_used, rows_log, tensor_log
from safeswap.merge.prepare import MergeJob
from safeswap.profile import Profile, TensorProfile
from safeswap.roles import SAFETY


def check_manifest(
    path: Path,
    manifest: Mapping[str, Any],
    job: MergeJob,
    measured: Profile,
    log: Mapping[str, Mapping[str, str]] | None = None,
) -> None:
    """Refuse a manifest that does not say what its inputs, measured again, and its plan say.

    Where inputs lie, their times and how they are sharded may differ; numbers may by a millionth,
    for a processor may sum in another order.

    Args:
        log: what became of every tensor, where that is not what ``job`` says.

    Raises:
        VerificationError: names the first entry that differs.
    """
    recorded = Profile.from_dict(manifest["profile"], str(path))
    for role, record in measured.inputs.items():
        said = recorded.inputs.get(role)
        if said is None or said.digest != record.digest:
            raise VerificationError(
                f"{path}: records another digest for the {role} checkpoint than {record.path} has "
                "now. The input changed since, or the manifest did; give the original."
            )
        now = {file.name: (file.size, file.digest) for file in record.files}
        then = {file.name: (file.size, file.digest) for file in said.files}
        if now != then and {n: s for n, (s, _) in now.items()} == {
            n: s for n, (s, _) in then.items()
        }:
            changed = next(name for name in now if now[name] != then[name])
            raise VerificationError(
                f"{path}: records another digest for {changed} of the {role} checkpoint than "
                f"{record.path} has. The manifest was changed. {AGAIN}"
            )
    digest_of = {name: entry["digest"] for name, entry in manifest["tensors"].items()}
    wanted = {
        "profile": {"units": list(measured.units), "tensors": _plain(measured, recorded)},
        "tensors": log or tensor_log(job, digest_of),
        "not_used": not_used(job),
        "rows": rows_log(job).get("rows", {}),
    }
    found = {
        "profile": {"units": list(recorded.units), "tensors": _plain(recorded, recorded)},
        "tensors": manifest["tensors"],
        "not_used": manifest["not_used"],
        "rows": manifest.get("rows", {}),
    }
    entry = _first_difference(wanted, found)
    if entry is not None:
        raise VerificationError(
            f"{path}: its entry {entry} is not what plan and inputs say. The manifest was changed. "
            f"{AGAIN}"
        )


def _plain(profile: Profile, recorded: Profile) -> dict[str, Any]:
    """Tensor → its numbers, with cosines for inner products: these may be as good as nothing.

    What earlier versions did not record of mixtures of experts is left out.
    """
    told = any(tensor.part is not None for tensor in recorded.tensors)

    def numbers(tensor: TensorProfile) -> dict[str, Any]:
        plain = asdict(tensor) | {"inner": _cosines(tensor.update_norm, tensor.inner)}
        each = plain.pop("experts")
        if not told:
            del plain["part"]
        elif tensor.experts is not None:
            columns = range(len(tensor.experts.base_norm))
            each["inner"] = [
                _cosines(
                    {role: own[n] for role, own in tensor.experts.update_norm.items()},
                    {language: own[n] for language, own in tensor.experts.inner.items()},
                )
                for n in columns
            ]
            plain["experts"] = _by_place(each)
        return plain

    return {tensor.name: numbers(tensor) for tensor in profile.tensors}


def _by_place(value: Any) -> Any:
    """Lists as tables by place, so that a difference is named by it."""
    if isinstance(value, Mapping):
        return {key: _by_place(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return {str(place): _by_place(inner) for place, inner in enumerate(value)}
    return value


def _cosines(norms: Mapping[str, float], inner: Mapping[str, float]) -> dict[str, float]:
    lengths = {role: norms[role] * norms[SAFETY] for role in inner}
    return {r: value / lengths[r] if lengths[r] else value for r, value in inner.items()}


def _first_difference(wanted: Any, found: Any, slack: float = 0.0) -> str | None:
    """Where two plain values differ first, as a path of keys; None where they do not."""
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        for key in (*wanted, *(key for key in found if key not in wanted)):
            if key not in wanted or key not in found:
                return str(key)
            near = 1e-6 if key == "inner" else slack
            inside = _first_difference(wanted[key], found[key], near)
            if inside is not None:
                return f"{key} → {inside}" if inside else str(key)
        return None
    if isinstance(wanted, float) and isinstance(found, float):
        return None if math.isclose(wanted, found, rel_tol=1e-6, abs_tol=slack) else ""
    return None if wanted == found else ""
