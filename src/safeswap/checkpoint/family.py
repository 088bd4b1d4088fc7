"""Do these checkpoints belong together? Same tensors, shapes, architecture and vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from safeswap.anatomy import Anatomy, anatomy_of
from safeswap.checkpoint.model import Checkpoint, open_checkpoint
from safeswap.checkpoint.reader import Tensor, same_bytes
from safeswap.checkpoint.tokenizers import compare_tokenizers
from safeswap.errors import ConfigError, FamilyError, listed
from safeswap.roles import BASE, SAFETY, check_role


@dataclass(frozen=True)
class Family:
    """A base and its experts, checked to be of one family.

    Attributes:
        members: role → checkpoint; the roles are ``base``, ``safety`` and one per language.
        anatomy: the units of the tensors that are merged.
        aliases: (role, tensor) → the tensor of that member whose bytes it repeats; not merged.
        notes: what a user should know although it is no obstacle.
    """

    members: Mapping[str, Checkpoint]
    anatomy: Anatomy
    aliases: Mapping[tuple[str, str], str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def base(self) -> Checkpoint:
        """The common ancestor."""
        return self.members[BASE]

    @property
    def experts(self) -> tuple[str, ...]:
        """The roles that have a task vector: safety first, then the languages as given."""
        return tuple(role for role in self.members if role != BASE)

    @property
    def languages(self) -> tuple[str, ...]:
        """The language roles as given."""
        return tuple(role for role in self.experts if role != SAFETY)

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Role → the member's tensor of this name, base first."""
        return {role: self.members[role].tensors[name] for role in (BASE, *self.experts)}

    def is_weight(self, name: str) -> bool:
        """Whether task vectors of a tensor mean something: floats, and no buffer."""
        buffer = self.anatomy.placements[name].role == "buffer"
        return self.base.tensors[name].dtype.mergeable and not buffer

    def bytes_to_read(self) -> int:
        """Bytes of all merged tensors of all members."""
        return sum(m.tensors[name].nbytes for m in self.members.values() for name in self.names)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The merged tensors, in the order of the base's files."""
        return tuple(name for name in self.base.tensors if (BASE, name) not in self.aliases)


def open_family(
    base: str | Path,
    safety: str | Path,
    languages: Mapping[str, str | Path],
    *,
    named_in: str | Path = "",
) -> Family:
    """Open the checkpoints of a run and check that they belong together; no weights are read.

    Args:
        named_in: the file that names them, where the user did not.

    Raises:
        CheckpointError, FamilyError, ConfigError: what is wrong with which of them.
    """
    if not languages:
        raise ConfigError("no language expert is given: add --language NAME=CHECKPOINT.")
    sources = {BASE: base, SAFETY: safety}
    sources |= {check_role(name): source for name, source in languages.items()}
    members = {role: open_checkpoint(source, named_in=named_in) for role, source in sources.items()}
    return join_family(members)


def join_family(members: Mapping[str, Checkpoint]) -> Family:
    """Check that the experts descend from one base, as far as files can tell.

    Raises:
        FamilyError: another architecture, depth, shape, tensor set, vocabulary, or tying of the
            output projection; names them.
        safeswap.anatomy.AnatomyError: tensors that no unit takes.
    """
    base = members[BASE]
    aliases = _tied_copies(members)
    kept = {
        role: {n: t for n, t in member.tensors.items() if (role, n) not in aliases}
        for role, member in members.items()
    }
    for role, member in members.items():
        if role != BASE:
            _same_architecture(base, member, role)
            _same_tensors(kept[BASE], kept[role], f"{role} expert {member.source.text}")
    notes = compare_tokenizers({role: m.folder for role, m in members.items()}, BASE)
    shapes = {name: tensor.shape for name, tensor in kept[BASE].items()}
    dtypes = {name: tensor.dtype.name for name, tensor in kept[BASE].items()}
    return Family(members, anatomy_of(shapes, dtypes=dtypes), aliases, tuple(notes))


def _tied_copies(members: Mapping[str, Checkpoint]) -> dict[tuple[str, str], str]:
    """Output projections that some members store although they are their embeddings: some tools
    save both names. They are dropped where a member that is tied does not have them.

    transformers unties a model whose config.json says tied but whose two tensors differ; with a
    member that has one tensor for both there is then nothing to merge the second with.
    """
    everywhere = set.intersection(*(set(member.tensors) for member in members.values()))
    return {
        (role, name): _same_as_embeddings(member, name, role)
        for role, member in members.items()
        if member.said_tied is not False
        for name in member.heads
        if name not in everywhere and all(m.tied for m in members.values() if name not in m.tensors)
    }


def _same_as_embeddings(member: Checkpoint, head: str, role: str) -> str:
    """The embeddings that an output projection repeats byte for byte; reads both.

    Raises:
        FamilyError: no embeddings have its bytes.
    """
    shapes = {name: tensor.shape for name, tensor in member.tensors.items()}
    dtypes = {name: tensor.dtype.name for name, tensor in member.tensors.items()}
    for name in anatomy_of(shapes, dtypes=dtypes).tensors("embeddings"):
        if same_bytes(member.tensors[name], member.tensors[head]):
            return name
    raise FamilyError(
        f"{role} checkpoint {member.source.text}: {head!r} differs from the input embeddings, so "
        "its output is not tied, while another checkpoint of this run stores no output projection "
        "and is tied. Experts must be fine-tunes of the same base: use one that was trained with "
        "its embeddings tied."
    )


def _same_architecture(base: Checkpoint, expert: Checkpoint, role: str) -> None:
    keys = ("model_type", "num_hidden_layers", "hidden_size", "num_attention_heads", "vocab_size")
    for key in (*keys, "num_key_value_heads", "intermediate_size", "tie_word_embeddings"):
        ours, theirs = base.config.get(key), expert.config.get(key)
        if ours != theirs and ours is not None and theirs is not None:
            raise FamilyError(
                f"{role} expert {expert.source.text}: config.json says {key} = {theirs!r}, the "
                f"base says {ours!r}. Experts must be fine-tunes of the base {base.source.text}."
            )


def _same_tensors(base: Mapping[str, Tensor], expert: Mapping[str, Tensor], who: str) -> None:
    missing = [name for name in base if name not in expert]
    extra = [name for name in expert if name not in base]
    if missing or extra:
        parts = [f"lacks {listed(missing)}"] if missing else []
        parts += [f"has {listed(extra)} besides"] if extra else []
        ours, theirs = _depth(base), _depth(expert)
        deep = f" (layers: base {ours}, expert {theirs})" if ours != theirs else ""
        raise FamilyError(
            f"{who}: {' and '.join(parts)}{deep}. Experts must be fine-tunes of the same base, "
            "with all adapters merged in."
        )
    for name, tensor in base.items():
        other = expert[name]
        if tensor.shape != other.shape:
            hint = "Experts must be fine-tunes of the same base."
            outside = layer_of_name(name) is None
            if outside and len(tensor.shape) == 2 and tensor.shape[1:] == other.shape[1:]:
                hint = "A resized vocabulary must be cut back to the base's first."
            raise FamilyError(
                f"{who}: tensor {name!r} in {other.where} has shape {list(other.shape)}, the base "
                f"has {list(tensor.shape)}. {hint}"
            )
        if tensor.dtype.mergeable != other.dtype.mergeable:
            raise FamilyError(
                f"{who}: tensor {name!r} in {other.where} is {other.dtype}, the base has "
                f"{tensor.dtype}. Save the expert in the base's dtype."
            )


def _depth(tensors: Mapping[str, Tensor]) -> int:
    return len({layer_of_name(name) for name in tensors} - {None})


def layer_of_name(name: str) -> str | None:
    """The first number in a parameter's dotted name, as text."""
    return next((part for part in name.split(".") if part.isdigit()), None)
