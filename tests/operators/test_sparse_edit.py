"""sparse-edit against its paper's formula on the very inputs, and against other rank-r updates."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gram_folder import Array, edit_matrices, write_grams
from safeswap.errors import CalibrationError, PlanError
from safeswap.operators import OPERATORS, TensorContext, merge_arrays, pin_operation, read_operation

NAME = "layers.0.up"
ROLES = ("safety", "sw")


class Case(NamedTuple):
    """Base, safety expert, language expert [outputs, side]; inputs [prompts, side]; scores."""

    base: Array
    safety: Array
    language: Array
    low: Array
    high: Array
    safe: Array
    scores: Array

    @property
    def edited(self) -> Array:
        """Numbers of the safety neurons at the paper's limits."""
        return np.flatnonzero((self.scores[0] > 2.0) | (self.scores[1] > 1.0))


def make(outputs: int, side: int, seed: int = 0) -> Case:
    chance = np.random.default_rng([seed, outputs, side])
    base = chance.standard_normal((outputs, side))
    safety, language = (base + 0.3 * chance.standard_normal((outputs, side)) for _ in range(2))
    low, high = chance.standard_normal((2, 40, side))
    safe = chance.standard_normal((90, side)) @ chance.standard_normal((side, side))
    scores = np.stack([chance.uniform(0, 3, outputs), chance.uniform(0, 1.5, outputs)])
    scores[:, 0] = 9.0, 0.0  # at least this one
    return Case(base, safety, language, low, high, safe, scores)


def folder_of(path: Path, case: Case, **how: Any) -> Path:
    low, high, safe = case.low, case.high, case.safe
    entries = {
        "pairs-low": low.T @ low / len(low),
        "pairs-gap": low.T @ (high - low) / len(low),
        "pairs-safe": safe.T @ safe / len(safe),
        "pairs-neurons": case.scores,
    }
    return write_grams(path, {f"sw@{kind}": {NAME: m} for kind, m in entries.items()}, **how)


def joined(
    folder: Path, case: Case, weights: tuple[float, float] = (1.0, 1.0),
    roles: tuple[str, str] = ROLES, size: int = 1 << 17, turned: bool = False, **given_: Any,
) -> Array:  # fmt: skip
    operator = OPERATORS["sparse-edit"]
    values = operator.resolve_settings({"grams": str(folder), **given_}, "test")
    of = {"safety": (case.safety, weights[0]), "sw": (case.language, weights[1])}
    experts, parts = zip(*(of[role] for role in roles), strict=True)
    base, *experts = (one.T.copy() if turned else one for one in (case.base, *experts))
    task = TensorContext(NAME, base.shape, parts, values, (0, 1), True, roles)
    found = merge_arrays(operator, task, base, experts, size)
    return found.T if turned else found


def published(case: Case, rank: int, balance: float, ridge: float) -> Array:
    """ΔW_S [in, edited], line by line as algorithm 1 has it; rows weighted to be means."""
    low, safe = case.low / np.sqrt(len(case.low)), case.safe / np.sqrt(len(case.safe))
    high = case.high / np.sqrt(len(case.low))
    weights = case.language[case.edited].T
    gap = high @ weights - low @ weights
    metric = low.T @ low + balance * safe.T @ safe
    metric += ridge * np.trace(metric) / len(metric) * np.eye(len(metric))
    upper = np.linalg.cholesky(metric).T
    whitened = upper @ (np.linalg.inv(metric) @ low.T @ gap)
    left, values, right = np.linalg.svd(whitened, full_matrices=False)
    values[rank:] = 0
    return np.linalg.inv(upper) @ (left * values) @ right


def objective(case: Case, update: Array, balance: float, ridge: float) -> float:
    low, safe = case.low / np.sqrt(len(case.low)), case.safe / np.sqrt(len(case.safe))
    gap = (case.high - case.low) / np.sqrt(len(case.low)) @ case.language[case.edited].T
    metric = low.T @ low + balance * safe.T @ safe
    pull = ridge * np.trace(metric) / len(metric)
    terms = (low @ update - gap, np.sqrt(balance) * safe @ update, np.sqrt(pull) * update)
    return float(sum((term**2).sum() for term in terms))


@pytest.mark.parametrize("roles", [ROLES, ROLES[::-1]])
@pytest.mark.parametrize(
    ("outputs", "side", "rank"), [(12, 7, 2), (5, 9, 8), (40, 6, 3), (1, 4, 1), (9, 300, 4)]
)
def test_it_is_the_published_formula(
    outputs: int, side: int, rank: int, roles: tuple[str, str], tmp_path: Path
) -> None:
    case = make(outputs, side)
    given_ = {"rank": rank, "balance": 0.7, "ridge": 0.05}
    found = joined(folder_of(tmp_path, case), case, roles=roles, **given_)
    wanted = case.language.copy()
    wanted[case.edited] += published(case, **given_).T
    np.testing.assert_allclose(found, wanted, atol=2e-5 * np.abs(wanted).max())
    rest = np.setdiff1d(np.arange(outputs), case.edited)
    np.testing.assert_array_equal(found[rest], case.language[rest])


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    seed=st.integers(0, 10**6), rank=st.integers(1, 4), balance=st.floats(0, 30),
    ridge=st.floats(1e-3, 1),
)  # fmt: skip
def test_no_other_update_of_its_rank_does_better(
    seed: int, rank: int, balance: float, ridge: float, tmp_path: Path
) -> None:
    """Neither one near it, nor the unbounded optimum cut to the rank without whitening."""
    case = make(6, 5, seed)
    found = joined(
        folder_of(tmp_path / str(seed), case), case, rank=rank, balance=balance, ridge=ridge
    )
    update = (found - case.language)[case.edited].T
    values = np.linalg.svd(update, compute_uv=False)
    assert (values[rank:] <= 1e-9 * max(values[0], 1e-12)).all()
    reached = objective(case, update, balance, ridge)
    left, values, right = np.linalg.svd(published(case, 99, balance, ridge), full_matrices=False)
    cut = (left[:, :rank] * values[:rank]) @ right[:rank]
    assert reached <= objective(case, cut, balance, ridge) * (1 + 1e-6)
    chance = np.random.default_rng(seed)
    left, values, right = np.linalg.svd(update, full_matrices=False)
    for step in (1e-3, 1e-2, 1e-1, 1.0):
        one = left[:, :rank] + step * chance.standard_normal((5, len(values[:rank])))
        other = right[:rank] + step * chance.standard_normal((len(values[:rank]), update.shape[1]))
        near = (one * values[:rank]) @ other
        assert reached <= objective(case, near, balance, ridge) * (1 + 1e-6)


def test_at_full_rank_it_is_least_squares_solved_from_the_rows(tmp_path: Path) -> None:
    case = make(6, 5)
    found = joined(folder_of(tmp_path, case), case, rank=99, balance=2.0, ridge=0.1)
    low, safe = case.low / np.sqrt(40), case.safe / np.sqrt(90)
    pull = 0.1 * (np.trace(low.T @ low) + 2 * np.trace(safe.T @ safe)) / 5
    rows = np.vstack([low, np.sqrt(2.0) * safe, np.sqrt(pull) * np.eye(5)])
    wanted = np.zeros((len(rows), len(case.edited)))
    wanted[:40] = (case.high - case.low) / np.sqrt(40) @ case.language[case.edited].T
    update = np.linalg.lstsq(rows, wanted, rcond=None)[0]
    np.testing.assert_allclose((found - case.language)[case.edited], update.T, atol=2e-5)


def test_the_safety_weight_is_a_factor_and_the_language_weight_the_expert_s(tmp_path: Path) -> None:
    case = make(8, 6)
    folder = folder_of(tmp_path, case)
    once = joined(folder, case) - case.language
    found = joined(folder, case, (2.5, 0.5))
    np.testing.assert_allclose(found, (case.base + case.language) / 2 + 2.5 * once, atol=1e-9)


def test_weights_in_and_out_of_place(tmp_path: Path) -> None:
    """GPT-2 stores [in, out]: the same numbers, turned; square ones too."""
    for outputs in (9, 6):
        case = make(outputs, 6)
        straight = joined(folder_of(tmp_path / f"a{outputs}", case), case)
        folder = folder_of(tmp_path / f"b{outputs}", case, inputs="rows")
        np.testing.assert_allclose(joined(folder, case, turned=True), straight, atol=1e-12)


def test_the_limits_choose_the_neurons(tmp_path: Path) -> None:
    case = make(20, 5)
    folder = folder_of(tmp_path, case)
    for limits in ({"magnitude": 1.0, "effect": 99.0}, {"magnitude": 99.0, "effect": 0.5}):
        found = joined(folder, case, **limits)
        wanted = (case.scores[0] > limits["magnitude"]) | (case.scores[1] > limits["effect"])
        assert 0 < wanted.sum() < 20
        np.testing.assert_array_equal((found != case.language).any(axis=1), wanted)
    none = joined(folder, case, magnitude=99.0, effect=99.0)
    np.testing.assert_array_equal(none, case.language)


@pytest.mark.parametrize("how", [{"left_out": {NAME: "a reason"}}, {"rows": 0}])
def test_without_sums_the_language_expert_stays(how: dict[str, Any], tmp_path: Path) -> None:
    case = make(5, 7)
    found = joined(folder_of(tmp_path, case, **how), case, (4.0, 1.0), size=8)
    np.testing.assert_array_equal(found, case.language)


def test_a_layer_that_saw_zeros_stays(tmp_path: Path) -> None:
    case = make(5, 7)
    zeros = case._replace(low=0 * case.low, high=0 * case.high, safe=0 * case.safe)
    np.testing.assert_array_equal(joined(folder_of(tmp_path, zeros), case), case.language)


def test_singular_sums_are_refused_in_words(tmp_path: Path) -> None:
    case = make(3, 4)
    hollow = {f"sw@pairs-{kind}": {NAME: -np.eye(4)} for kind in ("low", "gap", "safe")}
    folder = write_grams(tmp_path, {**hollow, "sw@pairs-neurons": {NAME: case.scores}})
    with pytest.raises(CalibrationError, match=r"larger ridge.* or more prompts"):
        joined(folder, case)


@pytest.mark.parametrize("kind", ["pairs-low", "pairs-gap", "pairs-safe", "pairs-neurons"])
def test_changed_sums_are_refused(kind: str, tmp_path: Path) -> None:
    case = make(3, 4)
    folder = folder_of(tmp_path, case)
    edit_matrices(folder, f"sw@{kind}", lambda stored: stored[NAME].__setitem__((0, 0), 7.0))
    with pytest.raises(CalibrationError, match=f"sw@{kind}.* was changed"):
        joined(folder, case)


def test_a_table_of_another_shape_is_refused(tmp_path: Path) -> None:
    case = make(3, 4)
    folder = folder_of(tmp_path, case._replace(scores=np.full((2, 4), 9.0)))
    with pytest.raises(CalibrationError, match=r"\[2, 4\].*needs F32 \[2, 3\]"):
        joined(folder, case)


def test_no_pairs_are_refused_with_the_command(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="--parallel LANGUAGE="):
        read_operation("sparse-edit", "here")
    both = {f"sw@{kind}": {NAME: np.eye(3)} for kind in ("harmful", "harmless")}
    folder = write_grams(tmp_path, both)
    operation = read_operation({"name": "sparse-edit", "grams": str(folder)}, "here")
    with pytest.raises(CalibrationError, match=r"holds matrices of sw@harmful, .* --parallel"):
        pin_operation(operation, ROLES, "here")


def test_two_languages_are_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, make(3, 4))
    operation = read_operation({"name": "sparse-edit", "grams": str(folder)}, "here")
    with pytest.raises(PlanError, match="Plan each language by itself"):
        pin_operation(operation, ("safety", "sw", "te"), "here")


@pytest.mark.parametrize(
    ("given_", "words"),
    [
        ({"rnak": 4}, "'rank'"),
        ({"rank": 0}, "rank"),
        ({"ridge": 0}, "ridge"),
        ({"balance": -1}, "balance"),
    ],
)
def test_wrong_settings_are_refused(given_: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=words):
        read_operation({"name": "sparse-edit", "grams": str(tmp_path), **given_}, "here")
