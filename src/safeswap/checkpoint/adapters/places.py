"""Which of a base's tensors an adapter's module is: the same weights under other names.

An adapter has the names of the model in memory, a checkpoint those of its file: a body stored on
its own lacks the model's first words, and loaders move a text model's. One rule is made for all
names with one beginning, and only where every one of them is then found.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from math import prod

from safeswap.anatomy import vocabulary
from safeswap.checkpoint.adapters.config import LoraConfig
from safeswap.checkpoint.adapters.factors import Factors
from safeswap.checkpoint.adapters.keys import ModuleParts
from safeswap.checkpoint.reader import Tensor
from safeswap.errors import CheckpointError, nearest

_FUSED = {
    "gate_up_proj": (("gate_proj", "up_proj"), ("w1", "w3")),
    "down_proj": (("down_proj",), ("w2",)),
}
"""Parameters of a stack of experts in memory → what each expert may be stored as, in order."""
_TRANSPOSED = ("gpt_oss", "openai_privacy_filter", "aria")
"""Families whose stacks of experts are (expert, in, out) where the shape does not show it."""
_CONV1D = ("c_attn", "c_fc", "c_proj", "q_attn")


def translation(modules: Iterable[str], tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """An adapter's names of modules → the base's; those that no rule finds keep their own."""
    parents = {name.rpartition(".")[0] for name in tensors}
    parents |= {parent.rpartition(".")[0] for parent in parents}
    found = {module: module for module in modules}
    groups: dict[str, list[str]] = defaultdict(list)
    for module in found:
        if module not in parents:
            groups[_split(module)[0]].append(module)
    cores: dict[str, set[str]] = defaultdict(set)
    for parent in parents:
        beginning, core = _split(parent)
        cores[beginning].add(core)
    for beginning, group in groups.items():
        wanted = {_split(module)[1] for module in group}
        homes = [home for home, there in cores.items() if wanted <= there]
        alike = [home for home in homes if _modal(home) == _modal(beginning)]
        homes = alike if len(alike) == 1 else homes
        if len(homes) == 1:
            found |= {module: homes[0] + _split(module)[1] for module in group}
    return found


def _modal(beginning: str) -> bool:
    words = vocabulary.OTHER_MODALITIES
    return any(vocabulary.has_word(part, words) for part in beginning.split("."))


def _split(name: str) -> tuple[str, str]:
    """What stands before the list of layers (or the last word), and the rest."""
    parts = name.split(".")
    at = next((n for n, part in enumerate(parts) if part.isdigit()), len(parts))
    at = max(0, at - 1)
    return "".join(f"{part}." for part in parts[:at]), ".".join(parts[at:])


def conv1d(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the base stores its projections as (in, out), as GPT-2 does: a weight's bias is as
    long as its last size and not as its first.
    """
    for name, tensor in tensors.items():
        bias = tensors.get(f"{name.removesuffix('weight')}bias")
        if name.split(".")[-2:-1] and name.split(".")[-2] in _CONV1D and bias is not None:
            sizes = tensor.shape
            if name.endswith(".weight") and len(sizes) == 2 and sizes[0] != sizes[1]:
                return bias.shape == sizes[1:]
    return False


def factors_of(
    config: LoraConfig, parts: ModuleParts, tensor: Tensor, stored_as_conv1d: bool
) -> Factors:
    """The update of a module's ``weight``.

    Raises:
        CheckpointError: ranks or shapes that do not fit; says which.
    """
    embedding = "lora_embedding_A" in parts.parts
    kinds = ("lora_embedding_A", "lora_embedding_B") if embedding else ("lora_A", "lora_B")
    a, b = (_part(config, parts, kind) for kind in kinds)
    rank = _rank(config, parts.module, a, b)
    inputs, outputs = a.shape[1:], b.shape[0]
    rows, columns = tensor.shape[:1], tensor.shape[1:]
    straight = (outputs, *inputs) == tensor.shape and prod(b.shape[1:]) == rank
    turned = len(tensor.shape) == 2 and (inputs, (outputs,)) == (rows, columns)
    if embedding:
        straight = False
    elif straight and turned:
        turned = stored_as_conv1d or (config.fan_in_fan_out and not tensor.name.endswith("head"))
        straight = not turned
    if not straight and not turned:
        raise _unfit(config, parts.module, a, b, tensor)
    scale = config.scale(parts.module)
    return Factors(tensor.shape, a, b, scale, rank, transposed=not straight, embedding=embedding)


def experts_of(
    config: LoraConfig,
    wrappers: list[ModuleParts],
    module: str,
    tensors: Mapping[str, Tensor],
    family: str,
) -> list[tuple[ModuleParts, str, str, Factors]]:
    """The updates of parameters that are no module's ``weight`` (``target_parameters``).

    Args:
        wrappers: of one module, the innermost (the first parameter) first.
        module: its name in the base.
        family: the base's model type.

    Returns:
        For every tensor that is changed the wrapper, its parameter, the base's name, the update.

    Raises:
        CheckpointError: no such parameters, or several ways in which the shapes fit.
    """
    wanted = [t.rpartition(".")[2] for t in config.target_parameters if _meant(t, wrappers[0])]
    whole = [n for n in dict.fromkeys(wanted) if f"{module}.{n}" in tensors]
    apart = [
        n for n in dict.fromkeys(wanted) if n not in whole and _stored_apart(module, n, tensors)
    ]
    names = sorted({*whole, *apart}, key=lambda n: (n != "gate_up_proj", n))
    ordered = [*dict.fromkeys(sorted(wanted, key=lambda n: names.index(n) if n in names else 99))]
    if len(ordered) != len(wrappers) or len(names) != len(wrappers):
        raise CheckpointError(
            f"{config.path}: its tensors change {len(wrappers)} parameters of "
            f"{wrappers[0].module}, and target_parameters that the base has there are "
            f"{', '.join(names) or 'none'}{nearest(module, tensors) if not names else '.'} "
            "Give the base that it was trained on."
        )
    fits = []
    for order in _orders(names):
        try:
            fits.append(
                [
                    (wrapper, name, *one)
                    for wrapper, name in zip(wrappers, order, strict=True)
                    for one in _stack(config, wrapper, module, name, tensors, family)
                ]
            )
        except CheckpointError as error:
            failed = error
    if not fits:
        raise failed
    return fits[0]


def _orders(names: list[str]) -> list[list[str]]:
    """The given order first: the shapes choose where it does not fit."""
    return [names] if len(names) == 1 else [names, names[::-1]]


def _meant(target: str, wrapper: ModuleParts) -> bool:
    """Whether a target names a parameter of the module, as peft compares them."""
    owner = target.rpartition(".")[0]
    return not owner or wrapper.module == owner or wrapper.module.endswith(f".{owner}")


def _stored_apart(
    module: str, parameter: str, tensors: Mapping[str, Tensor]
) -> tuple[str, ...] | None:
    for words in _FUSED.get(parameter, ()):
        if all(f"{module}.0.{word}.weight" in tensors for word in words):
            return words
    return None


def _stack(
    config: LoraConfig,
    wrapper: ModuleParts,
    module: str,
    parameter: str,
    tensors: Mapping[str, Tensor],
    family: str,
) -> list[tuple[str, Factors]]:
    a, b = (_part(config, wrapper, kind) for kind in ("lora_A", "lora_B"))
    key = f"{wrapper.module}.{parameter}"
    rank, scale = config.rank(key), config.scale(key)
    stored = tensors.get(f"{module}.{parameter}")
    if stored is not None and len(stored.shape) == 3:
        number, first, last = stored.shape
        fits = a.shape[0] == b.shape[1] == rank * number
        straight = (b.shape[0], a.shape[1]) == (first, last)
        turned = (a.shape[1], b.shape[0]) == (first, last)
        if not fits or not (straight or turned):
            raise _unfit(config, key, a, b, stored)
        transposed = not straight or (turned and family in _TRANSPOSED)
        made = Factors(stored.shape, a, b, scale, rank, transposed, number)
        return [(f"{module}.{parameter}", made)]
    if stored is not None:
        plain = ModuleParts(
            key, {"lora_A": wrapper.parts["lora_A"], "lora_B": wrapper.parts["lora_B"]}
        )
        return [(f"{module}.{parameter}", factors_of(config, plain, stored, False))]
    words = _stored_apart(module, parameter, tensors) or ()
    number = 0
    while f"{module}.{number}.{words[0]}.weight" in tensors:
        number += 1
    made_apart = []
    for expert in range(number):
        offset = 0
        for word in words:
            name = f"{module}.{expert}.{word}.weight"
            one = tensors[name]
            if a.shape != (rank * number, one.shape[1]) or b.shape[1] != rank * number:
                raise _unfit(config, key, a, b, one)
            made_apart.append(
                (name, Factors(one.shape, a, b, scale, rank, False, number, expert, offset))
            )
            offset += one.shape[0]
        if offset != b.shape[0]:
            raise _unfit(config, key, a, b, one)
    return made_apart


def _part(config: LoraConfig, parts: ModuleParts, kind: str) -> Tensor:
    tensor = parts.parts.get(kind)
    if tensor is None:
        there = next(iter(parts.parts.values()))
        raise CheckpointError(
            f"{there.where}: holds {there.name!r} without its {kind}. The adapter is not whole; "
            "fetch or save it again."
        )
    if len(tensor.shape) < 2 or not tensor.elements or not tensor.dtype.mergeable:
        raise CheckpointError(
            f"{tensor.where}: {tensor.name!r} is {tensor.dtype} of shape {list(tensor.shape)}, no "
            "factor of an update. It may be a part of one that training had cut up (FSDP, "
            "DeepSpeed ZeRO-3); gather it before saving."
        )
    return tensor


def _rank(config: LoraConfig, module: str, a: Tensor, b: Tensor) -> int:
    rank = config.rank(module)
    if a.shape[0] != rank or b.shape[1] != rank:
        raise CheckpointError(
            f"{a.where}: {a.name!r} has shape {list(a.shape)} and {b.name!r} {list(b.shape)}, but "
            f"{config.path.name} says rank {rank} for {module}. The two files are of different "
            "adapters; fetch both again."
        )
    return rank


def _unfit(
    config: LoraConfig, module: str, a: Tensor, b: Tensor, tensor: Tensor
) -> CheckpointError:
    return CheckpointError(
        f"{a.where}: {a.name!r} {list(a.shape)} and {b.name!r} {list(b.shape)} do not fit the "
        f"base's {tensor.name!r} {list(tensor.shape)} ({tensor.where}). Give the base that the "
        "adapter was trained on."
    )
