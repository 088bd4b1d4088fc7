"""Which tensor of one member is which of another: the same weights under other names.

A field's loaders take several spellings for one model, and training tools leave their own marks:

- wrappers (`torch.compile`, FSDP, DDP, peft) put ``_orig_mod.``, ``module.``, ``base_model.model.``
  before or into the names; what is without them is what the model calls its weights;
- a body stored on its own (``h.0…``) is loaded into a model that calls it ``transformer.h.0…``.

The base's names, without wrappers, are the family's; an expert's are brought to them by one rule
for all its tensors, and only where that makes more of them agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from safeswap.anatomy.rules import is_buffer
from safeswap.checkpoint.reader import Tensor
from safeswap.errors import FamilyError
from safeswap.roles import BASE

Tensors = Mapping[str, Tensor]

HEADS = ("lm_head.weight", "embed_out.weight")
"""How the name of an output projection ends; it lies beside the body, not in it."""
_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
_LEADING = ("module.", "base_model.model.")
_BODIES = ("model.", "transformer.", "gpt_neox.", "backbone.", "rwkv.")
"""What transformers' classes call the body, and add to the names of a body stored on its own."""


def family_names(members: Mapping[str, Tensors]) -> tuple[dict[str, dict[str, Tensor]], list[str]]:
    """Give the tensors of all members the names that they have in the family.

    Args:
        members: role → stored name → tensor, the base among them.

    Returns:
        Role → family name → tensor, in the order of the member's files; and a note for each member
        whose names were read otherwise than they are stored.

    Raises:
        FamilyError: two tensors of one member would get one name.
    """
    named = {role: _without_wrappers(tensors, role) for role, tensors in members.items()}
    for role in named:
        taken, given = _difference(named[BASE], named[role])
        plain = taken in _BODIES if taken else not given.startswith(_BODIES)
        if given and plain and given not in _BODIES:  # no loader of the others' model knows it
            named[BASE] = _renamed(named[BASE], given, taken)
    for role in named:
        named[role] = _renamed(named[role], *_difference(named[BASE], named[role]))
    notes = [note for role in named if (note := _note(role, named[role]))]
    return named, notes


def is_buffer_of(tensors: Tensors, name: str) -> bool:
    """Whether a tensor is a mask, an index or a table of positions, of which nothing is trained."""
    tensor = tensors[name]
    return is_buffer(name.split("."), tensor.shape, tensor.dtype.name)


def _note(role: str, named: Tensors) -> str | None:
    other = next((n for n, tensor in named.items() if n != tensor.name), None)
    if other is None:
        return None
    return f"{role}: its {named[other].name} and all others like it are read as {other}"


def without_marks(name: str) -> str:
    """A name without the marks that training wrappers put into it."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _without_wrappers(tensors: Tensors, role: str) -> dict[str, Tensor]:
    named: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        plain = without_marks(name)
        if plain in named:
            raise FamilyError(
                f"{role} checkpoint: {tensor.where} holds {name!r} besides {named[plain].name!r}, "
                "the same weight with and without the mark of a training wrapper. Save the model "
                "that is inside the wrapper, or remove one of the two."
            )
        named[plain] = tensor
    while prefix := next((p for p in _LEADING if all(n.startswith(p) for n in named)), None):
        named = {name.removeprefix(prefix): tensor for name, tensor in named.items()}
        if not named:
            break
    return named


def _difference(base: Tensors, other: Tensors) -> tuple[str, str]:
    """What to take from the front of the other's names, and what to give them instead, to make the
    most of them the base's; two empty texts where nothing is better than they are.
    """
    ours, theirs = _body(base), _body(other)
    best, found = len(ours & theirs), ("", "")
    if not ours or not theirs or ours == theirs:
        return found
    for taken, given in (
        *(("", p) for p in _prefixes(min(theirs), ours)),
        *((p, "") for p in _prefixes(min(ours), theirs)),
        *_exchanges(min(theirs), ours),
    ):
        changed = {_rename(name, taken, given) for name in theirs}
        if len(changed) == len(theirs) and len(changed & ours) > best:
            best, found = len(changed & ours), (taken, given)
    return found


def _exchanges(name: str, names: Iterable[str]) -> list[tuple[str, str]]:
    """The front of a name and that of others which end as it does: a text model inside one that
    sees is ``language_model.model.…`` or ``model.language_model.…``, and ``model.…`` on its own.
    """
    parts = name.split(".")
    ends = [".".join(parts[n:]) for n in range(1, len(parts) - 1)]
    fronts = ((name.removesuffix(end), p) for end in ends for p in _prefixes(end, names))
    return sorted({pair for pair in fronts if pair[0] != pair[1]}, key=lambda p: (-len(p[0]), p))


def _body(tensors: Tensors) -> set[str]:
    return {n for n in tensors if not n.endswith(HEADS) and not is_buffer_of(tensors, n)}


def _prefixes(short: str, names: Iterable[str]) -> list[str]:
    """What stands before a name where it is the end of others."""
    return sorted({name[: -len(short)] for name in names if name.endswith(f".{short}")})


def _rename(name: str, taken: str, given: str) -> str:
    if name.endswith(HEADS) and given:  # it lies beside the body, or in what holds the body
        return next((head for head in HEADS if taken and name.endswith(f".{head}")), name)
    return given + name.removeprefix(taken) if name.startswith(taken) else name


def _renamed(tensors: Tensors, taken: str, given: str) -> dict[str, Tensor]:
    return {_rename(name, taken, given): tensor for name, tensor in tensors.items()}
