"""A mergekit configuration as plain values, read strictly: what is not understood is named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safeswap.errors import PlanError, nearest
from safeswap.interchange.settings import Settings
from safeswap.io.keys import check_keys
from safeswap.io.yamlfile import read_yaml

_SUMS = ("weight", "normalize", "lambda", "density", "rescale", "int8_mask")
METHODS = {
    "linear": ("weight", "normalize"),
    "task_arithmetic": _SUMS,
    "ties": _SUMS,
    "breadcrumbs": (*_SUMS, "gamma"),
    "slerp": ("t",),
}
"""The merge methods that a plan can say, with their parameters."""
_KEYS = ("merge_method", "base_model", "models", "slices", "parameters", "dtype", "out_dtype")
_REST = ("tokenizer_source", "chat_template", "tokenizer", "modules", "name")


@dataclass(frozen=True, slots=True)
class Part:
    """A run of layers and the models that are summed there.

    Attributes:
        layers: the output layers [begin, end); None for all (``models``).
        models: model as written → its own settings.
        shared: settings of the slice, then of the configuration.
    """

    layers: tuple[int, int] | None
    models: Mapping[str, Settings]
    shared: tuple[Settings, ...]


@dataclass(frozen=True, slots=True)
class Config:
    """What a plan may express of a configuration; ``rest`` are its other keys."""

    path: str
    method: str
    base_model: str | None
    parts: tuple[Part, ...]
    rest: Mapping[str, Any]


def read_config(path: Path) -> Config:
    """Read a configuration.

    Raises:
        PlanError: not YAML, unknown keys (with the nearest), or what no plan can express.
    """
    content = _load(path)
    where = str(path)
    check_keys(content, (*_KEYS, *_REST), where, PlanError)
    for key, why in (
        ("modules", "a plan has one list of layers"),
        ("tokenizer", "a plan keeps every row of the embeddings as it is"),
    ):
        if content.get(key):
            raise PlanError(f"{where}: {key}: {why}. Remove the key to import the rest.")
    method = content.get("merge_method")
    if not isinstance(method, str) or method not in METHODS:
        raise PlanError(
            f"{where}: merge_method: {method!r} cannot be imported{nearest(str(method), METHODS)} "
            "Choose a method and an operator of safeswap methods in its place."
        )
    top = _settings(content.get("parameters"), f"{where}: parameters", str(method))
    rest = {key: content[key] for key in ("dtype", "out_dtype", *_REST) if content.get(key)}
    for key in ("dtype", "out_dtype"):
        if not isinstance(rest.get(key, ""), str):
            raise PlanError(
                f"{where}: {key}: {rest[key]!r} is no dtype. Write one such as bfloat16."
            )
    parts = _parts(content, where, str(method), top)
    base = _model(content, "base_model", where)
    if method != "linear" and base is None:
        raise PlanError(f"{where}: base_model is missing; {method} needs it. Add the key.")
    return Config(where, str(method), base, parts, rest)


def _load(path: Path) -> dict[str, Any]:
    content = read_yaml(path, scalars="yaml-1.1", error=PlanError)
    if not isinstance(content, dict) or "merge_method" not in content:
        raise PlanError(f"{path}: has no merge_method, so it is no mergekit configuration.")
    return content


def _parts(content: Mapping[str, Any], where: str, method: str, top: Settings) -> tuple[Part, ...]:
    models, slices = content.get("models"), content.get("slices")
    if bool(models) == bool(slices):
        raise PlanError(f"{where}: needs models or slices, one of them.")
    if models:
        table = _models(models, f"{where}: models", method)
        return (Part(None, {m: s for m, (s, _) in table.items()}, (top,)),)
    parts, begin = [], 0
    for number, piece in enumerate(_list(slices, f"{where}: slices")):
        here = f"{where}: slices[{number}]"
        _only(piece, ("sources", "parameters"), here)
        table = _models(piece.get("sources"), f"{here}.sources", method)
        ranges = [given for _, given in table.values()]
        if any(given != ranges[0] for given in ranges) or not _is_range(ranges[0]):
            raise PlanError(f"{here}: all sources need the same layer_range for a plan.")
        first, last = ranges[0]
        if first != begin or last <= first:
            raise PlanError(
                f"{here}: layer_range {[first, last]} puts layers at other depths; a plan keeps "
                f"every layer in its place, so this slice must begin at {begin}."
            )
        shared = (_settings(piece.get("parameters"), f"{here}.parameters", method), top)
        parts.append(Part((first, last), {m: s for m, (s, _) in table.items()}, shared))
        begin = last
    return tuple(parts)


def _is_range(given: Any) -> bool:
    return isinstance(given, list) and [type(end) for end in given] == [int, int]


def _models(given: Any, where: str, method: str) -> dict[str, tuple[Settings, Any]]:
    """Model → its settings and layer_range."""
    found: dict[str, tuple[Settings, Any]] = {}
    for number, entry in enumerate(_list(given, where)):
        here = f"{where}[{number}]"
        keys = ("model", "layer_range", "parameters") if "sources" in where else None
        _only(entry, keys or ("model", "parameters"), here)
        model = _model(entry, "model", here)
        if model is None or model in found:
            raise PlanError(f"{here}: model is {'missing' if model is None else 'given twice'}.")
        settings = _settings(entry.get("parameters"), f"{here}.parameters", method)
        found[model] = settings, entry.get("layer_range")
    return found


def _model(entry: Mapping[str, Any], key: str, where: str) -> str | None:
    model = entry.get(key)
    if model is not None and (not isinstance(model, str) or not model or "+" in model):
        raise PlanError(
            f"{where}: {key} {model!r} is not a plain folder or hub id (adapters are not "
            "supported). Merge the adapter into a checkpoint first."
        )
    return model


def _settings(given: Any, where: str, method: str) -> Settings:
    settings = {} if given is None else given
    if not isinstance(settings, dict):
        raise PlanError(f"{where}: must be a table.")
    _only(settings, METHODS[method], where)
    return where, settings


def _list(given: Any, where: str) -> list[Any]:
    if not isinstance(given, list) or not given:
        raise PlanError(f"{where}: must be a list.")
    return given


def _only(entry: Any, known: tuple[str, ...], where: str) -> None:
    if not isinstance(entry, dict):
        raise PlanError(f"{where}: must be a table.")
    for key in entry:
        if key not in known:
            raise PlanError(
                f"{where}: a plan cannot express the key {key!r}{nearest(str(key), known)}"
            )
