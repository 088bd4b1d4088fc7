"""Plans by expert for the reader: the experts of a layer in a row, however many they are."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from page_parts import Page, words
from safeswap.plan import Plan, PlannedInput, PlannedUnit
from safeswap.plan.mixtures import folded, shown_rows
from safeswap.report.page.strip import strip
from safeswap.report.plan_figure import draw, panels_of
from safeswap.report.plan_terminal import plan_view

ROWS = {"safety": (1.0, 0.0), "sw": (0.0, 1.0), "blend": (0.5, 0.5)}
LAYERS = (("safety", "safety", "blend", "sw"), ("sw", "sw", "sw", "sw"))


def unit(decision: str, shares: tuple[float, float] | None = None) -> PlannedUnit:
    given = dict(zip(("safety", "sw"), shares, strict=True)) if shares else None
    return PlannedUnit(dict(zip(("safety", "sw"), ROWS[decision], strict=True)), given)


@pytest.fixture
def plan() -> Plan:
    units = {"embeddings": unit("blend")}
    for layer, experts in enumerate(LAYERS):
        units[f"{layer}.attention"] = unit("sw", (0.1, 0.12))
        units[f"{layer}.router"] = unit("sw")
        for e, decision in enumerate(experts):
            units[f"{layer}.experts.{e}"] = unit(decision, (0.1, 0.05 + 0.05 * layer))
        units[f"{layer}.norms"] = unit("sw")
    inputs = {role: PlannedInput(f"/{role}") for role in ("base", "safety", "sw")}
    selector = {"name": "share-difference", "by": "expert", "tau": 0.064, "tau_relative": True}
    return Plan(inputs, units, "sw", selector)


def test_the_experts_of_a_layer_are_one_row(plan: Plan) -> None:
    rows = {shown.unit: shown for shown in shown_rows(plan)}
    assert [*rows][1:5] == ["0.attention", "0.router", "0.experts: 4", "0.norms"]
    first = rows["0.experts: 4"]
    assert first.decision == "2 safety, 1 blend, 1 sw"
    assert first.row.weights == {"safety": 0.625, "sw": 0.375}
    assert first.row.shares == pytest.approx({"safety": 0.4, "sw": 0.2})
    assert rows["1.experts: 4"].decision == "4 sw"


def test_an_mlp_of_all_its_parts(plan: Plan) -> None:
    whole = folded(plan)
    assert [*whole] == [
        "embeddings",
        *(f"{layer}.{kind}" for layer in (0, 1) for kind in ("attention", "mlp", "norms")),
    ]
    assert whole["1.mlp"].shares == pytest.approx({"safety": 0.4, "sw": 0.4})
    assert whole["0.attention"] is plan.units["0.attention"]
    assert panels_of(plan) == {k: [f"{n}.{k}" for n in (0, 1)] for k in ("attention", "mlp")}


def test_the_page_divides_a_layers_cell_as_its_experts_were(plan: Plan) -> None:
    cells = [one for one in Page(strip(plan)).all("g") if "experts" in words(one.inside[0])]
    shown = [
        (one.attributes["class"], float(str(one.inside[1].attributes["height"]))) for one in cells
    ]
    assert [name for name, _ in shown] == [
        "unit safety", "unit blend", "unit language", "unit language",
    ]  # fmt: skip
    assert [high / shown[3][1] for _, high in shown] == [0.5, 0.25, 0.25, 1.0]
    assert words(cells[0].inside[0]) == "0.experts, 4: 2 safety, 1 blend, 1 sw"


def test_the_terminal_says_how_many_were_decided_how(plan: Plan) -> None:
    console = Console(width=120, record=True)
    console.print(plan_view(plan))
    said = console.export_text()
    lines = {" ".join(line[:-2].split()): line[-2:] for line in said.splitlines() if line[2:]}
    assert lines["experts safety"] == "▅ "
    assert lines["experts blend"] == "▃ "
    assert lines["experts sw"] == "▃█"
    assert lines["router"] == "LL" and lines["attention"] == "LL"
    assert "0.experts: 4" in said and "experts.3" not in said


def test_the_figure_is_drawn(plan: Plan, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    draw(plan, tmp_path / "plan.png")
    assert (tmp_path / "plan.png").stat().st_size > 10_000
