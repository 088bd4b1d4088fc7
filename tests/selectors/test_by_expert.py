"""Every selector by expert, on a profile of made-up numbers: apart or fused, all say the same."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from safeswap.plan import Plan, fill_plan
from safeswap.profile import ExpertNumbers, InputRecord, Profile, TensorProfile

LAYERS, EXPERTS = 3, 8
Numbers = dict[str, tuple[float, float, float]]
"""Key → update norms of safety and language, and the cosine between the two."""


def draw(seed: int = 0) -> Numbers:
    dice = np.random.default_rng(seed)
    keys = [
        f"{layer}.{part}"
        for layer in range(LAYERS)
        for part in (
            *("attention", "router", "shared_experts"),
            *(f"experts.{e}" for e in range(EXPERTS)),
        )
    ]
    one, two = dice.lognormal(0, 0.2, (2, len(keys))).tolist()
    cosines = dice.uniform(-1, 1, len(keys)).tolist()
    return dict(zip(keys, zip(one, two, cosines, strict=True), strict=True))


def profile_of(numbers: Numbers, *, fused: bool) -> Profile:
    digests = {role: role for role in ("base", "safety", "sw")}
    tensors: list[TensorProfile] = []

    def add(name: str, unit: str, role: str, part: str | None, keys: list[str]) -> None:
        rows = [numbers.get(key, (1.0, 1.0, 0.0)) for key in keys]
        inner = [one * two * cosine for one, two, cosine in rows]
        each = None
        if len(keys) > 1:
            moved = {r: tuple(row[n] for row in rows) for n, r in enumerate(("safety", "sw"))}
            each = ExpertNumbers((2.0,) * len(keys), moved, {"sw": tuple(inner)})
        update = {
            r: sum(row[n] ** 2 for row in rows) ** 0.5 for n, r in enumerate(("safety", "sw"))
        }
        norm, total = 2.0 * len(keys) ** 0.5, {"sw": sum(inner)}
        shape = (len(keys), 4, 4)
        tensors.append(
            TensorProfile(name, unit, role, shape, "F32", norm, update, total, digests, part, each)
        )

    units = ["embeddings"]
    add("embed", "embeddings", "outside", None, ["-"])
    for layer in range(LAYERS):
        add(f"{layer}.q", f"{layer}.attention", "projection", None, [f"{layer}.attention"])
        for part in ("router", "shared_experts"):
            key = f"{layer}.{part}"
            add(f"{layer}.{part}", f"{layer}.mlp", "projection", key, [key])
        keys = [f"{layer}.experts.{e}" for e in range(EXPERTS)]
        if fused:
            add(f"{layer}.up", f"{layer}.mlp", "projection", f"{layer}.experts", keys)
        else:
            for key in keys:
                add(f"{key}.up", f"{layer}.mlp", "projection", key, [key])
        add(f"{layer}.norm", f"{layer}.norms", "norm", None, ["-"])
        units += [f"{layer}.attention", f"{layer}.mlp", f"{layer}.norms"]
    inputs = {r: InputRecord(r, r, r, None, r, ()) for r in ("base", "safety", "sw")}
    return Profile(inputs, tuple(units), tuple(tensors))


NUMBERS = draw()
FUSED, APART = (profile_of(NUMBERS, fused=fused) for fused in (True, False))


def by_expert(method: str = "share-difference", **options: Any) -> Plan:
    one, two = (fill_plan(p, method=method, by="expert", **options) for p in (FUSED, APART))
    assert one.units == two.units
    return one


def decided(plan: Plan) -> dict[str, str]:
    kinds = ("attention", "shared_experts")
    return {u: r.decision for u, r in plan.units.items() if u.endswith(kinds) or ".experts." in u}


def kinds_of(plan: Plan) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = {}
    for unit, decision in decided(plan).items():
        found.setdefault(unit.split(".")[1], Counter())[decision] += 1
    return found


def test_the_rule_by_hand() -> None:
    """n is r = update / 2; the keys are attentions, shared experts and experts; τ is relative."""
    keys = [key for key in NUMBERS if not key.endswith("router")]
    shares = [
        {key: NUMBERS[key][side] / sum(NUMBERS[k][side] for k in keys) for key in keys}
        for side in (0, 1)
    ]
    tau = 0.064 / len(keys)
    plan = by_expert()
    for key in keys:
        difference = shares[0][key] - shares[1][key]
        wanted = "safety" if difference > tau else "sw" if difference < -tau else "blend"
        assert plan.units[key].decision == wanted
        assert plan.units[key].difference == pytest.approx(difference, abs=1e-8)
    assert len(set(decided(plan).values())) == 3
    for layer in range(LAYERS):
        assert plan.units[f"{layer}.router"].decision == "sw"
        assert plan.units[f"{layer}.norms"].decision == "sw"
        assert f"{layer}.mlp" not in plan.units
    order = [unit for unit in plan.units if unit.startswith("1.")]
    experts = [f"1.experts.{e}" for e in range(EXPERTS)]
    assert order == ["1.attention", "1.router", "1.shared_experts", *experts, "1.norms"]


def test_policies_have_rows_or_none() -> None:
    plan = by_expert(router="follow", shared_experts="base", norms="follow")
    assert not any(unit.endswith("router") for unit in plan.units)
    assert plan.units["0.shared_experts"].decision == "base"
    assert plan.units["0.shared_experts"].shares is None
    keys = [k for k in NUMBERS if not k.endswith(("router", "shared_experts"))]
    share = NUMBERS["0.attention"][0] / sum(NUMBERS[key][0] for key in keys)
    assert plan.units["0.attention"].shares == pytest.approx(
        {"safety": share, "sw": plan.units["0.attention"].shares["sw"]}  # type: ignore[index]
    )
    assert by_expert(router="blend", alpha=0.3).units["2.router"].weights == {
        "safety": 0.3,
        "sw": 0.7,
    }


@pytest.mark.parametrize("seed", range(4))
def test_controls_keep_counts_by_kind(seed: int) -> None:
    paper = by_expert()
    for method in ("random", "permuted"):
        control = by_expert(method, seed=seed)
        assert kinds_of(control) == kinds_of(paper)
        assert decided(control) != decided(paper)
        assert control.units["1.router"] == paper.units["1.router"]
    differences = [
        Counter(r.difference for u, r in plan.units.items() if ".experts." in u)
        for plan in (paper, by_expert("permuted", seed=seed))
    ]
    assert differences[0] == differences[1]


def test_inverted_flips() -> None:
    opposite = {"safety": "sw", "sw": "safety", "blend": "blend"}
    flipped = decided(by_expert("inverted"))
    assert flipped == {unit: opposite[made] for unit, made in decided(by_expert()).items()}


def test_gated_adds_where_the_rule_says_safety() -> None:
    plan, paper = by_expert("gated", gamma=0.5), by_expert()
    for unit, decision in decided(paper).items():
        assert plan.units[unit].weights == {"safety": 0.5 * (decision == "safety"), "sw": 1.0}
    assert plan.units["0.router"].weights == {"safety": 0.0, "sw": 1.0}


def test_cosine_mixes_below_the_threshold() -> None:
    plan = by_expert("cosine", threshold=0.1)
    for unit in decided(plan):
        assert (plan.units[unit].decision == "blend") == (NUMBERS[unit][2] < 0.1)


def test_safe_lora_projects_the_least_aligned() -> None:
    plan = by_expert("safe-lora", number=5)
    least = sorted(decided(plan), key=lambda unit: NUMBERS[unit][2])[:5]
    projected = {u for u, row in plan.units.items() if row.operator is not None}
    assert projected == set(least)
    assert plan.units["1.router"].weights == {"safety": 1.0, "sw": 1.0}


def test_by_module_a_mixture_is_one() -> None:
    """A profile with numbers of each expert gives by module what one without them does."""
    bare = [
        TensorProfile(*(getattr(t, n) for n in TensorProfile.__slots__[:9])) for t in FUSED.tensors
    ]
    plain = Profile(FUSED.inputs, FUSED.units, tuple(bare))
    for options in ({}, {"by": "layer"}, {"method": "random", "seed": 3}):
        one, two = (fill_plan(p, **options).text() for p in (FUSED, plain))  # type: ignore[arg-type]
        assert one == two and "router" not in one
