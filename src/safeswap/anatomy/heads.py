"""Attention heads: which rows and columns of an attention's matrices belong together.

Where several query heads share one head of keys and values (grouped-query attention), what belongs
together is the group: its key and value rows, the rows of all query heads that read them, and the
columns of the output projection that these write into. Query heads lie one after another and
``heads / groups`` of them read each head of keys and values, as ``repeat_kv`` of transformers has
it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from safeswap.errors import AnatomyError, listed

_QUERY = ("q_proj", "q_lin", "query", "wq")
_KEY = ("k_proj", "k_lin", "key", "wk")
_VALUE = ("v_proj", "v_lin", "value", "wv")
_OUTPUT = ("o_proj", "out_proj", "out_lin", "wo", "dense")
_NAMES = {"q": _QUERY, "k": _KEY, "v": _VALUE, "o": _OUTPUT}


@dataclass(frozen=True, slots=True)
class Span:
    """A tensor, or the run of its rows (``axis`` 0) or columns (1) from ``begin`` to ``end``.

    Without an ``end`` it is the whole tensor.
    """

    name: str
    axis: int = 0
    begin: int = 0
    end: int | None = None


@dataclass(frozen=True, slots=True)
class Heads:
    """How a model's attentions are cut.

    Attributes:
        queries: heads of queries.
        groups: heads of keys and values; it divides ``queries``.
        width: numbers of a query or key head; None where nothing says it.
    """

    queries: int
    groups: int
    width: int | None = None


@dataclass(frozen=True, slots=True)
class HeadSpans:
    """One attention in parts.

    Attributes:
        groups: for each group of heads, what is its own.
        rest: what is of no head: the output projection's bias.
    """

    groups: tuple[tuple[Span, ...], ...]
    rest: tuple[Span, ...]


def head_spans(unit: str, shapes: Mapping[str, tuple[int, ...]], heads: Heads) -> HeadSpans:
    """Cut one attention into groups of heads.

    Args:
        unit: its name, for messages.
        shapes: its tensors, weights as ``[outputs, inputs]``.

    Raises:
        AnatomyError: queries, keys and values do not lie in matrices of their own (fused ones,
            multi-head latent attention), or the shapes are not those of such heads.
    """
    kinds = {name: _kind(name) for name in shapes}
    unknown = [name for name, kind in kinds.items() if kind is None]
    lacking = [kind for kind in _NAMES if f"{kind}.weight" not in kinds.values()]
    if unknown or lacking or len(set(kinds.values())) < len(kinds):
        raise AnatomyError(
            f"{unit} cannot be cut into heads: it is not stored as one matrix each of queries, "
            f"keys, values and output alone; it has {listed(unknown or shapes)}. Use --by module.",
            unknown or shapes,
        )
    named = {str(kind): name for name, kind in kinds.items()}
    shape = {kind: shapes[named[f"{kind}.weight"]] for kind in _NAMES}
    _check_shapes(unit, shape, heads)
    rest = tuple(Span(name) for kind, name in named.items() if kind == "o.bias")
    cut = {name: kind[0] for kind, name in named.items() if kind != "o.bias"}
    wide = {kind: own[_axis(kind)] // heads.groups for kind, own in shape.items()}
    groups = tuple(
        tuple(
            Span(name, _axis(kind), group * wide[kind], (group + 1) * wide[kind])
            for name, kind in cut.items()
        )
        for group in range(heads.groups)
    )
    return HeadSpans(groups, rest)


def _axis(kind: str) -> int:
    """Along which dimension heads lie: columns of the output projection, rows of the others."""
    return 1 if kind == "o" else 0


def _kind(name: str) -> str | None:
    """``q.weight``, ``o.bias``, …; None for what is nothing of the kind."""
    owner, _, leaf = name.rpartition(".")
    word = owner.rpartition(".")[2]
    for kind, words in _NAMES.items():
        if word in words and leaf in ("weight", "bias"):
            return f"{kind}.{leaf}"
    return None


def _check_shapes(unit: str, shape: Mapping[str, tuple[int, ...]], heads: Heads) -> None:
    """Refuse shapes that are not those of the heads.

    Raises:
        AnatomyError: says the counts and the shapes.
    """
    sizes = {kind: own[_axis(kind)] for kind, own in shape.items() if len(own) == 2}
    counts = {"q": heads.queries, "k": heads.groups, "v": heads.groups, "o": heads.queries}
    fits = len(sizes) == len(counts) and not any(sizes[k] % counts[k] for k in sizes)
    if fits:
        width = {kind: size // counts[kind] for kind, size in sizes.items()}
        fits = width["q"] == width["k"] and width["v"] == width["o"]
        fits = fits and heads.width in (None, width["q"])
    if not fits:
        said = ", ".join(f"{kind} {list(own)}" for kind, own in shape.items())
        wide = f" of {heads.width} numbers" if heads.width else ""
        raise AnatomyError(
            f"{unit} cannot be cut into heads: config.json says {heads.queries} heads{wide} and "
            f"{heads.groups} of keys and values, and its matrices are {said}. Use --by module."
        )
