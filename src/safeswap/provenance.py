"""What goes along with merged weights: the donor's other files, the manifest, the model card."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safeswap import digests, selectors
from safeswap.checkpoint.dtypes import Dtype, torch_name
from safeswap.checkpoint.family import BASE, SAFETY, Family
from safeswap.checkpoint.header import read_header
from safeswap.checkpoint.layout import INDEX_NAME
from safeswap.checkpoint.source import read_json
from safeswap.errors import CheckpointError, VerificationError
from safeswap.merge import Job
from safeswap.operators import paths_in
from safeswap.plan import Plan
from safeswap.profile import Profile
from safeswap.version import __version__

FORMAT = "safeswap-merge/1"
MANIFEST = "safeswap.json"
PLAN_FILE = "safeswap-plan.yaml"
FIGURE = "safeswap.png"
CARD = "README.md"
_OURS = (MANIFEST, PLAN_FILE, FIGURE, CARD)
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx")
_TRAINING = ("trainer_state.json", "training_args.bin", "optimizer", "scheduler", "rng_state")


@dataclass(frozen=True, slots=True)
class RestOfCheckpoint:
    """The donor's files that go along (name → SHA-256) and those that do not (name → reason)."""

    copied: Mapping[str, str]
    left_out: Mapping[str, str]


def copy_rest(family: Family, job: Job, folder: Path, dtype: Dtype | None) -> RestOfCheckpoint:
    """Copy configuration, tokenizer, chat template and code files of the plan's donor.

    Only ``config.json`` may change: its dtype, when another one than the donor's is written.
    """
    donor = family.members[job.plan.donor].folder
    copied, left_out = {}, {}
    for path in sorted(donor.rglob("*")):
        name = str(path.relative_to(donor))
        if path.is_dir():
            continue
        reason = _why_not(name)
        if reason:
            left_out[name] = reason
            continue
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        if name == "config.json" and dtype is not None:
            _set_dtype(target, dtype)
        copied[name] = digests.of_small_file(target)
    if job.layout.index is not None:
        (folder / INDEX_NAME).write_text(job.layout.index)
        copied[INDEX_NAME] = digests.of_small_file(folder / INDEX_NAME)
    return RestOfCheckpoint(copied, left_out)


def _why_not(name: str) -> str | None:
    parts = Path(name).parts
    if any(part.startswith(".") for part in parts):
        return "hidden file"
    if name in _OURS:
        return "replaced by this merge's own"
    if name.endswith((*_WEIGHTS, ".index.json")):
        return "weights: replaced by the merged ones"
    if parts[-1].startswith(_TRAINING) or parts[0].startswith(("checkpoint-", "runs")):
        return "belongs to the donor's training"
    return None


def _set_dtype(config: Path, dtype: Dtype) -> None:
    content = read_json(config)
    key = "torch_dtype" if "torch_dtype" in content and "dtype" not in content else "dtype"
    content[key] = torch_name(dtype)
    config.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_manifest(
    family: Family,
    profile: Profile,
    job: Job,
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
            raise CheckpointError(f"{folder / shard.name}: was changed while it was written.")
        digest = digests.of_weight_file(header.raw, header.tensors, tensors)
        outputs.append({"name": shard.name, "size": shard.size, "digest": digest})
    content = {
        "format": FORMAT,
        "safeswap": __version__,
        "plan": job.plan.as_dict(),
        "profile": profile.as_dict(),
        "outputs": outputs,
        "tensors": {
            name: {
                "unit": family.anatomy.placements[name].unit,
                "fate": _fate(job, name),
                "dtype": job.dtypes[name].name,
                "digest": tensors[name],
            }
            for name in family.names
        },
        "not_used": {
            f"{role}: {name}": f"tied: the same bytes as {original}"
            for (role, name), original in family.aliases.items()
        },
        "files": dict(rest.copied),
        "files_left_out": dict(rest.left_out),
        "about": {
            name: digests.of_small_file(folder / name)
            for name in (CARD, FIGURE)
            if (folder / name).exists()
        },
    }
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    return content


def _fate(job: Job, name: str) -> str:
    return str(job.recipes[name])


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a merged checkpoint.

    Raises:
        VerificationError: the folder was not made by safeswap, or by another version's format.
    """
    path = Path(folder) / MANIFEST
    if not path.exists():
        inside = sorted(found.parent.name for found in Path(folder).glob(f"*/{MANIFEST}"))
        hint = "safeswap did not make it."
        if inside:
            hint = f"the merged checkpoints are the folders in it: {', '.join(inside)}."
        raise VerificationError(f"{folder}: has no {MANIFEST}; {hint}")
    try:
        content: dict[str, Any] = dict(read_json(path))
    except CheckpointError as error:
        raise VerificationError(str(error)) from error
    if content.get("format") != FORMAT:
        raise VerificationError(f"{path}: is of format {content.get('format')!r}, not {FORMAT}.")
    kinds: dict[str, type] = dict.fromkeys(("plan", "profile", "tensors", "files", "about"), dict)
    kinds["outputs"] = list
    for key, kind in kinds.items():
        if not isinstance(content.get(key), kind):
            raise VerificationError(f"{path}: is damaged (no {key}). Merge again from the plan.")
    return content


def write_card(
    family: Family, profile: Profile, plan: Plan, folder: Path, figure: bool, options: str = ""
) -> None:
    """Write the model card: the hub's YAML header, decisions, and how to make it again.

    Local inputs are named by the folder's own name, never by a machine's path. The manifest and
    the plan do hold their paths, and the card says so to who wants to upload the folder.

    ``options`` is what the command to make it again needs besides the plan, e.g. `` --dtype F16``.
    """
    names = {role: profile.inputs[role].name for role in (BASE, SAFETY, plan.language)}
    pipeline = ["library_name: transformers", "tags:", "- merge", "- safeswap"]
    if len(plan.language) in (2, 3):
        pipeline += ["language:", f"- {json.dumps(plan.language)}"]
    header = ["---", "base_model:", *(f"- {json.dumps(n)}" for n in names.values())]
    header += ["base_model_relation: merge", *pipeline, "---"]
    settings = ", ".join(f"{k} = {v}" for k, v in plan.selector.items()) or "written by hand"
    body = [
        f"# {names[plan.language]} with safety from {names[SAFETY]}",
        "",
        f"A merge without training, made with safeswap{_method(plan)}: per unit,",
        "`base + Σ weight · (expert − base)`.",
        "",
        f"- base: `{names[BASE]}`",
        f"- safety expert: `{names[SAFETY]}`",
        f"- language expert ({plan.language}): `{names[plan.language]}`",
        f"- configuration, tokenizer and chat template: from `{plan.donor}`",
        f"- selector: {settings}",
        "",
        "Measure its safety and ability before you release it: a merge is no proof of either.",
        "",
        *_paths_note(profile, plan),
        "## Make it again",
        "```",
        f"safeswap merge --plan {PLAN_FILE} --out OUT{options}",
        "safeswap verify OUT",
        "```",
        "",
        "## Decisions",
        *([f"![shares and decisions per unit]({FIGURE})", ""] if figure else []),
        *_table(plan),
        "",
    ]
    (folder / CARD).write_text("\n".join([*header, *body]), encoding="utf-8")


def _method(plan: Plan) -> str:
    """`` by the method …`` with its source, or nothing for a plan by hand."""
    name = str(plan.selector.get("name"))
    found = selectors.registered().get(name)
    return f" by the method `{name}` ({found.source})" if found else ""


def _paths_note(profile: Profile, plan: Plan) -> list[str]:
    local = [role for role in plan.inputs if profile.inputs[role].revision is None]
    local += sorted({name for operation in plan.operations for name in paths_in(operation)})
    if not local:
        return []
    return [
        f"Before an upload: `{MANIFEST}` and `{PLAN_FILE}` name the local inputs "
        f"({', '.join(local)}) by their paths on the machine that made this. Nobody needs the two "
        "files to use the model; leave them out, or edit the paths, if they should not be public.",
        "",
    ]


def _table(plan: Plan) -> list[str]:
    language = plan.language
    lines = [
        f"| unit | decision | weight of safety | weight of {language} | share of safety | "
        f"share of {language} | difference |",
        "| --- | --- | --: | --: | --: | --: | --: |",
    ]
    for unit, row in plan.units.items():
        shares = ["", "", ""]
        if row.shares:
            values = (row.shares[SAFETY], row.shares[language])
            shares = [f"{100 * v:.2f} %" for v in values] + [
                f"{100 * (values[0] - values[1]):+.3f}"
            ]
        weights = [f"{row.weights[expert]:g}" for expert in (SAFETY, language)]
        lines.append(f"| {unit} | {row.decision} | {' | '.join(weights)} | {' | '.join(shares)} |")
    return lines
