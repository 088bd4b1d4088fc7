"""How names and shapes become units: ``anatomy_of``, and the rules in the order they are applied.

1. Leftovers of adapters and of quantization are refused: their numbers are not weights.
2. The layers are found, and what stands beside them: towers, layers that predict (``stacks``).
3. Inside a layer: buffers by name, mask shape or integer dtype; norms by name, or a weight with one
   dimension; then attention, mixer or mlp by the vocabulary of ``words``; then, where the name says
   nothing, a vector as wide as the layer's norms (or a single number) is one of its norms.
4. Outside: towers and their projectors; then the first component off the way to the layers says
   embeddings, final norm or lm_head.
5. Anything left is an error that names it, and so is a layer that lacks attention, mlp or, where
   the other layers have them, norms (a model whose norms have no weights has no such units).
6. The mlp of a mixture of experts is divided into experts, router and shared experts (``experts``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from safeswap.anatomy import experts, problems, vocabulary
from safeswap.anatomy.model import Model, Path
from safeswap.anatomy.stacks import find_layers
from safeswap.anatomy.units import Anatomy, Placement, units_in_order


def anatomy_of(
    shapes: Mapping[str, tuple[int, ...]], *, dtypes: Mapping[str, str] | None = None
) -> Anatomy:
    """The anatomy of a checkpoint, from its tensor names and shapes alone.

    shapes: every tensor name of the checkpoint with its shape; the order does not matter.
    dtypes: the dtypes as safetensors writes them (``BF16``, ``I64``, ``BOOL``), where known. They
        tell stored masks and indices from weights, and packed weights from real ones.

    Raises AnatomyError, naming the tensors, when the checkpoint is an adapter, is quantized, has no
    layers or several stacks of which none is plainly the text, when layers are missing or lack
    attention or mlp (or norms, where others have them), or when a tensor cannot be placed.
    """
    known = dtypes or {}
    problems.refuse_leftovers(shapes, known)
    model = find_layers(shapes, known)
    blocks = _open_blocks(model)
    placements: dict[str, Placement] = {}
    unclear: list[str] = []
    for name in shapes:
        placement = _place(name, model, blocks)
        if placement is None:
            unclear.append(name)
        else:
            placements[name] = placement
    _place_by_width(unclear, placements, model)
    _find_final_norm(placements, model)
    if unclear:
        raise problems.not_placed(unclear, placements, model)
    problems.refuse_incomplete(placements, model)
    experts.divide(placements, model)
    units = units_in_order({p.unit for p in placements.values()}, model.labels)
    return Anatomy({name: placements[name] for name in shapes}, units, model.layers)


def _open_blocks(model: Model) -> dict[tuple[str, str], vocabulary.Block]:
    """(layer, component) → the block that it is, for components whose name leaves that open."""
    inside: dict[tuple[str, str], set[str]] = {}
    for name in model.shapes:
        position = model.position(name)
        if position is None:
            continue
        label, rest = position
        block, at = vocabulary.named_block(rest)
        mixing = block in ("attention", "mixer") and at >= 0
        if mixing and vocabulary.has_word(rest[at], vocabulary.OPEN_WORDS):
            inside.setdefault((label, rest[at]), set()).update(rest[at + 1 :])
    return {key: _block_by_content(key[1], names) for key, names in inside.items()}


def _block_by_content(component: str, names: set[str]) -> vocabulary.Block:
    named = vocabulary.blocks_in(component)[0]
    if names & set(vocabulary.MIXER_NAMES):
        return "mixer"
    if named == "attention" or not vocabulary.has_word(component, ("mixer", "temporal_block")):
        return named
    if names & set(vocabulary.ATTENTION_NAMES):
        return "attention"
    return "mlp" if names & set(vocabulary.MLP_NAMES) and "conv1d" not in names else "mixer"


# ── 3. and 4. one tensor ─────────────────────────────────────────────────────────────────────────


def _place(
    name: str, model: Model, blocks: Mapping[tuple[str, str], vocabulary.Block]
) -> Placement | None:
    beside = _place_beside(name, model)
    if beside is not None:
        return beside
    position = model.position(name)
    if position is None:
        return _place_outside(name, model)
    layer, rest = position
    block, at = vocabulary.named_block(rest)
    if block is not None and at >= 0:
        block = blocks.get((layer, rest[at]), block)
    if _is_buffer(name, rest, model):
        # Masks and rotary frequencies that sit straight in a layer serve its attention.
        return Placement(f"{layer}.{block or 'attention'}", "buffer")
    if _is_norm(name, rest, model):
        return Placement(f"{layer}.norms", "norm")
    if block is not None and not vocabulary.named_norm(rest):
        return Placement(f"{layer}.{block}", "projection")
    return None


def _place_beside(name: str, model: Model) -> Placement | None:
    """The place of what comes from the donor: towers, projectors, layers that predict."""
    path = tuple(name.split("."))

    def below(roots: Sequence[Path]) -> bool:
        return any(path[: len(root)] == root for root in roots)

    unit = "prediction" if below(model.predicting) else "towers" if below(model.towers) else ""
    if not unit and model.position(name) is None:
        own = model.outer_path(name)
        words = (*vocabulary.OTHER_MODALITIES, *vocabulary.PROJECTORS)
        if any(vocabulary.has_word(component, words) for component in own):
            unit = "towers"
        elif vocabulary.has_word(own[0], vocabulary.PREDICTION_WORDS):
            unit = "prediction"
    if not unit:
        return None
    return Placement(unit, "buffer" if _is_buffer(name, path, model) else "outside")


def _place_outside(name: str, model: Model) -> Placement | None:
    own = model.outer_path(name)
    if _is_buffer(name, own, model):
        return Placement("embeddings", "buffer")
    if own[0] in vocabulary.LM_HEAD_NAMES:
        return Placement("lm_head", "outside")
    embeds = vocabulary.has_word(own[0], vocabulary.EMBEDDING_WORDS)
    if embeds or own[0] in vocabulary.EMBEDDING_NAMES:
        return Placement("embeddings", "outside")
    if _is_outer_norm(name, model):
        return Placement("final_norm", "outside")
    return None


def _is_outer_norm(name: str, model: Model) -> bool:
    """A vector in a norm that stands beside the layers, not inside another module."""
    own = model.outer_path(name)
    return (
        len(vocabulary.owner(own)) == 1
        and vocabulary.named_norm(own)
        and len(model.shapes[name]) == 1
    )


def _is_buffer(name: str, path: Path, model: Model) -> bool:
    return is_buffer(path, model.shapes[name], model.dtypes.get(name, ""))


def is_buffer(path: Sequence[str], shape: tuple[int, ...], dtype: str) -> bool:
    """Whether a tensor is stored although nothing in it was trained: masks, indices, frequencies.

    Args:
        path: the components of its name, of which the last counts.
        dtype: as safetensors writes it; empty where it is not known.
    """
    if path[-1] in vocabulary.BUFFER_NAMES or problems.is_integer(dtype):
        return True
    if tuple(path[-2:]) in vocabulary.BUFFER_ENDS:
        return True
    mask_shaped = len(shape) == 4 and shape[:2] == (1, 1) and shape[2] == shape[3]
    return mask_shaped and path[-1] in vocabulary.MASK_NAMES


def _is_norm(name: str, path: Path, model: Model) -> bool:
    if vocabulary.named_norm(path):
        return _is_small(name, model)
    # A weight that is a vector can only scale: no projection has one. Its bias goes with it.
    weight = f"{name.removesuffix('bias')}weight" if path[-1] == "bias" else name
    return weight.endswith(".weight") and len(model.shapes.get(weight, ())) == 1


def _is_small(name: str, model: Model) -> bool:
    """No more numbers than any model is wide: Cohere's norms per head are [heads, width of head].

    A matrix that calls itself a norm is left unplaced rather than believed.
    """
    shape = model.shapes[name]
    return len(shape) < 2 or (len(shape) == 2 and math.prod(shape) <= _widest(name, model))


def _widest(name: str, model: Model) -> int:
    """The longest side among the matrices beside a norm, in the same module of the same layer."""
    around = name.rsplit(".", 2)[0] + "."
    sides = [max(s) for n, s in model.shapes.items() if n != name and n.startswith(around) and s]
    return max(sides, default=0)


def _place_by_width(unclear: list[str], placements: dict[str, Placement], model: Model) -> None:
    """Place what only its shape explains, and take it off the list of what is unclear."""
    widths: dict[str, set[int]] = {}
    for name, placement in placements.items():
        if placement.role == "norm":
            widths.setdefault(placement.unit, set()).add(math.prod(model.shapes[name]))
    for name in tuple(unclear):
        position = model.position(name)
        shape = model.shapes[name]
        if position is None or len(shape) > 1 or vocabulary.owner(position[1]) == ():
            continue
        unit, weight = f"{position[0]}.norms", f"{name.removesuffix('bias')}weight"
        alone = not (name.endswith(".bias") and weight in model.shapes)
        if alone and (math.prod(shape) == 1 or shape[0] in widths.get(unit, ())):
            placements[name] = Placement(unit, "norm")
            unclear.remove(name)


def _find_final_norm(placements: dict[str, Placement], model: Model) -> None:
    """Take LFM2's ``embedding_norm`` for the final norm: with no other, a norm outside is the last.

    Both units are outside the layers, so a model that this misreads is merged the same.
    """
    outside = [name for name, p in placements.items() if p.role == "outside"]
    if all(placements[name].unit != "final_norm" for name in outside):
        for name in outside:
            if placements[name].unit == "embeddings" and _is_outer_norm(name, model):
                placements[name] = Placement("final_norm", "outside")
