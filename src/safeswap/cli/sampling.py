"""``safeswap profile`` from a sample: its options, and what is said of what was read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from safeswap.cli.verbs import options
from safeswap.errors import ConfigError, listed
from safeswap.io.progress import shown_bytes
from safeswap.parameters import read_share

if TYPE_CHECKING:
    from safeswap.plan.sampled import Wish
    from safeswap.profile import Profile

SAMPLING = options(
    click.option("--budget", metavar="PART", help="Read at most this part of the weights: 2%."),
    click.option(
        "--until-certain",
        metavar="CONFIDENCE",
        help="Read a part, and more until every decision is certain: 99%.",
    ),
    click.option("--by", help="Whose decisions: module or layer.  [default: module]"),
    click.option("--tau", help="Their threshold: 0.001, or 0.1%.  [default: 0.001]"),
    click.option("--tau-relative", help="The same as a fraction of the mean share."),
    click.option("--seed", type=int, help="Another seed draws other blocks.  [default: 0]"),
    heading="Reading a sample",
)


def sample_wish(given: Mapping[str, Any]) -> Wish | None:
    """What the options of ``SAMPLING`` ask for; None where none does.

    Raises:
        ConfigError: a value that is none, or one that needs ``--budget`` or ``--until-certain``.
    """
    from safeswap.plan.sampled import Wish

    chosen = {name: value for name, value in given.items() if value is not None}
    if not chosen:
        return None
    if not {"budget", "until_certain"} & set(chosen):
        name = next(iter(chosen)).replace("_", "-")
        raise ConfigError(
            f"--{name}: is for a sample; add --budget 2% or --until-certain 99%. A profile of all "
            "weights serves every threshold and granularity."
        )
    if "tau" in chosen and "tau_relative" in chosen:
        raise ConfigError("--tau and --tau-relative exclude each other; give one of them.")
    wish: dict[str, Any] = {"until_certain": "until_certain" in chosen}
    for option, name in (("budget", "budget"), ("until_certain", "confidence"), ("tau", "tau")):
        if option in chosen:
            wish[name] = _part(chosen[option], f"--{option.replace('_', '-')}")
    if "tau_relative" in chosen:
        wish |= {"tau": _part(chosen["tau_relative"], "--tau-relative"), "tau_relative": True}
    return Wish(**wish, **{name: chosen[name] for name in ("by", "seed") if name in chosen})


def _part(text: str, where: str) -> float:
    """A part: ``0.02``, or ``2%``."""
    value = read_share(text)
    if isinstance(value, (bool, str)):
        raise ConfigError(f"{where} {text!r}: is no number; write a part such as 2% or 0.02.")
    return float(value)


def sampled_record(measured: Profile, wish: Wish | None) -> dict[str, Any]:
    """What a sample read and left open, for scripts; nothing where all was read."""
    from safeswap.plan.sampled import uncertain

    sample = measured.sample
    if sample is None or wish is None:
        return {}
    left = {
        code: list(uncertain(measured, code, wish.by, wish.tau, wish.tau_relative))
        for code in measured.languages
    }
    return {
        "bytes_read": sample.bytes_read,
        "bytes_all": sample.bytes_all,
        "confidence": sample.confidence,
        "uncertain": left,
    }


def sampled_lines(measured: Profile, wish: Wish | None) -> list[str]:
    """The same for people."""
    record = sampled_record(measured, wish)
    if not record or wish is None:
        return []
    part = record["bytes_read"] / record["bytes_all"]
    lines = [
        f"read {shown_bytes(record['bytes_read'])} of {shown_bytes(record['bytes_all'])} "
        f"({100 * part:.2f} %)"
    ]
    if wish.budget is not None and part > wish.budget:
        lines[0] += (
            f", more than the budget of {100 * wish.budget:g} %: a tensor has to give some blocks "
            "to say how much they differ"
        )
    at = f"at {100 * record['confidence']:g} % by {wish.by}"
    for code, left in record["uncertain"].items():
        total = len(measured.sample.intervals[code][wish.by]) if measured.sample else 0
        lines.append(
            f"{code}: {total - len(left)} of {total} decisions are certain {at}"
            + (f"; not certain: {listed(left)}" if left else "")
        )
    return lines
