"""Which tensors have a row per token, and which row of one member is which of another.

Rows are matched by the token's string. A token that lies beyond a member's rows is none of it, and
a row without a token (padding, which makes a matrix's height a round number) matches no other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from blake3 import blake3

from safeswap.anatomy.vocabulary import NORM_WORDS, has_word
from safeswap.checkpoint.config_keys import is_vocabulary_size
from safeswap.checkpoint.names import HEADS, is_buffer_of
from safeswap.checkpoint.reader import Tensor
from safeswap.checkpoint.vocabularies.read import Tokens, Vocabulary
from safeswap.checkpoint.vocabularies.rows import MappedTensor, Rows, rows_of
from safeswap.errors import FamilyError, listed
from safeswap.roles import BASE

Tensors = Mapping[str, Tensor]

LEAST_SHARED = 0.5
"""The share of the smaller vocabulary's tokens that two members of a family have in common at
least. A vocabulary that only grew, or was only cut, shares all of it."""
_OTHER_TABLES = ("position", "positions", "pos", "wpe", "type")
"""Words of tables outside the layers whose rows are no tokens, whatever their number."""


@dataclass(frozen=True)
class Alignment:
    """The tokens of a family's members, where these or the rows for them are not the same in all.

    Attributes:
        tokens: role → token → id.
        tables: the tensors that have a row per token, by their family names.
    """

    tokens: Mapping[str, Tokens]
    tables: frozenset[str]

    @classmethod
    def of(
        cls,
        read: Mapping[str, Vocabulary],
        configs: Mapping[str, Mapping[str, Any]],
        tensors: Mapping[str, Tensors],
    ) -> Alignment | None:
        """The alignment of a family's members; None where rows correspond by their numbers, or
        where it is not known which token they are.

        Args:
            read: role → what its folder says of its tokens.
            configs: role → its configuration, one level deep (dotted keys).
            tensors: role → family name → tensor.

        Raises:
            FamilyError: tables of other heights, and the tokens of a member are not known.
        """
        tables = token_tables(configs, tensors)
        unread = {r: one.unread or "no tokenizer" for r, one in read.items() if one.tokens is None}
        if unread:
            refuse_unmatched(tables, tensors, unread)
            return None
        if not tables:
            return None
        found = cls({role: one.tokens or {} for role, one in read.items()}, tables)
        return None if all(found.same(name, tensors) for name in tables) else found

    def same(self, name: str, tensors: Mapping[str, Tensors]) -> bool:
        """Whether a table's rows mean the same tokens in all members that have it."""
        having = {role: own[name] for role, own in tensors.items() if name in own}
        return self.alike(tuple(having), having)

    def by_base(self, tensors: Tensors) -> dict[str, Tensor]:
        """The members' tables with the base's rows in the base's order; a row that an expert does
        not have is the base's own, so that its difference is nothing.
        """
        base = tensors[BASE]
        found = {BASE: base}
        for role, expert in tensors.items():
            if role == BASE or self.alike((BASE, role), tensors):
                found[role] = expert
            else:
                found[role] = MappedTensor(
                    expert, base, self.rows(BASE, (BASE, role), tensors)[role]
                )
        return found

    def alike(self, roles: Iterable[str], tensors: Tensors) -> bool:
        """Whether members have the same tokens in the same rows, and as many rows."""
        first, *others = roles
        height = rows_of(tensors[first].shape)
        if any(rows_of(tensors[role].shape) != height for role in others):
            return False
        known = self.tokens[first]
        if all(self.tokens[role] == known for role in others):
            return True
        placed = _placed(known, height)
        return all(_placed(self.tokens[role], height) == placed for role in others)

    def rows(self, target: str, roles: Sequence[str], tensors: Tensors) -> dict[str, Rows]:
        """Where the rows of a target lie in every member.

        Args:
            target: the role whose rows, in its order, are wanted; one of the members.
            roles: the members; a row counts only where all of them have its token.
            tensors: role → its tensor.

        Returns:
            Role → for each row of the target its row in the role's tensor, -1 where not all have
            its token.
        """
        heights = tuple(rows_of(tensors[role].shape) for role in (target, *roles))
        key = (target, tuple(roles), heights)  # embeddings and projection have one map
        if key not in self._known:
            self._known[key] = self._rows(target, roles, dict(zip(roles, heights[1:], strict=True)))
        return self._known[key]

    @cached_property
    def _known(self) -> dict[tuple[str, tuple[str, ...], tuple[int, ...]], dict[str, Rows]]:
        return {}

    def _rows(
        self, target: str, roles: Sequence[str], height_of: Mapping[str, int]
    ) -> dict[str, Rows]:
        height = height_of[target]
        others = [role for role in roles if role != target]
        heights = [height_of[role] for role in others]
        found = {role: np.full(height, -1, np.int64) for role in roles}
        tables = [self.tokens[role] for role in others]
        for token, row in self.tokens[target].items():
            if not 0 <= row < height:
                continue
            places = [table.get(token, -1) for table in tables]
            if all(0 <= p < h for p, h in zip(places, heights, strict=True)):
                for role, place in zip(others, places, strict=True):
                    found[role][row] = place
                found[target][row] = row
        return found

    def n_dropped(self, role: str, donor: str) -> int:
        """How many tokens of a member have no id in an output with the donor's."""
        return sum(token not in self.tokens[donor] for token in self.tokens[role])


def _placed(tokens: Tokens, height: int) -> dict[str, int]:
    return {token: row for token, row in tokens.items() if 0 <= row < height}


def token_tables(
    configs: Mapping[str, Mapping[str, Any]], tensors: Mapping[str, Tensors]
) -> frozenset[str]:
    """The tensors with a row per token: outside the layers, as high in every member as its
    config.json says that the vocabulary is, and called no table of something else. None at all
    where an output projection is of another height: its rows would be left in another order.
    """
    sizes = {role: _sizes(config) for role, config in configs.items()}
    tables = frozenset(
        name
        for name in tensors[BASE]
        if _may_be_table(name, tensors[BASE])
        and all(n in sizes[r] for r, own in tensors.items() if (n := _height(own, name)))
    )
    heads = {name for own in tensors.values() for name in own if name.endswith(HEADS)}
    return tables if heads <= tables else frozenset()


def _height(tensors: Tensors, name: str) -> int:
    return rows_of(tensors[name].shape) if name in tensors else 0


def _may_be_table(name: str, tensors: Tensors) -> bool:
    parts = name.split(".")
    if any(part.isdigit() for part in parts) or is_buffer_of(tensors, name):
        return False
    return not any(has_word(part, (*_OTHER_TABLES, *NORM_WORDS)) for part in parts)


def _sizes(config: Mapping[str, Any]) -> set[int]:
    return {n for key, n in config.items() if is_vocabulary_size(key) and isinstance(n, int)}


def check_overlap(
    tokens: Mapping[str, Tokens], who: Mapping[str, str], *, force: bool = False
) -> list[str]:
    """Refuse vocabularies that do not correspond; say how those that differ do.

    Args:
        tokens: role → token → id, the base's among them.
        who: role → how it is called in a message.
        force: note what would be refused.

    Raises:
        FamilyError: two members share less than half of the smaller vocabulary; says the numbers.
    """
    ours, notes = tokens[BASE], []
    for role, theirs in tokens.items():
        if role == BASE or theirs == ours:
            continue
        both = [token for token in theirs if token in ours]
        share = len(both) / max(1, min(len(ours), len(theirs)))
        moved = sum(theirs[token] != ours[token] for token in both)
        text = (
            f"its tokenizer has {len(theirs)} tokens, the base's {len(ours)}; {len(both)} are in "
            f"both, {moved} of them with another id"
        )
        if share >= LEAST_SHARED:
            notes.append(f"{role}: {text}: rows are matched by token (map {_map(theirs, ours)})")
            continue
        text = f"{text}: {share:.0%} of the smaller vocabulary, so the tokens do not correspond"
        if not force:
            raise FamilyError(
                f"{who[role]}: {text}. Use an expert whose tokenizer was made from the base's, or "
                "put the right one into its folder; --force (force=True) goes on with the tokens "
                "that both have."
            )
        notes.append(f"{role}: {text}; rows are matched where they do (map {_map(theirs, ours)})")
    return notes


def _map(*tokens: Tokens) -> str:
    """What tells one map from another: a profile that was measured by another is of no use."""
    hashing = blake3()
    for own in tokens:
        lines = (f"{token}\0{row}\n" for token, row in sorted(own.items()))
        hashing.update("".join(lines).encode("utf-8", "surrogatepass"))
    return hashing.hexdigest()[:12]


def refuse_unmatched(
    tables: Iterable[str], tensors: Mapping[str, Tensors], unread: Mapping[str, str]
) -> None:
    """Refuse other heights where the tokens of a member are not known.

    Args:
        tables: names of the tensors with a row per token.
        tensors: role → its tensors.
        unread: role → why its tokens are not known; empty where all are.

    Raises:
        FamilyError: says whose, and what helps.
    """
    for name in tables:
        heights = {role: own[name].shape for role, own in tensors.items() if name in own}
        if len({rows_of(shape) for shape in heights.values()}) > 1 and unread:
            shown = ", ".join(f"{role} {list(shape)}" for role, shape in heights.items())
            why = listed([f"{role}: {reason}" for role, reason in unread.items()], 5)
            raise FamilyError(
                f"tensor {name!r} has a row per token and is of other heights ({shown}), and its "
                f"rows cannot be matched without all tokenizers ({why}). Use folders "
                "that hold each one's tokenizer.json, or the files of its slow tokenizer."
            )
