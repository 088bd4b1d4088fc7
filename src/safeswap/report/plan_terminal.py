"""Plans and profiles as tables and heat maps in the terminal, for 80 columns and up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from safeswap.anatomy import kind_of, layer_labels, layer_of
from safeswap.anatomy.units import MODULE_KINDS, PART_KINDS
from safeswap.display import one_line, visible
from safeswap.plan import Plan
from safeswap.plan.mixtures import decisions_of, experts_of, folded, shown_rows
from safeswap.profile import Profile
from safeswap.report.plan_figure import COLOURS, decision_colour
from safeswap.roles import BASE, SAFETY
from safeswap.selectors.share_difference import statistics
from safeswap.selectors.words import describe

_LETTERS = {SAFETY: "S", BASE: "B", "blend": "·", "mix": "*"}
_SHADES = "▁▂▃▄▅▆▇█"
_LAYERS_IN_A_ROW = 64
_LANGUAGES_IN_A_ROW = 2


def plan_view(plan: Plan, profile: Profile | None = None) -> RenderableType:
    """What the plan is for, a map of decisions, the effective table, counts, and how much of each
    expert went in. A plan of the same weights everywhere has a map of shares instead, and with a
    profile the norms of the updates.
    """
    inputs = [f"{role}: {given.given}" for role, given in plan.inputs.items()]
    head = [*inputs, f"selector: {describe(plan.selector, list(plan.units))}"]
    head += [f"operator: {plan.operator}"] if str(plan.operator) != "linear" else []
    picture = _shares_of(plan) if plan.is_uniform else _heat(plan)
    return Group(
        Text(visible("\n".join(head)) + "\n"),
        picture,
        _units(plan, profile),
        Text(visible(_summary(plan))),
    )


def _shares_of(plan: Plan) -> Text:
    """A map of the measured shares, in place of decisions that are the same everywhere."""
    shares = {
        expert: {unit: row.shares[expert] for unit, row in folded(plan).items() if row.shares}
        for expert in plan.experts
    }
    layers = layer_labels(plan.units)
    decision = next(row.decision for unit, row in plan.units.items() if layer_of(unit) is not None)
    return Text.assemble(
        f"every unit of the layers: {decision}; the shares decide nothing here\n",
        _shades(shares, layers),
    )


def _blocks(layers: Sequence[str]) -> list[range]:
    """The layers in rows that fit a terminal."""
    step = _LAYERS_IN_A_ROW
    return [range(first, min(first + step, len(layers))) for first in range(0, len(layers), step)]


def _ruler(layers: range) -> str:
    """The number of every eighth layer, above its column."""
    marks = "".join(f"{layer:<8}" for layer in layers if (layer - layers.start) % 8 == 0)
    return f"{'layer':>17} {marks.rstrip()}\n"


def _heat(plan: Plan) -> Text:
    layers = layer_labels(plan.units)
    text = Text()
    met = set()
    present = {kind_of(unit) for unit in plan.units}
    mixed = bool(present & {*PART_KINDS})
    for block in _blocks(layers):
        text.append(_ruler(block), style="dim")
        for kind in (*MODULE_KINDS, *PART_KINDS[:2], "norms"):
            if kind not in present:
                continue  # norms without weights, a model without mixers
            text.append(f"{kind:>17} ")
            for unit in (f"{layers[at]}.{kind}" for at in block):
                if unit not in plan.units and mixed:
                    text.append(" ")  # a layer without a mixture, or the mlp of one with
                    continue
                decision = plan.units[unit].decision if unit in plan.units else ""
                met.add(decision)
                letter = "L" if decision == plan.language else _LETTERS.get(decision, "?")
                text.append(letter, style=f"white on {decision_colour(plan, unit)}")
            text.append("\n")
        text.append(_experts(plan, [layers[at] for at in block]))
    names = {SAFETY: "S safety", plan.language: f"L {plan.language}", "blend": "· blend"}
    names |= {"mix": "* mix", BASE: "B base", "": "? missing"}
    shown = [text for name, text in names.items() if name in met]
    text.append(visible(f"{'':>17} {'   '.join(shown)}\n"))
    return text


def _experts(plan: Plan, layers: Sequence[str]) -> Text:
    """A bar per layer for each decision that experts got: the part of them that got it."""
    text, experts = Text(), experts_of(plan)
    counts = {layer: decisions_of(plan, experts.get(layer, [])) for layer in layers}
    every = [unit for units in experts.values() for unit in units]
    met = decisions_of(plan, every)
    for decision in met:
        text.append(f"{'experts':>9} {one_line(decision)[:7]:>7} ")
        colour = decision_colour(plan, next(u for u in every if _is(plan, u, decision)))
        for layer in layers:
            part = counts[layer].get(decision, 0) / max(1, len(experts.get(layer, ())))
            text.append(_shade(part, 1.0) if part else " ", style=colour)
        text.append("\n")
    return text


def _is(plan: Plan, unit: str, decision: str) -> bool:
    return plan.units[unit].decision == decision


def _table(*left: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in left:
        table.add_column(title, no_wrap=True)
    return table


def _cell(text: str) -> Text:
    """As it is: brackets in a file's names are no markup."""
    return Text(one_line(text))


def _units(plan: Plan, profile: Profile | None) -> Table:
    norms = {}
    if plan.is_uniform and profile is not None:
        norms = {expert: statistics(profile, expert, "module") for expert in plan.experts}
    table = _table("unit", "decision")
    for what, experts in (("weight", plan.experts), ("norm", norms), ("share [%]", plan.experts)):
        for expert in experts:
            table.add_column(Text(f"{what}\n{one_line(expert)}"), justify="right")
    table.add_column(Text("difference\n[points]"), justify="right")
    for shown in shown_rows(plan):
        unit, row = shown.unit, shown.row
        cells = [f"{row.weights[expert]:g}" for expert in plan.experts]
        cells += [f"{own[unit]:.5f}" if unit in own else "" for own in norms.values()]
        shares = ["", "", ""]
        if row.shares:
            shares = [f"{100 * row.shares[expert]:.3f}" for expert in plan.experts]
            shares.append(f"{100 * (row.difference or 0.0):+.3f}")
        table.add_row(*map(_cell, (unit, shown.decision, *cells, *shares)))
    return table


def _summary(plan: Plan) -> str:
    lines = [""]
    for kind, counts in plan.counts().items():
        lines.append(f"{kind:>10}: " + ", ".join(f"{n} {what}" for what, n in counts.items()))
    for expert in plan.experts:
        held = [(r.weights[expert], r.shares[expert]) for r in plan.units.values() if r.shares]
        whole = sum(share for _, share in held)
        if whole:
            part = sum(weight * share for weight, share in held) / whole
            lines.append(f"{expert}: {100 * part:.1f} % of its update in the layers went in")
    lines.append(f"configuration and tokenizer from: {plan.donor}")
    return "\n".join(lines)


def profile_view(profile: Profile) -> RenderableType:
    """The inputs, a map of shares, and per module relative update, share and cosine."""
    experts = [role for role in profile.inputs if role != BASE]
    norms = {expert: statistics(profile, expert, "module") for expert in experts}
    shares = {expert: _shares(norms[expert]) for expert in experts}
    inputs = [f"{role}: {record.given}" for role, record in profile.inputs.items()]
    head = Text(visible("\n".join([*inputs, *_notes(profile.notes)])) + "\n")
    tables: list[RenderableType] = []
    languages = profile.languages
    for first in range(0, len(languages), _LANGUAGES_IN_A_ROW):
        some = languages[first : first + _LANGUAGES_IN_A_ROW]
        tables += [_modules(profile, some, norms, shares), Text("")]
    return Group(head, _shades(shares, layer_labels(profile.units)), *tables[:-1])


def _shares(norms: dict[str, float]) -> dict[str, float]:
    total = sum(norms.values()) or 1.0
    return {unit: norm / total for unit, norm in norms.items()}


def _shades(shares: dict[str, dict[str, float]], layers: Sequence[str]) -> Text:
    """A bar per layer for every expert, attention and MLP; all on one scale."""
    largest = max((max(table.values(), default=0.0) for table in shares.values()), default=0.0)
    text = Text()
    for block in _blocks(layers):
        text.append(_ruler(block), style="dim")
        for kind in MODULE_KINDS:
            if not any(f"{layer}.{kind}" in table for table in shares.values() for layer in layers):
                continue
            for expert, table in shares.items():
                text.append(f"{kind[:9]:>9} {one_line(expert)[:7]:>7} ")
                values = [table.get(f"{layers[at]}.{kind}", 0.0) for at in block]
                colour = COLOURS["safety" if expert == SAFETY else "language"]
                text.append("".join(_shade(value, largest) for value in values), style=colour)
                text.append("\n")
    text.append(f"{'':>17} share of the expert's update; █ is {100 * largest:.2f} %\n")
    return text


def _shade(value: float, largest: float) -> str:
    step = int(len(_SHADES) * value / largest) if largest else 0
    return _SHADES[min(step, len(_SHADES) - 1)]


def _modules(
    profile: Profile,
    languages: Sequence[str],
    norms: dict[str, dict[str, float]],
    shares: dict[str, dict[str, float]],
) -> Table:
    table = _table("\nunit")
    for expert in (SAFETY, *languages):
        table.add_column(Text(f"{one_line(expert)}\nupdate"), justify="right")
        table.add_column(Text("\nshare [%]"), justify="right")
    for language in languages:
        table.add_column(Text(f"cosine\n{one_line(language)}"), justify="right")
    for unit in norms[SAFETY]:
        cells = []
        for expert in (SAFETY, *languages):
            cells += [f"{norms[expert][unit]:.5f}", f"{100 * shares[expert][unit]:.3f}"]
        cells += [_cosine(profile, unit, language) for language in languages]
        table.add_row(*map(_cell, (unit, *cells)))
    return table


def _notes(notes: Iterable[str]) -> list[str]:
    return [f"note: {note}" for note in notes]


def _cosine(profile: Profile, unit: str, language: str) -> str:
    tensors = [t for t in profile.by_unit[unit] if t.role == "projection"]
    inner = sum(t.inner[language] for t in tensors)
    squares = [sum(t.update_norm[e] ** 2 for t in tensors) for e in (SAFETY, language)]
    lengths = (squares[0] * squares[1]) ** 0.5
    return f"{inner / lengths:+.3f}" if lengths else "n/a"


def print_view(view: RenderableType) -> None:
    """Print to standard output, wide enough for a table when it is not a terminal."""
    console = Console()
    Console(width=None if console.is_terminal else 160).print(view, soft_wrap=False)
