"""The straight way from the language expert to the safety vector added in full.

``W(t) = W_language + t · (W_safety − W_base)`` in the attentions and MLPs, all else the language
expert's. The numbers are set in the loaded model itself and not rounded to the format of the files:
rounded, a small update would be left out in the first half of the way and whole in the second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from safeswap.anatomy.heads import Span, head_spans
from safeswap.anatomy.units import kind_of
from safeswap.checkpoint.family import Family
from safeswap.checkpoint.heads import heads_of
from safeswap.roles import BASE, SAFETY
from safeswap.search.fit.gradient import numbers_of
from safeswap.search.hotswap import HotSwapModel
from safeswap.selectors.common import keys_of

Groups = Mapping[str, Sequence[Span]]


class AdditionPath:
    """A loaded language expert that is moved along the way.

    Args:
        parameters: tensor's name in the checkpoint → parameter of the model.
        names: of the tensors that move.
    """

    def __init__(
        self,
        family: Family,
        language: str,
        parameters: Mapping[str, torch.nn.Parameter],
        names: Sequence[str],
    ) -> None:
        self.family, self.language = family, language
        self._moved = {name: parameters[name] for name in names}

    def move(self, t: float) -> None:
        """Make the model that of ``t``; tensor by tensor, from the files."""
        members = self.family.members
        for name, parameter in self._moved.items():
            values = numbers_of(members[self.language].tensors[name])
            if t:
                added = numbers_of(members[SAFETY].tensors[name])
                added -= numbers_of(members[BASE].tensors[name])
                values += t * added
            with torch.no_grad():
                parameter.view(-1).copy_(torch.from_numpy(values))


def groups_of(family: Family, hot: HotSwapModel, by: str) -> dict[str, tuple[Span, ...]]:
    """Unit → its tensors, or for heads its parts of them; in the order of the model.

    By head ``3.heads.1`` is a group of heads of layer 3, and ``3.attention`` what is of none.

    Raises:
        AnatomyError: attentions that cannot be cut into heads.
    """
    keys = keys_of(family.anatomy.units, "layer" if by == "layer" else "module")
    names = {key: hot.tensors_of(units) for key, units in keys.items()}
    whole = {key: tuple(Span(name) for name in own) for key, own in names.items()}
    if by != "head":
        return whole
    base, found = family.base, {}
    heads = heads_of(base.config, base.text)
    for unit, spans in whole.items():
        if kind_of(unit) != "attention":
            found[unit] = spans
            continue
        shapes = {name: base.tensors[name].shape for name in names[unit]}
        cut = head_spans(unit, shapes, heads)
        layer = unit.removesuffix(".attention")
        found |= {f"{layer}.heads.{n}": one for n, one in enumerate(cut.groups)}
        found |= {unit: cut.rest} if cut.rest else {}
    return found
