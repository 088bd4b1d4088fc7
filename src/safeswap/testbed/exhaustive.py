"""Every module mask of a model: each attention and each MLP from the safety or the language expert.

2^(2L) models share their beginnings, so they are walked as a tree: the hidden states before a
module are computed once for all masks that agree below it. The whole tree costs 2 + 4 + … + 2^(2L)
passes of one module, two for each mask, where running the masks one by one costs 2L for each.

The layers' norms are the language expert's in every mask, as in the paper's rule by module.
Embeddings, final norm and head must be the same in both experts; in the small world they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from safeswap.testbed.documents import Question
from safeswap.testbed.forward import Module, Network, Shape, State, modules_of, pack
from safeswap.testbed.world import World

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Masks:
    """What all masks did with one exam.

    Mask m takes module u (attention 0, MLP 0, attention 1, …) from the safety expert where bit u
    of m is 1; mask 0 is the language expert.

    Attributes:
        refused, right: bool, (masks, questions).
    """

    refused: Bools
    right: Bools

    def save(self, path: Path) -> None:
        """Write as a compressed npz, eight verdicts to a byte; it appears only when whole."""
        part = path.with_suffix(".part.npz")
        packed = {
            "refused": np.packbits(self.refused, axis=1),
            "right": np.packbits(self.right, axis=1),
            "questions": np.array(self.right.shape[1]),
        }
        np.savez_compressed(part, **packed)
        part.rename(path)

    @classmethod
    def load(cls, path: Path) -> Masks:
        """Read what `save` wrote."""
        with np.load(path) as found:
            count = int(found["questions"])
            refused, right = (
                np.unpackbits(found[name], axis=1, count=count).astype(bool)
                for name in ("refused", "right")
            )
        return cls(refused, right)


def every_mask(
    world: World, shape: Shape, safety: State, language: State, questions: Sequence[Question]
) -> Masks:
    """Verdicts of all 2^(2L) masks on the questions.

    Raises:
        ValueError: the experts differ outside their layers: a mask of modules is then no model.
    """
    for name, tensor in language.items():
        if ".layers." not in name and not torch.equal(tensor, safety[name]):
            raise ValueError(f"the experts differ in {name!r}, which no module mask decides")
    network = Network(shape, language, pack(world, questions))
    choices = list(zip(modules_of(language, shape), modules_of(safety, shape), strict=True))
    many = (1 << len(choices), len(questions))
    found = Masks(np.zeros(many, bool), np.zeros(many, bool))
    with torch.inference_mode():
        _descend(network, choices, found, network.start(), 0, 0)
    return found


def _descend(
    network: Network,
    choices: Sequence[tuple[Module, Module]],
    found: Masks,
    hidden: Tensor,
    number: int,
    mask: int,
) -> None:
    """All masks that agree with ``mask`` below module ``number``; ``hidden`` is what it reads."""
    if number == len(choices):
        verdicts = network.packed.verdicts(network.likeliest(hidden))
        found.refused[mask], found.right[mask] = verdicts
        return
    normed = network.normed(number, hidden)
    for bit, module in enumerate(choices[number]):
        after = network.applied(number, module, hidden, normed)
        _descend(network, choices, found, after, number + 1, mask | bit << number)
