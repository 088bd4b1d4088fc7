"""Options that several verbs share, and what their texts stand for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from safeswap.errors import PlanError
from safeswap.io import progress

Command = TypeVar("Command", bound=Callable[..., Any])


def _options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def apply(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return apply


def _silence(context: click.Context, option: click.Parameter, given: bool) -> None:
    if given:
        progress.disable()


QUIET = click.option(
    "--quiet", is_flag=True, expose_value=False, callback=_silence, help="No progress bar."
)
EXPERTS = _options(
    click.option("--safety", metavar="CHECKPOINT", help="The English safety expert."),
    click.option(
        "--language",
        "languages",
        multiple=True,
        metavar="NAME=CHECKPOINT",
        help="A language expert, e.g. sw=me/my-swahili. Repeat it for several languages.",
    ),
)
PLANNING = _options(
    click.option(
        "--method", help="How units are decided; see methods. [default: share-difference]"
    ),
    click.option("--by", help="module or layer.  [default: module]"),
    click.option(
        "--tau", type=float, help="Threshold on the difference of shares.  [default: 0.001]"
    ),
    click.option(
        "--tau-relative", type=float, help="The same as a fraction of the mean share, e.g. 0.05."
    ),
    click.option("--alpha", type=float, help="Safety's part in a blend.  [default: 0.5]"),
    click.option(
        "--norms",
        help="language, safety, blend or follow.  [default: follow by layer, language by module]",
    ),
    click.option(
        "--outside",
        help="Embeddings, final norm, lm_head: blend, language, safety or base.  [default: blend]",
    ),
    click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="NAME=VALUE",
        help="Any other parameter of the method, e.g. bottom=5. Repeat it for several.",
    ),
    click.option("--operator", help="How a unit's task vectors are joined.  [default: linear]"),
    click.option(
        "--operator-set",
        "operator_settings",
        multiple=True,
        metavar="NAME=VALUE",
        help="A parameter of the operator, e.g. density=0.2. Repeat it for several.",
    ),
    click.option("--donor", help="Whose config and tokenizer go along.  [default: the language]"),
)
RUNNING = _options(
    click.option("--workers", type=click.IntRange(min=1), help="Threads.  [default: the cores]"),
    QUIET,
)


def languages_of(pairs: tuple[str, ...]) -> dict[str, str | Path]:
    found: dict[str, str | Path] = {}
    for pair in pairs:
        name, separator, source = pair.partition("=")
        if not separator or not source:
            raise PlanError(f"--language {pair!r} must be NAME=CHECKPOINT, e.g. sw={pair}.")
        if name in found:
            raise PlanError(f"--language {name} is given twice.")
        found[name] = source
    return found


def selection(options: Mapping[str, Any]) -> dict[str, Any]:
    """The method with its parameters and the donor, those that were given."""
    from safeswap.selectors import OPTIONS, find

    chosen = {key: options[key] for key in (*OPTIONS, "donor") if options[key] is not None}
    if "tau_relative" in chosen:
        if "tau" in chosen:
            raise PlanError("--tau and --tau-relative exclude each other; give one of them.")
        chosen |= {"tau": chosen["tau_relative"], "tau_relative": True}
    method = find(options["method"] or "share-difference")
    known = {parameter.name: parameter for parameter in method.parameters}
    for name, text in _pairs("--set", options["settings"]).items():
        if name in chosen:
            raise PlanError(f"{name} is given twice; leave one out.")
        # an unknown one is refused with the others, by the method
        chosen[name] = known[name].parse(text) if name in known else text
    settings = _pairs("--operator-set", options["operator_settings"])
    if settings and not options["operator"]:
        raise PlanError("--operator-set needs --operator NAME; see safeswap methods.")
    if options["operator"]:
        values = {name: _value(text) for name, text in settings.items()}
        chosen["operator"] = {"name": options["operator"], **values}
    return {"method": method.name, **chosen}


def _value(text: str) -> float | int | bool | str:
    """What a text says; whether it is what the parameter takes is for the operator to check."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _pairs(option: str, given: tuple[str, ...]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for pair in given:
        name, separator, text = pair.partition("=")
        name = name.strip().replace("-", "_")
        if not separator:
            raise PlanError(f"{option} {pair!r} must be NAME=VALUE; see safeswap methods NAME.")
        if name in pairs:
            raise PlanError(f"{name} is given twice; leave one out.")
        pairs[name] = text.strip()
    return pairs
