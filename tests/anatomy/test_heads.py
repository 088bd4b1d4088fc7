"""Attentions cut into heads: every number once, and the right ones together."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safeswap.anatomy.heads import Heads, Span, head_spans
from safeswap.errors import AnatomyError

Shapes = dict[str, tuple[int, ...]]


def shapes_of(heads: Heads, width: int, hidden: int, bias: bool = False) -> Shapes:
    queries, keys = heads.queries * width, heads.groups * width
    found: Shapes = {
        "l.0.self_attn.q_proj.weight": (queries, hidden),
        "l.0.self_attn.k_proj.weight": (keys, hidden),
        "l.0.self_attn.v_proj.weight": (keys, hidden),
        "l.0.self_attn.o_proj.weight": (hidden, queries),
    }
    if bias:
        own = {name: hidden if "o_proj" in name else shape[0] for name, shape in found.items()}
        found |= {name.replace(".weight", ".bias"): (size,) for name, size in own.items()}
    return found


def test_by_hand() -> None:
    """Four query heads of two numbers in two groups: queries 0 and 1 read the first keys."""
    heads = Heads(4, 2, 2)
    found = head_spans("0.attention", shapes_of(heads, 2, 5), heads)
    q, k, v, o = shapes_of(heads, 2, 5)
    assert found.groups == (
        (Span(q, 0, 0, 4), Span(k, 0, 0, 2), Span(v, 0, 0, 2), Span(o, 1, 0, 4)),
        (Span(q, 0, 4, 8), Span(k, 0, 2, 4), Span(v, 0, 2, 4), Span(o, 1, 4, 8)),
    )
    assert found.rest == ()


@given(
    groups=st.integers(1, 4),
    each=st.integers(1, 3),
    width=st.integers(1, 3),
    hidden=st.integers(1, 5),
    bias=st.booleans(),
)
def test_every_number_is_of_one_group_or_of_none(
    groups: int, each: int, width: int, hidden: int, bias: bool
) -> None:
    heads = Heads(groups * each, groups)
    shapes = shapes_of(heads, width, hidden, bias)
    found = head_spans("0.attention", shapes, heads)
    counted = {name: np.zeros(shape, int) for name, shape in shapes.items()}
    for spans in (*found.groups, found.rest):
        for span in spans:
            end = counted[span.name].shape[span.axis] if span.end is None else span.end
            counted[span.name].swapaxes(0, span.axis)[span.begin : end] += 1
    assert len(found.groups) == groups
    assert all((count == 1).all() for count in counted.values())
    assert [span.name for span in found.rest] == (["l.0.self_attn.o_proj.bias"] if bias else [])


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("attn.c_attn.weight", "attn.c_proj.weight"), "c_attn"),
        (("attn.qkv_proj.weight", "attn.o_proj.weight"), "qkv_proj"),
        (("attn.q_a_proj.weight", "attn.kv_b_proj.weight", "attn.o_proj.weight"), "kv_b_proj"),
    ],
)
def test_attentions_of_other_matrices_are_refused(names: tuple[str, ...], said: str) -> None:
    with pytest.raises(
        AnatomyError, match=rf"3\.attention cannot.*it has .*{said}.*Use --by module"
    ):
        head_spans("3.attention", dict.fromkeys(names, (8, 8)), Heads(2, 2))


@pytest.mark.parametrize(
    ("name", "shape", "heads"),
    [
        ("q_proj.weight", (16, 5), Heads(4, 2)),  # with a gate beside every query
        ("k_proj.weight", (3, 5), Heads(4, 2)),
        ("o_proj.weight", (5, 9), Heads(4, 2)),
        ("o_proj.weight", (5, 4), Heads(4, 2)),
        ("v_proj.weight", (4,), Heads(4, 2)),
        ("q_proj.weight", (8, 5), Heads(4, 2, 3)),  # config.json says three numbers, not two
    ],
)
def test_shapes_of_other_heads_are_refused(name: str, shape: tuple[int, ...], heads: Heads) -> None:
    shapes = shapes_of(Heads(4, 2), 2, 5) | {f"l.0.self_attn.{name}": shape}
    with pytest.raises(AnatomyError, match=re.escape("config.json says 4 heads")) as caught:
        head_spans("0.attention", shapes, heads)
    assert str(list(shape)) in str(caught.value) and "--by module" in str(caught.value)
