"""The merges that are compared: a name, and how ``safeswap plan`` makes its table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """``options`` of ``safeswap plan``; ``short`` ones belong to the shortest study too."""

    name: str
    options: tuple[str, ...]
    short: bool = False


METHODS = (
    Method("paper-by-module", (), short=True),
    Method("paper-by-layer", ("--by", "layer"), short=True),
    Method("inverted", ("--method", "inverted"), short=True),
    Method("soup", ("--method", "soup"), short=True),
    Method("chat-vector-1", ("--method", "chat-vector", "--set", "gamma=1"), short=True),
    Method("chat-vector-1.5", ("--method", "chat-vector", "--set", "gamma=1.5")),
    Method("chat-vector-2", ("--method", "chat-vector", "--set", "gamma=2"), short=True),
    Method("gated", ("--method", "gated")),
    Method("gated-2", ("--method", "gated", "--set", "gamma=2")),
    Method("band", ("--method", "band")),
    Method("ties", ("--method", "soup", "--operator", "ties")),
    *(Method(f"random-{n}", ("--method", "random", "--set", f"seed={n}")) for n in range(20)),
)
