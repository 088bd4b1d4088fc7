"""Every operator equals the direct computation of its formula in float64."""

from __future__ import annotations

from typing import Any

import direct
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safeswap.operators import OPERATORS, TensorContext, merge_arrays
from safeswap.operators.kernels.random_masks import draw, kept

Array = np.ndarray[Any, Any]
MATRICES = ("tsv", "iso-c", "wudi", "project")
DIRECT = {
    "linear": direct.linear,
    "slerp": direct.slerp,
    "nuslerp": direct.nuslerp,
    "ties": direct.ties,
    "breadcrumbs": direct.breadcrumbs,
    "sce": direct.sce,
    "model-stock": direct.model_stock,
    "karcher": direct.karcher,
    "tsv": direct.tsv,
    "iso-c": direct.iso_c,
    "wudi": direct.wudi,
    "project": direct.project,
}
PAIR = {"slerp", "nuslerp"}
SHAPES = [(7,), (1,), (5, 3), (12, 40), (40, 12), (2, 3, 4), ()]


def make(shape: tuple[int, ...], experts: int, kind: Any = np.float32, seed: int = 0) -> Any:
    chance = np.random.default_rng([seed, *shape])
    base = chance.standard_normal(shape).astype(kind)
    return base, [(base + 0.3 * chance.standard_normal(shape)).astype(kind) for _ in range(experts)]


def joined(
    name: str,
    base: Array,
    experts: list[Array],
    weights: tuple[float, ...],
    size: int = 1 << 17,
    inside: bool = True,
    **given: Any,
) -> Array:
    operator = OPERATORS[name]
    values = operator.resolve_settings(given, "test")
    task = TensorContext(
        "layers.0.w", base.shape, weights, values, tuple(range(len(experts))), inside
    )
    return merge_arrays(operator, task, base, experts, size)


def near(found: Array, wanted: Array, base: Array) -> None:
    exact = found.dtype == np.float64
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-10 if exact else 2e-5)
    assert found.shape == base.shape


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("name", DIRECT)
@pytest.mark.parametrize("experts", [2, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_formula(name: str, experts: int, shape: tuple[int, ...], kind: Any) -> None:
    if name in PAIR and experts != 2:
        pytest.skip("joins exactly two")
    if name in MATRICES and len(shape) != 2 and not (name == "project" and len(shape) == 1):
        pytest.skip("not a matrix: see test_other_tensors_are_averaged")
    base, tuned = make(shape, experts, kind)
    weights = (1.0, 1.0, 1.0)[:experts] if name in MATRICES else (0.7, 0.5, 1.2)[:experts]
    found = joined(name, base, tuned, weights)
    near(found, DIRECT[name](base.astype(np.float64), tuned, weights), base)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("ties", {"density": 0.6, "scale": 1.3}),
        ("ties", {"density": 1.0}),
        ("ties", {"density": 0.01, "normalize": False}),
        ("breadcrumbs", {"density": 0.5, "gamma": 0.3}),
        ("breadcrumbs", {"density": 0.9, "gamma": 0.5}),
        ("breadcrumbs", {"density": 1.0}),
        ("sce", {"select_topk": 0.5}),
        ("sce", {"select_topk": 1.0}),
        ("wudi", {"ridge": 0.5}),
    ],
)
def test_settings_do_what_they_say(name: str, given: dict[str, Any]) -> None:
    base, tuned = make((9, 31), 2, np.float64)
    for weights in ((1.0, 1.0), (0.4, 0.9)):
        near(joined(name, base, tuned, weights, **given),
             DIRECT[name](base, tuned, weights, **given), base)  # fmt: skip


@pytest.mark.parametrize("shape", [(8,), (6, 50), ()])
def test_dare_drops_by_its_mask_and_rescales(shape: tuple[int, ...]) -> None:
    base, tuned = make(shape, 2, np.float64)
    masks = [kept(draw(5, "layers.0.w", n, 0, base.size), 0.4).reshape(shape) for n in range(2)]
    given = direct.masked(base, tuned, masks, 0.4)
    wanted = base + 0.7 * given[0] + 0.5 * given[1]
    near(joined("dare", base, tuned, (0.7, 0.5), drop=0.6, seed=5), wanted, base)
    for normalize in (True, False):
        wanted = base + 1.2 * direct.elect((0.7, 0.5), given, normalize)
        found = joined(
            "dare-ties", base, tuned, (0.7, 0.5), drop=0.6, seed=5, scale=1.2, normalize=normalize
        )
        near(found, wanted, base)


@pytest.mark.parametrize("shape", [(8,), (6, 50), (30, 1), ()])
def test_della_keeps_by_rank(shape: tuple[int, ...]) -> None:
    base, tuned = make(shape, 2, np.float64)
    pruned = []
    for place, vector in enumerate(direct.vectors(base, tuned)):
        chances = direct.row_chances(vector, 0.6, 0.3)
        bits = draw(3, "layers.0.w", place, 0, base.size).reshape(shape)
        pruned.append(np.where(bits < chances * 2.0**32, vector, 0.0) / chances)
    wanted = base + 1.1 * direct.elect((1.0, 1.0), pruned, True)
    given = {"density": 0.6, "epsilon": 0.3, "seed": 3, "scale": 1.1}
    near(joined("della", base, tuned, (1.0, 1.0), **given), wanted, base)


@pytest.mark.parametrize("name", ["tsv", "iso-c", "wudi"])
@pytest.mark.parametrize(("shape", "inside"), [((9,), True), ((4, 5), False), ((), True)])
def test_other_tensors_are_averaged(name: str, shape: tuple[int, ...], inside: bool) -> None:
    base, tuned = make(shape, 2, np.float64)
    first, second = direct.vectors(base, tuned)
    near(joined(name, base, tuned, (1.0, 1.0), inside=inside), base + (first + second) / 2, base)
    uneven = joined(name, base, tuned, (1.0, 3.0), inside=inside)
    near(uneven, base + first / 4 + 3 * second / 4, base)


def test_project_adds_other_tensors() -> None:
    base, tuned = make((4, 5), 2, np.float64)
    found = joined("project", base, tuned, (0.0, 1.0), inside=False)
    near(found, tuned[1], base)


def test_wudi_is_the_minimum_of_its_objective() -> None:
    base, tuned = make((6, 9), 2, np.float64)
    given = direct.vectors(base, tuned)
    side = min(9, 12)
    pull = 1e-3 * 2 / side

    def objective(joint: Array) -> float:
        lost = [(((joint - t) @ t.T) ** 2).sum() / (t**2).sum() for t in given]
        return float(sum(lost) + pull * ((joint - sum(given)) ** 2).sum())

    found = joined("wudi", base, tuned, (1.0, 1.0)) - base
    chance = np.random.default_rng(0)
    for _ in range(50):
        assert objective(found) < objective(found + 1e-3 * chance.standard_normal(base.shape))


WIDE = st.integers(1, 400)


@settings(max_examples=40, deadline=None)
@given(size=WIDE, density=st.floats(0.01, 1), seed=st.integers(0, 99), flat=st.booleans())
def test_ties_keeps_the_largest_also_where_values_repeat(
    size: int, density: float, seed: int, flat: bool
) -> None:
    chance = np.random.default_rng(seed)
    base = np.zeros(size, np.float32)
    steps = 1 if flat else 1000  # few different magnitudes, or many
    tuned = [chance.integers(-3 * steps, 3 * steps, size).astype(np.float32) / 64 for _ in "ab"]
    found = joined("ties", base, tuned, (1.0, 0.5), density=density)
    near(found, direct.ties(base, tuned, (1.0, 0.5), density=density), base)
