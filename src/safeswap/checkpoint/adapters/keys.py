"""The names of an adapter's tensors: which module of the model each belongs to, and as what.

peft stores ``base_model.model.MODULE.lora_A.weight``; other tools leave the prefix out, or the
adapter's own name and the marks of training wrappers in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from safeswap.checkpoint.names import without_marks
from safeswap.checkpoint.stored import StoredTensor
from safeswap.errors import CheckpointError, listed

_PART = re.compile(
    r"(?P<module>.+)\.(?P<kind>lora_A|lora_B|lora_embedding_A|lora_embedding_B|"
    r"lora_magnitude_vector)(?:\.(?P<adapter>(?!weight$|bias$)[^.]+))?(?:\.(?P<leaf>weight|bias))?"
)
_TOKENS = re.compile(
    r"(?P<module>.+)\.token_adapter\.trainable_tokens_delta(?:\.(?P<adapter>[^.]+))?"
)
_SAVED = re.compile(r"(?P<module>.+)\.modules_to_save(?:\.(?P<adapter>[^.]+))?\.(?P<leaf>[^.]+)")
_PREFIXES = ("module.", "base_model.model.")


@dataclass
class ModuleParts:
    """The tensors of one LoRA module; ``depth``: how many other parameters it is wrapped around."""

    name: str
    parts: dict[str, StoredTensor] = field(default_factory=dict)

    @property
    def module(self) -> str:
        """The module without the wrappers of peft."""
        return self.name.replace(".base_layer", "")

    @property
    def depth(self) -> int:
        """How many wrappers lie around it."""
        return self.name.count(".base_layer")


@dataclass
class AdapterKeys:
    """An adapter's tensors by what they are.

    Attributes:
        modules: name with its wrappers → the parts of a LoRA update.
        tokens: module → new rows of an embedding.
        saved: parameter → the tensor that takes its place.
    """

    modules: dict[str, ModuleParts] = field(default_factory=dict)
    tokens: dict[str, StoredTensor] = field(default_factory=dict)
    saved: dict[str, StoredTensor] = field(default_factory=dict)


def plain_name(name: str) -> str:
    """A stored name without the marks of wrappers and without peft's prefix."""
    name = without_marks(name)
    while prefix := next((p for p in _PREFIXES if name.startswith(p)), None):
        name = name.removeprefix(prefix)
    return name


def sort_keys(path: Path, tensors: Iterable[StoredTensor]) -> AdapterKeys:
    """Say of every tensor of an adapter what it is.

    Raises:
        CheckpointError: tensors of several adapters, of another method, or the same thing twice;
            names them.
    """
    found, adapters, strange = AdapterKeys(), set[str](), list[str]()
    for tensor in tensors:
        name = plain_name(tensor.name)
        if match := _PART.fullmatch(name):
            kind = match["kind"] + (".bias" if match["leaf"] == "bias" else "")
            parts = found.modules.setdefault(match["module"], ModuleParts(match["module"])).parts
            _put(path, parts, kind, tensor)
        elif match := _TOKENS.fullmatch(name):
            _put(path, found.tokens, match["module"], tensor)
        elif match := _SAVED.fullmatch(name):
            _put(path, found.saved, f"{match['module']}.{match['leaf']}", tensor)
        elif any(p.startswith("lora_") or p == "original_module" for p in name.split(".")):
            strange.append(tensor.name)
            continue
        else:
            _put(path, found.saved, name.replace(".base_layer.", "."), tensor)
            continue
        if match["adapter"]:
            adapters.add(match["adapter"])
    if strange:
        raise CheckpointError(
            f"{path}: holds {listed(strange)}, which no plain LoRA has. Merge the adapter with "
            "peft (merge_and_unload), and give the merged folder."
        )
    if len(adapters) > 1:
        raise CheckpointError(
            f"{path}: holds several adapters ({listed(sorted(adapters))}). Save the one that is "
            "meant by itself (save_pretrained with selected_adapters)."
        )
    return found


def _put(path: Path, table: dict[str, StoredTensor], key: str, tensor: StoredTensor) -> None:
    if key in table:
        raise CheckpointError(
            f"{path}: holds {tensor.name!r} besides {table[key].name!r}, the same thing twice. "
            "Save the adapter again with peft."
        )
    table[key] = tensor
