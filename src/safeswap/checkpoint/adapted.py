"""A member of a run, whole or an adapter: on which base it stands, and the two put together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from safeswap.checkpoint.adapters import Adapter, apply, is_adapter, open_adapter
from safeswap.checkpoint.model import Checkpoint, open_checkpoint
from safeswap.checkpoint.names import HEADS
from safeswap.checkpoint.reader import same_bytes
from safeswap.checkpoint.source import Source, resolve
from safeswap.errors import CheckpointError
from safeswap.io.regular import is_folder, shortened


def open_member(
    role: str,
    source: str | Path | None,
    adapter: str | Path | None = None,
    *,
    base: Checkpoint | None = None,
    named_in: str | Path = "",
) -> tuple[Checkpoint, list[str]]:
    """Open an expert: a whole checkpoint, an adapter that names its base, or an adapter on one.

    Args:
        source: the checkpoint, or the adapter; None where only ``adapter`` is given.
        adapter: the adapter that stands on ``source``.
        base: the run's base, for adapters that stand on it.
        named_in: the file that names them, where the user did not.

    Returns:
        The checkpoint as the adapter makes it, and what a user should know.

    Raises:
        CheckpointError: one of the two cannot be read, or they do not fit each other.
    """
    if adapter is None:
        assert source is not None
        found = resolve(source, named_in=named_in, ranges=True)
        if not is_adapter(found.folder, found.remote):
            return _opened(found, base, named_in), []
        given = open_adapter(found)
        source = None
    else:
        given = open_adapter(resolve(adapter, named_in=named_in, ranges=True))
    if source is None:
        under, notes = _named_base(role, given, base)
    else:
        under, notes = _opened(source, base, named_in), []
    if base is not None and under is not base and _same_weights(under, base):
        under = base
    whole = put_on(given, under)
    assert whole.adapter is not None
    return whole, [*notes, *(f"{role}: {note}" for note in whole.adapter.applied.notes)]


def _opened(
    source: str | Path | Source, base: Checkpoint | None, named_in: str | Path
) -> Checkpoint:
    """The checkpoint, or the run's base where it is that."""
    found = open_checkpoint(source, named_in=named_in)
    return base if base is not None and found.folder == base.folder else found


def put_on(adapter: Adapter, under: Checkpoint) -> Checkpoint:
    """The checkpoint that an adapter makes of its base; nothing is read or written.

    Raises:
        CheckpointError: the two do not fit; names the tensors.
    """
    family = str(under.config.get("model_type", ""))
    applied = apply(adapter.config, adapter.keys, under.tensors, family, under.tied)
    return replace(
        under,
        config=_grown(under, applied.changed),
        tensors={**under.tensors, **applied.changed},
        adapter=replace(adapter, applied=applied),
        stored=under.tensors,
    )


def _grown(under: Checkpoint, changed: Mapping[str, Any]) -> Mapping[str, Any]:
    """The base's configuration, with the vocabulary of embeddings that the adapter brings."""
    for name, tensor in changed.items():
        before = under.tensors.get(name)
        if before is None or name.endswith(HEADS) or before.shape == tensor.shape:
            continue
        config = dict(under.config)
        text = config.get("text_config")
        if isinstance(text, Mapping) and "vocab_size" in text:
            return {**config, "text_config": {**text, "vocab_size": tensor.shape[0]}}
        return {**config, "vocab_size": tensor.shape[0]}
    return under.config


def _named_base(role: str, given: Adapter, base: Checkpoint | None) -> tuple[Checkpoint, list[str]]:
    """The base that an adapter's configuration names, or the run's where that is it or is not here.

    A relative path counts from where the command runs, as peft reads it, or else from the adapter's
    folder.
    """
    named, path = given.config.base, given.config.path
    if base is not None and named and _is_named(base, named):
        return base, []
    reason = "names no base (base_model_name_or_path is empty)"
    if named:
        beside = given.folder / named
        text = str(beside) if not is_folder(Path(named)) and is_folder(beside) else named
        if given.config.revision and not is_folder(Path(text)):
            text = f"{named}@{given.config.revision}"
        try:
            return open_checkpoint(text, named_in=path), []
        except (CheckpointError, OSError, ValueError, RuntimeError) as error:  # no file's name
            first = str(error).split(". ")[0]
            reason = f"names the base {shortened(named)}, which cannot be used ({first})"
    explicit = f"--adapter {role}={given.source.text} and the base as --{_option(role)}"
    if base is None:
        raise CheckpointError(f"{path}: {reason}. Give both: {explicit}.")
    try:
        put_on(given, base)
    except CheckpointError as error:
        raise CheckpointError(
            f"{path}: {reason}, and it does not fit the run's base: {error} Or give both: "
            f"{explicit}."
        ) from error
    note = (
        f"{role}: its adapter {reason}; it is put on the run's base {base.source.text}, whose "
        f"tensors fit. If it was trained on other weights, give both: {explicit}"
    )
    return base, [note]


def _option(role: str) -> str:
    return "safety CHECKPOINT" if role == "safety" else f"language {role}=CHECKPOINT"


_SNAPSHOT = re.compile(r"models--(.+?)--(.+)")


def _is_named(base: Checkpoint, named: str) -> bool:
    """Whether a name in an adapter's configuration is the run's base: as typed, as id on a hub, or
    as a folder; a folder of the hub's cache is of the repository that it is named after.
    """
    source = base.source
    match = _SNAPSHOT.fullmatch(source.folder.parent.parent.name)
    cached = f"{match[1]}/{match[2]}" if match else ""
    if named.lower() in {source.text.lower(), (source.hub_id or "").lower(), cached.lower()} - {""}:
        return True
    try:
        return Path(named).expanduser().resolve() == source.folder
    except (OSError, ValueError, RuntimeError):
        return False


def _same_weights(one: Checkpoint, two: Checkpoint) -> bool:
    """Whether two checkpoints hold the same bytes; they are read only where all headers agree."""
    heads = [[(f.path.name, f.size, f.header) for f in whole.files] for whole in (one, two)]
    if heads[0] != heads[1] or one.config != two.config or not all(f.header for f in one.files):
        return False
    return all(same_bytes(tensor, two.tensors[name]) for name, tensor in one.tensors.items())
