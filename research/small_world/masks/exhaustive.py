"""Every module mask of a model: each attention and each MLP in one of two states.

2^(2L) models share their beginnings, so they are walked as a tree: the hidden states before a
module are computed once for all masks that agree below it. The whole tree costs 2 + 4 + … + 2^(2L)
passes of one module, two for each mask, where running the masks one by one costs 2L for each.

The norms of the layers are the same in all masks, as in the paper's rule by module. Embeddings,
final norm and head must be equal in both states; in the small world they are, as no expert trains
them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from safeswap.demo.documents import Question
from safeswap.demo.world import World
from small_world.masks.forward import Module, Network, Shape, State, modules_of, pack
from small_world.masks.verdicts import Bools


def every_mask(
    world: World, shape: Shape, ones: State, zeros: State, questions: Sequence[Question]
) -> tuple[Bools, Bools]:
    """Verdicts of all 2^(2L) masks: refused and right, (masks, questions).

    Mask m has module u (attention 0, MLP 0, attention 1, …) of ``ones`` where bit u of m is 1, else
    that of ``zeros``; the norms are those of ``zeros``.

    Raises:
        ValueError: the two differ outside their layers: a mask of modules is then no model.
    """
    for name, tensor in zeros.items():
        if ".layers." not in name and not torch.equal(tensor, ones[name]):
            raise ValueError(f"the experts differ in {name!r}, which no module mask decides")
    network = Network(shape, zeros, pack(world, questions))
    choices = list(zip(modules_of(zeros, shape), modules_of(ones, shape), strict=True))
    many = (1 << len(choices), len(questions))
    found = np.zeros(many, bool), np.zeros(many, bool)
    with torch.inference_mode():
        _descend(network, choices, found, network.start(), 0, 0)
    return found


def _descend(
    network: Network,
    choices: Sequence[tuple[Module, Module]],
    found: tuple[Bools, Bools],
    hidden: Tensor,
    number: int,
    mask: int,
) -> None:
    """All masks that agree with ``mask`` below module ``number``; ``hidden`` is what it reads."""
    if number == len(choices):
        found[0][mask], found[1][mask] = network.packed.verdicts(network.logits(hidden))
        return
    normed = network.normed(number, hidden)
    for bit, module in enumerate(choices[number]):
        after = network.applied(number, module, hidden, normed)
        _descend(network, choices, found, after, number + 1, mask | bit << number)
