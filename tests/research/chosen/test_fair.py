"""The crossed worlds: which models a cell trains, what is merged of them, what is printed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from safeswap.demo.documents import exam  # noqa: E402
from safeswap.demo.world import LANGUAGES, SMALL_LANGUAGES  # noqa: E402
from small_world import fair, train  # noqa: E402
from small_world.chosen.families import all_options  # noqa: E402
from small_world.chosen.records import Case, Half, Records  # noqa: E402
from small_world.fair import Cell  # noqa: E402
from small_world.masks.forward import read_state  # noqa: E402

EMBEDDINGS = "model.embed_tokens.weight"


def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SAFETY", "LANGUAGE"):
        recipe = replace(getattr(train, name), steps=10, batch=4)
        monkeypatch.setattr(train, name, recipe)
    monkeypatch.setattr(fair, "BASE", replace(fair.BASE, batch=4))


def test_a_cell_trains_its_own_models_and_merges_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hasty(monkeypatch)
    frozen, free = (Cell(1, 2, "content", how) for how in ("frozen", "free"))
    base, experts = frozen.trained(tmp_path, steps=10)
    start = read_state(base)
    assert experts.keys() == {"safety", *SMALL_LANGUAGES}
    for folder in experts.values():
        state = read_state(folder)
        assert torch.equal(state[EMBEDDINGS], start[EMBEDDINGS])
        assert not torch.equal(
            state["model.layers.0.mlp.up_proj.weight"], start["model.layers.0.mlp.up_proj.weight"]
        )
    again, moved = free.trained(tmp_path, steps=10)
    assert again == base
    assert not set(moved.values()) & set(experts.values())
    assert not torch.equal(read_state(moved["safety"])[EMBEDDINGS], start[EMBEDDINGS])
    own, matched = ([*frozen.trios(base, experts, norms)] for norms in ("own", "matched"))
    assert [trio.code for trio in own] == list(SMALL_LANGUAGES)
    assert {trio.safety for trio in own} == {experts["safety"]}
    assert len({trio.safety for trio in matched}) == 3
    for trio in matched:
        assert trio.cell == {**frozen.key, "norms": "matched"}
        safe, spoken = (
            fair._length(start, read_state(f)) for f in (trio.safety, experts[trio.code])
        )
        assert safe == pytest.approx(spoken, rel=0.02)


def test_every_cell_asks_for_more_than_sixty_unseen_items_once_each() -> None:
    for refusal in ("word", "content"):
        world = Cell(0, 0, refusal, "frozen").made_of()
        for code in LANGUAGES:
            asked = [q.item for q in exam(world, code) if q.kind == "harmful"]
            assert len(asked) == len(set(asked)) > 60


def test_what_is_printed_names_failing_gates_and_counts_units(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = tuple(option.name for option in all_options())
    rows = np.tile([10, 5, 80, 0], (len(names), 1))
    better = rows.copy()
    better[[n for n, name in enumerate(names) if name.startswith("permuted")], 0] = 20
    halves = {"dev": Half(20, 100, rows), "test": Half(20, 100, better)}
    key = {"refusal": "word", "embeddings": "free", "norms": "own"}
    cells = [{"world": w, "base": b, **key} for w in (0, 1) for b in (0, 1)]
    cases = [Case(cell, code, "", names, halves) for cell in cells for code in ("qab", "qac")]
    gates = [{"cell": cells[0], "gates": [["1 this", "3/4", True], ["2 that", "1/4", False]]}]
    Records(cases, gates).save(tmp_path / "fair.json")
    fair.main(["--records", str(tmp_path / "fair.json")])
    said = capsys.readouterr().out
    assert "1 of 2 gates fail (2 that: 1/4)" in said
    assert "**refusal word, embeddings free, norms own** (4 of world × base, 8 languages" in said
    permuted = next(line for line in said.split("\n") if line.startswith("| permuted |"))
    # all scales are level on dev, and the language expert with them: 6 of 7 refuse all on test
    assert f"| {100 * (6 + 0.5) / 7:.1f} |" in permuted
    assert "| 0.125 (" in permuted
