"""A checkpoint as stored: its configuration, its weight files, and where every tensor lies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safeswap.checkpoint.adapters import Adapter
from safeswap.checkpoint.header import read_header
from safeswap.checkpoint.inside import refuse_leaving
from safeswap.checkpoint.names import HEADS
from safeswap.checkpoint.precisions import PackedTensor, Unpacked, stored_bytes, unpacked
from safeswap.checkpoint.precisions.gguf import GgufFacts, gguf_files, open_gguf
from safeswap.checkpoint.precisions.gguf_header import read_gguf
from safeswap.checkpoint.reader import Tensor
from safeswap.checkpoint.refusals import (
    quantization_of,
    refuse_adapter,
    refuse_packed,
    refuse_quantized,
)
from safeswap.checkpoint.source import GGUF, WEIGHT_FILES, Source, read_json, resolve
from safeswap.checkpoint.stored import StoredTensor
from safeswap.checkpoint.tokenizers import has_tokenizer
from safeswap.checkpoint.weight_file import WeightFile, open_file
from safeswap.errors import CheckpointError, listed
from safeswap.io.files import Signature, reading_remedy, signatures
from safeswap.io.regular import is_there

SAFETENSORS_INDEX = "model.safetensors.index.json"
CONFIG = "config.json"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model as stored.

    Attributes:
        source: where it is.
        config: its ``config.json``.
        files: its weight files.
        tensors: every name → the tensor, whose ``reader()`` gives its numbers. A weight that is
            stored in parts (scaled fp8, MXFP4) is one tensor.
        signatures: name → what told each file in the folder when it was opened.
        aside: stored tensors that are no weights, and parts of none → why.
        extra: weight → scales of activations, which only a quantized output needs.
        facts: what a GGUF file says of its model. It has a ``config`` only where a config.json lies
            beside it.
        adapter: what changes its weights; all else is of the checkpoint that it stands on.
        stored: with an adapter, the tensors without it.
    """

    source: Source
    config: Mapping[str, Any]
    files: tuple[WeightFile, ...]
    tensors: Mapping[str, Tensor]
    signatures: Mapping[str, Signature] = field(default_factory=dict)
    aside: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, tuple[StoredTensor, ...]] = field(default_factory=dict)
    facts: GgufFacts | None = None
    adapter: Adapter | None = None
    stored: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """What the user typed, for messages: the adapter, where there is one, and its base."""
        if self.adapter is None:
            return self.source.text
        return f"{self.adapter.source.text} on {self.source.text}"

    @property
    def name(self) -> str:
        """A short public name, as `Source.name`."""
        if self.adapter is None:
            return self.source.name
        return f"{self.adapter.source.name} on {self.source.name}"

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folders that it comes from: its own, and the adapter's."""
        own = self.source.place
        return (own, self.adapter.folder) if self.adapter else (own,)

    @property
    def tokenizer_folder(self) -> Path:
        """Where its tokenizer is: an adapter's own goes before its base's."""
        own = self.adapter is not None and has_tokenizer(self.adapter.folder)
        return self.folders[-1] if own else self.folder

    @property
    def is_remote(self) -> bool:
        """Whether weights are read by ranges from elsewhere, an adapter's among them."""
        files = (*self.files, *((self.adapter.file,) if self.adapter else ()))
        return any(file.ranges is not None for file in files)

    @property
    def folder(self) -> Path:
        """The local folder."""
        return self.source.folder

    @property
    def nbytes(self) -> int:
        """Bytes of all payloads, as they are stored."""
        return sum(stored_bytes(tensor) for tensor in self.tensors.values())

    def beneath(self, tensor: Tensor) -> Tensor:
        """What its own folder stores of one of its tensors, before an adapter changes it."""
        return self.stored.get(tensor.name, tensor)

    @property
    def has_config(self) -> bool:
        """Whether a config.json lies with it; a GGUF file may have none."""
        return self.facts is None or (self.folder / CONFIG).exists()

    @property
    def packed(self) -> bool:
        """Whether any weight is stored in parts (scaled fp8, MXFP4, GGUF), below an adapter too."""
        tensors = (*self.tensors.values(), *self.stored.values())
        return any(isinstance(tensor, PackedTensor) for tensor in tensors)

    @property
    def heads(self) -> tuple[str, ...]:
        """The stored output projections; none where the input embeddings serve as such."""
        return tuple(name for name in self.tensors if name.endswith(HEADS))

    @property
    def said_tied(self) -> bool | None:
        """What config.json says of tying; None where it leaves that to the family's default."""
        return said_tied(self.config)

    @property
    def tied(self) -> bool:
        """Whether the output projection shares the input embeddings.

        The defaults of families differ (Llama: no, Gemma and GPT-2: yes), so where config.json does
        not say it the weights decide: tied unless a projection is stored.
        """
        return not self.heads if self.said_tied is None else self.said_tied


def said_tied(config: Mapping[str, Any]) -> bool | None:
    """What a config.json says of tying; None where it leaves that to the family's default."""
    text = config.get("text_config")
    inner = text if isinstance(text, Mapping) else {}
    said = config.get("tie_word_embeddings", inner.get("tie_word_embeddings"))
    return None if said is None else bool(said)


def open_checkpoint(text: str | Path | Source, *, named_in: str | Path = "") -> Checkpoint:
    """Find a checkpoint and read its headers; no weights are read.

    Args:
        text: a local folder, hub id or address (see :func:`safeswap.checkpoint.source.resolve`),
            or what that found.
        named_in: the file that names it, where the user did not.

    Raises:
        CheckpointError: missing or damaged files, an index that does not match its shards,
            quantized weights, adapters, or formats that are not weights of a model.
    """
    source = text
    if not isinstance(source, Source):
        source = resolve(source, named_in=named_in, ranges=True)
    folder = source.folder
    _refuse_closed(folder)
    seen = signatures(folder)  # before anything is read of them
    others = any(p for kind in ("*.safetensors", "*.bin") for p in folder.glob(kind))
    if blocks := gguf_files(folder, source.file, others or bool(source.remote)):
        return _open_gguf(source, blocks, seen)
    refuse_adapter(folder, _chosen(source) is not None)
    config = read_json(folder / "config.json")
    files = tuple(open_file(source, path) for path in _weight_paths(source))
    tensors: dict[str, StoredTensor] = {}
    for file in files:
        for tensor in file.tensors:
            if tensor.name in tensors:
                raise CheckpointError(
                    f"{folder}: tensor {tensor.name!r} is in {tensors[tensor.name].file.name} and "
                    f"again in {file.path.name}. Remove the stale shard."
                )
            tensors[tensor.name] = tensor
    _check_index(source, files, tensors, said_tied(config))
    model = _as_the_model_has_them(config, tensors)
    refuse_packed(model.tensors, quantization_of(config))
    refuse_quantized(folder, config, model.tensors)
    return Checkpoint(source, config, files, model.tensors, seen, model.aside, model.extra)


def _as_the_model_has_them(
    config: Mapping[str, Any], tensors: Mapping[str, StoredTensor]
) -> Unpacked:
    dtype = config.get("dtype", config.get("torch_dtype"))
    return unpacked(tensors, quantization_of(config), dtype)


def _weight_paths(source: Source) -> list[Path]:
    folder, chosen = source.folder, _chosen(source)
    if chosen and chosen.name.endswith(".index.json"):
        return [folder / name for name in sorted(set(_weight_map(source, chosen).values()))]
    if chosen:
        return [chosen]
    shards = [p for p in sorted(folder.glob("*.safetensors")) if not p.name.startswith("adapter_")]
    if len(shards) == 1:
        return shards
    if shards:
        raise CheckpointError(
            f"{folder}: has {len(shards)} safetensors files but no {SAFETENSORS_INDEX} that says "
            "how they belong together. Fetch the index too."
        )
    raise CheckpointError(
        f"{folder}: has no model.safetensors, {SAFETENSORS_INDEX} or pytorch_model.bin. "
        "Give the folder of a transformers checkpoint with its weights."
    )


def _chosen(source: Source) -> Path | None:
    """The file that says where the weights are: the one that transformers takes, so that what is
    merged is what was tried out (a single file goes before an index that lies beside it).
    """
    return next((source.folder / name for name in WEIGHT_FILES if source.has(name)), None)


def _weight_map(source: Source, index: Path) -> dict[str, str]:
    table = read_json(index).get("weight_map")
    plain = isinstance(table, dict) and all(isinstance(v, str) for v in table.values())
    if not plain or not table:
        raise CheckpointError(
            f"{index}: has no weight_map of tensor names to files. Fetch the index again."
        )
    assert isinstance(table, dict)
    for file in sorted(set(table.values())):
        if Path(file).name != file:
            raise CheckpointError(
                f"{index}: names the file {file!r} outside its own folder. Fetch the index again."
            )
        if file not in source.remote and not is_there(index.parent / file):
            raise CheckpointError(
                f"{index}: names the shard {file}, which is missing. Fetch that file too."
            )
    return table


def _check_index(
    source: Source,
    files: tuple[WeightFile, ...],
    tensors: Mapping[str, StoredTensor],
    tied: bool | None,
) -> None:
    folder, index = source.folder, _chosen(source)
    if index is None or index == files[0].path:
        return
    table = _weight_map(source, index)
    wrong = [
        name
        for name, file in table.items()
        # savers that drop a tied head's bytes may leave its name in the index
        if not (tied and name not in tensors and name.endswith(HEADS))
        and (name not in tensors or tensors[name].file.name != file)
    ]
    if wrong:
        raise CheckpointError(
            f"{index}: says that {listed(wrong)} lie in {table[wrong[0]]}, but the file does not "
            "have them. Index and shards are of different versions; fetch both again."
        )
    extra = [name for name in tensors if name not in table]
    if extra:
        raise CheckpointError(
            f"{folder}: the shards hold {listed(extra)}, which {index.name} does not name. "
            "Index and shards are of different versions; fetch both again."
        )


def _refuse_closed(folder: Path) -> None:
    try:
        next(folder.iterdir(), None)
        (folder / "config.json").exists()
    except OSError as error:
        todo = reading_remedy(error, "Fix its permissions, or use a copy that you may read.")
        raise CheckpointError(f"{folder}: cannot be listed ({error.strerror}). {todo}") from error


def _open_gguf(source: Source, paths: list[Path], seen: Mapping[str, Signature]) -> Checkpoint:
    """A model in GGUF: its configuration may be another member's (see ``family``)."""
    for path in paths:
        refuse_leaving(source.folder, path)
    model = open_gguf(paths)
    beside = source.folder / CONFIG
    config = read_json(beside) if beside.exists() else {}
    files = tuple(
        WeightFile(header.path, header.size, header.mtime_ns, header.digest, stored)
        for header, stored in zip(model.headers, model.stored, strict=True)
    )
    return Checkpoint(
        source, config, files, model.tensors, seen, aside=model.aside, facts=model.facts
    )


def header_again(file: WeightFile) -> bytes:
    """A weight file's ``header`` as it is now.

    Raises:
        CheckpointError: as when it was opened.
    """
    if file.path.suffix == GGUF:
        return read_gguf(file.path).digest
    return read_header(file.path, file.ranges).raw
