"""gram-add and gram-swap against least squares on the very inputs, solved by LAPACK's gelsd."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gram_folder import Array, edit_matrices, write_grams
from safeswap.errors import CalibrationError, PlanError
from safeswap.operators import OPERATORS, TensorContext, merge_arrays, pin_operation, read_operation

NAME = "layers.0.w"
ROLES = ("safety", "sw")


def gram(inputs: Array) -> Array:
    return inputs.T @ inputs / len(inputs)


def make(outputs: int, side: int, seed: int = 0) -> tuple[Array, Array, Array, Array, Array]:
    """Base, safety expert, language expert [outputs, side]; harmful and harmless inputs."""
    chance = np.random.default_rng([seed, outputs, side])
    base = chance.standard_normal((outputs, side))
    safety, language = (base + 0.3 * chance.standard_normal((outputs, side)) for _ in range(2))
    harmful = chance.standard_normal((60, side)) @ chance.standard_normal((side, side))
    harmless = chance.standard_normal((80, side)) @ chance.standard_normal((side, side))
    return base, safety, language, harmful, harmless


def folder_of(path: Path, harmful: Array, harmless: Array, **how: Any) -> Path:
    both = {"sw@harmful": {NAME: gram(harmful)}, "sw@harmless": {NAME: gram(harmless)}}
    return write_grams(path, both, **how)


def joined(
    name: str, folder: Path, base: Array, safety: Array, language: Array,
    weights: tuple[float, float] = (1.0, 1.0), roles: tuple[str, str] = ROLES,
    inside: bool = True, size: int = 1 << 17, **given_: Any,
) -> Array:  # fmt: skip
    operator = OPERATORS[name]
    values = operator.resolve_settings({"grams": str(folder), **given_}, "test")
    of = {"safety": (safety, weights[0]), "sw": (language, weights[1])}
    experts, parts = zip(*(of[role] for role in roles), strict=True)
    task = TensorContext(NAME, base.shape, parts, values, (0, 1), inside, roles)
    return merge_arrays(operator, task, base, list(experts), size)


def least_squares(near: Array, far: Array, target: Array, balance: float, ridge: float) -> Array:
    """D with the least ‖near (D − target)ᵀ‖²/rows + γ‖far Dᵀ‖²/rows + λ‖D‖², from stacked rows."""
    side = target.shape[1]
    pull = ridge * np.trace(gram(near) + balance * gram(far)) / side
    rows = np.vstack(
        [near / np.sqrt(len(near)), np.sqrt(balance / len(far)) * far, np.sqrt(pull) * np.eye(side)]
    )
    wanted = np.zeros((len(rows), len(target)))
    wanted[: len(near)] = near / np.sqrt(len(near)) @ target.T
    return np.linalg.lstsq(rows, wanted, rcond=None)[0].T


@pytest.mark.parametrize("roles", [ROLES, ROLES[::-1]])
@pytest.mark.parametrize(("outputs", "side"), [(5, 8), (12, 4), (1, 6), (3, 1), (2, 300)])
@pytest.mark.parametrize("name", ["gram-add", "gram-swap"])
def test_it_is_the_least_squares_solution(
    name: str, outputs: int, side: int, roles: tuple[str, str], tmp_path: Path
) -> None:
    base, safety, language, harmful, harmless = make(outputs, side)
    folder = folder_of(tmp_path, harmful, harmless)
    found = joined(name, folder, base, safety, language, (4.0, 0.5), roles, balance=0.7, ridge=0.01)
    target = safety - base if name == "gram-add" else safety - language
    through = least_squares(harmful, harmless, target, 0.7, 0.01)
    wanted = base + 0.5 * (language - base) + 4.0 * through
    np.testing.assert_allclose(found, wanted, atol=2e-4 * np.abs(wanted).max())


def test_an_input_that_harmless_text_alone_uses_lets_nothing_through(tmp_path: Path) -> None:
    """And one that harmful requests alone use lets all through; both up to the ridge."""
    base, safety, language, *_ = make(4, 6)
    harmful, harmless = np.zeros((2, 50, 6))
    chance = np.random.default_rng(1)
    harmful[:, :3], harmless[:, 3:] = chance.standard_normal((2, 50, 3))
    folder = folder_of(tmp_path, harmful, harmless)
    found = joined("gram-add", folder, base, safety, language, ridge=1e-7)
    np.testing.assert_allclose(found[:, :3], (language + safety - base)[:, :3], atol=1e-4)
    np.testing.assert_allclose(found[:, 3:], language[:, 3:], atol=1e-4)


def test_weights_in_and_out_of_place(tmp_path: Path) -> None:
    """GPT-2 stores [in, out]: the same numbers, turned."""
    base, safety, language, harmful, harmless = make(5, 7)
    straight = joined(
        "gram-add", folder_of(tmp_path / "a", harmful, harmless), base, safety, language
    )
    folder = folder_of(tmp_path / "b", harmful, harmless, inputs="rows")
    turned = joined("gram-add", folder, base.T.copy(), safety.T.copy(), language.T.copy())
    np.testing.assert_allclose(turned, straight.T, atol=1e-12)


@pytest.mark.parametrize("name", ["gram-add", "gram-swap"])
@pytest.mark.parametrize("how", ["outside", "left out", "never seen"])
def test_without_matrices_the_language_expert_stays(how: str, name: str, tmp_path: Path) -> None:
    base, safety, language, harmful, harmless = make(5, 7)
    more: dict[str, Any] = {}
    if how == "left out":
        more = {"left_out": {NAME: "a reason"}}
    if how == "never seen":
        more = {"rows": 0}
    folder = folder_of(tmp_path, harmful, harmless, **more)
    how_ = {"inside": how != "outside", "size": 8}  # in blocks: such tensors may be large
    found = joined(name, folder, base, safety, language, (4.0, 1.0), **how_)
    np.testing.assert_allclose(found, language, atol=1e-12)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 10**6), balance=st.floats(0, 100), strength=st.floats(-3, 6))
def test_more_balance_disturbs_harmless_text_less(
    seed: int, balance: float, strength: float, tmp_path: Path
) -> None:
    base, safety, language, harmful, harmless = make(3, 5, seed)
    folder = folder_of(tmp_path / f"{seed}", harmful, harmless)
    little, much = (
        joined("gram-add", folder, base, safety, language, (strength, 1.0), balance=one) - language
        for one in (balance, 2 * balance + 1)
    )
    assert np.linalg.norm(harmless @ much.T) <= np.linalg.norm(harmless @ little.T) * (1 + 1e-9)


BOTH = pytest.mark.parametrize("name", ["gram-add", "gram-swap"])


@BOTH
def test_two_languages_are_refused(name: str, tmp_path: Path) -> None:
    *_, harmful, harmless = make(3, 4)
    operation = read_operation(
        {"name": name, "grams": str(folder_of(tmp_path, harmful, harmless))}, "here"
    )
    with pytest.raises(PlanError, match="Plan each language by itself"):
        pin_operation(operation, ("safety", "sw", "te"), "here")


@BOTH
def test_no_folder_is_refused_with_the_command(name: str) -> None:
    with pytest.raises(PlanError, match="--harmful REFUSALS"):
        read_operation(name, "here")


@BOTH
def test_matrices_of_other_texts_are_refused(name: str, tmp_path: Path) -> None:
    folder = write_grams(tmp_path, {"sw": {NAME: np.eye(3)}})
    operation = read_operation({"name": name, "grams": str(folder)}, "here")
    with pytest.raises(CalibrationError, match=f"of sw, and operator {name} reads sw@harmful"):
        pin_operation(operation, ROLES, "here")


@BOTH
def test_changed_matrices_are_refused(name: str, tmp_path: Path) -> None:
    base, safety, language, harmful, harmless = make(3, 4)
    folder = folder_of(tmp_path, harmful, harmless)
    edit_matrices(folder, "sw@harmless", lambda stored: stored[NAME].__setitem__((0, 0), 7.0))
    with pytest.raises(CalibrationError, match="sw@harmless"):
        joined(name, folder, base, safety, language)


@BOTH
def test_singular_matrices_are_refused_in_words(name: str, tmp_path: Path) -> None:
    base, safety, language, *_ = make(3, 4)
    hollow = -np.eye(4)
    both = {"sw@harmful": {NAME: hollow}, "sw@harmless": {NAME: hollow}}
    with pytest.raises(CalibrationError, match="larger ridge"):
        joined(name, write_grams(tmp_path, both), base, safety, language)


@BOTH
def test_a_layer_that_saw_zeros_stays(name: str, tmp_path: Path) -> None:
    base, safety, language, *_ = make(3, 4)
    zeros = {"sw@harmful": {NAME: np.zeros((4, 4))}, "sw@harmless": {NAME: np.zeros((4, 4))}}
    found = joined(name, write_grams(tmp_path, zeros), base, safety, language)
    np.testing.assert_allclose(found, language, atol=1e-12)
