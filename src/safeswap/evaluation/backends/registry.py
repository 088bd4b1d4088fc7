"""The backends: each is registered by a line in the folder's face, or by a user's module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from importlib import import_module
from typing import Any

from safeswap.errors import EvaluationError, nearest
from safeswap.evaluation.backends.base import Backend
from safeswap.evaluation.backends.misfits import misfits_in_words
from safeswap.evaluation.backends.options import BackendOptions, TemplateOptions
from safeswap.registry import Registry


@dataclass(frozen=True, slots=True)
class BackendKind:
    """A kind of backend.

    Attributes:
        name: as ``--backend`` calls it.
        summary: one line of what it is.
        options: the dataclass of its options.
        open: ``open(source, options)`` loads or reaches a model.
        extra: what to install where a library is missing: ``pip install 'safeswap[extra]'``.
        remote: a source is the server's name of a model, not a folder or hub id.
        cuts_thoughts: it heeds ``Chat.thought_limit``, and its ``harness`` has ``thought_limit``.
    """

    name: str
    summary: str
    options: type[TemplateOptions]
    open: Callable[[str, Any], Backend]
    extra: str = ""
    remote: bool = False
    cuts_thoughts: bool = False


DTYPES = ("auto", "float32", "bfloat16", "float16", "float64")
"""Formats that models are computed in; ``auto`` is as stored."""
_SHORT = {
    **{"fp16": "float16", "f16": "float16", "half": "float16", "bf16": "bfloat16"},
    **{"fp32": "float32", "f32": "float32", "float": "float32", "fp64": "float64"},
}

BACKENDS: Registry[BackendKind] = Registry("backend")
"""Every kind of backend by its name."""


def register(kind: BackendKind) -> BackendKind:
    """Register a kind of backend.

    Raises:
        ConfigError: another module has a backend of this name.
    """
    return BACKENDS.add(kind.name, kind, kind.options)


def lazy(module: str, name: str) -> Callable[[str, Any], Backend]:
    """An opener whose module, and the heavy library in it, is imported when a model is opened."""

    def open_model(source: str, options: Any) -> Backend:
        made: Backend = getattr(import_module(module), name)(source, options)
        return made

    return open_model


def find_backend(name: str) -> BackendKind:
    """The kind of backend of a name.

    Raises:
        EvaluationError: there is none; names the nearest.
    """
    if name not in BACKENDS:
        raise EvaluationError(f"no backend is called {name!r}{nearest(name, BACKENDS)}")
    return BACKENDS[name]


def open_here(source: str, backend: str, options: BackendOptions) -> Backend:
    """Load a model in this process, or reach the server that has it.

    Args:
        source: local folder or hub id; for ``api`` the server's name of the model.

    Raises:
        EvaluationError: unknown backend, a library that is missing, an option that the backend does
            not have, a model that does not load, an unreachable server.
    """
    kind = find_backend(backend)
    check_dtype(options.dtype)
    own = _own_options(kind, options)
    try:
        with misfits_in_words():
            return kind.open(source, own)
    except ImportError as error:
        if not kind.extra:
            raise
        raise EvaluationError(
            f"the backend {backend} needs {error.name or error}: "
            f"pip install 'safeswap[{kind.extra}]'."
        ) from error


def refuse_foreign_options(options: BackendOptions, backends: Sequence[str]) -> None:
    """Refuse options that were given and that none of the backends has.

    Raises:
        EvaluationError: an unknown backend; an option, with the backends that have it.
    """
    chosen = [find_backend(name) for name in dict.fromkeys(backends)]
    check_dtype(options.dtype)
    for one in fields(BackendOptions):
        given = getattr(options, one.name)
        if given == _default(one) or one.name in ("more", "cluster"):
            continue
        owners = [kind.name for kind in BACKENDS.values() if _has(kind, one.name)]
        if not any(kind.name in owners for kind in chosen):
            raise EvaluationError(
                f"--{one.name.replace('_', '-')}: the backend "
                f"{' and '.join(kind.name for kind in chosen)} has no such option; it is one of "
                f"{', '.join(owners)}. Leave it out, or use --backend {owners[0]}."
            )


def check_dtype(name: str) -> None:
    """Refuse a format that no backend computes in.

    Raises:
        EvaluationError: names the nearest.
    """
    if name not in DTYPES:
        near = f"; did you mean {_SHORT[name]!r}?" if name in _SHORT else nearest(name, DTYPES)
        raise EvaluationError(f"--dtype {name}: there is no such format{near}")


def _own_options(kind: BackendKind, options: BackendOptions) -> TemplateOptions:
    """What a backend is opened with: the record itself where that holds its options, or its own
    dataclass made of ``more`` and of the fields that the two have in common.
    """
    for name in options.more:
        if not _has(kind, name):
            known = [one.name for one in fields(kind.options)]
            raise EvaluationError(
                f"the backend {kind.name} has no option {name!r}{nearest(name, known)}"
            )
    if isinstance(options, kind.options):
        return options
    shared = {
        one.name: getattr(options, one.name)
        for one in fields(kind.options)
        if hasattr(options, one.name)
    }
    return kind.options(**{**shared, **options.more})


def _has(kind: BackendKind, option: str) -> bool:
    return option in {one.name for one in fields(kind.options)}


def _default(one: Field[Any]) -> Any:
    return one.default if one.default_factory is MISSING else one.default_factory()
