"""Experts that lack tensors of the base, or have more, where they are merged all the same.

What an expert lacks inside the layers is the base's there, so that it did not move; what it has
besides is left out. Its config.json then expects other tensors than the output has: it is no donor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from safeswap.anatomy import vocabulary
from safeswap.checkpoint.members import layer_of_name
from safeswap.checkpoint.reader import Tensor
from safeswap.errors import listed

Tensors = Mapping[str, Tensor]
_LEAST = 0.5
"""The share of the base's tensors that an expert has at least; with fewer it is another model."""


@dataclass(frozen=True, slots=True)
class Lent:
    """What is between an expert's tensors and the base's.

    Attributes:
        tensors: family name → the base's tensor that stands in for a missing one.
        extra: family name → why the expert's own tensor is left out.
    """

    tensors: Tensors
    extra: Mapping[str, str]

    def note(self, role: str, size: int) -> str:
        """What a user should know; ``size``: how many tensors the base has."""
        parts = []
        if self.tensors:
            parts.append(
                f"lacks {len(self.tensors)} of {size} tensors ({listed(self.tensors)}), "
                "which are the base's there"
            )
        if self.extra:
            parts.append(
                f"has {len(self.extra)} besides ({listed(self.extra)}), which are left out"
            )
        return f"{role}: {' and '.join(parts)}"


def lend(base: Tensors, expert: Tensors) -> Lent | None:
    """What would have to be lent to an expert; None where it has the base's tensors, or where it is
    another thing: quantized, an adapter, another architecture, without embeddings or norm.
    """
    missing = {name: tensor for name, tensor in base.items() if name not in expert}
    extra = [name for name in expert if name not in base]
    odd = (*vocabulary.ADAPTER_NAMES, *vocabulary.QUANTIZED_NAMES)
    foreign = any(part in odd for name in extra for part in name.split("."))
    outside = any(layer_of_name(name) is None for name in missing)
    alike = len(base) - len(missing) >= _LEAST * len(base)
    if not (missing or extra) or foreign or outside or not alike:
        return None
    return Lent(missing, dict.fromkeys(extra, "the base has no such tensor (--force)"))


def remedy_of(base: Tensors, expert: Tensors) -> str:
    """What ``--force`` does about other tensors; empty where it does not help."""
    found = lend(base, expert)
    if found is None:
        return ""
    return (
        f" --force (force=True) goes on, with --donor base: {len(found.tensors)} of {len(base)} "
        f"tensors are then the base's, and {len(found.extra)} are left out."
    )
