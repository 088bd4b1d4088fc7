"""An adapter put on its base: for every tensor that it changes, what it then is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from safeswap.checkpoint.adapters.config import LoraConfig
from safeswap.checkpoint.adapters.factors import Factors, all_numbers
from safeswap.checkpoint.adapters.keys import AdapterKeys, ModuleParts
from safeswap.checkpoint.adapters.places import conv1d, experts_of, factors_of, translation
from safeswap.checkpoint.adapters.tensors import (
    AddedTensor,
    ConvertedTensor,
    DoraTensor,
    LowRankTensor,
    Recent,
    RowsTensor,
)
from safeswap.checkpoint.names import HEADS
from safeswap.checkpoint.reader import Tensor, same_bytes
from safeswap.checkpoint.stored import StoredTensor
from safeswap.errors import CheckpointError, nearest

_HEAD_WORDS = tuple(head.removesuffix(".weight") for head in HEADS)
_EMBEDDINGS = ("embed_tokens", "wte", "embed_in", "word_embeddings", "embedding", "tok_embeddings")


@dataclass
class Applied:
    """What an adapter makes of its base's tensors.

    Attributes:
        changed: name → the tensor as the adapter makes it.
        names: name → the module or parameter of the adapter, as peft names it.
        parameters: name → how many wrappers lie around its own; of ``target_parameters`` only.
        notes: what a user should know.
    """

    changed: dict[str, Tensor] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    parameters: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def apply(
    config: LoraConfig, keys: AdapterKeys, base: Mapping[str, Tensor], family: str, tied: bool
) -> Applied:
    """Find every tensor that an adapter changes; reads what it replaces, to see whether it does.

    Args:
        base: the base's tensors by stored name.
        family: its model type.
        tied: whether its embeddings serve as output projection too.

    Raises:
        CheckpointError: modules, rows or shapes that the base does not have; names them.
    """
    modules = {parts.module for parts in keys.modules.values()}
    owners = {name.rpartition(".")[0] for name in keys.saved}
    places = translation({*modules, *keys.tokens, *owners}, base)
    run = _Run(config, keys, base, places, family, tied, Applied())
    run.put_saved()
    run.put_tokens()
    run.put_updates()
    return run.applied


@dataclass
class _Run:
    config: LoraConfig
    keys: AdapterKeys
    base: Mapping[str, Tensor]
    places: Mapping[str, str]
    family: str
    tied: bool
    applied: Applied
    recent: Recent = field(default_factory=Recent)

    def now(self, name: str) -> Tensor | None:
        """A tensor as it is so far."""
        return self.applied.changed.get(name, self.base.get(name))

    def put(self, name: str, tensor: Tensor, module: str) -> None:
        self.applied.changed[name] = tensor
        self.applied.names[name] = module

    def put_saved(self) -> None:
        """Tensors that take the place of the base's: trained modules, biases, grown embeddings."""
        for stored_name, tensor in self.keys.saved.items():
            owner, _, leaf = stored_name.rpartition(".")
            name = f"{self.places.get(owner, owner)}.{leaf}"
            under = self.base.get(name)
            if under is None and name.endswith(HEADS) and self.tied:
                under = self._embeddings(tensor)
            if under is None:
                raise self._not_there(tensor, name)
            grown = tensor.shape[1:] == under.shape[1:] and self._holds_tokens(name)
            if tensor.shape != under.shape and not grown:
                raise CheckpointError(
                    f"{tensor.where}: {tensor.name!r} has shape {list(tensor.shape)}, the base's "
                    f"{name!r} {list(under.shape)} ({under.where}). Give the base that the adapter "
                    "was trained on."
                )
            if not same_bytes(tensor, under):  # peft saves targeted embeddings as they were, too
                self.put(name, _renamed(tensor, name, under), stored_name)

    def _holds_tokens(self, name: str) -> bool:
        return name.endswith(HEADS) or name.split(".")[-2] in _EMBEDDINGS

    def _embeddings(self, like: Tensor) -> Tensor | None:
        alike = (
            t
            for n, t in self.base.items()
            if self._holds_tokens(n) and t.shape[1:] == like.shape[1:]
        )
        return next(alike, None)

    def put_tokens(self) -> None:
        """New rows of embeddings."""
        for module, tensor in self.keys.tokens.items():
            name = f"{self.places[module]}.weight"
            under = self.now(name)
            if under is None:
                raise self._not_there(tensor, name)
            tables = self.config.trainable_token_indices
            fits = [key for key in tables if module == key or module.endswith(f".{key}")]
            rows = tables.get(fits[0] if fits else "", ())
            if tensor.shape != (len(rows), *under.shape[1:]) or max(rows) >= under.shape[0]:
                raise CheckpointError(
                    f"{tensor.where}: {tensor.name!r} has shape {list(tensor.shape)}, for "
                    f"{len(rows)} trainable_token_indices of {name!r} {list(under.shape)}. Give "
                    "the base that the adapter was trained on."
                )
            made = RowsTensor(
                name, under, under.dtype, under.shape, (tensor,), rows=rows, replacement=tensor
            )
            self.put(name, made, module)
            self._note_tied(name, module)

    def put_updates(self) -> None:
        """Low-rank updates, DoRA's among them."""
        as_conv1d = conv1d(self.base)
        stacks: dict[str, list[ModuleParts]] = defaultdict(list)
        for parts in self.keys.modules.values():
            place = self.places[parts.module]
            name = f"{place}.weight"
            if not parts.depth and place in self.base and name not in self.base:
                name = place  # a parameter that is no module's weight
            under = self.now(name)
            if under is None and name.endswith(HEADS) and self.tied:
                if not self._repeats_embeddings(parts):
                    raise self._tied_head(parts)
                continue
            if under is None or parts.depth:
                stacks[place].append(parts)
                continue
            self._check_parts(parts, under)
            self.put(name, self._updated(parts, name, under, as_conv1d), parts.module)
            self._put_bias(parts, place)
            self._note_tied(name, parts.module)
        for place, wrappers in stacks.items():
            self._put_stack(place, wrappers)

    def _updated(
        self, parts: ModuleParts, name: str, under: Tensor, as_conv1d: bool
    ) -> LowRankTensor | DoraTensor:
        factors = factors_of(self.config, parts, under, as_conv1d)
        sources: tuple[Tensor, ...] = (factors.a, factors.b)
        magnitudes = parts.parts.get("lora_magnitude_vector")
        if magnitudes is None:
            return LowRankTensor(
                *(name, under, under.dtype, under.shape, sources),
                factors=factors,
                recent=self.recent,
            )
        outputs = factors.columns if factors.transposed else factors.rows
        if magnitudes.elements != outputs or len(under.shape) != 2:
            raise CheckpointError(
                f"{magnitudes.where}: {magnitudes.name!r} has {magnitudes.elements} magnitudes, "
                f"{name!r} {list(under.shape)} has {outputs} outputs; DoRA is read for matrices. "
                "Give the base that the adapter was trained on."
            )
        sources = (*sources, magnitudes)
        return DoraTensor(
            *(name, under, under.dtype, under.shape, sources),
            factors=factors,
            magnitudes=magnitudes,
            recent=self.recent,
        )

    def _check_parts(self, parts: ModuleParts, under: Tensor) -> None:
        dora = "lora_magnitude_vector" in parts.parts
        if dora != self.config.use_dora:
            there = next(iter(parts.parts.values()))
            raise CheckpointError(
                f"{there.where}: {parts.module} has {'' if dora else 'no '}lora_magnitude_vector, "
                f"and use_dora is {str(self.config.use_dora).lower()} in {self.config.path.name}. "
                "The two files are of different adapters; fetch both again."
            )
        if not under.dtype.mergeable:
            raise CheckpointError(
                f"{under.where}: {under.name!r} is {under.dtype}, no weight that an adapter could "
                "change. Use the 16-bit original of the base."
            )

    def _put_bias(self, parts: ModuleParts, place: str) -> None:
        added = parts.parts.get("lora_B.bias")
        if added is None:
            return
        name, scale = f"{place}.bias", self.config.scale(parts.module)
        under = self.now(name)
        if under is None or under.shape != added.shape or not self.config.lora_bias:
            raise CheckpointError(
                f"{added.where}: {added.name!r} is added to {name!r}, which "
                + ("the base does not have" if under is None else "does not fit it")
                + (". " if self.config.lora_bias else ", and lora_bias is false. ")
                + "Use an adapter that was trained without lora_bias."
            )
        made = AddedTensor(
            name, under, under.dtype, under.shape, (added,), added=added, scale=scale
        )
        self.put(name, made, parts.module)

    def _put_stack(self, place: str, wrappers: list[ModuleParts]) -> None:
        wrappers = sorted(wrappers, key=lambda parts: -parts.depth)
        if not self.config.target_parameters:
            raise self._not_there(next(iter(wrappers[0].parts.values())), f"{place}.weight")
        for parts, parameter, name, factors in experts_of(
            self.config, wrappers, place, self.base, self.family
        ):
            under = self.now(name)
            assert under is not None
            made = LowRankTensor(
                *(name, under, under.dtype, under.shape, (factors.a, factors.b)),
                factors=factors,
                recent=self.recent,
            )
            self.put(name, made, f"{parts.module}.{parameter}")
            self.applied.parameters[name] = parts.depth

    def _repeats_embeddings(self, head: ModuleParts) -> bool:
        """Whether a tied head's update is the embeddings' own (``ensure_weight_tying``)."""
        for parts in self.keys.modules.values():
            if "lora_embedding_A" in parts.parts:
                pairs = (("lora_embedding_B", "lora_A"), ("lora_embedding_A", "lora_B"))
                return all(_turned(parts.parts.get(a), head.parts.get(b)) for a, b in pairs)
        return False

    def _note_tied(self, name: str, module: str) -> None:
        both = any(parts.module.endswith(_HEAD_WORDS) for parts in self.keys.modules.values())
        changed = isinstance(self.now(name), LowRankTensor | DoraTensor)
        if self.tied and not both and self._holds_tokens(name) and changed:
            self.applied.notes.append(
                f"its update of {module} changes the output projection too, which the base ties to "
                "the embeddings (as peft's merge_and_unload does; the adapter alone changes the "
                "input)"
            )

    def _tied_head(self, parts: ModuleParts) -> CheckpointError:
        there = next(iter(parts.parts.values()))
        return CheckpointError(
            f"{there.where}: changes {parts.module} alone, which the base ties to its embeddings: "
            "one stored tensor cannot be both. Use an adapter that was trained with "
            "ensure_weight_tying, or give a base that is saved with its output projection "
            "(tie_word_embeddings false)."
        )

    def _not_there(self, tensor: Tensor, name: str) -> CheckpointError:
        bare = [n for n in self.base if n.rpartition(".")[2] == name.rpartition(".")[2]]
        return CheckpointError(
            f"{tensor.where}: {tensor.name!r} changes {name!r}, which the base does not "
            f"have{nearest(name, bare)} Give the base that the adapter was trained on."
        )


def _turned(one: Tensor | None, two: Tensor | None) -> bool:
    """Whether two factors are each other's transpose."""
    if one is None or two is None or one.shape != two.shape[::-1]:
        return False
    left, right = (all_numbers(tensor).reshape(tensor.shape) for tensor in (one, two))
    return bool((left == right.T).all())


def _renamed(tensor: StoredTensor, name: str, under: Tensor) -> Tensor:
    """The adapter's own tensor under the base's name, in the base's format."""
    if tensor.dtype == under.dtype:
        return replace(tensor, name=name)
    if not tensor.dtype.mergeable or not under.dtype.mergeable:
        raise CheckpointError(
            f"{tensor.where}: {tensor.name!r} is {tensor.dtype}, the base's {name!r} "
            f"{under.dtype}. Give the base that the adapter was trained on."
        )
    return ConvertedTensor(name, tensor, under.dtype, tensor.shape, (tensor,))


def update_of(tensor: Tensor, base: Tensor) -> Factors | None:
    """The low-rank update that makes ``tensor`` of ``base``; None where that is not all there is.

    The base's own tensor must lie right below it: then the difference is the update alone.
    """
    if isinstance(tensor, LowRankTensor) and tensor.under == base:
        return tensor.factors
    return None
