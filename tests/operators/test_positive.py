"""Half a matrix, factored in its place: against numpy's own solvers on whole ones."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gram_folder import Array, write_grams
from safeswap.operators import OPERATORS, TensorContext, gram_store, merge_arrays
from safeswap.operators.kernels.positive import STRIP, Triangle
from safeswap.operators.kernels.products import add_into, add_product


def definite(side: int, seed: int) -> Array:
    half = np.random.default_rng(seed).standard_normal((side, side))
    return half @ half.T / side + 0.1 * np.eye(side)


@settings(max_examples=25, deadline=None)
@given(
    side=st.sampled_from([1, 2, 5, STRIP - 1, STRIP, STRIP + 1, 2 * STRIP + 9]),
    step=st.integers(1, 700), seed=st.integers(0, 10**6), weight=st.floats(0.1, 3),
)  # fmt: skip
def test_sums_of_rows_are_solved_as_numpy_solves_them(
    side: int, step: int, seed: int, weight: float
) -> None:
    one, other = definite(side, seed), definite(side, seed + 1).astype(np.float32)
    triangle = Triangle(side)
    assert not triangle.any()
    for begin in range(0, side, step):
        triangle.add(begin, one[begin : begin + step])
        triangle.add(begin, other[begin : begin + step], weight)
    triangle.add_to_diagonal(0.5)
    whole = one + weight * other.astype("f8") + 0.5 * np.eye(side)
    assert triangle.any() and triangle.trace == pytest.approx(np.trace(whole))
    known = np.random.default_rng(seed).standard_normal((3, side))
    triangle.factor()
    lower = np.linalg.cholesky(whole)
    forth = triangle.solve_forth(known.copy())
    np.testing.assert_allclose(forth, np.linalg.solve(lower, known.T).T, atol=1e-9)
    back = triangle.solve_back(known.copy())
    np.testing.assert_allclose(back, np.linalg.solve(lower.T, known.T).T, atol=1e-9)
    both = triangle.solve(known.copy())
    np.testing.assert_allclose(both, np.linalg.solve(whole, known.T).T, atol=1e-9)


def test_what_is_not_definite_is_told_wherever_it_shows() -> None:
    for at in (0, STRIP - 1, STRIP, STRIP + 3):
        whole = np.eye(STRIP + 4)
        whole[at, at] = -1
        triangle = Triangle(len(whole))
        triangle.add(0, whole)
        with pytest.raises(np.linalg.LinAlgError):
            triangle.factor()


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_products_and_sums_are_float64(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("safeswap.operators.kernels.products._BYTES", 100)  # a row or two a run
    chance = np.random.default_rng(1)
    left, rows = (chance.standard_normal(shape).astype(dtype) for shape in ((7, 5), (3, 5)))
    total = np.ones((7, 3))
    add_product(total, left, rows, 0.3)
    wanted = 1 + 0.3 * left.astype("f8") @ rows.astype("f8").T
    np.testing.assert_allclose(total, wanted, rtol=1e-14)
    sums = left.copy()
    add_into(sums.T, rows.T.astype("f8")[:, :3] @ np.ones((3, 7)), 2.0)
    wanted = left + (2 * rows.astype("f8").sum(0)).astype(dtype)
    np.testing.assert_array_equal(sums, wanted)


@pytest.mark.parametrize("name", ["gram-add", "regmean"])
def test_a_merge_holds_half_of_the_system(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside weights and blocks as they are read; numpy tells tracemalloc what it takes."""
    side, outputs, roles = 1024, 4, ("safety", "sw")
    monkeypatch.setattr(gram_store, "BLOCK_BYTES", 1 << 17)
    matrix = definite(side, 0)
    entries = ("sw@harmful", "sw@harmless") if name == "gram-add" else roles
    folder = write_grams(tmp_path, {entry: {"layers.0.w": matrix} for entry in entries})
    settings_ = OPERATORS[name].resolve_settings({"grams": str(folder)}, "test")
    context = TensorContext(
        "layers.0.w", (outputs, side), (1.0, 1.0), settings_, (0, 1), True, roles
    )
    base, *experts = np.random.default_rng(1).standard_normal((3, outputs, side)).astype("f4")
    tracemalloc.start()
    try:
        merge_arrays(OPERATORS[name], context, base, experts)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    system = 8 * side**2
    assert 0.5 * system < peak < 0.5 * system + 5 * 256 * side * 8  # strips and panels of 256
