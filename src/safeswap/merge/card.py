"""The model card of a merged checkpoint: the hub's header, decisions, and how to make it again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safeswap import selectors
from safeswap.checkpoint.precisions.loss import DECODED
from safeswap.errors import listed
from safeswap.merge.companions import CARD, FIGURE, MANIFEST, PLAN_FILE
from safeswap.operators import paths_in
from safeswap.plan import Plan, edited_units
from safeswap.plan.mixtures import shown_rows
from safeswap.profile import Profile
from safeswap.roles import BASE, SAFETY
from safeswap.selectors.share_difference import statistics
from safeswap.tables.markdown import as_code, in_markdown
from safeswap.version import __version__


@dataclass(frozen=True)
class AdapterCard:
    """What the card of an adapter says besides: ``lines``, and unit → the share discarded."""

    lines: Sequence[str]
    discarded: Mapping[str, float]


def write_card(
    profile: Profile,
    plan: Plan,
    folder: Path,
    figure: bool,
    options: str = "",
    rows: Sequence[str] = (),
    adapter: AdapterCard | None = None,
) -> None:
    """Write the model card: the hub's YAML header, decisions, and how to make it again.

    Local inputs are named by the folder's own name, never by a machine's path. The manifest and
    the plan do hold their paths, and the card says so to who wants to upload the folder.

    ``options`` is what the command to make it again needs besides the plan, e.g. `` --dtype F16``;
    ``rows`` says what became of rows that were matched by token; ``adapter`` what is to be known of
    an adapter, where one was written.
    """
    inputs = [profile.inputs[role] for role in (BASE, SAFETY, plan.language)]
    names = {role: profile.inputs[role].called for role in (BASE, SAFETY, plan.language)}
    library = "peft" if adapter else "transformers"
    pipeline = [f"library_name: {library}", "tags:", "- merge", "- safeswap"]
    pipeline += ["- lora"] if adapter else []
    sources = dict.fromkeys(
        name for one in inputs for name in (one.name, *((one.adapter.name,) if one.adapter else ()))
    )
    if len(plan.language) in (2, 3):
        pipeline += ["language:", f"- {json.dumps(plan.language)}"]
    header = ["---", "base_model:", *(f"- {json.dumps(n)}" for n in sources)]
    relation = "adapter" if adapter else "merge"
    if adapter:
        header = ["---", f"base_model: {json.dumps(names[BASE])}"]
    header += [f"base_model_relation: {relation}", *pipeline, "---"]
    settings = selectors.describe(plan.selector, list(plan.units))
    body = [
        f"# {in_markdown(names[plan.language])} with safety from {in_markdown(names[SAFETY])}",
        "",
        f"A merge without training, made with safeswap {__version__}{_method(plan)}: per unit,",
        "`base + Σ weight · (expert − base)`.",
        *(["This is the sum alone, as a LoRA adapter of the base."] if adapter else []),
        "",
        f"- base: {as_code(names[BASE])}",
        f"- safety expert: {as_code(names[SAFETY])}",
        f"- language expert ({in_markdown(plan.language)}): {as_code(names[plan.language])}",
        f"- configuration, tokenizer and chat template: from {as_code(plan.donor)}",
        f"- selector: {in_markdown(settings)}",
        *(f"- {in_markdown(line)}" for line in rows),
        *(f"- {in_markdown(line)}" for line in (adapter.lines if adapter else ())),
        *_edited_note(profile, plan),
        *_chosen_note(plan),
        *_precision_note(profile, plan),
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
        *_table(plan, profile),
        "",
        *(_discarded(adapter.discarded) if adapter else []),
    ]
    (folder / CARD).write_text("\n".join([*header, *body]), encoding="utf-8")


def _discarded(lost: Mapping[str, float]) -> list[str]:
    """The share of each unit's update that compressing cut off, of its sum of squares."""
    if not lost:
        return []
    rows = [f"| {unit} | {100 * share:.4g} % |" for unit, share in lost.items()]
    head = ["| unit | discarded of its update's sum of squares |", "| --- | --: |"]
    return ["## What compressing discarded", *head, *rows, ""]


def _method(plan: Plan) -> str:
    """`` by the method …`` with its source, or nothing for a plan by hand."""
    name = str(plan.selector.get("name"))
    found = selectors.registered().get(name)
    return f" by the method `{name}` ({found.source})" if found else ""


def _edited_note(profile: Profile, plan: Plan) -> list[str]:
    edited = edited_units(plan, profile)
    if not plan.selector or not edited:
        return []
    every = "all units" if len(edited) == len(plan.units) else listed(edited, 20)
    return [f"- not as the selector says, but as edited by hand: {every}"]


def _chosen_note(plan: Plan) -> list[str]:
    if not plan.chosen:
        return []
    cells, rest = in_markdown(", ".join(plan.chosen.cells)), plan.chosen.rest
    if not rest:
        return [
            f"- its weights were fitted on {len(plan.chosen.prompts)} texts: what is reported must "
            "come from others (`safeswap compare` refuses results that ask one of them)"
        ]
    return [
        f"- chosen among others by its figures on the dev questions of {cells}: what is reported "
        f"must come from the others (`safeswap evaluate --split {rest}`)"
    ]


def _precision_note(profile: Profile, plan: Plan) -> list[str]:
    """What was stored in a few bits, for the rounding is in the merge."""
    found = [note for note in profile.only(plan.language).notes if DECODED in note]
    return [f"- {in_markdown(note)}" for note in found]


def _paths_note(profile: Profile, plan: Plan) -> list[str]:
    local = [role for role in plan.inputs if profile.inputs[role].revision is None]
    local += sorted({name for operation in plan.operations for name in paths_in(operation)})
    if not local:
        return []
    return [
        f"{_BEFORE_UPLOAD}`{MANIFEST}` and `{PLAN_FILE}` name the local inputs "
        f"({in_markdown(', '.join(local))}) by their paths on the machine that made this. "
        "`safeswap push` takes the paths out of its copy. By hand: leave the two files out, which "
        "nobody needs to use the model, or edit the paths.",
        "",
    ]


_BEFORE_UPLOAD = "Before an upload: "


def without_paths_note(text: str) -> str:
    """A card without the note that paths are to be taken out; for the copy without them."""
    lines = text.split("\n")
    at = next((n for n, line in enumerate(lines) if line.startswith(_BEFORE_UPLOAD)), None)
    if at is None:
        return text
    return "\n".join(lines[:at] + lines[at + 2 :])


def _table(plan: Plan, profile: Profile) -> list[str]:
    """A row per unit; where all have the same weights, what was measured stands in their place."""
    experts = (SAFETY, plan.language)
    norms = {expert: statistics(profile, expert, "module") for expert in experts}
    named = [in_markdown(expert) for expert in experts]
    heads = ["unit", "decision", *(f"weight of {name}" for name in named)]
    heads += [f"norm of {name}'s update, relative" for name in named] if plan.is_uniform else []
    heads += [*(f"share of {name} [%]" for name in named), "difference [points]"]
    rule = ["---", "---", *["--:"] * (len(heads) - 2)]
    lines = [f"| {' | '.join(heads)} |", f"| {' | '.join(rule)} |"]
    for shown in shown_rows(plan):
        unit, row = shown.unit, shown.row
        cells = [unit, in_markdown(shown.decision)]
        cells += [f"{row.weights[expert]:g}" for expert in experts]
        if plan.is_uniform:
            found = [norms[expert].get(unit) for expert in experts]
            cells += ["" if norm is None else f"{norm:.5f}" for norm in found]
        shares = ["", "", ""]
        if row.shares:
            values = [row.shares[expert] for expert in experts]
            shares = [*(f"{100 * v:.3f}" for v in values), f"{100 * (values[0] - values[1]):+.3f}"]
        lines.append(f"| {' | '.join([*cells, *shares])} |")
    return lines
