"""What the rules of an anatomy look at: names and shapes, and where the layers are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from safeswap.anatomy import vocabulary

Shapes = Mapping[str, tuple[int, ...]]
Path = tuple[str, ...]


@dataclass(frozen=True)
class Stack:
    """One stack of layers of text.

    Attributes:
        path: what stands before the layer numbers.
        label: ``encoder`` or ``decoder`` where the model has both, else empty.
        layers: how many there are.
    """

    path: Path
    label: str
    layers: int

    @property
    def labels(self) -> list[str]:
        """What its layers are called."""
        return [f"{self.label}.{n}" if self.label else str(n) for n in range(self.layers)]


@dataclass(frozen=True)
class Model:
    """What the rules look at: the checkpoint, its stacks once they are found, and other stacks.

    Attributes:
        towers: where other stacks hang (``model.visual``); all below is theirs.
        predicting: likewise for layers that predict further tokens.
    """

    shapes: Shapes
    dtypes: Mapping[str, str]
    stacks: tuple[Stack, ...]
    towers: tuple[Path, ...] = ()
    predicting: tuple[Path, ...] = ()

    @property
    def labels(self) -> list[str]:
        """What its layers are called, in their order."""
        return [label for stack in self.stacks for label in stack.labels]

    @property
    def layers(self) -> int:
        """How many layers there are."""
        return sum(stack.layers for stack in self.stacks)

    def position(self, name: str) -> tuple[str, Path] | None:
        """The label of a tensor's layer and its path inside; None for one outside the layers."""
        path = tuple(name.split("."))
        for stack in self.stacks:
            found = position_in(path, stack.path)
            if found is not None:
                layer, rest = found
                return (f"{stack.label}.{layer}" if stack.label else str(layer)), rest
        return None

    def outer_path(self, name: str) -> Path:
        """The path of a tensor outside the layers from where it leaves the way to the layers."""
        path = tuple(name.split("."))
        common = max(common_length(path, stack.path) for stack in self.stacks)
        return path[common:]


def position_in(path: Path, stack: Path) -> tuple[int, Path] | None:
    """The layer number and the path inside the layer, None for a name outside the stack."""
    depth = len(stack)
    if len(path) < depth + 2 or path[:depth] != stack or not vocabulary.is_number(path[depth]):
        return None
    return int(path[depth]), path[depth + 1 :]


def common_length(path: Path, stack: Path) -> int:
    """How many words two paths begin with alike; the tensor's own last word does not count."""
    common = 0
    while common < min(len(path) - 1, len(stack)) and path[common] == stack[common]:
        common += 1
    return common
