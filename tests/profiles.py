"""Profiles without weights: made of update norms, one of them worked by hand."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from safeswap.profile import InputRecord, Profile, TensorProfile

Moves = Sequence[Sequence[tuple[float, float]]]
"""Per layer the (safety, language) update norms of q, o (attention) and up (mlp); ‖W_base‖ = 2."""

NAMES = (("self_attn.q_proj", "attention"), ("self_attn.o_proj", "attention"), ("mlp.up", "mlp"))


def make_profile(moves: Moves, base_norm: float = 2.0) -> Profile:
    tensors = []
    units = ["embeddings"]

    def add(name: str, unit: str, role: str, safety: float, spoken: float, norm: float) -> None:
        update = {"safety": safety, "sw": spoken}
        digests = {role: role for role in ("base", "safety", "sw")}
        tensors.append(
            TensorProfile(name, unit, role, (1,), "F32", norm, update, {"sw": 0.0}, digests)
        )

    add("embed", "embeddings", "outside", 50.0, 1.0, 1.0)  # never counts
    for layer, row in enumerate(moves):
        for (name, kind), (safety, spoken) in zip(NAMES, row, strict=True):
            add(f"{layer}.{name}", f"{layer}.{kind}", "projection", safety, spoken, base_norm)
        add(f"{layer}.norm", f"{layer}.norms", "norm", 90.0, 1.0, 1.0)  # never counts
        units += [f"{layer}.attention", f"{layer}.mlp", f"{layer}.norms"]
    inputs = {r: InputRecord(r, r, r, None, r, ()) for r in ("base", "safety", "sw")}
    return Profile(inputs, tuple(units), tuple(tensors))


# By hand, with ‖W_base‖ = 2 everywhere, r is half of each number:
#            r safety        r language
#   layer 0  1.5, 2.0, 2.5   0.3, 0.4, 1.5
#   layer 1  0.6, 0.8, 1.0   0.6, 0.8, 1.0
#   layer 2  0.3, 0.4, 1.0   1.2, 1.6, 2.5
# by layer (sums)            6.0, 2.4, 1.7 of 10.1;     2.2, 2.4, 5.3 of 9.9
# by module (roots of sums)  2.5, 2.5 | 1.0, 1.0 | 0.5, 1.0 of 8.5
#                            0.5, 1.5 | 1.0, 1.0 | 2.0, 2.5 of 8.5
HAND: Moves = (
    ((3.0, 0.6), (4.0, 0.8), (5.0, 3.0)),
    ((1.2, 1.2), (1.6, 1.6), (2.0, 2.0)),
    ((0.6, 2.4), (0.8, 3.2), (2.0, 5.0)),
)


size = st.floats(0.0, 100.0, allow_subnormal=False)
tables = st.lists(st.lists(st.tuples(size, size), min_size=3, max_size=3), min_size=1, max_size=6)
granularity = st.sampled_from(["layer", "module"])


def moved(moves: Moves) -> bool:
    return all(sum(pair[e] for row in moves for pair in row) > 1e-3 for e in (0, 1))
