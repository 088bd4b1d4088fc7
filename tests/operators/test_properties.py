"""What holds for every operator: blocks, ends, seeds, degenerate tensors, refusals."""

from __future__ import annotations

import itertools
from typing import Any

import direct
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_formulas import joined, make
from threadpoolctl import threadpool_info, threadpool_limits

from gram_folder import NEED_GRAMS
from safeswap.errors import CheckpointError, PlanError
from safeswap.io.blas import one_thread
from safeswap.operators import (
    OPERATORS,
    Operation,
    TensorContext,
    applies,
    blocks,
    check_operation,
    linear,
    merge_arrays,
    read_operation,
    tensor_op,
)
from safeswap.operators.kernels.random_masks import draw, kept

STREAMED = ("linear", "ties", "dare", "dare-ties", "della", "breadcrumbs")
SUMMED = ("slerp", "nuslerp", "model-stock", "karcher", "sce")
WHOLE = ("tsv", "iso-c", "wudi", "project")
NAMES = tuple(name for name in OPERATORS if name not in NEED_GRAMS)  # those need files
FREE = {"dare": {"drop": 0.0}, "dare-ties": {"drop": 0.0}, "breadcrumbs": {"density": 1.0}}


def test_all_operators_are_known_here() -> None:
    assert set(NAMES) == {*STREAMED, *SUMMED, *WHOLE}
    for name, operator in OPERATORS.items():
        assert operator.name == name and operator.summary and "arXiv" in operator.source + "arXiv"
        seeded = any(parameter.name == "seed" for parameter in operator.parameters)
        assert seeded == (name in ("dare", "dare-ties", "della"))
        assert operator.__doc__ and "``" in operator.__doc__


@settings(max_examples=25, deadline=None)
@given(size=st.integers(1, 200), rows=st.integers(1, 12), columns=st.integers(1, 40))
@pytest.mark.parametrize("name", NAMES)
def test_blocks_do_not_matter(name: str, size: int, rows: int, columns: int) -> None:
    """Bit for bit where nothing is summed. Elsewhere a scale that sums decide may differ by its
    last bit, and so each result by roundings of its terms, which may be larger than the result.
    """
    base, tuned = make((rows, columns), 2)
    one, many = (joined(name, base, tuned, (0.5, 0.5), n) for n in (1 << 17, size))
    if name in SUMMED:
        largest = max(np.abs(weights).max() for weights in (base, *tuned))
        roundings = 4 * np.finfo(np.float32).eps * largest
        np.testing.assert_allclose(one, many, rtol=0, atol=roundings)
    else:
        np.testing.assert_array_equal(one, many)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_inputs_are_left_and_types_kept(name: str, kind: Any) -> None:
    base, tuned = make((6, 8), 2, kind)
    copies = [base.copy(), *(expert.copy() for expert in tuned)]
    found = joined(name, base, tuned, (0.5, 0.5))
    assert found.dtype == kind and found.shape == base.shape
    for given_, copy in zip([base, *tuned], copies, strict=True):
        np.testing.assert_array_equal(given_, copy)
    np.testing.assert_array_equal(found, joined(name, base, tuned, (0.5, 0.5)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(0,), (0, 4), (1,), (), (1, 1), (4, 6), (6, 4), (3, 1)])
def test_experts_that_did_not_move_give_the_base(name: str, shape: tuple[int, ...]) -> None:
    base, _ = make(shape, 0)
    found = joined(name, base, [base.copy(), base.copy()], (0.5, 0.5))
    np.testing.assert_allclose(found, base, atol=1e-6)


@pytest.mark.parametrize("name", [*STREAMED, *SUMMED, "tsv"])
@pytest.mark.parametrize("shape", [(9,), (4, 6), (6, 4)])
def test_equal_experts_give_that_expert(name: str, shape: tuple[int, ...]) -> None:
    """At weights of one half, with nothing trimmed or dropped."""
    base, (expert,) = make(shape, 1)
    given_: dict[str, Any] = FREE.get(name, {})
    if "density" in {p.name for p in OPERATORS[name].parameters}:
        given_ = {"density": 1.0}
    given_ = {"select_topk": 1.0} if name == "sce" else given_
    weights = (1.0, 1.0) if name == "tsv" else (0.5, 0.5)
    found = joined(name, base, [expert, expert.copy()], weights, **given_)
    if name == "tsv" and len(shape) == 2:  # the first half of the singular directions
        left, values, right = np.linalg.svd(expert - base, full_matrices=False)
        half = min(shape) // 2
        expert = base + (left[:, :half] * values[:half]) @ right[:half]
    np.testing.assert_allclose(found, expert, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), density=st.floats(0.05, 1))
def test_ties_of_one_direction_is_the_mean(seed: int, density: float) -> None:
    chance = np.random.default_rng(seed)
    base = chance.standard_normal(50)
    step = np.sign(chance.standard_normal(50))
    tuned = [base + step * (0.5 + chance.random(50)) for _ in range(2)]
    full = joined("ties", base, tuned, (1.0, 1.0), density=1.0)
    np.testing.assert_allclose(full, (tuned[0] + tuned[1]) / 2, atol=1e-12)
    part = joined("ties", base, tuned, (1.0, 1.0), density=density)
    moved = np.count_nonzero(part != base)
    assert max(1, int(density * 50)) <= moved <= 2 * max(1, int(density * 50))


@pytest.mark.parametrize("name", ["dare", "breadcrumbs"])
def test_without_dropping_it_is_linear(name: str) -> None:
    base, tuned = make((5, 9), 3, np.float64)
    found = joined(name, base, tuned, (0.5, 0.2, 1.1), **FREE[name])
    wanted = joined("linear", base, tuned, (0.5, 0.2, 1.1))
    np.testing.assert_allclose(found, wanted, atol=1e-14)
    np.testing.assert_allclose(wanted, direct.linear(base, tuned, (0.5, 0.2, 1.1)), atol=1e-14)


@pytest.mark.parametrize("name", ["slerp", "nuslerp"])
def test_the_ends_of_the_arc_are_the_experts(name: str) -> None:
    base, tuned = make((5, 9), 2, np.float64)
    for weights, end in (((1.0, 1e-12), 0), ((1e-12, 1.0), 1)):
        np.testing.assert_allclose(joined(name, base, tuned, weights), tuned[end], atol=1e-10)


def test_slerp_of_near_and_opposite_experts_is_linear() -> None:
    base, (expert,) = make((7,), 1, np.float64)
    for other in (expert + 1e-6, -expert):
        found = joined("slerp", base, [expert, other], (1.0, 3.0))
        np.testing.assert_allclose(found, 0.25 * expert + 0.75 * other, atol=1e-12)


def test_model_stock_of_opposite_updates_is_the_base() -> None:
    base, (expert,) = make((7,), 1, np.float64)
    found = joined("model-stock", base, [expert, 2 * base - expert], (1.0, 1.0))
    np.testing.assert_allclose(found, base, atol=1e-12)


@pytest.mark.parametrize("name", ["dare", "dare-ties", "della"])
def test_masks_hang_on_seed_tensor_and_expert(name: str) -> None:
    base, tuned = make((40, 50), 2)
    operator = OPERATORS[name]

    def run(seed: int, tensor: str = "a", places: tuple[int, ...] = (0, 1)) -> Any:
        task = TensorContext(
            tensor, base.shape, (0.5, 0.5), operator.resolve_settings({"seed": seed}, "t"), places
        )
        return merge_arrays(operator, task, base, tuned)

    np.testing.assert_array_equal(run(1), run(1))
    for other in (run(2), run(1, "b"), run(1, "a", (1, 0))):
        assert (run(1) != other).mean() > 0.1


@settings(max_examples=40, deadline=None)
@given(begin=st.integers(0, 10_000), count=st.integers(0, 3000), seed=st.integers(0, 2**63 - 1))
def test_a_mask_is_the_same_from_anywhere(begin: int, count: int, seed: int) -> None:
    whole = draw(seed, "x", 1, 0, 13_000)
    np.testing.assert_array_equal(draw(seed, "x", 1, begin, count), whole[begin : begin + count])


def test_masks_keep_what_they_should() -> None:
    bits = draw(0, "x", 0, 0, 400_000)
    for chance in (0.0, 0.1, 0.5, 1.0):
        part = kept(bits, chance).mean()
        assert abs(part - chance) <= 4 * (chance * (1 - chance) / 400_000) ** 0.5
    other = draw(0, "x", 1, 0, 400_000)
    assert abs(np.corrcoef(bits, other)[0, 1]) < 0.01


def test_the_bits_of_a_mask_stay_what_they_are() -> None:
    """Plans name a seed: another version must draw the same."""
    found = draw(7, "model.embed_tokens.weight", 0, 5, 4).tolist()
    assert found == [2391571788, 4263632544, 3633842384, 2684384973]


@pytest.mark.parametrize("name", ["ties", "breadcrumbs", "sce"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_refused(name: str, bad: float) -> None:
    base, tuned = make((4, 5), 2)
    tuned[0][1, 1] = bad
    with np.errstate(invalid="ignore"), pytest.raises(CheckpointError, match=r"layers\.0\.w.*NaN"):
        joined(name, base, tuned, (1.0, 1.0))


@pytest.mark.parametrize(
    "name", [n for n in NAMES if n not in ("ties", "breadcrumbs", "sce", "tsv", "iso-c", "wudi")]
)
def test_nan_shows_in_the_result(name: str) -> None:
    """The merge refuses results that are not finite, so a NaN must not be dropped silently."""
    base, tuned = make((4, 5), 2)
    tuned[0][1, 1] = np.nan
    with np.errstate(invalid="ignore"):
        assert np.isnan(joined(name, base, tuned, (1.0, 1.0))).any()


@settings(max_examples=60, deadline=None)
@given(begin=st.integers(0, 50), count=st.integers(0, 99), size=st.integers(1, 40),
       grain=st.integers(1, 30))  # fmt: skip
def test_blocks_cover_the_chunk_in_whole_grains(
    begin: int, count: int, size: int, grain: int
) -> None:
    found = list(blocks(begin, begin + count, size, grain))
    if not count:
        assert len(found) <= 1
        return
    assert found[0][0] <= begin and found[-1][1] >= begin + count
    assert all(a % grain == 0 and b % grain == 0 and a < b for a, b in found)
    assert all(left[1] == right[0] for left, right in itertools.pairwise(found))


REFUSED = [
    ("tie", ["unknown operator 'tie'", "did you mean 'ties'"]),
    ({"name": "ties", "densty": 0.2}, ["no parameter 'densty'", "did you mean 'density'"]),
    ({"name": "ties", "density": 0}, ["ties: density 0 is not valid", "a number in (0, 1]"]),
    ({"name": "ties", "density": 1.01}, ["density", "(0, 1]"]),
    ({"name": "ties", "density": float("nan")}, ["density"]),
    ({"name": "ties", "density": True}, ["density True"]),
    ({"name": "ties", "normalize": 1}, ["normalize 1", "true or false"]),
    ({"name": "dare", "drop": 1}, ["drop 1", "[0, 1)"]),
    ({"name": "dare", "seed": 1.5}, ["seed 1.5", "whole number"]),
    ({"name": "dare", "seed": -1}, ["seed -1"]),
    ({"name": "della", "density": 0.1, "epsilon": 0.2}, ["density 0.1", "epsilon 0.2"]),
    ({"name": "della", "density": 0.9, "epsilon": 0.2}, ["density 0.9", "epsilon 0.2"]),
    ({"name": "nuslerp", "t": 0.5}, ["no parameter 't'", "has no parameters"]),
    ({"name": "ties", "scale": float("inf")}, ["scale inf", "a number and finite"]),
    ({"density": 0.2}, ["must be a name"]),
    (["ties"], ["must be a name"]),
]


@pytest.mark.parametrize(("content", "words"), REFUSED)
def test_settings_that_make_no_sense_are_refused(content: Any, words: list[str]) -> None:
    with pytest.raises(PlanError) as caught:
        read_operation(content, "plan.yaml: unit 3.mlp")
    for word in ["plan.yaml: unit 3.mlp", *words]:
        assert word in str(caught.value)


def test_an_operation_reads_back_as_it_is_written() -> None:
    for content in ("linear", "ties", {"name": "ties", "density": 0.3, "normalize": False}):
        assert read_operation(content, "x").plain == content
    assert str(read_operation({"name": "dare", "drop": 0.5}, "x")) == "dare(drop=0.5)"


def test_the_number_of_experts_is_checked() -> None:
    three = {"safety": 0.3, "sw": 0.3, "te": 0.4}
    with pytest.raises(PlanError, match=r"slerp joins exactly 2 experts, not 3 \(safety, sw, te\)"):
        check_operation(Operation("slerp"), three, "unit 3.mlp")
    check_operation(Operation("slerp"), three | {"te": 0.0}, "unit 3.mlp")
    check_operation(Operation("ties"), three, "unit 3.mlp")
    with pytest.raises(PlanError, match=r"takes weights as parts.*sw is -0\.3"):
        check_operation(Operation("karcher"), three | {"sw": -0.3}, "unit 3.mlp")


def test_an_operator_joins_where_two_experts_have_weight() -> None:
    ties = Operation("ties")
    assert applies(ties, {"safety": 0.5, "sw": 0.5})
    for weights in ({"safety": 1.0, "sw": 0.0}, {"safety": 0.0, "sw": 0.3}, {"a": 0.0, "b": 0.0}):
        assert not applies(ties, weights)
        made = tensor_op(ties, weights, name="x", shape=(2,), inside=True)
        assert made == linear(weights)
    assert not applies(Operation(), {"safety": 0.5, "sw": 0.5})
    project = Operation("project")
    assert applies(project, {"safety": 0.0, "sw": 1.0})
    assert not applies(project, {"safety": 1.0, "sw": 0.0})
    made = tensor_op(project, {"safety": 0.0, "sw": 1.0}, name="x", shape=(2,), inside=True)
    assert made.terms == (("base", 1.0), ("safety", 0.0), ("sw", 1.0)) and made.copied is None
    assert str(made) == "project: 0 · safety + 1 · sw"


def test_an_op_says_what_it_reads() -> None:
    given_ = {"safety": 0.5, "sw": 0.0, "te": 0.7}
    made = tensor_op(
        Operation("ties", {"density": 0.3}), given_, name="x", shape=(4, 2), inside=True
    )
    assert made.terms == (("base", 1.0), ("safety", 0.5), ("te", 0.7))
    assert made.step is not None and made.step.context.places == (0, 2)
    assert made.step.context.settings == {"density": 0.3, "scale": 1.0, "normalize": True}
    assert str(made) == "ties(density=0.3): 0.5 · safety + 0.7 · te"
    assert not made.whole
    whole = tensor_op(Operation("tsv"), given_, name="x", shape=(4, 2), inside=True)
    assert whole.whole


def test_factorizations_use_one_thread() -> None:
    def threads() -> list[int]:
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    with threadpool_limits(limits=2, user_api="blas"):
        before = threads()
        assert before, "numpy's wheels carry OpenBLAS"
        with one_thread():
            assert set(threads()) == {1}
        assert threads() == before
