"""Trios of mixtures of experts, and the merge of them computed in float64 by transformers' state.

The oracle shares no code with safeswap: it loads each checkpoint with transformers, which brings
whatever is stored to one layout (``experts.gate_up_proj``: all experts in one tensor), reads the
names with expressions of its own, and merges expert by expert.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from families import tiny_model

State = dict[str, torch.Tensor]
ROLES = ("base", "safety", "sw")
_PART = re.compile(
    r"model\.layers\.(\d+)\.(?:(self_attn\.)|(.*norm.*)|(?:mlp|feed_forward|block_sparse_moe)\.(.+)|"
    r"(shared_mlp\..+))"
)


def save_trio(
    folder: Path, family: str, apart: dict[str, bool] | None = None, dtype: Any = torch.float32
) -> dict[str, Path]:
    """A base and two experts whose updates differ in size from tensor to tensor and from expert to
    expert of the mixture; `apart`: who is saved in transformers' new layout (False) or, the
    default, in the old one.
    """
    base = tiny_model(family, seed=0, tie=False).to(dtype)
    with torch.no_grad():
        for name, weight in base.state_dict().items():
            if "bias" in name:
                weight.copy_(torch.randn(weight.shape) * 0.1)
            elif "experts." in name:  # tensors of experts are not always drawn
                weight.copy_(torch.randn(weight.shape) * 0.05)
    start = {name: weight.clone() for name, weight in base.state_dict().items()}
    trio = {role: folder / role for role in ROLES}
    for seed, role in enumerate(ROLES):
        chance = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, weight in base.state_dict().items():
                if seed and weight.is_floating_point():
                    rows = weight.shape[0] if weight.dim() == 3 else 1
                    size = 0.02 * (0.2 + torch.rand(rows, generator=chance)) * start[name].std()
                    noise = torch.randn(weight.shape, generator=chance)
                    shape = (rows, *[1] * (weight.dim() - 1))
                    weight.copy_((start[name] + noise * size.reshape(shape)).to(dtype))
        base.save_pretrained(trio[role], save_original_format=(apart or {}).get(role, True))
    return trio


def loaded(folder: Path) -> State:
    """The state of a checkpoint as transformers holds it, in float64."""
    auto: Any = AutoModelForCausalLM
    model, info = auto.from_pretrained(folder, dtype="auto", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"], info
    return {name: weight.double() for name, weight in model.state_dict().items()}


@dataclass(frozen=True)
class Merged:
    """The merged state, and the decision of every key."""

    state: State
    decisions: dict[str, str]
    difference: dict[str, float]


def part_of(name: str) -> tuple[str | None, str]:
    """The layer (None outside) and attention, norms, router, shared_experts, experts or mlp."""
    match = _PART.match(name)
    if match is None:
        assert ".layers." not in name, name
        return None, "outside"
    layer, attention, norm, inside, shared = match.groups()
    if norm:
        return layer, "norms"
    if attention:
        return layer, "attention"
    if shared or inside.startswith(("shared_expert", "shared_mlp")):
        return layer, "shared_experts"
    if inside.startswith("experts."):
        return layer, "experts"
    routers = ("gate.weight", "gate.e_score", "router.")
    return layer, "router" if inside.startswith(routers) else "mlp"


def merge(
    base: State,
    safety: State,
    spoken: State,
    *,
    by: str,
    halves: bool,
    router: str | None = None,
    shared: str | None = None,
    tau: float | None = None,
) -> Merged:
    """The paper's rule by module or by expert, and what it makes of every tensor.

    Args:
        halves: gate and up of an expert are stored apart, and so count as two tensors.
        router, shared: policies; as the defaults are by module or by expert where None.
    """
    router = router or ("language" if by == "expert" else "follow")
    shared = shared or ("own" if by == "expert" else "follow")
    r: dict[str, dict[int, list[float]]] = {}

    def count(key: str, one: torch.Tensor, two: torch.Tensor, three: torch.Tensor) -> None:
        own = r.setdefault(key, {0: [], 1: []})
        for side, other in enumerate((two, three)):
            own[side].append((other - one).norm().item() / (one.norm().item() or 1.0))

    mixed = {part_of(name)[0] for name in base if part_of(name)[1] == "experts"}
    for name, one in base.items():
        layer, kind = part_of(name)
        if kind in ("outside", "norms"):
            continue
        pieces = [(kind, one, safety[name], spoken[name])]
        if kind == "experts" and (by == "expert" or halves):
            pieces = [
                (f"experts.{e}", *(state[name][e] for state in (base, safety, spoken)))
                for e in range(len(one))
            ]
        for what, *own in pieces:
            key = f"{layer}.{what}"
            if by == "module" and layer in mixed and what != "attention":
                key = f"{layer}.mlp"
            elif what == "router" or (what == "shared_experts" and shared != "own"):
                continue
            cut = halves and "gate_up_proj" in name
            for run in zip(*(t.chunk(2) for t in own), strict=True) if cut else [own]:
                count(key, *run)
    n = [{k: sum(v * v for v in own[side]) ** 0.5 for k, own in r.items()} for side in (0, 1)]
    shares = [{k: v / (sum(one.values()) + 1e-8) for k, v in one.items()} for one in n]
    difference = {k: shares[0][k] - shares[1][k] for k in shares[0]}
    limit = tau if tau is not None else 0.001 if by == "module" else 0.064 / len(difference)
    decisions = {
        k: "safety" if d > limit else "language" if d < -limit else "blend"
        for k, d in difference.items()
    }

    def joined(decision: str, *own: torch.Tensor) -> torch.Tensor:
        one, two, three = own
        mean = (two + three) / 2
        return {"safety": two, "language": three, "base": one, "blend": mean}[decision].clone()

    def made(name: str) -> torch.Tensor:
        own = (base[name], safety[name], spoken[name])
        layer, kind = part_of(name)
        if kind == "outside":
            return joined("blend", *own)
        if kind == "norms":
            return joined("language", *own)
        policy = {"router": router, "shared_experts": shared}.get(kind, "own")
        told = by == "expert" or policy not in ("own", "follow")
        if layer in mixed and kind != "attention" and not told:
            return joined(decisions[f"{layer}.mlp"], *own)
        if kind == "experts" or (kind == "router" and router == "follow"):
            rows = [
                joined(decisions[f"{layer}.experts.{e}"], *(t[e] for t in own))
                for e in range(len(own[0]))
            ]
            return torch.stack(rows)
        return joined(decisions[f"{layer}.{kind}"] if policy == "own" else policy, *own)

    return Merged({name: made(name) for name in base}, decisions, difference)


def same_logits(folder: Path, expected: State) -> bool:
    """Whether a checkpoint answers as the model with the expected weights does."""
    auto: Any = AutoModelForCausalLM
    ask = torch.tensor([[1, 5, 9, 33, 21, 4]])
    answers = []
    load: Callable[..., Any] = auto.from_pretrained
    for weights in (None, expected):
        model = load(folder, dtype=torch.float32).eval()
        if weights is not None:
            model.load_state_dict({name: weight.float() for name, weight in weights.items()})
        with torch.no_grad():
            answers.append(model(ask).logits)
    return torch.allclose(answers[0], answers[1], atol=1e-5, rtol=1e-4)


def names_in(folder: Path) -> set[str]:
    """The names that a checkpoint's files store."""
    return {name for file in folder.glob("*.safetensors") for name in load_file(file)}
