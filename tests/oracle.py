"""The paper's rules computed directly in float64 on state dicts, as DESIGN states them.

Written from the text of the rules and sharing no code with safeswap: names are read with regular
expressions of its own (Llama-, Qwen2- and Phi-3-shaped), norms are plain float64 norms of whole
tensors, and the merged weights are given unrounded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

State = dict[str, torch.Tensor]


def state_of(folder: Path) -> State:
    """All tensors of a checkpoint's safetensors files."""
    files = sorted(folder.glob("*.safetensors"))
    return {name: weight for file in files for name, weight in load_file(file).items()}


@dataclass(frozen=True)
class Expected:
    """What the rules say: the merged weights in float64, and how they were reached.

    `decisions` and `difference` are keyed by unit ("3" by layer, "3.mlp" by module); `source` says
    per tensor which expert it is copied from, or "base", or None for a blend.
    """

    weights: State
    decisions: dict[str, str]
    difference: dict[str, float]
    source: dict[str, str | None]


def place(name: str) -> tuple[str | None, str]:
    """The layer of a tensor (None outside the layers) and attention, mlp, norms or buffer."""
    match = re.match(r"model\.layers\.(\d+)\.(.+)", name)
    if match is None:
        return None, "outside"
    layer, rest = match.groups()
    if rest.endswith("inv_freq"):
        return layer, "buffer"
    if "layernorm" in rest:
        return layer, "norms"
    return layer, "attention" if rest.startswith("self_attn.") else "mlp"


def relative(expert: torch.Tensor, base: torch.Tensor) -> float:
    """r_e(W), with the plain norm where the base's is at most 1e-8."""
    norm = (base.double() ** 2).sum().sqrt().item()
    moved = ((expert.double() - base.double()) ** 2).sum().sqrt().item()
    return moved if norm <= 1e-8 else moved / norm


def shares(base: State, expert: State, by: str) -> dict[str, float]:
    """p_e(u) of every unit."""
    r: dict[str, list[float]] = {}
    for name in base:
        layer, kind = place(name)
        if kind in ("attention", "mlp"):
            key = str(layer) if by == "layer" else f"{layer}.{kind}"
            r.setdefault(key, []).append(relative(expert[name], base[name]))
    if by == "layer":
        n = {unit: sum(values) for unit, values in r.items()}
    else:
        n = {unit: sum(v * v for v in values) ** 0.5 for unit, values in r.items()}
    total = sum(n.values()) + 1e-8
    return {unit: value / total for unit, value in n.items()}


def expect(
    base: State,
    safety: State,
    spoken: State,
    *,
    by: str,
    tau: float,
    tau_relative: bool = False,
    alpha: float = 0.5,
    norms: str | None = None,
    outside: str = "blend",
) -> Expected:
    """The merged checkpoint of the rules; the language expert is the donor of buffers."""
    ours, theirs = shares(base, safety, by), shares(base, spoken, by)
    threshold = tau / len(ours) if tau_relative else tau
    difference = {unit: ours[unit] - theirs[unit] for unit in ours}
    decisions = {
        unit: "safety" if d > threshold else "language" if d < -threshold else "blend"
        for unit, d in difference.items()
    }
    norms = norms or ("follow" if by == "layer" else "language")

    def decision(name: str) -> str:
        layer, kind = place(name)
        if kind == "buffer":
            return "language"
        if layer is None:
            return outside
        if kind != "norms":
            return decisions[layer if by == "layer" else f"{layer}.{kind}"]
        if norms != "follow":
            return norms
        if by == "layer":
            return decisions[layer]
        pair = {decisions[f"{layer}.attention"], decisions[f"{layer}.mlp"]}
        return pair.pop() if len(pair) == 1 else "blend"

    weights: State = {}
    source: dict[str, str | None] = {}
    for name, stored in base.items():
        made = decision(name)
        if made == "blend":
            weights[name] = alpha * safety[name].double() + (1 - alpha) * spoken[name].double()
            source[name] = None
        else:
            chosen = {"safety": safety[name], "language": spoken[name], "base": stored}[made]
            weights[name] = chosen.double()
            source[name] = made
    return Expected(weights, decisions, difference, source)


_BITS = {torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float16: torch.int16}


def steps_apart(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """How many representable numbers lie between two tensors of one dtype, element by element."""

    def ordered(values: torch.Tensor) -> torch.Tensor:
        kind = _BITS[values.dtype]
        bits = values.contiguous().view(kind).long()
        return torch.where(bits < 0, torch.iinfo(kind).min - bits, bits)

    return (ordered(left) - ordered(right)).abs()
