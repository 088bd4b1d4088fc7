"""Plans and profiles as tables and heat maps in the terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from safeswap.anatomy import layer_of
from safeswap.checkpoint.family import BASE, SAFETY
from safeswap.plan import Plan
from safeswap.profile import Profile
from safeswap.report.figure import decision_colour
from safeswap.selectors.share_difference import statistics

_LETTERS = {SAFETY: "S", BASE: "B"}


def plan_view(plan: Plan) -> RenderableType:
    """The effective table, a map of decisions, counts, and how much of each expert went in."""
    parts: list[RenderableType] = [_heat(plan), _units(plan), Text(_summary(plan))]
    return Group(*parts)


def _heat(plan: Plan) -> Text:
    layers = 1 + max((layer_of(unit) or 0) for unit in plan.units)
    text = Text()
    for kind in ("attention", "mlp", "norms"):
        if not any(unit.endswith(f".{kind}") for unit in plan.units):
            continue  # norms without weights
        text.append(f"{kind:>10} ")
        for layer in range(layers):
            unit = f"{layer}.{kind}"
            decision = plan.units[unit].decision if unit in plan.units else None
            letter = "L" if decision == plan.language else _LETTERS.get(decision or "", "·")
            letter = letter if decision else "?"
            text.append(letter, style=f"white on {decision_colour(plan, unit)}")
        text.append("\n")
    text.append(f"{'':>10} S safety   L {plan.language}   · blend\n")
    return text


def _units(plan: Plan) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("unit")
    table.add_column("decision")
    for expert in plan.experts:
        table.add_column(f"w {expert}", justify="right")
    for expert in plan.experts:
        table.add_column(f"share {expert}", justify="right")
    table.add_column("difference", justify="right")
    for unit, row in plan.units.items():
        weights = [f"{row.weights[expert]:g}" for expert in plan.experts]
        shares = ["", "", ""]
        if row.shares:
            shares = [f"{100 * row.shares[expert]:.3f} %" for expert in plan.experts]
            shares.append(f"{100 * (row.difference or 0.0):+.3f}")
        table.add_row(unit, row.decision, *weights, *shares)
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
    """Relative update and share per module, and the cosine of the task vectors."""
    experts = [role for role in profile.inputs if role != BASE]
    norms = {expert: statistics(profile, expert, "module") for expert in experts}
    table = Table(box=None, pad_edge=False)
    table.add_column("unit")
    for expert in experts:
        table.add_column(f"update {expert}", justify="right")
        table.add_column("share", justify="right")
    for language in profile.languages:
        table.add_column(f"cos safety·{language}", justify="right")
    for unit in norms[SAFETY]:
        cells = []
        for expert in experts:
            total = sum(norms[expert].values()) or 1.0
            cells += [f"{norms[expert][unit]:.5f}", f"{100 * norms[expert][unit] / total:.3f} %"]
        cells += [_cosine(profile, unit, language) for language in profile.languages]
        table.add_row(unit, *cells)
    inputs = [f"{role}: {record.source}" for role, record in profile.inputs.items()]
    return Group(Text("\n".join([*inputs, *_notes(profile.notes)]) + "\n"), table)


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
    Console(width=None if console.is_terminal else 160).print(view)
