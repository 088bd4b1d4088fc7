"""What is compared with the masks: every method and operator of the package, and its controls.

Methods have their own defaults and a few settings beside them; the bands of the upper and lower
half were added when the best masks of one seed and language had been seen. Weights are made in
memory by the package's own plan and merge code, rounded as `safeswap merge` rounds them, and
nothing is written to disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from safeswap.checkpoint.family import Family
from safeswap.checkpoint.numerics import decode
from safeswap.io.blas import one_thread
from safeswap.merge.chunks import chunk_bytes
from safeswap.merge.prepare import prepare
from safeswap.merge.stream import run_passes
from safeswap.operators import OPERATORS
from safeswap.plan import Plan, PlannedUnit, fill_plan
from safeswap.profile import Profile
from safeswap.roles import SAFETY

DRAWS = 16
"""Tables of each random control."""


@dataclass(frozen=True)
class Candidate:
    """One model to measure.

    Attributes:
        name: unique; the draws of a random control share all but what follows " #".
        group: the part of the table it stands in.
        options: of `fill_plan`, method and operator among them.
        gate: take the table for a gate: all of the language, plus safety's vector where it says
            safety. A control for ``gated``, with any table.
    """

    name: str
    group: str
    options: Mapping[str, Any] = field(default_factory=dict)
    gate: bool = False

    def plan(self, profile: Profile, language: str) -> Plan:
        """Its plan for one language."""
        plan = fill_plan(profile, language, **self.options)
        if not self.gate:
            return plan
        rows = {unit: _gate(row, language) for unit, row in plan.units.items()}
        return replace(plan, units=rows)


def _gate(row: PlannedUnit, language: str) -> PlannedUnit:
    opened = 1.0 if row.decision == SAFETY else 0.0
    return replace(row, weights={SAFETY: opened, language: 1.0})


def _weights(safety: float, language: float, **more: Any) -> dict[str, Any]:
    pair = {"weight_safety": safety, "weight_language": language}
    return {"method": "uniform", "form": "weights", **pair, **more}


def all_candidates() -> tuple[Candidate, ...]:
    """Every candidate, in the order of the tables."""
    made = [
        Candidate("base", "reference", _weights(0.0, 0.0)),
        Candidate("safety expert", "reference", _weights(1.0, 0.0)),
        Candidate("language expert", "reference", _weights(0.0, 1.0)),
    ]

    def add(group: str, name: str, method: str, gate: bool = False, **options: Any) -> None:
        made.append(Candidate(name, group, {"method": method, **options}, gate))

    for by in ("module", "layer"):
        add("method", f"share-difference by {by}", "share-difference", by=by)
    add("method", "share-difference by module, τ = 0", "share-difference", tau=0.0)
    add("method", "share-difference by module, τ = 0.01", "share-difference", tau=0.01)
    for by in ("module", "layer"):
        add("method", f"gated by {by}", "gated", by=by)
    add("method", "gated by module, γ = 0.5", "gated", gamma=0.5)
    add("method", "gated by module, blends half open", "gated", alpha=0.5)
    for alpha in (0.25, 0.5, 0.75):
        add("method", f"soup, α = {alpha}", "uniform", form="soup", alpha=alpha)
    for scale in (0.4, 0.7):
        form = "task-arithmetic"
        add("method", f"task arithmetic, λ = {scale}", "uniform", form=form, scale=scale)
    for gamma in (0.5, 1.0, 1.5):
        add("method", f"chat vector, γ = {gamma:g}", "uniform", form="chat-vector", gamma=gamma)
    add("method", "band", "band")
    add("method", "band, upper half", "band", bottom=3, top=0)
    add("method", "band, lower half", "band", bottom=0, top=3)
    add("method", "cosine", "cosine")
    add("method", "cosine, α = 0.5", "cosine", alpha=0.5)
    add("method", "safe-lora", "safe-lora")
    add("method", "safe-lora, from the base", "safe-lora", start="base")
    add("control", "inverted", "inverted")
    add("control", "gated by the inverted table", "inverted", gate=True)
    for n in range(DRAWS):
        add("control", f"random #{n}", "random", seed=n)
        add("control", f"permuted #{n}", "permuted", seed=n)
        add("control", f"gated by a random table #{n}", "random", gate=True, seed=n)
    for name, operator in OPERATORS.items():
        if any(parameter.is_path for parameter in operator.parameters):
            continue  # needs files of the experts' inputs: measured by benchmarks/regmean.py
        for weight in (0.5, 1.0):
            pair = f"({weight:g}, {weight:g})"
            options = _weights(weight, weight, operator=name)
            made.append(Candidate(f"{name}, {pair}", "operator", options))
    return tuple(made)


def merged_state(family: Family, plan: Plan) -> dict[str, Tensor]:
    """The tensors that `safeswap merge` would write for a plan, widened to float32."""
    job = prepare(family, plan)
    made: dict[str, Tensor] = {}
    run_passes([job], workers=1)
    with one_thread():
        for name in job.family.names:
            stored, target = job.family.base.tensors[name], job.dtypes[name]
            values = np.empty(stored.elements, np.float32)
            for chunk in job.chunks(name, stored.elements):
                for at, raw in chunk_bytes(job, chunk):
                    decode(raw, target, values[at : at + len(raw) // target.size])
            made[name] = torch.from_numpy(values.reshape(stored.shape))
    return made
