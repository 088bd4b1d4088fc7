"""How names and shapes become units: ``anatomy_of``, and the rules in the order they are applied.

1. Leftovers of adapters and of quantization are refused: their numbers are not weights.
2. The layers are found: the number in a name that is followed by a block word (``attn``, ``mlp``,
   …) before the next number. What stands before it is the stack; a model must have exactly one.
3. Inside a layer: buffers by name, mask shape or integer dtype; norms by name, or a weight with one
   dimension; then attention or mlp by the vocabulary of ``words``; then, where the name says
   nothing, a vector as wide as the layer's norms (or a single number) is one of its norms.
4. Outside: the first component off the way to the layers says embeddings, final norm or lm_head.
5. Anything left is an error that names it, and so is a layer that lacks attention, mlp or, where
   the other layers have them, norms (a model whose norms have no weights has no such units).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice, pairwise

from safeswap.anatomy import vocabulary
from safeswap.anatomy.units import (
    LAYER_KINDS,
    Anatomy,
    Placement,
    layer_of,
    units_in_order,
)
from safeswap.errors import AnatomyError, listed

Shapes = Mapping[str, tuple[int, ...]]
Path = tuple[str, ...]


@dataclass(frozen=True)
class _Model:
    """What the rules look at: the checkpoint, and the stack once it is found."""

    shapes: Shapes
    dtypes: Mapping[str, str]
    stack: Path
    layers: int

    def position(self, name: str) -> tuple[int, Path] | None:
        """The layer number of a tensor and its path inside, None for one outside the layers."""
        return _position(tuple(name.split(".")), self.stack)


def _position(path: Path, stack: Path) -> tuple[int, Path] | None:
    depth = len(stack)
    if len(path) < depth + 2 or path[:depth] != stack or not vocabulary.is_number(path[depth]):
        return None
    return int(path[depth]), path[depth + 1 :]


def anatomy_of(
    shapes: Mapping[str, tuple[int, ...]], *, dtypes: Mapping[str, str] | None = None
) -> Anatomy:
    """The anatomy of a checkpoint, from its tensor names and shapes alone.

    shapes: every tensor name of the checkpoint with its shape; the order does not matter.
    dtypes: the dtypes as safetensors writes them (``BF16``, ``I64``, ``BOOL``), where known. They
        tell stored masks and indices from weights, and packed weights from real ones.

    Raises AnatomyError, naming the tensors, when the checkpoint is an adapter, is quantized, has no
    layers or more than one stack of them (vision tower, encoder-decoder, extra prediction layers),
    when layers are missing or lack attention or mlp (or norms, where others have them), or when a
    tensor cannot be placed.
    """
    known = dtypes or {}
    _refuse_leftovers(shapes, known)
    model = _find_layers(shapes, known)
    placements: dict[str, Placement] = {}
    unclear: list[str] = []
    for name in shapes:
        placement = _place(name, model)
        if placement is None:
            unclear.append(name)
        else:
            placements[name] = placement
    _place_by_width(unclear, placements, model)
    _find_final_norm(placements, model)
    if unclear:
        raise _not_placed(unclear, placements, model)
    _require_whole_layers(placements, model)
    units = units_in_order({p.unit for p in placements.values()}, model.layers)
    return Anatomy({name: placements[name] for name in shapes}, units, model.layers)


# ── 1. leftovers ─────────────────────────────────────────────────────────────────────────────────


def _refuse_leftovers(shapes: Shapes, dtypes: Mapping[str, str]) -> None:
    if not shapes:
        raise AnatomyError("the checkpoint holds no tensors; is this the folder of a model?")
    adapters = [n for n in shapes if any(c in vocabulary.ADAPTER_NAMES for c in n.split("."))]
    if adapters:
        raise AnatomyError(
            f"the checkpoint holds {len(adapters)} tensors of an adapter (LoRA or alike): "
            f"{listed(adapters)}. An adapter is not a model: merge it into its base first "
            "(peft: merge_and_unload, then save_pretrained) and give the result.",
            adapters,
        )
    packed = [n for n in shapes if _is_packed(n, len(shapes[n]), dtypes.get(n, ""))]
    if packed:
        raise AnatomyError(
            f"the checkpoint is quantized: {len(packed)} tensors are packed weights or their "
            f"scales: {listed(packed)}. Packed numbers cannot be joined: give the checkpoint it "
            "was quantized from, or a dequantized copy in bf16, fp16 or float32.",
            packed,
        )


def _is_packed(name: str, dimensions: int, dtype: str) -> bool:
    path = name.split(".")
    if any(component in vocabulary.QUANTIZED_NAMES for component in path):
        return True
    narrow_float = dtype.startswith(("F8_", "F6_", "F4"))
    return narrow_float or (path[-1] == "weight" and dimensions > 1 and _is_integer(dtype))


def _is_integer(dtype: str) -> bool:
    return dtype.startswith(("I", "U", "BOOL"))


# ── 2. the layers ────────────────────────────────────────────────────────────────────────────────


def _find_layers(shapes: Shapes, dtypes: Mapping[str, str]) -> _Model:
    stacks: dict[Path, set[int]] = {}
    for name in shapes:
        path = tuple(name.split("."))
        at = _layer_number_at(path)
        if at is not None:
            stacks.setdefault(path[:at], set()).add(int(path[at]))
    if not stacks:
        raise AnatomyError(
            "no layers found: no name has a layer number followed by attention or mlp, as in "
            f"'model.layers.0.self_attn.q_proj.weight'. The names are: {listed(shapes)}. safeswap "
            "merges transformer language models; give the checkpoint of one.",
            shapes,
        )
    if len(stacks) > 1:
        raise _several_stacks(stacks, shapes)
    (stack,) = stacks
    # Not only the numbers above: a layer of which only norms are left is a layer that lacks some.
    positions = (_position(tuple(name.split(".")), stack) for name in shapes)
    seen = {position[0] for position in positions if position is not None}
    absent = max(seen) + 1 - len(seen)
    if absent:
        first = islice((str(n) for n in count() if n not in seen), min(absent, 5))
        raise AnatomyError(
            f"{absent} of the layers under {_label(stack)} are missing: they go up to {max(seen)}, "
            f"but there is no layer {', '.join(first)}{' …' if absent > 5 else ''}. Is a shard "
            "missing, or were layers removed without renumbering the rest?"
        )
    return _Model(shapes, dtypes, stack, len(seen))


def _layer_number_at(path: Path) -> int | None:
    """Where the layer number is: the first number followed by a block before the next number."""
    numbers = [i for i, component in enumerate(path) if vocabulary.is_number(component)]
    for at, following in pairwise([*numbers, len(path)]):
        if vocabulary.block_of(path[at + 1 : following]) is not None:
            return at
    return None


def _several_stacks(stacks: Mapping[Path, set[int]], shapes: Shapes) -> AnatomyError:
    largest_first = sorted(stacks, key=lambda s: (-len(stacks[s]), s))
    counted = [f"{_label(s)} (layers {_ranges(sorted(stacks[s]))})" for s in largest_first]
    parts = {component for stack in stacks for component in stack}
    if any(vocabulary.has_word(c, vocabulary.OTHER_MODALITIES) for c in parts):
        reason = "This looks like a model that also reads images or sound."
    elif {"encoder", "decoder"} <= parts:
        reason = "This looks like an encoder-decoder."
    else:
        reason = "Extra prediction layers and draft models look like this too."
    names = {name: tuple(name.split(".")) for name in shapes}
    second = [n for n, path in names.items() if any(_position(path, s) for s in largest_first[1:])]
    return AnatomyError(
        f"the checkpoint has {len(stacks)} stacks of layers: {listed(counted)}. {reason} safeswap "
        "merges models with one text stack: save the language model alone (load it with "
        "AutoModelForCausalLM, take its text part, save_pretrained) and give that.",
        second,
    )


def _label(stack: Path) -> str:
    return repr(".".join(stack)) if stack else "the top level"


# ── 3. and 4. one tensor ─────────────────────────────────────────────────────────────────────────


def _place(name: str, model: _Model) -> Placement | None:
    position = model.position(name)
    if position is None:
        return _place_outside(name, model)
    layer, rest = position
    block = vocabulary.block_of(rest)
    if _is_buffer(name, rest, model):
        # Masks and rotary frequencies that sit straight in a layer serve its attention.
        return Placement(f"{layer}.{block or 'attention'}", "buffer")
    if _is_norm(name, rest, model):
        return Placement(f"{layer}.norms", "norm")
    if block is not None and not vocabulary.named_norm(rest):
        return Placement(f"{layer}.{block}", "projection")
    return None


def _place_outside(name: str, model: _Model) -> Placement | None:
    own = _outer_path(name, model.stack)
    if any(vocabulary.has_word(component, vocabulary.OTHER_MODALITIES) for component in own):
        return None
    if _is_buffer(name, own, model):
        return Placement("embeddings", "buffer")
    if own[0] in vocabulary.LM_HEAD_NAMES:
        return Placement("lm_head", "outside")
    if vocabulary.has_word(own[0], vocabulary.EMBEDDING_WORDS):
        return Placement("embeddings", "outside")
    if _is_outer_norm(name, model):
        return Placement("final_norm", "outside")
    return None


def _outer_path(name: str, stack: Path) -> Path:
    """The path of a tensor outside the layers from where it leaves the way to the layers."""
    path = tuple(name.split("."))
    common = 0
    while common < min(len(path) - 1, len(stack)) and path[common] == stack[common]:
        common += 1
    return path[common:]


def _is_outer_norm(name: str, model: _Model) -> bool:
    """A vector in a norm that stands beside the layers, not inside another module."""
    own = _outer_path(name, model.stack)
    return (
        len(vocabulary.owner(own)) == 1
        and vocabulary.named_norm(own)
        and len(model.shapes[name]) == 1
    )


def _is_buffer(name: str, path: Path, model: _Model) -> bool:
    return is_buffer(path, model.shapes[name], model.dtypes.get(name, ""))


def is_buffer(path: Sequence[str], shape: tuple[int, ...], dtype: str) -> bool:
    """Whether a tensor is stored although nothing in it was trained: masks, indices, frequencies.

    Args:
        path: the components of its name, of which the last counts.
        dtype: as safetensors writes it; empty where it is not known.
    """
    if path[-1] in vocabulary.BUFFER_NAMES or _is_integer(dtype):
        return True
    if tuple(path[-2:]) in vocabulary.BUFFER_ENDS:
        return True
    mask_shaped = len(shape) == 4 and shape[:2] == (1, 1) and shape[2] == shape[3]
    return mask_shaped and path[-1] in vocabulary.MASK_NAMES


def _is_norm(name: str, path: Path, model: _Model) -> bool:
    if vocabulary.named_norm(path):
        return _is_small(name, model)
    # A weight that is a vector can only scale: no projection has one. Its bias goes with it.
    weight = f"{name.removesuffix('bias')}weight" if path[-1] == "bias" else name
    return weight.endswith(".weight") and len(model.shapes.get(weight, ())) == 1


def _is_small(name: str, model: _Model) -> bool:
    """No more numbers than any model is wide: Cohere's norms per head are [heads, width of head].

    A matrix that calls itself a norm is left unplaced rather than believed.
    """
    shape = model.shapes[name]
    return len(shape) < 2 or (len(shape) == 2 and math.prod(shape) <= _widest(name, model))


def _widest(name: str, model: _Model) -> int:
    """The longest side among the matrices beside a norm, in the same module of the same layer."""
    around = name.rsplit(".", 2)[0] + "."
    sides = [max(s) for n, s in model.shapes.items() if n != name and n.startswith(around) and s]
    return max(sides, default=0)


def _place_by_width(unclear: list[str], placements: dict[str, Placement], model: _Model) -> None:
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


def _find_final_norm(placements: dict[str, Placement], model: _Model) -> None:
    """Take LFM2's ``embedding_norm`` for the final norm: with no other, a norm outside is the last.

    Both units are outside the layers, so a model that this misreads is merged the same.
    """
    outside = [name for name, p in placements.items() if p.role == "outside"]
    if all(placements[name].unit != "final_norm" for name in outside):
        for name in outside:
            if placements[name].unit == "embeddings" and _is_outer_norm(name, model):
                placements[name] = Placement("final_norm", "outside")


# ── 5. what is left ──────────────────────────────────────────────────────────────────────────────


def _not_placed(
    unclear: list[str], placements: Mapping[str, Placement], model: _Model
) -> AnatomyError:
    by_pattern: dict[str, list[str]] = {}
    for name in unclear:
        position = model.position(name)
        pattern = ".".join((*model.stack, "*", *position[1])) if position else name
        by_pattern.setdefault(pattern, []).append(name)
    lines = [_describe(pattern, names, model) for pattern, names in by_pattern.items()]
    shown = lines[:12] + ([f"... and {len(lines) - 12} more kinds"] if len(lines) > 12 else [])
    modal = any(
        vocabulary.has_word(c, vocabulary.OTHER_MODALITIES) for n in unclear for c in n.split(".")
    )
    remedy = (
        "They belong to a part that reads images or sound; save the language model alone and give "
        "that."
        if modal
        else "If this is the checkpoint of a language model, please report these names; parts that "
        "are not (reward heads, extra prediction layers) can be left out by loading it with "
        "AutoModelForCausalLM and saving it again."
    )
    return AnatomyError(
        f"{len(unclear)} of {len(model.shapes)} tensors cannot be placed in a unit:\n  "
        + "\n  ".join(shown)
        + f"\nUnderstood: {_understood(placements, model)}.\n{remedy}",
        unclear,
    )


def _describe(pattern: str, names: list[str], model: _Model) -> str:
    sizes = sorted({str(list(model.shapes[name])) for name in names})
    if len(names) == 1:
        return f"{names[0]}  {sizes[0]}"
    return f"{pattern}  {' or '.join(sizes[:2])}  in {len(names)} layers, first {names[0]}"


def _understood(placements: Mapping[str, Placement], model: _Model) -> str:
    """What is known of the model, for an error: the stack and what was read as which unit."""
    parts: dict[str, set[str]] = {}
    for name, placement in placements.items():
        position = model.position(name)
        if position is not None and placement.role != "buffer":
            parts.setdefault(placement.unit.partition(".")[2], set()).add(position[1][0])
    found = [f"{kind} in {listed(sorted(parts[kind]), 4)}" for kind in LAYER_KINDS if kind in parts]
    return f"{model.layers} layers under {_label(model.stack)}" + "".join(f"; {f}" for f in found)


def _require_whole_layers(placements: Mapping[str, Placement], model: _Model) -> None:
    present = {p.unit for p in placements.values() if p.role != "buffer"}
    # Norms without weights (OLMo 1, nanochat) store nothing; then no layer has any.
    weightless = not any(p.role == "norm" for p in placements.values())
    needed = [kind for kind in LAYER_KINDS if not (weightless and kind == "norms")]
    lacking: dict[str, list[int]] = {}
    for layer in range(model.layers):
        kinds = [kind for kind in needed if f"{layer}.{kind}" not in present]
        if kinds:
            lacking.setdefault(" and no ".join(kinds), []).append(layer)
    if not lacking:
        return
    said = [f"no {kinds} in layer {_ranges(layers)}" for kinds, layers in lacking.items()]
    incomplete = {layer for layers in lacking.values() for layer in layers}
    raise AnatomyError(
        f"every layer must have {' and '.join(needed)}, but there is {'; '.join(said)}. "
        f"Understood: {_understood(placements, model)}. {_why_lacking(lacking, model)}",
        (n for n, p in placements.items() if layer_of(p.unit) in incomplete),
    )


def _why_lacking(lacking: Mapping[str, list[int]], model: _Model) -> str:
    everywhere = [kinds for kinds, layers in lacking.items() if len(layers) == model.layers]
    if any("mlp" in kinds or "attention" in kinds for kinds in lacking) and (
        everywhere or sum(map(len, lacking.values())) * 4 > model.layers
    ):
        return (
            "Layers made of a single block (Mamba, Nemotron-H) have no attention and mlp to decide "
            "between; such models are not supported."
        )
    return "Is a shard missing, or were tensors removed?"


def _ranges(numbers: list[int]) -> str:
    """``0-3, 7, 9-11`` for ascending numbers."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
