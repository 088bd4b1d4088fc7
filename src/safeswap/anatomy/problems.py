"""What an anatomy is refused for, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from safeswap.anatomy import vocabulary
from safeswap.anatomy.model import Model, Path, Shapes
from safeswap.anatomy.units import LAYER_KINDS, Placement, label_of
from safeswap.errors import AnatomyError, listed


def refuse_leftovers(shapes: Shapes, dtypes: Mapping[str, str]) -> None:
    """Refuse leftovers of adapters and of quantization: their numbers are not weights.

    Raises:
        AnatomyError: names the tensors.
    """
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
    return narrow_float or (path[-1] == "weight" and dimensions > 1 and is_integer(dtype))


def is_integer(dtype: str) -> bool:
    """Whether a dtype, as safetensors writes it, counts and does not measure."""
    return dtype.startswith(("I", "U", "BOOL"))


def several_stacks(
    stacks: Mapping[Path, set[int]], chosen: Sequence[Path], shapes: Shapes
) -> AnatomyError:
    """The error for stacks of which it cannot be said which one is the text."""
    largest_first = sorted(stacks, key=lambda s: (-len(stacks[s]), s))
    counted = [f"{label(s)} (layers {ranges(sorted(stacks[s]))})" for s in largest_first]
    if not chosen:
        reason = "All of them look like parts that read images or sound."
    else:
        reason = (
            f"It cannot be said which of them is the text: {listed([label(s) for s in chosen])}."
        )
    rest = [".".join(path) + "." if path else "" for path in largest_first[1:]]
    second = [n for n in shapes if any(n.startswith(r) and r for r in rest)]
    if "" in rest:
        second += [n for n in shapes if vocabulary.is_number(n.split(".")[0])]
    return AnatomyError(
        f"the checkpoint has {len(stacks)} stacks of layers: {listed(counted)}. {reason} safeswap "
        "merges models with one text stack, alone or beside towers for images and sound, and "
        "encoder-decoders: save the language model alone (load it with AutoModelForCausalLM, "
        "take its text part, save_pretrained) and give that.",
        second,
    )


def label(stack: Path) -> str:
    """A stack in a message."""
    return repr(".".join(stack)) if stack else "the top level"


def not_placed(
    unclear: list[str], placements: Mapping[str, Placement], model: Model
) -> AnatomyError:
    """The error for tensors that no rule takes."""
    by_pattern: dict[str, list[str]] = {}
    for name in unclear:
        position = model.position(name)
        pattern = name
        if position is not None:
            front = name.removesuffix(".".join(position[1])).rstrip(".").rpartition(".")[0]
            pattern = ".".join(filter(None, (front, "*", *position[1])))
        by_pattern.setdefault(pattern, []).append(name)
    lines = [_describe(pattern, names, model) for pattern, names in by_pattern.items()]
    shown = lines[:12] + ([f"... and {len(lines) - 12} more kinds"] if len(lines) > 12 else [])
    return AnatomyError(
        f"{len(unclear)} of {len(model.shapes)} tensors cannot be placed in a unit:\n  "
        + "\n  ".join(shown)
        + f"\nUnderstood: {_understood(placements, model)}.\n"
        "If this is the checkpoint of a language model, please report these names; parts that "
        "are not (reward heads) can be left out by loading it with AutoModelForCausalLM and "
        "saving it again.",
        unclear,
    )


def _describe(pattern: str, names: list[str], model: Model) -> str:
    sizes = sorted({str(list(model.shapes[name])) for name in names})
    if len(names) == 1:
        return f"{names[0]}  {sizes[0]}"
    return f"{pattern}  {' or '.join(sizes[:2])}  in {len(names)} layers, first {names[0]}"


def _understood(placements: Mapping[str, Placement], model: Model) -> str:
    """What is known of the model, for an error: the stacks and what was read as which unit."""
    parts: dict[str, set[str]] = {}
    for name, placement in placements.items():
        position = model.position(name)
        if position is not None and placement.role != "buffer":
            parts.setdefault(placement.unit.rpartition(".")[2], set()).add(position[1][0])
    found = [f"{kind} in {listed(sorted(parts[kind]), 4)}" for kind in LAYER_KINDS if kind in parts]
    stacks = [f"{stack.layers} layers under {label(stack.path)}" for stack in model.stacks]
    return " and ".join(stacks) + "".join(f"; {f}" for f in found)


def refuse_incomplete(placements: Mapping[str, Placement], model: Model) -> None:
    """Refuse layers that lack what layers like them have.

    A layer mixes tokens (attention, a mixer, or both) and has an mlp; or every layer is a single
    block (Mamba, Nemotron-H); or, beside whole layers, some are a mixer alone (Zamba).

    Raises:
        AnatomyError: names the layers and what they lack.
    """
    kinds: dict[str, set[str]] = {layer: set() for layer in model.labels}
    for placement in placements.values():
        layer = label_of(placement.unit)
        if layer is not None and placement.role != "buffer":
            kinds[layer].add(placement.unit.rpartition(".")[2])
    # Norms without weights (OLMo 1, nanochat) store nothing; then no layer has any.
    normed = any(p.role == "norm" for p in placements.values())
    lacking: dict[str, list[str]] = {}
    for layer, present in kinds.items():
        absent = _absent(present, list(kinds.values()))
        absent += ["norms"] if normed and "norms" not in present else []
        if absent:
            lacking.setdefault(" and no ".join(absent), []).append(layer)
    if not lacking:
        return
    said = [f"no {absent} in layer {_ranges_of(layers)}" for absent, layers in lacking.items()]
    incomplete = {layer for layers in lacking.values() for layer in layers}
    needed = "attention and mlp" + (" and norms" if normed else "")
    raise AnatomyError(
        f"every layer must have {needed}, but there is {'; '.join(said)}. "
        f"Understood: {_understood(placements, model)}. "
        "Is a shard missing, or were tensors removed?",
        (n for n, p in placements.items() if label_of(p.unit) in incomplete),
    )


_MIXING = {"attention", "cross_attention", "mixer"}


def _absent(present: set[str], everywhere: Sequence[set[str]]) -> list[str]:
    """Which modules a layer lacks, given what all layers have."""
    modules = [layer - {"norms"} for layer in everywhere]
    own = present - {"norms"}
    single = all(len(layer) == 1 for layer in modules) and {"mixer"} in modules
    if own and (single or (own == {"mixer"} and not any(m == {"mixer", "mlp"} for m in modules))):
        return []
    absent = [] if own & _MIXING else ["attention"]
    return absent + ([] if "mlp" in own else ["mlp"])


def _ranges_of(layers: Sequence[str]) -> str:
    """``0-3, 7`` for the labels of layers; those of an encoder or decoder with the stack's name."""
    stacks: dict[str, list[int]] = {}
    for layer in layers:
        stack, _, number = layer.rpartition(".")
        stacks.setdefault(stack, []).append(int(number))
    return ", ".join(f"{s} {ranges(n)}".strip() for s, n in stacks.items())


def ranges(numbers: list[int]) -> str:
    """``0-3, 7, 9-11`` for ascending numbers."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
