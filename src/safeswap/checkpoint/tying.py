"""Output projections: stored by some members and not by others, theirs or their embeddings.

A **tied** member's output projection is its input embeddings. Some tools store both names for it.
Where all members that count are tied, what is stored twice is left out (`Tying.aliases`). Where
some are tied and others have a matrix of their own, an output has what its donor has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from safeswap.anatomy import anatomy_of
from safeswap.checkpoint.model import Checkpoint
from safeswap.checkpoint.reader import same_bytes
from safeswap.errors import AnatomyError, FamilyError
from safeswap.roles import BASE, SAFETY


@dataclass(frozen=True)
class Tying:
    """Who is tied.

    Attributes:
        tied: role → whether its output projection is its embeddings.
        head: the name of the projection that some members have as a matrix of their own and others
            do not; empty where they agree.
        aliases: (role, name) → the tensor of that member whose bytes it repeats.
        serving: role → the embeddings that serve as the projection which it does not store.
    """

    tied: Mapping[str, bool]
    head: str = ""
    aliases: Mapping[tuple[str, str], str] = field(default_factory=dict)
    serving: Mapping[str, str] = field(default_factory=dict)

    def notes(self) -> list[str]:
        """What a user should know, where members do not agree."""
        if not self.head:
            return []
        tied = [role for role, is_tied in self.tied.items() if is_tied]
        own = [role for role in self.tied if role not in tied]
        return [
            f"{self.head} is the embeddings in {' and '.join(tied)} (tied) and a matrix of its own "
            f"in {' and '.join(own)}; an output has it as its donor does"
        ]


def tying_of(members: Mapping[str, Checkpoint]) -> Tying:
    """Find out who is tied; reads weights only where a member says that it is and stores both.

    Raises:
        FamilyError: the languages differ in it while base and safety expert are tied, so that the
            outputs of one run would have other units.
    """
    heads = {name for member in members.values() for name in member.heads}
    for head in sorted(heads):
        lacking = [role for role, member in members.items() if head not in member.tensors]
        if all(members[role].tied for role in lacking):
            return _of_head(members, head, lacking)
    return Tying({role: member.tied for role, member in members.items()})


def _of_head(members: Mapping[str, Checkpoint], head: str, lacking: list[str]) -> Tying:
    said = {member.said_tied for member in members.values()}
    if not lacking and not {True, False} <= said:
        return Tying({role: member.tied for role, member in members.items()})
    repeated = {
        role: _repeated(member, head)
        for role, member in members.items()
        if role not in lacking and member.said_tied is not False
    }
    tied = {role: role in lacking or repeated.get(role) is not None for role in members}
    if all(tied.values()):
        return Tying(tied, aliases={(r, head): name for r, name in repeated.items() if name})
    if not any(tied.values()):
        return Tying(tied)
    _refuse_other_units(tied)
    serving = {role: _embeddings(members[role], role)[0] for role in lacking}
    return Tying(tied, head, serving=serving)


def _repeated(member: Checkpoint, head: str) -> str | None:
    """The embeddings that an output projection repeats byte for byte; None where it is another
    matrix, which transformers then unties too, whatever config.json says.
    """
    return next(
        (
            name
            for name in _embeddings(member)
            if same_bytes(member.tensors[name], member.tensors[head])
        ),
        None,
    )


def _embeddings(member: Checkpoint, role: str = "") -> list[str]:
    """The tables of a member that may serve as its output projection: the highest first."""
    shapes = {name: tensor.shape for name, tensor in member.tensors.items()}
    dtypes = {name: tensor.dtype.name for name, tensor in member.tensors.items()}
    try:
        names = anatomy_of(shapes, dtypes=dtypes).tensors("embeddings")
    except (AnatomyError, KeyError):
        names = ()
    found = [n for n in names if len(shapes[n]) == 2 and member.tensors[n].dtype.mergeable]
    if role and not found:
        raise FamilyError(
            f"{role} checkpoint {member.text}: stores no output projection, and no input "
            "embeddings that could serve as one. Use a checkpoint with its lm_head."
        )
    return sorted(found, key=lambda name: (_is_place(name), -shapes[name][0]))


def _is_place(name: str) -> bool:
    return any(word in name for word in ("position", "pos_emb", "wpe", "per_layer"))


def _refuse_other_units(tied: Mapping[str, bool]) -> None:
    languages = {role: is_tied for role, is_tied in tied.items() if role not in (BASE, SAFETY)}
    rest = [tied[role] for role in (BASE, SAFETY) if role in tied]
    if all(rest) and len(set(languages.values())) > 1:
        one = [role for role, is_tied in languages.items() if not is_tied]
        raise FamilyError(
            f"{' and '.join(one)}: has an output projection of its own, the other languages and "
            "the base are tied, so that their outputs have other units. Merge them in runs of "
            "their own. Give one --language at a time."
        )
