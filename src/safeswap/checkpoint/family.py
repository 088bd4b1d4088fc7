"""Do these checkpoints belong together? Same tensors, shapes, architecture and vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from safeswap.anatomy import Anatomy, anatomy_of
from safeswap.checkpoint.adapted import open_member
from safeswap.checkpoint.borrowed import with_configs
from safeswap.checkpoint.compare import (
    compare_configs,
    flat,
    refuse_other_size,
    refuse_other_vocabulary,
)
from safeswap.checkpoint.lending import Lent, lend, remedy_of
from safeswap.checkpoint.members import same_tensors
from safeswap.checkpoint.mixtures import Relaid, in_layout_of
from safeswap.checkpoint.model import Checkpoint, open_checkpoint
from safeswap.checkpoint.names import family_names, is_buffer_of
from safeswap.checkpoint.precisions import stored_bytes
from safeswap.checkpoint.precisions.loss import precision_notes
from safeswap.checkpoint.reader import Tensor
from safeswap.checkpoint.refusals import quantization_of
from safeswap.checkpoint.tokenizers import compare_tokenizers
from safeswap.checkpoint.tying import Tying, tying_of
from safeswap.checkpoint.vocabularies.align import Alignment
from safeswap.checkpoint.vocabularies.read import read_vocabularies
from safeswap.checkpoint.vocabularies.view import OutputRows, map_rows
from safeswap.errors import ConfigError
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
        lent: role → what stands in for tensors that it lacks, and what it has besides; of
            experts that are merged all the same.
        notes: what a user should know although it is no obstacle.
        tying: whose output projection is its embeddings. Where members differ in it, the
            embeddings of a tied one stand under both names.
        alignment: the members' tokens, where these or the rows for them are not the same in all.
        rows: in a family as an output sees it (`output`), what became of the rows that were
            matched by token; empty where none had to be.
        relaid: role → its mixtures in the base's layout, where it stores them in another.
        sharded_by: the role whose files say how an output is cut into shards.
    """

    members: Mapping[str, Checkpoint]
    anatomy: Anatomy
    aliases: Mapping[tuple[str, str], str] = field(default_factory=dict)
    left_out: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    lent: Mapping[str, Lent] = field(default_factory=dict)
    tying: Tying = field(default_factory=lambda: Tying({}))
    alignment: Alignment | None = None
    rows: OutputRows = field(default_factory=lambda: OutputRows())
    relaid: Mapping[str, Relaid] = field(default_factory=dict)
    sharded_by: str = BASE

    @property
    def base(self) -> Checkpoint:
        """The common ancestor."""
        return self.members[BASE]

    @property
    def is_remote(self) -> bool:
        """Whether any member's weights are read by ranges from elsewhere."""
        return any(member.is_remote for member in self.members.values())

    @property
    def family_name(self) -> str:
        """The model type, as the base's config.json says it."""
        return str(self.base.config.get("model_type", ""))

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

    def measured(self, name: str) -> Mapping[str, Tensor]:
        """Role → the member's tensor as it is compared with the base's: by the base's rows."""
        if self.alignment is None or name not in self.alignment.tables:
            return self.tensors(name)
        if name not in self._by_base:
            self._by_base[name] = self.alignment.by_base(self.tensors(name))
        return self._by_base[name]

    def output(self, language: str, donor: str) -> Family:
        """The family as an output sees it: all tensors with the donor's rows in the donor's order,
        tied or not as the donor is, and experts apart or in one tensor as it stores them. Itself,
        where the members agree in all of that.

        Args:
            language: the output's; other languages take no part.
            donor: the role whose tokenizer and configuration go along.
        """
        if (language, donor) not in self._outputs:
            self._outputs[language, donor] = self._output(language, donor)
        return self._outputs[language, donor]

    def _output(self, language: str, donor: str) -> Family:
        roles = (BASE, SAFETY, language)
        tensors: dict[str, dict[str, Tensor]] = {r: dict(self.members[r].tensors) for r in roles}
        headless = bool(self.tying.head) and self.tying.tied[donor]
        left_out = self._without_head(tensors, donor) if headless else self.left_out
        rows = OutputRows()
        if self.alignment is not None:
            tables = self.alignment.tables - ({self.tying.head} if headless else set())
            alignment = replace(self.alignment, tables=tables)
            rows = map_rows(alignment, tensors, donor, self.members[donor].tokenizer_folder)
        relaid = self.relaid.get(donor)
        if not rows.tables and not headless and relaid is None:
            return self
        if relaid is not None:
            tensors = {r: self._as_stored_by(donor, r, own) for r, own in tensors.items()}
        members = {role: replace(self.members[role], tensors=tensors[role]) for role in roles}
        seen = replace(self, members=members, left_out=left_out, alignment=None, rows=rows)
        if relaid is None:
            return seen
        anatomy = _anatomy({name: seen.base.tensors[name] for name in seen.names})
        return replace(seen, anatomy=anatomy, sharded_by=donor, relaid={})

    def _as_stored_by(self, donor: str, role: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """A member's tensors with its mixtures in the donor's layout and under its names."""
        wanted, own = self.relaid[donor], self.relaid.get(role)
        rest = {name: t for name, t in tensors.items() if name not in wanted.made}
        if own is not None and set(own.own) == set(wanted.own):
            return {**rest, **own.own}
        here = {name: tensors[name] for name in wanted.made}
        found = in_layout_of(wanted.own, here, self.family_name, self.members[role].text)
        assert found is not None  # as it went the other way when the family was joined
        return {**rest, **found.made}

    @cached_property
    def _outputs(self) -> dict[tuple[str, str], Family]:
        return {}

    @cached_property
    def _by_base(self) -> dict[str, Mapping[str, Tensor]]:
        return {}

    def _without_head(
        self, tensors: dict[str, dict[str, Tensor]], donor: str
    ) -> Mapping[str, Mapping[str, str]]:
        """Drop the output projection, whose donor is tied while others are not; what is left out
        then.
        """
        head, left_out = self.tying.head, dict(self.left_out)
        reason = f"the donor ({donor}) is tied: the embeddings are the output projection too"
        for role, own in tensors.items():
            if role in self.tying.serving:
                del own[head]
            else:
                left_out[role] = {**left_out.get(role, {}), head: reason}
        return left_out

    def is_weight(self, name: str) -> bool:
        """Whether task vectors of a tensor mean something: floats, and no buffer."""
        buffer = self.anatomy.placements[name].role == "buffer"
        return self.base.tensors[name].dtype.mergeable and not buffer

    def bytes_to_read(self) -> int:
        """Bytes of all merged tensors of all members."""
        members = self.members.values()
        return sum(stored_bytes(member.tensors[n]) for member in members for n in self.names)

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
    safety: str | Path | None,
    languages: Mapping[str, str | Path],
    *,
    adapters: Mapping[str, str | Path] | None = None,
    named_in: str | Path = "",
    force: bool = False,
) -> Family:
    """Open the checkpoints of a run and check that they belong together; no weights are read.

    Args:
        safety, languages: experts: whole checkpoints, or adapters whose configuration names their
            base; None, or left out, for those that are given in ``adapters`` alone.
        adapters: role → an adapter that stands on the expert of that role, or, where none is given,
            on the base that it names.
        named_in: the file that names them, where the user did not.
        force: as for :func:`join_family`.

    Raises:
        CheckpointError, FamilyError, ConfigError: what is wrong with which of them.
    """
    put = dict(adapters or {})
    if BASE in put:
        raise ConfigError("--adapter base=…: the base of a run is a whole checkpoint. Merge it in.")
    sources: dict[str, str | Path | None] = {SAFETY: safety}
    sources |= {check_role(name): source for name, source in languages.items()}
    sources |= {check_role(r): None for r in put if r not in sources and r != SAFETY}
    if safety is None and SAFETY not in put:
        raise ConfigError("the safety expert is missing: add --safety CHECKPOINT.")
    if len(sources) < 2:
        raise ConfigError("no language expert is given: add --language NAME=CHECKPOINT.")
    members, notes = {BASE: open_checkpoint(base, named_in=named_in)}, []
    for role, source in sources.items():
        members[role], said = open_member(
            role, source, put.get(role), base=members[BASE], named_in=named_in
        )
        notes += said
    family = join_family(members, force=force)
    return replace(family, notes=(*notes, *family.notes))


def join_family(members: Mapping[str, Checkpoint], *, force: bool = False) -> Family:
    """Check that the experts descend from one base, as far as files can tell.

    Args:
        force: note what their configurations and tokenizers would be refused for; what an expert
            lacks inside the layers is the base's, what it has besides is left out. Other shapes
            are refused all the same, but for rows that belong to tokens.

    Raises:
        FamilyError: another architecture, depth, shape, tensor set or configuration, or a
            vocabulary whose tokens do not correspond; names them.
        safeswap.anatomy.AnatomyError: tensors that no unit takes.
    """
    members, borrowed = with_configs(members, force=force)
    named, notes = family_names({role: member.tensors for role, member in members.items()})
    members = {role: replace(member, tensors=named[role]) for role, member in members.items()}
    relaid = _relaid(members)
    for role, one in relaid.items():
        members[role] = replace(members[role], tensors=one.of(named[role]))
    notes += [one.note(role) for role, one in relaid.items()]
    base = members[BASE]
    for role, member in members.items():
        if role != BASE:
            refuse_other_size(base, member, role)
    tying = tying_of(members)
    members = {role: _with_head(member, role, tying) for role, member in members.items()}
    left_out = _spare_buffers(members)
    kept = {
        role: {
            name: tensor
            for name, tensor in member.tensors.items()
            if (role, name) not in tying.aliases and name not in left_out[role]
        }
        for role, member in members.items()
    }
    lent = _lend(members, kept, left_out) if force else {}
    notes += [one.note(role, len(kept[BASE])) for role, one in lent.items()]
    folders = {r: member.tokenizer_folder for r, member in members.items() if member.has_config}
    known = read_vocabularies(folders)
    first = next(iter(folders))  # whose tokenizer a GGUF file without one is read with
    read = {role: known.get(role, known[first]) for role in members}
    alignment = Alignment.of(read, {r: flat(m.config) for r, m in members.items()}, kept)
    for role, member in members.items():
        if role != BASE:
            if alignment is None:
                refuse_other_vocabulary(base, member, role)
            tables = alignment.tables if alignment else ()
            who = f"{role} expert {member.text}"
            same_tensors(kept[BASE], kept[role], who, tables, remedy_of(kept[BASE], kept[role]))
    notes += tying.notes()
    notes += borrowed
    notes += compare_configs(members, force=force, mapped=alignment is not None)
    notes += compare_tokenizers(folders, first, read=read, alignment=alignment, force=force)
    notes += [note for role in members if (note := _unquantized(members[role], role))]
    stored = {r: {n: members[r].beneath(t) for n, t in own.items()} for r, own in kept.items()}
    notes += precision_notes(stored, force=force)
    anatomy = _anatomy(kept[BASE])
    notes += _beside_the_text(anatomy)
    return Family(
        *(members, anatomy, tying.aliases, left_out, tuple(notes), lent, tying, alignment),
        relaid=relaid,
    )


def _anatomy(tensors: Mapping[str, Tensor]) -> Anatomy:
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    return anatomy_of(shapes, dtypes={name: t.dtype.name for name, t in tensors.items()})


def _relaid(members: Mapping[str, Checkpoint]) -> dict[str, Relaid]:
    """The mixtures of members that store them in another layout than the base."""
    base = members[BASE]
    found = {
        role: in_layout_of(
            base.tensors,
            member.tensors,
            str(base.config.get("model_type", "")),
            f"{role} expert {member.text}",
        )
        for role, member in members.items()
        if role != BASE and member.tensors.keys() != base.tensors.keys()
    }
    return {role: one for role, one in found.items() if one is not None}


def _lend(
    members: dict[str, Checkpoint],
    kept: dict[str, dict[str, Tensor]],
    left_out: dict[str, dict[str, str]],
) -> dict[str, Lent]:
    """Give experts the base's tensors for those that they lack, in place."""
    found = {r: one for r in members if r != BASE and (one := lend(kept[BASE], kept[r]))}
    for role, one in found.items():
        members[role] = replace(members[role], tensors={**members[role].tensors, **one.tensors})
        left_out[role] = {**left_out[role], **one.extra}
        kept[role] = {n: t for n, t in (kept[role] | dict(one.tensors)).items() if n in kept[BASE]}
    return found


def _with_head(member: Checkpoint, role: str, tying: Tying) -> Checkpoint:
    """The member with its embeddings under the name of the projection that they serve as."""
    if role not in tying.serving:
        return member
    return replace(
        member, tensors={**member.tensors, tying.head: member.tensors[tying.serving[role]]}
    )


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
    if not said or member.packed:
        return None
    method = said.get("quant_method") if isinstance(said, Mapping) else said
    return (
        f"{role}: its config.json speaks of a quantization ({method}), but its weights are plain "
        "floats and are taken as such; the output's config.json does not speak of it"
    )
