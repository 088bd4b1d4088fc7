"""What an ``adapter_config.json`` says, read strictly: which numbers of it change the weights.

The file is peft's ``LoraConfig``. Keys that only say how the adapter was trained are passed over;
those of variants that are no difference of weights are refused with the command that merges them;
keys that nobody here knows are refused unless they are empty, for they might change the weights.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safeswap.checkpoint.source import read_json
from safeswap.errors import CheckpointError, nearest
from safeswap.io.regular import shortened

CONFIG = "adapter_config.json"
_TRAINING = (
    *("task_type", "auto_mapping", "peft_version", "inference_mode", "lora_dropout"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
    *("megatron_config", "megatron_core", "eva_config", "corda_config", "lora_ga_config"),
    *("loftq_config", "qalora_group_size", "runtime_config", "ensure_weight_tying"),
    *("modules_to_tie", "target_modules_to_tie", "velora_config", "use_auth_token"),
)
"""Keys that say how an adapter was made or is to run; its tensors say what came of them."""
_VARIANTS = {
    "layer_replication": "it repeats layers of its base, so that the two have not the same tensors",
    "use_qalora": "QALoRA pools the inputs of its base's groups",
    "alora_invocation_tokens": "aLoRA applies from a token of the text on",
    "arrow_config": "Arrow chooses among adapters for each token",
    "use_bdlora": "BD-LoRA's factors are block-diagonal",
    "kasa_config": "KaSA cuts singular values off its base first",
    "monteclora_config": "MonteCLoRA samples its factors",
}
"""Keys of variants that are no plain difference of weights, and what they do instead."""
_MUTATING = ("pissa", "olora", "corda", "loftq", "lora_ga", "mica")
"""Ways to begin that change the base's own weights, so that the factors are no difference to it."""
_KNOWN = (
    *("peft_type", "base_model_name_or_path", "revision", "r", "lora_alpha", "rank_pattern"),
    *("alpha_pattern", "use_rslora", "fan_in_fan_out", "use_dora", "bias", "lora_bias"),
    *("modules_to_save", "trainable_token_indices", "target_parameters", "init_lora_weights"),
    *_TRAINING,
    *_VARIANTS,
)
_LONGEST_PATTERN = 256
_REPEATED_GROUP = re.compile(r"\)\s*[*+{]")


@dataclass(frozen=True)
class LoraConfig:
    """What of an adapter's configuration its weights depend on; names as peft has them.

    Attributes:
        path: the file, for messages.
        base: ``base_model_name_or_path``, empty where it says none.
        revision: of the base on its hub, or None.
        r, lora_alpha: rank and α of modules that no pattern names.
        rank_pattern, alpha_pattern: regular expression of a module's name → rank, α.
        trainable_token_indices: module (``""`` for the input embeddings) → rows.
    """

    path: Path
    base: str
    revision: str | None
    r: int
    lora_alpha: float
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    use_rslora: bool = False
    fan_in_fan_out: bool = False
    use_dora: bool = False
    bias: str = "none"
    lora_bias: bool = False
    modules_to_save: tuple[str, ...] = ()
    target_parameters: tuple[str, ...] = ()
    trainable_token_indices: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def rank(self, module: str) -> int:
        """The rank of a module, by its name inside the model (peft's ``get_pattern_key``)."""
        return int(_of_pattern(self.rank_pattern, module, self.r))

    def scale(self, module: str) -> float:
        """The factor of B·A: ``α / r``; with rslora (Kalajdzievski, 2312.03732) ``α / √r``."""
        rank = self.rank(module)
        alpha = float(_of_pattern(self.alpha_pattern, module, self.lora_alpha))
        return alpha / math.sqrt(rank) if self.use_rslora else alpha / rank


def _of_pattern(patterns: Mapping[str, Any], module: str, otherwise: Any) -> Any:
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return otherwise


def merging_command(folder: Path) -> str:
    """What merges an adapter of any kind with peft, to be typed."""
    code = (
        f"from peft import AutoPeftModelForCausalLM as M; M.from_pretrained({str(folder)!r})"
        ".merge_and_unload().save_pretrained('merged')"
    )
    return f"python -c {shlex.quote(code)}"


def read_config(folder: Path) -> LoraConfig:
    """Read an adapter's configuration.

    Raises:
        CheckpointError: no peft LoRA, a variant that is no difference of weights, unknown keys,
            values that are not what peft writes; says what to do instead.
    """
    path = folder / CONFIG
    content = read_json(path)
    _refuse_other_kinds(folder, path, content)
    for key, value in content.items():
        if key not in _KNOWN and value not in (None, False, "", [], {}):
            raise CheckpointError(
                f"{path}: unknown key {shortened(repr(key))}{nearest(key, _KNOWN)} It may change "
                f"the weights. Merge the adapter with peft: {merging_command(folder)}"
            )
    base = content.get("base_model_name_or_path")
    revision = content.get("revision")
    if not isinstance(base, str | None) or not isinstance(revision, str | None):
        raise _bad(path, "base_model_name_or_path", "must be text")
    bias = content.get("bias") or "none"
    if bias not in ("none", "all", "lora_only"):
        raise _bad(path, "bias", "must be none, all or lora_only")
    return LoraConfig(
        path=path,
        base=(base or "").strip(),
        revision=revision or None,
        r=_whole(path, "r", content.get("r", 8)),
        lora_alpha=_number(path, "lora_alpha", content.get("lora_alpha", 8)),
        rank_pattern=_pattern(path, "rank_pattern", content, _whole),
        alpha_pattern=_pattern(path, "alpha_pattern", content, _number),
        use_rslora=_flag(path, "use_rslora", content),
        fan_in_fan_out=_flag(path, "fan_in_fan_out", content),
        use_dora=_flag(path, "use_dora", content),
        bias=str(bias),
        lora_bias=_flag(path, "lora_bias", content),
        modules_to_save=_texts(path, "modules_to_save", content),
        target_parameters=_texts(path, "target_parameters", content),
        trainable_token_indices=_rows(path, content.get("trainable_token_indices")),
    )


def _refuse_other_kinds(folder: Path, path: Path, content: Mapping[str, Any]) -> None:
    kind = content.get("peft_type")
    if kind != "LORA":
        said = f"of the kind {shortened(str(kind))}" if kind else "of a kind that is not said"
        raise CheckpointError(
            f"{path}: is an adapter {said}; only LoRA is read as it is. Merge it into its base "
            f"with peft, and give the merged folder: {merging_command(folder)}"
        )
    for key, why in _VARIANTS.items():
        if content.get(key):
            raise CheckpointError(
                f"{path}: has {key}: {why}. It is no difference of weights that could be added. "
                f"Use the merged folder, if peft can merge it: {merging_command(folder)}"
            )
    init = content.get("init_lora_weights")
    if isinstance(init, str) and init.lower().startswith(_MUTATING):
        raise CheckpointError(
            f"{path}: init_lora_weights is {shortened(init)}, which changed the base before "
            "training, so that the factors are no difference to the base as it is stored. Merge "
            f"it with peft, and give the merged folder: {merging_command(folder)}; or save it "
            "again with path_initial_model_for_weight_conversion, which makes a plain LoRA of it."
        )


def _bad(path: Path, key: str, what: str) -> CheckpointError:
    return CheckpointError(f"{path}: {key} {what}. Save the adapter again with peft.")


def _whole(path: Path, key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 1 << 31:
        raise _bad(path, key, f"is {shortened(repr(value))}; a rank is a number from 1 on")
    return value


def _number(path: Path, key: str, value: Any) -> float:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    if not plain or not abs(value) < 1e30:
        raise _bad(path, key, f"is {shortened(repr(value))}, no finite number")
    return float(value)


def _flag(path: Path, key: str, content: Mapping[str, Any]) -> bool:
    value = content.get(key) or False
    if not isinstance(value, bool):
        raise _bad(path, key, f"is {shortened(repr(value))}, and must be true or false")
    return value


def _texts(path: Path, key: str, content: Mapping[str, Any]) -> tuple[str, ...]:
    value = content.get(key) or []
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise _bad(path, key, "must be a list of names")
    return tuple(value)


def _pattern(path: Path, key: str, content: Mapping[str, Any], read: Any) -> dict[str, Any]:
    """A table of patterns; those that could take for ever to match are refused."""
    value = content.get(key) or {}
    if not isinstance(value, dict):
        raise _bad(path, key, "must be a table from a module's name to a number")
    for pattern in value:
        unbounded = sum(pattern.count(sign) for sign in ("*", "+", "{"))
        endless = unbounded > 4 or _REPEATED_GROUP.search(pattern) is not None
        try:
            re.compile(f"({pattern})$")
        except (re.error, RecursionError, OverflowError):
            endless = True
        if endless or len(pattern) > _LONGEST_PATTERN:
            raise _bad(path, key, f"has the pattern {shortened(repr(pattern))}, which is not read")
    return {pattern: read(path, f"{key}.{pattern}", one) for pattern, one in value.items()}


def _rows(path: Path, value: Any) -> dict[str, tuple[int, ...]]:
    key = "trainable_token_indices"
    tables = value or {}
    if isinstance(tables, list):
        tables = {"": tables}
    if not isinstance(tables, dict):
        raise _bad(path, key, "must be a list of token ids, or a table of such lists")
    for rows in tables.values():
        whole = isinstance(rows, list) and all(
            isinstance(row, int) and not isinstance(row, bool) and row >= 0 for row in rows
        )
        if not whole or len(set(rows)) != len(rows):
            raise _bad(path, key, "must hold token ids, each once")
    return {str(module): tuple(rows) for module, rows in tables.items()}
