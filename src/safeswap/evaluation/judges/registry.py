"""The kinds of judges: each is registered by its own file, or by a user's module."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safeswap.errors import EvaluationError, nearest
from safeswap.evaluation.judges.base import Judge
from safeswap.evaluation.judges.names import names_of
from safeswap.registry import Registry


@dataclass(frozen=True, slots=True)
class JudgeKind:
    """A kind of judge.

    Attributes:
        name: as ``kind`` and ``--kind`` call it; what the judge's own ``name`` says.
        summary: one line of what it does.
        make: the judge from what it is asked for by: a model's name or folder; a path or whatever
            it reads for a judge that asks no model, which is given as ``NAME:WHATEVER``.
        asks_model: whether its judges are of :class:`ModelJudge` or :class:`PanelJudge`.
        recognises: whether a model of this name (lower case, hyphens for all other marks) is asked
            in this way. The first kind that recognises a name has it.
        objects: why a model of this name cannot be asked so, though it looks as if; or None.
        models: models of this kind, for "did you mean".
        make_with: the judge with a file of the user's, where it is asked for as ``NAME:FILE``; None
            for a kind that takes none.
    """

    name: str
    summary: str
    make: Callable[[str], Judge]
    asks_model: bool = True
    recognises: Callable[[str], bool] = lambda name: False
    objects: Callable[[str], str | None] = lambda name: None
    models: tuple[str, ...] = ()
    make_with: Callable[[Path], Judge] | None = None


KINDS: Registry[JudgeKind] = Registry("kind of judge")
"""Every kind of judge by its name."""


def register(kind: JudgeKind) -> JudgeKind:
    """Register a kind of judge.

    Raises:
        ConfigError: another module has a kind of this name.
    """
    return KINDS.add(kind.name, kind, kind.make)


def make_judge(spec: str, *, kind: str | None = None, rules: Path | None = None) -> Judge:
    """The judge for a model, or one that decides alone.

    Args:
        spec: a model's name, a local folder, ``rule:PATH.yaml``, or ``majority:JUDGE,JUDGE,JUDGE``.
        kind: one of ``KINDS``, where the name does not tell; ``threeway`` is for any chat model.
            ``gpt-oss-safeguard:FILE`` gives the kind and a file for it.
        rules: the file of rules, for ``kind="rule"``; without it ``spec`` is that file.

    Raises:
        EvaluationError: an unknown kind, a name that no kind recognises, rules that cannot be read.
    """
    kind, _, file = (kind or "").partition(":")
    if kind and kind not in KINDS:
        raise EvaluationError(f"unknown kind of judge {kind!r}{nearest(kind, KINDS)}")
    if file:
        return _with_file(KINDS[kind], Path(file))
    kind = kind or None
    told, colon, rest = spec.partition(":")
    if colon and kind in (None, told) and told in KINDS and not KINDS[told].asks_model:
        if rules is not None:
            raise EvaluationError(f"rules are given twice: in {spec!r} and as {rules}; give one")
        return KINDS[told].make(rest)
    if rules is not None:
        if kind is None or KINDS[kind].asks_model:
            raise EvaluationError(f"the rules {rules} are for kind 'rule', not for judge {spec!r}")
        return KINDS[kind].make(str(rules))
    return KINDS[kind].make(spec) if kind is not None else _by_name(spec)


def _with_file(kind: JudgeKind, file: Path) -> Judge:
    if kind.make_with is None:
        takers = [one.name for one in KINDS.values() if one.make_with is not None]
        raise EvaluationError(
            f"kind {kind.name!r} takes no file, and {file} is given with it; these do: "
            f"{', '.join(takers)}"
        )
    return kind.make_with(file)


def _by_name(spec: str) -> Judge:
    """The judge that the name of the model, or what a local folder says of itself, tells."""
    for name in names_of(spec):
        for kind in KINDS.values():
            if kind.recognises(name):
                return kind.make(spec)
            if why := kind.objects(name):
                raise EvaluationError(f"judge {spec!r} {why}")
    known = [model for kind in KINDS.values() for model in kind.models]
    raise EvaluationError(
        f"cannot tell how to ask judge {spec!r}; for any chat model use kind 'threeway', for rules "
        f"'rule:PATH.yaml', for a guard under another name its kind{nearest(spec, known)}"
    )
