"""What the options merge, and what is counted of it, on the shipped checkpoints."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from safeswap.checkpoint.family import open_family  # noqa: E402
from safeswap.demo import exam, generate, judge, models_folder  # noqa: E402
from safeswap.demo.world import World, default_world  # noqa: E402
from small_world import fair  # noqa: E402
from small_world.chosen import measure  # noqa: E402
from small_world.chosen.families import FAMILIES, Option, all_options  # noqa: E402
from small_world.chosen.measure import Trio, examiner, measured  # noqa: E402
from small_world.masks.candidates import merged_state  # noqa: E402
from small_world.masks.forward import read_state  # noqa: E402

MODELS, CODE = models_folder(), "qac"
OPTIONS = {option.name: option for option in all_options()}
NOWHERE = Path("no grams are read")


def trio(world: World | None = None) -> Trio:
    return Trio(
        {"seed": 0},
        world or default_world(),
        CODE,
        MODELS / "base",
        MODELS / "safety",
        MODELS / CODE,
    )


@cache
def shipped() -> Trio:
    return trio()


def weights(name: str) -> dict[str, tuple[float, float]]:
    plan = OPTIONS[name].plan(shipped().profile, CODE, NOWHERE)
    return {unit: (row.weights["safety"], row.weights[CODE]) for unit, row in plan.units.items()}


def test_every_option_has_a_name_and_every_family_scales() -> None:
    assert len(OPTIONS) == len(all_options())
    for family in FAMILIES:
        assert len({o.scale for o in OPTIONS.values() if o.family == family}) >= 6


def test_a_swap_at_scale_one_is_the_method_and_at_half_lies_between() -> None:
    table = Option("", options={"method": "inverted"}).plan(shipped().profile, CODE, NOWHERE)
    whole, half = weights("inverted, scale 1"), weights("inverted, scale 0.5")
    assert set(whole.values()) > {(1.0, 0.0), (0.0, 1.0)}
    for unit, row in table.units.items():
        safety, kept = row.weights["safety"], row.weights[CODE]
        assert whole[unit] == (safety, kept)
        assert half[unit] == pytest.approx((safety / 2, (1 + kept) / 2))


def test_a_gate_opens_where_the_table_says_safety_and_gated_is_the_method() -> None:
    gated = Option("", options={"method": "gated", "gamma": 2.0})
    wanted = gated.plan(shipped().profile, CODE, NOWHERE)
    found = weights("gated, γ = 2")
    assert set(found.values()) == {(2.0, 1.0), (0.0, 1.0)}
    for unit, row in wanted.units.items():
        assert found[unit] == (row.weights["safety"], row.weights[CODE])
    assert weights("gated by permuted #1, γ = 2") != weights("gated by permuted #2, γ = 2")


def test_counts_are_those_of_generation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against transformers' own generation from a merge on disk, judged by the world."""
    import safeswap

    monkeypatch.setattr(measure, "REFUSALS", 40)
    monkeypatch.setattr(measure, "CHATS", 40)
    few = [OPTIONS["language expert"], OPTIONS["safety expert"], OPTIONS["gram-add, k = 4 γ = 1"]]
    case = measured(shipped(), few, tmp_path)
    profile = shipped().profile
    plan = few[2].plan(profile, CODE, tmp_path / "grams")
    [merged] = safeswap.merge_plans([plan], tmp_path / "out", profile=profile, figure=False)
    questions = exam(default_world(), CODE)
    texts = generate(merged.folder, [q.prompt for q in questions])
    figures = judge(default_world(), zip(questions, texts, strict=True)).languages[CODE]
    refused, own, right, over = sum(half.counts[2] for half in case.halves.values())
    assert refused == figures.harmful_refused.k
    assert right == figures.answers_right.k
    assert over == figures.harmless_refused.k
    harmful = [t for q, t in zip(questions, texts, strict=True) if q.kind == "harmful"]
    assert own == sum(CODE in default_world().refused_in(text) for text in harmful) <= refused
    assert refused > case.halves["dev"].counts[0, 0] + case.halves["test"].counts[0, 0]


def test_models_that_refuse_by_content_are_asked_word_for_word() -> None:
    """The shipped model never refuses so; its answers are still those that generation gives."""
    world = World(0, refuses_by_content=True)
    questions = exam(world, CODE)[::25]
    refused, own, right = examiner(trio(world), questions)(read_state(MODELS / CODE))
    texts = generate(MODELS / CODE, [q.prompt for q in questions])
    assert right.tolist() == [t == q.answer for t, q in zip(texts, questions, strict=True)]
    assert refused.tolist() == own.tolist() == [False] * len(questions)
    assert right.any()


def test_matched_experts_have_moved_equally_far(tmp_path: Path) -> None:
    folder = fair.matched(MODELS / "base", MODELS / "safety", MODELS / CODE, tmp_path / "as")
    start, safe, spoken, made = (
        read_state(path) for path in (MODELS / "base", MODELS / "safety", MODELS / CODE, folder)
    )

    def vector(state: dict[str, torch.Tensor]) -> np.ndarray:
        return np.concatenate([(state[n] - w).flatten().numpy() for n, w in start.items()])

    wanted, found = vector(spoken), vector(made)
    assert np.linalg.norm(found) == pytest.approx(np.linalg.norm(wanted), rel=0.01)
    own = vector(safe)
    cosine = own @ found / np.linalg.norm(own) / np.linalg.norm(found)
    assert cosine > 0.99
    assert open_family(MODELS / "base", folder, {CODE: MODELS / CODE}).names
    assert fair.matched(MODELS / "base", MODELS / "safety", MODELS / CODE, folder) == folder


def test_a_state_in_memory_follows_the_plan() -> None:
    family = open_family(MODELS / "base", MODELS / "safety", {CODE: MODELS / CODE})
    plan = OPTIONS["soup, α = 0.3"].plan(shipped().profile, CODE, NOWHERE)
    start, safe, spoken = (read_state(MODELS / role) for role in ("base", "safety", CODE))
    for name, made in merged_state(family, plan).items():
        b, s, t = (state[name].double() for state in (start, safe, spoken))
        wanted = (b + 0.3 * (s - b) + 0.7 * (t - b)).to(torch.bfloat16).double()
        assert torch.allclose(made.double(), wanted, rtol=2**-7, atol=1e-6)
