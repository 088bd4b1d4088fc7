"""The merges that are compared: a name, and how ``safeswap plan`` makes its table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """One merge.

    Attributes:
        options: of ``safeswap plan``; ``{grams}`` in them is the cell's folder of Gram matrices.
        short: belongs to the shortest study too.
        fitted_on: where ``safeswap fit`` makes the plan, with ``options`` of its own: on which
            harmful requests, ``own`` (of the language) or ``english``. Else ``safeswap plan`` does.
    """

    name: str
    options: tuple[str, ...]
    short: bool = False
    fitted_on: str = ""


RULE = "paper-by-module"
"""The paper's method as `safeswap plan` has it by default."""


def guided(strength: float, balance: float, short: bool = False) -> Method:
    """The safety update where harmful requests act and harmless chats do not."""
    options = (
        *("--method", "chat-vector", "--set", f"gamma={strength:g}", "--operator", "gram-add"),
        *("--operator-set", "grams={grams}", "--operator-set", f"balance={balance:g}"),
    )
    return Method(f"gram-add-{strength:g}-{balance:g}", options, short)


def weighed(safety: float, language: float) -> Method:
    """Both task vectors, each with its weight in every unit."""
    options = (
        *("--method", "uniform", "--set", "form=weights"),
        *("--set", f"weight_safety={safety:g}", "--set", f"weight_language={language:g}"),
    )
    return Method(f"weights-{safety:g}-{language:g}", options, short=True)


METHODS = (
    Method(RULE, (), short=True),
    Method("paper-by-layer", ("--by", "layer")),
    Method("inverted", ("--method", "inverted"), short=True),
    Method("soup", ("--method", "soup"), short=True),
    Method("chat-vector-1", ("--method", "chat-vector", "--set", "gamma=1"), short=True),
    Method("chat-vector-1.5", ("--method", "chat-vector", "--set", "gamma=1.5")),
    Method("chat-vector-2", ("--method", "chat-vector", "--set", "gamma=2")),
    # between soup and the safety expert: half of what the language expert learnt
    weighed(1, 0.5),
    Method("gated", ("--method", "gated")),
    Method("gated-2", ("--method", "gated", "--set", "gamma=2")),
    Method("band", ("--method", "band")),
    Method("ties", ("--method", "soup", "--operator", "ties")),
    guided(2, 1, short=True),
    guided(3, 1),
    guided(4, 1),
    guided(2, 0.3),
    guided(3, 0.3),
    guided(2, 0.1, short=True),
    Method("fit-own", (), short=True, fitted_on="own"),
    Method("fit-english", (), short=True, fitted_on="english"),
    *(Method(f"random-{n}", ("--method", "random", "--set", f"seed={n}")) for n in range(20)),
)
