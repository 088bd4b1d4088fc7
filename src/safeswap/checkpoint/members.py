"""Have two members the same tensors? Where not, what is the cause, and what helps."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from safeswap.anatomy import vocabulary
from safeswap.checkpoint.names import HEADS
from safeswap.checkpoint.reader import Tensor
from safeswap.errors import FamilyError, listed

_FUSED = ("qkv_proj", "query_key_value", "Wqkv", "c_attn", "gate_up_proj", "qkv")
_APART = ("q_proj", "k_proj", "gate_proj", "up_proj", "query", "w1")
_UNKNOWN = "Experts must be fine-tunes of the same base, with all adapters merged in."
_CACHE_SCALES = ("k_scale", "v_scale", "q_scale", "kv_scale", "prob_scale")
_SEVERAL_TOKENS = ("mtp", "medusa_head", "mtp_layers", "nextn")
_OTHER_HEADS = ("score", "v_head", "classifier", "reward_head", "value_head", "qa_outputs")


def same_tensors(
    base: Mapping[str, Tensor],
    expert: Mapping[str, Tensor],
    who: str,
    tables: Collection[str] = (),
    remedy: str = "",
) -> None:
    """Refuse an expert whose tensors are not the base's, by names (the family's) and shapes.

    Args:
        tables: tensors whose rows are matched by token: they may be of any height.
        remedy: what else can be done where names differ.

    Raises:
        FamilyError: says which, the likely cause, and what to do.
    """
    missing = [name for name in base if name not in expert]
    extra = [name for name in expert if name not in base]
    if missing or extra:
        parts = [f"lacks {listed(missing)}"] if missing else []
        parts += [f"has {listed(extra)} besides"] if extra else []
        ours, theirs = _depth(base), _depth(expert)
        deep = f" (layers: base {ours}, expert {theirs})" if ours != theirs else ""
        cause = _cause(missing, extra, len(base), deep)
        if cause == _UNKNOWN:
            cause = _cause_by_shapes(base, expert, missing, extra)
        raise FamilyError(f"{who}: {' and '.join(parts)}{deep}. {cause}{remedy}")
    for name, tensor in base.items():
        other = expert[name]
        one, two = (_row(t.shape) if name in tables else t.shape for t in (tensor, other))
        if one != two:
            raise FamilyError(
                f"{who}: tensor {other.name!r} in {other.where} has shape {list(other.shape)}, the "
                f"base has {list(tensor.shape)}. {_shape_hint(name, tensor, other)}"
            )
        if tensor.dtype.mergeable != other.dtype.mergeable:
            raise FamilyError(
                f"{who}: tensor {other.name!r} in {other.where} is {other.dtype}, the base has "
                f"{tensor.dtype}. Save the expert in the base's dtype."
            )


def _cause(missing: Sequence[str], extra: Sequence[str], size: int, deep: str) -> str:
    """The likely cause and its remedy, most certain first."""
    if _found(extra, vocabulary.ADAPTER_NAMES):
        return (
            "It holds an adapter beside or around its weights. Merge it in first (peft: "
            "merge_and_unload, then save_pretrained)."
        )
    if _found(extra, vocabulary.QUANTIZED_NAMES):
        return "Its weights are quantized. Use the 16-bit original."
    if all(name.endswith(HEADS) for name in (*missing, *extra)):
        one = "the expert" if missing else "the base"
        return (
            f"Only the output projection is not in both: {one} stores none. It may be left out "
            "where it is tied, that is, equal to the embeddings. Use an expert with the base's "
            "tying, or save it again with its output projection."
        )
    if _found(extra, _OTHER_HEADS) and all(name.endswith(HEADS) for name in missing):
        return (
            "It was trained as a classifier or reward model. Use an expert that was trained to "
            "write text, or remove that head from its files."
        )
    if any(
        vocabulary.has_word(p, vocabulary.OTHER_MODALITIES) for n in extra for p in n.split(".")
    ):
        return "It has parts for images or sound, the base has none. Use its text model alone."
    for apart, fused, which in ((missing, extra, "expert"), (extra, missing, "base")):
        if _found(apart, _APART) and _found(fused, _FUSED):
            return (
                f"The {which} stores matrices joined into one that the other stores apart. Save it "
                "again in the other's layout, with the class of transformers that made that."
            )
    if deep:
        return (
            "Layers were added or cut, so they do not correspond. Experts must be fine-tunes of "
            "the same base, with its depth."
        )
    if len(missing) == size:
        return (
            "Not one name is the same: another architecture, or another tool's names. Use the "
            "checkpoint that transformers' save_pretrained writes of it."
        )
    if all(name.endswith(".bias") for name in (*missing, *extra)):
        return (
            "Only biases are not in both: another architecture (Qwen2 beside Llama), or another "
            "attention_bias or mlp_bias in config.json. Use an expert of the base's architecture."
        )
    return _UNKNOWN


def _cause_by_shapes(
    base: Mapping[str, Tensor],
    expert: Mapping[str, Tensor],
    missing: Sequence[str],
    extra: Sequence[str],
) -> str:
    """What the tensors themselves say where their names say nothing."""
    if not missing:
        front = next((extra[0].removesuffix(n) for n in base if extra[0].endswith(f".{n}")), "")
        if front and all(name.removeprefix(front) in base for name in extra):
            return (
                f"It stores a second copy of its weights under {front!r}, as training tools keep "
                "averages. Save it again with the one that you mean."
            )
        if all(name.rpartition(".")[2] in _CACHE_SCALES for name in extra):
            return (
                "Those are scales of a quantized cache of keys and values. Remove them from its "
                "files; engines work without."
            )
        if _found(extra, _SEVERAL_TOKENS):
            return (
                "It has layers that predict several tokens at once, the base has none. Use a base "
                "with them, or remove them from its files."
            )
    elif sorted(base[n].shape for n in missing) == sorted(expert[n].shape for n in extra):
        return (
            f"As many tensors of the same shapes stand under other names ({extra[0]} where the "
            f"base has {missing[0]}, or the like). Save it again with transformers' "
            "save_pretrained, so that both have the same names."
        )
    return _UNKNOWN


def _found(names: Sequence[str], parts: Sequence[str]) -> bool:
    return any(part in parts for name in names for part in name.split("."))


def _shape_hint(name: str, base: Tensor, expert: Tensor) -> str:
    outside = layer_of_name(name) is None
    if outside and len(base.shape) == 2 and base.shape[1:] == expert.shape[1:]:
        return (
            "A resized vocabulary is matched by token where each config.json's vocab_size is the "
            "height of its matrices, the output projection's too. Use the folder that "
            "save_pretrained writes, or correct vocab_size."
        )
    return "Experts must be fine-tunes of the same base."


def _row(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape without the size that counts tokens."""
    at = next((n for n, size in enumerate(shape) if size != 1), 0)
    return (*shape[:at], -1, *shape[at + 1 :])


def _depth(tensors: Mapping[str, Tensor]) -> int:
    return len({layer_of_name(name) for name in tensors} - {None})


def layer_of_name(name: str) -> str | None:
    """The first number in a parameter's dotted name, as text."""
    return next((part for part in name.split(".") if part.isdigit()), None)
