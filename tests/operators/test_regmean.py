"""RegMean against least squares on the very inputs, and against its formula in float64."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gram_folder import Array, write_grams
from safeswap.errors import CalibrationError, PlanError
from safeswap.operators import OPERATORS, TensorContext, merge_arrays, read_operation
from safeswap.operators.kernels.positive import Triangle

ROLES = ("safety", "sw", "te")
NAME = "layers.0.w"


def gram(inputs: Array) -> Array:
    return inputs.T @ inputs / len(inputs)


def make(
    outputs: int, side: int, experts: int = 2, tokens: int = 300, seed: int = 0
) -> tuple[Array, list[Array], list[Array]]:
    """Base and experts [outputs, side], and what each expert saw [tokens, side], correlated."""
    chance = np.random.default_rng([seed, outputs, side])
    base = chance.standard_normal((outputs, side))
    tuned = [base + 0.3 * chance.standard_normal((outputs, side)) for _ in range(experts)]
    mixing = chance.standard_normal((experts, side, side)) / np.sqrt(side)
    inputs = [chance.standard_normal((tokens, side)) @ (0.3 * np.eye(side) + m) for m in mixing]
    return base, tuned, inputs


def joined(
    folder: Path,
    base: Array,
    tuned: Sequence[Array],
    weights: Sequence[float],
    inside: bool = True,
    **given_: Any,
) -> Array:
    operator = OPERATORS["regmean"]
    values = operator.resolve_settings({"grams": str(folder), **given_}, "test")
    roles = ROLES[: len(tuned)]
    places = tuple(range(len(tuned)))
    task = TensorContext(NAME, base.shape, tuple(weights), values, places, inside, roles)
    return merge_arrays(operator, task, base, tuned)


def folder_of(path: Path, seen: Sequence[Array], **how: Any) -> Path:
    grams = {role: {NAME: gram(inputs)} for role, inputs in zip(ROLES, seen, strict=False)}
    return write_grams(path, grams, **how)


def direct(
    base: Array, tuned: Sequence[Array], grams: Sequence[Array], weights: Sequence[float],
    scale: float, ridge: float,
) -> Array:  # fmt: skip
    """The formula for whole weights [in, out], with the inverse."""
    side = base.shape[1]
    reduced = [np.where(np.eye(side, dtype=bool), g, scale * g) for g in grams]
    total = sum(w * g for w, g in zip(weights, reduced, strict=True))
    pull = ridge * np.trace(total) / sum(weights) / side * np.eye(side)
    right = sum(w * (g + pull) @ t.T for w, g, t in zip(weights, reduced, tuned, strict=True))
    whole: Array = np.linalg.inv(total + sum(weights) * pull) @ right
    return whole.T


@pytest.mark.parametrize("experts", [2, 3])
@pytest.mark.parametrize(("outputs", "side"), [(5, 8), (12, 4), (1, 6), (3, 1)])
def test_it_is_the_least_squares_solution(
    outputs: int, side: int, experts: int, tmp_path: Path
) -> None:
    """For scale 1 and equal weights it minimises Σ‖X_i W − X_i W_i‖²: solved from the inputs
    themselves, stacked, by LAPACK's gelsd."""
    base, tuned, inputs = make(outputs, side, experts)
    stacked = np.vstack(inputs)
    targets = np.vstack([x @ w.T for x, w in zip(inputs, tuned, strict=True)])
    wanted = np.linalg.lstsq(stacked, targets, rcond=None)[0].T
    folder = folder_of(tmp_path, inputs)
    found = joined(folder, base, tuned, (0.5,) * experts, scale=1.0, ridge=0.0)
    np.testing.assert_allclose(found, wanted, atol=2e-5)  # the stored matrices are float32

    def residual(weight: Array) -> float:
        return sum(
            float(((x @ (weight - w).T) ** 2).sum()) for x, w in zip(inputs, tuned, strict=True)
        )

    assert residual(found) <= residual(sum(tuned) / experts) + 1e-9


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    seed=st.integers(0, 10**6),
    weights=st.tuples(st.floats(0.05, 3), st.floats(0.05, 3)),
    scale=st.floats(0, 1),
    ridge=st.floats(0, 10),
)
def test_it_equals_the_formula(
    seed: int, weights: tuple[float, float], scale: float, ridge: float, tmp_path: Path
) -> None:
    base, tuned, inputs = make(4, 6, seed=seed)
    folder = folder_of(tmp_path / str(seed), inputs)
    found = joined(folder, base, tuned, weights, scale=scale, ridge=ridge)
    wanted = direct(base, tuned, [gram(x) for x in inputs], weights, scale, ridge)
    np.testing.assert_allclose(found, wanted, atol=5e-5)
    again = joined(folder, base, tuned, [7 * w for w in weights], scale=scale, ridge=ridge)
    np.testing.assert_allclose(again, found, atol=1e-9)


def test_float32_and_float64_give_the_same(tmp_path: Path) -> None:
    base, tuned, inputs = make(5, 8)
    folder = folder_of(tmp_path, inputs)
    wide = joined(folder, base, tuned, (0.5, 0.5))
    narrow = joined(folder, base.astype("f4"), [t.astype("f4") for t in tuned], (0.5, 0.5))
    assert narrow.dtype == np.float32
    np.testing.assert_allclose(narrow, wide, atol=2e-6)


def test_transposed_weights_are_joined_the_same(tmp_path: Path) -> None:
    """GPT-2's Conv1D: [in, out]; square ones too, whose shape does not tell."""
    for side in (6, 5):
        base, tuned, inputs = make(5, side)
        columns = folder_of(tmp_path / f"columns{side}", inputs)
        rows = folder_of(tmp_path / f"rows{side}", inputs, inputs="rows")
        wanted = joined(columns, base, tuned, (0.4, 0.6))
        found = joined(rows, base.T.copy(), [t.T.copy() for t in tuned], (0.4, 0.6))
        np.testing.assert_allclose(found.T, wanted, atol=1e-12)
    assert not np.allclose(joined(rows, base, tuned, (0.4, 0.6)), wanted)  # the square one


def test_large_systems_are_solved_in_blocks(tmp_path: Path) -> None:
    chance = np.random.default_rng(3)
    for side in (255, 256, 257, 600):
        half = chance.standard_normal((side, side))
        system, known = half @ half.T + side * np.eye(side), chance.standard_normal((3, side))
        wanted = np.linalg.solve(system, known.T).T
        triangle = Triangle(side)
        for begin in range(0, side, 100):  # rows that end within strips
            triangle.add(begin, system[begin : begin + 100])
        triangle.factor()
        found = triangle.solve(known.copy())
        np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_matrices_are_read_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, tuned, inputs = make(5, 13)
    folder = folder_of(tmp_path, inputs)
    whole = joined(folder, base, tuned, (0.3, 0.7), scale=0.5)
    monkeypatch.setattr("safeswap.operators.gram_store.BLOCK_BYTES", 4 * 13 * 4)
    np.testing.assert_allclose(
        joined(folder, base, tuned, (0.3, 0.7), scale=0.5), whole, atol=1e-12
    )


def test_what_nobody_saw_is_the_mean(tmp_path: Path) -> None:
    """An input that is 0 in all texts; and no inputs at all."""
    base, tuned, inputs = make(4, 6)
    for seen in inputs:
        seen[:, 2] = 0
    found = joined(folder_of(tmp_path / "one", inputs), base, tuned, (0.25, 0.75))
    mean = 0.25 * tuned[0] + 0.75 * tuned[1]
    np.testing.assert_allclose(found[:, 2], mean[:, 2], atol=1e-12)
    assert not np.allclose(found, mean, atol=1e-3)
    zeros = [np.zeros_like(seen) for seen in inputs]
    found = joined(folder_of(tmp_path / "none", zeros), base, tuned, (0.25, 0.75))
    np.testing.assert_allclose(found, mean, atol=1e-12)
    found = joined(folder_of(tmp_path / "rows", inputs, rows=0), base, tuned, (0.25, 0.75))
    np.testing.assert_allclose(found, mean, atol=1e-12)


def test_a_large_ridge_gives_the_mean_and_equal_experts_themselves(tmp_path: Path) -> None:
    base, tuned, inputs = make(4, 6)
    folder = folder_of(tmp_path, inputs)
    found = joined(folder, base, tuned, (0.25, 0.75), ridge=1000)
    np.testing.assert_allclose(found, 0.25 * tuned[0] + 0.75 * tuned[1], atol=1e-2)
    found = joined(folder, base, [tuned[0], tuned[0].copy()], (0.3, 0.9), scale=1.0)
    np.testing.assert_allclose(found, tuned[0], atol=1e-10)


def test_other_tensors_and_those_left_out_are_averaged(tmp_path: Path) -> None:
    base, tuned, inputs = make(4, 6)
    mean = (tuned[0] + 3 * tuned[1]) / 4
    folder = folder_of(tmp_path / "a", inputs)
    np.testing.assert_allclose(joined(folder, base, tuned, (0.5, 1.5), inside=False), mean)
    vector = [tuned[0][0], tuned[1][0]]
    np.testing.assert_allclose(joined(folder, base[0], vector, (0.5, 1.5)), mean[0])
    empty: dict[str, dict[str, Array]] = {role: {} for role in ROLES}
    folder = write_grams(tmp_path / "b", empty, left_out={NAME: "no layer"})
    np.testing.assert_allclose(joined(folder, base, tuned, (0.5, 1.5)), mean)


def test_undetermined_inputs_without_ridge_are_refused(tmp_path: Path) -> None:
    base, tuned, inputs = make(4, 6)
    for seen in inputs:
        seen[:, 3] = seen[:, 1]
    folder = folder_of(tmp_path, inputs)
    with pytest.raises(CalibrationError, match=r"layers\.0\.w.*undetermined.*Use a larger ridge"):
        joined(folder, base, tuned, (0.5, 0.5), scale=1.0, ridge=0.0)
    assert np.isfinite(joined(folder, base, tuned, (0.5, 0.5), scale=1.0, ridge=1e-3)).all()


def test_nan_shows_in_the_result(tmp_path: Path) -> None:
    base, tuned, inputs = make(4, 6)
    tuned[0][1, 1] = np.nan
    assert np.isnan(joined(folder_of(tmp_path, inputs), base, tuned, (0.5, 0.5))).any()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("regmean", ["needs Gram matrices", "safeswap calibrate"]),
        ({"name": "regmean", "grams": 7}, ["grams 7", "a path"]),
        ({"name": "regmean", "grams": "x", "scale": 1.5}, ["scale 1.5", "from 0 to 1"]),
        ({"name": "regmean", "grams": "x", "ridge": -1}, ["ridge -1"]),
        ({"name": "regmean", "gram": "x"}, ["no parameter 'gram'", "'grams'"]),
    ],
)
def test_settings_that_make_no_sense_are_refused(content: Any, words: list[str]) -> None:
    with pytest.raises(PlanError) as caught:
        read_operation(content, "plan.yaml: unit 3.mlp")
    for word in ["plan.yaml: unit 3.mlp", *words]:
        assert word in str(caught.value)
