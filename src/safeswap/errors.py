"""The errors a user can meet. Each message says what is wrong, where, and what to do next."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class SafeswapError(Exception):
    """Anything safeswap refuses to do; the message is written for the person at the terminal."""


class CheckpointError(SafeswapError):
    """A checkpoint that cannot be read as it is: names the file and the tensor."""


class FamilyError(SafeswapError):
    """Checkpoints that do not belong together: shapes, depth, family or tokenizer differ."""


class AnatomyError(SafeswapError, ValueError):
    """A checkpoint whose tensors cannot all be given a unit.

    The message says which tensors, what was understood and what to do; ``tensors`` holds the full
    names of all of them, also where the message shortens a long list.
    """

    def __init__(self, message: str, tensors: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.tensors: tuple[str, ...] = tuple(tensors)


class ConfigError(SafeswapError, ValueError):
    """Something typed or written by a user that is not valid: options, sizes, names, YAML files."""


class PlanError(ConfigError):
    """A plan that cannot be carried out, or parameters that make none."""


class ProfileError(SafeswapError):
    """A profile that cannot be read, or is of other weights."""


class OutputError(SafeswapError):
    """The output cannot be written where it was asked for."""


class VerificationError(SafeswapError):
    """A merged checkpoint is not what its manifest says."""


class ClusterError(SafeswapError):
    """A cluster that cannot be reached, has no room, or loses its workers."""


class EvaluationError(SafeswapError):
    """An evaluation that cannot be run or read: prompts, suites, judges, results, labels."""


class CalibrationError(SafeswapError):
    """Gram matrices that cannot be made or do not fit: texts, folders, tensors, other weights."""


class Interrupted(KeyboardInterrupt):
    """An interrupt of work that the same call goes on with where it stopped."""


def nearest(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` when a known name is close to ``name``, else the known names."""
    choices = [str(item) for item in known]
    close = get_close_matches(str(name), choices, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    shown = ", ".join(choices[:12]) + (", …" if len(choices) > 12 else "")
    return f"; known: {shown}" if shown else ""


def listed(names: Iterable[str], limit: int = 5) -> str:
    """The first few of many names, for a message that stays readable: ``a, b, c and 7 more``."""
    every = list(names)
    if len(every) <= limit:
        return ", ".join(every)
    return f"{', '.join(every[:limit])} and {len(every) - limit} more"
