"""Where a model's layers are: the stack, or stacks, of text, and what stands beside them.

A layer number is the number in a name that is followed by a block word (``attn``, ``mlp``, …)
before the next number; what stands before it is a stack. One stack is a language model. Of several,
those that read images or sound are towers, those that predict further tokens are not needed to run
the model, and an encoder and a decoder belong together. Anything else is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import count, islice, pairwise

from safeswap.anatomy import problems, vocabulary
from safeswap.anatomy.model import Model, Path, Shapes, Stack, common_length, position_in
from safeswap.anatomy.units import STACKS
from safeswap.errors import AnatomyError, listed


def find_layers(shapes: Shapes, dtypes: Mapping[str, str]) -> Model:
    """The layers of a checkpoint.

    Raises:
        AnatomyError: there are none, some are missing, or stacks of which nobody knows what they
            are to each other.
    """
    stacks: dict[Path, set[int]] = {}
    for name in shapes:
        path = tuple(name.split("."))
        at = _layer_number_at(path)
        if at is not None:
            stacks.setdefault(path[:at], set()).add(int(path[at]))
    if not stacks:
        raise AnatomyError(
            "no layers found: no name has a layer number followed by attention or mlp, as in "
            f"'model.layers.0.self_attn.q_proj.weight'. The names are: {listed(shapes)}. safeswap "
            "merges transformer language models; give the checkpoint of one.",
            shapes,
        )
    text = _text_stacks(stacks, shapes)
    others = [path for path in stacks if path not in text]
    if () in others:  # all names would be below it
        raise problems.several_stacks(stacks, [(), *text], shapes)
    roots = {path: _root(path, text) for path in others}
    predicting = {roots[path] for path in others if _has(path, vocabulary.PREDICTION_WORDS)}
    further = {
        tuple(name.split(".")[: len(path) + 1])
        for path in text
        for name in shapes
        if (found := position_in(tuple(name.split(".")), path)) is not None
        and found[1][0] in vocabulary.PREDICTION_NAMES
    }
    whole = tuple(_whole(path, label, shapes, further) for path, label in text.items())
    towers = tuple(sorted(set(roots.values()) - predicting))
    return Model(shapes, dtypes, whole, towers, tuple(sorted(predicting | further)))


def _layer_number_at(path: Path) -> int | None:
    """Where the layer number is: the first number followed by a block before the next number.

    T5 numbers the parts of a layer too (``block.3.layer.0.SelfAttention``): the first number of a
    name counts, wherever a later one would.
    """
    numbers = [i for i, component in enumerate(path) if vocabulary.is_number(component)]
    for at, following in pairwise([*numbers, len(path)]):
        if vocabulary.block_of(path[at + 1 : following]) is not None:
            parts = len(numbers) > 1 and path[numbers[0] + 1] in ("layer", "layers", "block")
            return numbers[0] if parts else at
    return None


def _has(path: Iterable[str], words: tuple[str, ...]) -> bool:
    return any(vocabulary.has_word(component, words) for component in path)


def _text_stacks(stacks: Mapping[Path, set[int]], shapes: Shapes) -> dict[Path, str]:
    """The stacks of text → their labels; the rest are towers and their like.

    Raises:
        AnatomyError: two of which it cannot be said which is the text.
    """
    if len(stacks) == 1:
        return dict.fromkeys(stacks, "")
    beside = (*vocabulary.OTHER_MODALITIES, *vocabulary.PROJECTORS, *vocabulary.PREDICTION_WORDS)
    plain = [path for path in stacks if not _has(path, beside)]
    named = [path for path in plain if _has(path, vocabulary.TEXT_WORDS)]
    chosen = named or plain
    if len(chosen) == 1:
        return dict.fromkeys(chosen, "")
    labels = {path: next((c for c in path if c in STACKS), "") for path in chosen}
    if sorted(labels.values()) == sorted(STACKS):
        return dict(sorted(labels.items(), key=lambda pair: STACKS.index(pair[1])))
    raise problems.several_stacks(stacks, chosen, shapes)


def _root(path: Path, text: Iterable[Path]) -> Path:
    """Where another stack hangs: the shortest beginning that no stack of text has."""
    return path[: max(common_length((*path, ""), stack) for stack in text) + 1]


def _whole(path: Path, label: str, shapes: Shapes, further: set[Path]) -> Stack:
    # Not only the numbers above: a layer of which only norms are left is a layer that lacks some.
    positions = (position_in(tuple(name.split(".")), path) for name in shapes)
    seen = {position[0] for position in positions if position is not None}
    seen -= {int(one[-1]) for one in further if one[:-1] == path}
    if not seen:
        raise AnatomyError(f"no layers found under {problems.label(path)} but predicting ones.")
    absent = max(seen) + 1 - len(seen)
    if absent:
        first = islice((str(n) for n in count() if n not in seen), min(absent, 5))
        raise AnatomyError(
            f"{absent} of the layers under {problems.label(path)} are missing: they go up to "
            f"{max(seen)}, but there is no layer {', '.join(first)}{' …' if absent > 5 else ''}. "
            "Is a shard missing, or were layers removed without renumbering the rest?"
        )
    return Stack(path, label, len(seen))
