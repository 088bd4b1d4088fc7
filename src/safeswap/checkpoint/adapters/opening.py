"""An adapter's folder, opened: its configuration and its tensors by name; no weights are read."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from safeswap.checkpoint import digests
from safeswap.checkpoint.adapters.apply import Applied
from safeswap.checkpoint.adapters.config import CONFIG, LoraConfig, read_config
from safeswap.checkpoint.adapters.keys import AdapterKeys, sort_keys
from safeswap.checkpoint.source import ADAPTER_FILES, WEIGHT_FILES, Source
from safeswap.checkpoint.weight_file import WeightFile, open_file
from safeswap.errors import CheckpointError
from safeswap.io.files import Signature, signatures


@dataclass(frozen=True)
class Adapter:
    """An adapter as stored.

    Attributes:
        source: where it is.
        config: what its ``adapter_config.json`` says.
        file: its weights.
        keys: its tensors, by what they are.
        signatures: name → what told each file in the folder when it was opened.
        applied: what it changes in its base; empty until it is put on one.
    """

    source: Source
    config: LoraConfig
    file: WeightFile
    keys: AdapterKeys
    signatures: Mapping[str, Signature] = field(default_factory=dict)
    applied: Applied = field(default_factory=Applied)

    @property
    def folder(self) -> Path:
        """The local folder."""
        return self.source.folder

    @property
    def is_plain(self) -> bool:
        """Whether it is low-rank updates and nothing else."""
        return not (self.keys.saved or self.keys.tokens or self.config.use_dora)

    def digest(self) -> str:
        """BLAKE3 (hex) of its weight file's header and tensors; reads the file."""
        found = {tensor.name: digests.of_tensor(tensor) for tensor in self.file.tensors}
        return digests.of_weight_file(self.file.header, self.file.tensors, found)


def is_adapter(folder: Path, remote: Collection[str] = ()) -> bool:
    """Whether a folder holds an adapter and no whole model.

    Args:
        remote: names of files that belong to it and do not lie here.
    """
    whole = any(name in remote or (folder / name).exists() for name in WEIGHT_FILES)
    return (folder / CONFIG).exists() and not whole


def open_adapter(source: Source) -> Adapter:
    """Open an adapter's folder.

    Raises:
        CheckpointError: no LoRA, damaged files, tensors that no LoRA has.
    """
    folder = source.folder
    if not is_adapter(folder, source.remote):
        what = "holds a whole model beside" if (folder / CONFIG).exists() else "has no"
        raise CheckpointError(
            f"{folder}: {what} {CONFIG}, so it is no adapter's folder. Give the folder that peft's "
            "save_pretrained wrote."
        )
    seen = signatures(folder)
    config = read_config(folder)
    path = next((folder / n for n in ADAPTER_FILES if source.has(n)), None)
    if path is None:
        raise CheckpointError(
            f"{folder}: has {CONFIG} but no {' or '.join(ADAPTER_FILES)}. Fetch its weights too."
        )
    file = open_file(source, path)
    if not file.tensors:
        raise CheckpointError(f"{path}: holds no tensors. Save or fetch the adapter again.")
    return Adapter(source, config, file, sort_keys(path, file.tensors), seen)
