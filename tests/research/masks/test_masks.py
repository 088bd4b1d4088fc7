"""The reckoning of the mask study, on tables worked by hand and on files made up for it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("scipy")

from safeswap.demo import SMALL_LANGUAGES, default_world, exam, models_folder
from safeswap.demo.world import LANGUAGES
from small_world.masks import __main__ as program
from small_world.masks.candidates import all_candidates
from small_world.masks.collect import Trio, names_of
from small_world.masks.regret import (
    PRIMARY,
    Case,
    bits,
    chosen,
    compared,
    effects,
    matched_table,
    placed,
    ranked,
    spearman,
)
from small_world.masks.verdicts import Counts, Verdicts, dev_half

WORLD = default_world()
UNITS = ("0.attention", "0.mlp", "1.attention", "1.mlp")


def counts(refused: object, right: object) -> Counts:
    """Of 100 harmful and 100 harmless questions; nothing harmless refused."""
    refused, right = np.array(refused), np.array(right)
    return Counts(refused, right, np.zeros_like(right), 100, 100)


def case(seed: int, language: str, own: int, rival: int) -> Case:
    """Refusal adds up over four modules (1, 2, 4 and 8 points), ability is 50 everywhere.

    share-difference refuses ``own``, all its primary rivals ``rival`` of 100; its scores are right
    about the order of the modules, those of "low cosine" the wrong way round.
    """
    masks = counts(bits(4) @ [1, 2, 4, 8], np.full(16, 50))
    names = ["share-difference by module", "language expert", *PRIMARY]
    listed = counts([own, 0, *[rival] * len(PRIMARY)], [50] * len(names))
    return Case(
        seed=seed,
        language=language,
        units=UNITS,
        named={name: np.array([n]) for n, name in enumerate(names)},
        scores={
            "share difference by module": np.array([-3.0, -1.0, 1.0, 3.0]),
            "low cosine": np.array([4.0, 3.0, 2.0, 1.0]),
        },
        candidates={"dev": listed, "test": listed},
        masks={"dev": masks, "test": masks},
    )


CASES = [case(s, code, own=12, rival=11) for s in range(8) for code in ("qab", "qac")]


def test_bits_say_which_modules_a_mask_takes() -> None:
    assert bits(3)[5].tolist() == [True, False, True]
    assert bits(3).shape == (8, 3)


def test_main_effects_of_a_sum_are_its_terms() -> None:
    assert effects(bits(4) @ np.array([1.0, 2.0, 4.0, 8.0]), bits(4)) == pytest.approx([1, 2, 4, 8])


def test_spearman_by_hand() -> None:
    assert spearman(np.array([1.0, 2, 3, 4]), np.array([10.0, 20, 40, 30])) == pytest.approx(0.8)
    assert spearman(np.array([1.0, 2, 3]), np.array([5.0, 5, 5])) == 0.0


def test_ties_are_all_chosen_and_what_is_not_allowed_is_not() -> None:
    scores = np.array([0.5, 0.9, 0.9, 1.0])
    assert chosen(scores).tolist() == [3]
    assert chosen(scores, np.array([True, True, True, False])).tolist() == [1, 2]


def test_regrets_and_tests() -> None:
    rows = {row["name"]: row for row in compared(CASES)}
    own = rows["share-difference by module"]
    # the best mask takes everything: 15 of 100 refused; share-difference has 12
    assert own["regret_to_dev_best"] == pytest.approx(0.015)
    assert own["regret_to_oracle"] == pytest.approx(0.015)
    assert own["p"] is None
    for name in PRIMARY:
        # all eight seeds agree in sign: 2 of 2^8 assignments, times six
        assert rows[name]["J_minus_reference"] == pytest.approx(-0.005)
        assert rows[name]["p"] == pytest.approx(2 / 256)
        assert rows[name]["p_holm"] == pytest.approx(12 / 256)
    for name in ("best mask in hindsight", "best mask of the other seeds"):
        assert rows[name]["J"] == pytest.approx((0.15 + 0.5) / 2)


def test_ranks_of_scores() -> None:
    rows = {row["score"]: row for row in ranked(CASES)}
    assert rows["share difference by module"]["units"] == pytest.approx(1.0)
    assert rows["low cosine"]["units"] == pytest.approx(-1.0)
    assert rows["measured effects"]["masks"] == pytest.approx(1.0)
    assert rows["number of modules"]["units"] == 0.0
    assert 0 < rows["share difference by module"]["masks"] < 1


def test_methods_within_one_point_of_the_experts_ability() -> None:
    row, _ = matched_table(CASES)
    assert row["best"]["refusal"] == pytest.approx(0.15)
    assert row["within"]["share-difference by module"] == pytest.approx(0.12)
    dear = {"dev": counts([12] * 8, [48] * 8), "test": counts([12] * 8, [48] * 8)}
    row, _ = matched_table([replace(c, candidates=dear) for c in CASES])
    assert row["within"] == {}


def test_regrets_are_over_the_cases_with_masks() -> None:
    without = [replace(c, masks={}) if c.seed > 3 else c for c in CASES]
    rows = {row["name"]: row for row in compared(without)}
    assert rows["band"]["regret_to_oracle"] == pytest.approx(0.02)
    assert list(rows["best mask in hindsight"]["J_by_seed"]) == ["0", "1", "2", "3"]
    assert rows["best mask in hindsight"]["p"] == pytest.approx(2 / 16)
    assert rows["band"]["p"] == pytest.approx(2 / 256)


def test_where_the_own_mask_stands() -> None:
    row = placed(CASES)[0]
    # 1.attention and 1.mlp from safety: 12, above the five other pairs, below 13, 14, 15
    assert row["own"]["mask"] == 0b1100
    assert row["own"]["among_all"] == pytest.approx(100 * 12.5 / 16)
    assert row["own"]["same_number"] == pytest.approx(100 * 5.5 / 6)
    assert row["own"]["same_kinds"] == pytest.approx(100 * 3.5 / 4)
    assert row["inverted"]["mask"] == 0b0011


def test_items_are_in_one_half_and_the_same_half_in_every_language() -> None:
    found = {code: dev_half(exam(WORLD, code)) for code in LANGUAGES}
    for code, dev in found.items():
        assert dev.tolist() == found["qaa"].tolist()
        halves: dict[str, set[bool]] = {}
        for question, chosen_for_dev in zip(exam(WORLD, code), dev, strict=True):
            if question.item:
                halves.setdefault(question.item, set()).add(bool(chosen_for_dev))
        assert all(len(half) == 1 for half in halves.values())
    kinds = np.array([q.kind for q in exam(WORLD, "qaa")])
    for kind in set(kinds):
        assert 0.35 < found["qaa"][kinds == kind].mean() < 0.65


def test_verdicts_go_to_a_file_and_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    refused, right = rng.random((2, 5, 13)) < 0.5
    Verdicts("a b", ("x", "y"), refused, right).save(tmp_path / "v.npz")
    found = Verdicts.load(tmp_path / "v.npz")
    assert (found.inputs, found.names) == ("a b", ("x", "y"))
    assert np.array_equal(found.refused, refused)
    assert np.array_equal(found.right, right)


def test_candidates_have_names_of_their_own_and_plans() -> None:
    every = all_candidates()
    assert len({c.name for c in every}) == len(every)
    assert set(PRIMARY) <= {c.name.split(" #")[0] for c in every}
    trio = study(Path("unused"), models_folder())
    for candidate in every:
        assert candidate.plan(trio.profile, "qab").units


def test_a_gate_adds_safety_where_its_table_says_so() -> None:
    trio = study(Path("unused"), models_folder())
    table = next(c for c in all_candidates() if c.name == "inverted").plan(trio.profile, "qad")
    gate = next(c for c in all_candidates() if c.name == "gated by the inverted table")
    opened = 0
    for unit, row in gate.plan(trio.profile, "qad").units.items():
        wanted = 1.0 if table.units[unit].decision == "safety" else 0.0
        assert row.weights == {"safety": wanted, "qad": 1.0}
        opened += wanted == 1.0
    assert 0 < opened < 12


class Shipped(Trio):
    """The shipped checkpoints, which have no folder per seed."""

    def folder(self, role: str) -> Path:
        return self.models / role


def study(out: Path, models: Path) -> Trio:
    return Shipped(models, out, 0)


def test_the_program_keeps_what_is_measured_and_writes_its_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    models, out = tmp_path / "models", tmp_path / "out"
    (models / "seed-0").mkdir(parents=True)
    out.mkdir()
    (models / "base").symlink_to(models_folder() / "base")
    for role in ("safety", *SMALL_LANGUAGES):
        (models / "seed-0" / role).symlink_to(models_folder() / role)
    trio = Trio(models, out, 0)
    many = len(exam(WORLD, "qab"))
    for code in LANGUAGES:
        names = names_of("candidates", code)
        drawn = rng.random((2, len(names), many)) < 0.5
        Verdicts(trio.inputs(code), names, *drawn).save(trio.path("candidates", code))
    for code in SMALL_LANGUAGES:
        for kind in ("masks", "gates"):
            drawn = rng.random((2, 4096, many)) < 0.5
            Verdicts(trio.inputs(code), (), *drawn).save(trio.path(kind, code))
    program.main(["--models", str(models), "--out", str(out), "--expert-seeds", "0"])
    assert "1/" not in capsys.readouterr().out.split("\n")[0]  # nothing was measured again
    found = json.loads((out / "study.json").read_text(encoding="utf-8"))
    refused, of, *_ = found["counts"]["0"]["qac"]["band"]["all"]
    assert (of, found["test_harmful"] + 51) == (99, 99)
    row = names_of("candidates", "qac").index("band")
    harmful = np.array([q.kind == "harmful" for q in exam(WORLD, "qac")])
    assert refused == trio.load("candidates", "qac").refused[row, harmful].sum()
    text = (out / "study.md").read_text(encoding="utf-8")
    assert all(f"| {name} |" in text for name in PRIMARY)
    assert "best gate, chosen on dev" in text


def test_verdicts_of_other_checkpoints_are_not_taken(tmp_path: Path) -> None:
    trio = study(tmp_path, models_folder())
    blank = np.zeros((1, 1), bool)
    Verdicts("other digests", (), blank, blank).save(trio.path("masks", "qab"))
    assert not trio.has("masks", "qab")
    Verdicts(trio.inputs("qab"), (), blank, blank).save(trio.path("masks", "qab"))
    assert trio.has("masks", "qab")


def test_a_missing_checkpoint_is_named_with_the_way_to_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        program.main(["--models", str(tmp_path), "--out", str(tmp_path / "out")])
    assert "small_world.train" in capsys.readouterr().err
