"""Do these checkpoints belong together? Same tensors, shapes, architecture and vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from safeswap.anatomy import Anatomy, anatomy_of
from safeswap.checkpoint.compare import compare_configs, refuse_other_size
from safeswap.checkpoint.members import same_tensors
from safeswap.checkpoint.model import Checkpoint, open_checkpoint
from safeswap.checkpoint.names import family_names, is_buffer_of
from safeswap.checkpoint.reader import Tensor, same_bytes
from safeswap.checkpoint.refusals import quantization_of
from safeswap.checkpoint.tokenizers import compare_tokenizers
from safeswap.errors import ConfigError, FamilyError
from safeswap.roles import BASE, SAFETY, check_role


@dataclass(frozen=True)
class Family:
    """A base and its experts, checked to be of one family.

    Attributes:
        members: role → checkpoint; the roles are ``base``, ``safety`` and one per language. Their
            tensors go by the base's names; what a file calls one is the tensor's own ``name``.
        anatomy: the units of the tensors that are merged.
        aliases: (role, tensor) → the tensor of that member whose bytes it repeats; not merged.
        left_out: role → its tensors that are no weights and that not all members have → why they
            are not merged.
        notes: what a user should know although it is no obstacle.
    """

    members: Mapping[str, Checkpoint]
    anatomy: Anatomy
    aliases: Mapping[tuple[str, str], str] = field(default_factory=dict)
    left_out: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
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

    def experts_in(self, name: str) -> int:
        """How many experts of a mixture one tensor holds; 0 where it holds no more than one."""
        placement = self.anatomy.placements[name]
        return placement.experts if (placement.part or "").endswith(".experts") else 0

    def bytes_to_read(self) -> int:
        """Bytes of all merged tensors of all members."""
        return sum(m.tensors[name].nbytes for m in self.members.values() for name in self.names)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The merged tensors, in the order of the base's files."""
        spare = self.left_out.get(BASE, {})
        return tuple(
            name
            for name in self.base.tensors
            if (BASE, name) not in self.aliases and name not in spare
        )


def open_family(
    base: str | Path,
    safety: str | Path,
    languages: Mapping[str, str | Path],
    *,
    named_in: str | Path = "",
    force: bool = False,
) -> Family:
    """Open the checkpoints of a run and check that they belong together; no weights are read.

    Args:
        named_in: the file that names them, where the user did not.
        force: as for :func:`join_family`.

    Raises:
        CheckpointError, FamilyError, ConfigError: what is wrong with which of them.
    """
    if not languages:
        raise ConfigError("no language expert is given: add --language NAME=CHECKPOINT.")
    sources = {BASE: base, SAFETY: safety}
    sources |= {check_role(name): source for name, source in languages.items()}
    members = {role: open_checkpoint(source, named_in=named_in) for role, source in sources.items()}
    return join_family(members, force=force)


def join_family(members: Mapping[str, Checkpoint], *, force: bool = False) -> Family:
    """Check that the experts descend from one base, as far as files can tell.

    Args:
        force: note what their configurations and tokenizers would be refused for. Tensors of other
            names or shapes, and a token with two meanings, are refused all the same.

    Raises:
        FamilyError: another architecture, depth, shape, tensor set, vocabulary, configuration or
            tying of the output projection; names them.
        safeswap.anatomy.AnatomyError: tensors that no unit takes.
    """
    named, notes = family_names({role: member.tensors for role, member in members.items()})
    members = {role: replace(member, tensors=named[role]) for role, member in members.items()}
    base = members[BASE]
    for role, member in members.items():
        if role != BASE:
            refuse_other_size(base, member, role)
    aliases = _tied_copies(members)
    left_out = _spare_buffers(members)
    kept = {
        role: {
            name: tensor
            for name, tensor in member.tensors.items()
            if (role, name) not in aliases and name not in left_out[role]
        }
        for role, member in members.items()
    }
    for role, member in members.items():
        if role != BASE:
            same_tensors(kept[BASE], kept[role], f"{role} expert {member.source.text}")
    notes += compare_configs(members, force=force)
    folders = {role: member.folder for role, member in members.items()}
    notes += compare_tokenizers(folders, BASE, force=force)
    notes += [note for role in members if (note := _unquantized(members[role], role))]
    shapes = {name: tensor.shape for name, tensor in kept[BASE].items()}
    dtypes = {name: tensor.dtype.name for name, tensor in kept[BASE].items()}
    anatomy = anatomy_of(shapes, dtypes=dtypes)
    notes += _beside_the_text(anatomy)
    return Family(members, anatomy, aliases, left_out, tuple(notes))


def _beside_the_text(anatomy: Anatomy) -> list[str]:
    """What comes from the donor whole, said."""
    meant = {
        "towers": "parts that read images or sound, and what joins them to the text",
        "prediction": "layers that predict further tokens",
    }
    return [
        f"{unit}: {len(anatomy.tensors(unit))} tensors ({meaning}) come from the donor; edit the "
        f"plan's row {unit} for another"
        for unit, meaning in meant.items()
        if unit in anatomy.units
    ]


def _spare_buffers(members: Mapping[str, Checkpoint]) -> dict[str, dict[str, str]]:
    """Masks and tables of positions that some members store: loaders make them anew, so that a
    model is the same with and without them.
    """
    everywhere = set.intersection(*(set(member.tensors) for member in members.values()))
    lacking = {
        name: next(role for role in members if name not in members[role].tensors)
        for member in members.values()
        for name in member.tensors
        if name not in everywhere and is_buffer_of(member.tensors, name)
    }
    return {
        role: {
            name: f"no weight: a buffer that the {lacking[name]} checkpoint does not store"
            for name in member.tensors
            if name in lacking
        }
        for role, member in members.items()
    }


def _unquantized(member: Checkpoint, role: str) -> str | None:
    said = quantization_of(member.config)
    if not said:
        return None
    method = said.get("quant_method") if isinstance(said, Mapping) else said
    return (
        f"{role}: its config.json speaks of a quantization ({method}), but its weights are plain "
        "floats and are taken as such; the output's config.json does not speak of it"
    )


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
