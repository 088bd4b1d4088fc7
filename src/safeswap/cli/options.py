"""Options that several verbs share, and what their texts stand for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from safeswap.cli.verbs import options, say, steps_to_stderr
from safeswap.display import json_visible
from safeswap.errors import ConfigError
from safeswap.io import progress
from safeswap.parameters import read_share, read_value


def _silence(context: click.Context, option: click.Parameter, given: bool) -> None:
    if given:
        progress.disable()


class Share(click.types.FloatParamType):
    """A share: a fraction, or a number with ``%`` or ``points`` after it."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The fraction."""
        read: Any = read_share(value) if isinstance(value, str) else value
        return float(super().convert(read, param, ctx))


class OutPlace(click.Path):
    """A path, or an address as it was typed: a path would make one slash of two."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """A text for an address, else a path."""
        if isinstance(value, str) and "://" in value:
            return value
        return super().convert(value, param, ctx)


QUIET = click.option(
    "--quiet", is_flag=True, expose_value=False, callback=_silence, help="No progress bar."
)
RESULTS = click.option(
    "-o",
    "--out",
    "results",
    type=click.Path(path_type=Path),
    required=True,
    help="The results folder: new, or to go on in.",
)


def _ask_whole(context: click.Context, option: click.Parameter, given: bool) -> None:
    from safeswap.checkpoint.remote.asked import ask_whole

    ask_whole(given)


DOWNLOAD = click.option(
    "--download",
    is_flag=True,
    expose_value=False,
    callback=_ask_whole,
    help="Fetch checkpoints at addresses (https://, s3://, gs://, hf://) whole into the cache, "
    "instead of reading ranges of their weights.",
)
EXPERTS = options(
    click.option("--safety", metavar="CHECKPOINT", help="The English safety expert."),
    click.option(
        "--language",
        "languages",
        multiple=True,
        metavar="NAME=CHECKPOINT",
        help="A language expert, e.g. sw=me/my-swahili. Repeat it for several languages.",
    ),
    click.option(
        "--adapter",
        "adapters",
        multiple=True,
        metavar="NAME=ADAPTER",
        help="A LoRA adapter on the expert of that name (safety, sw, …), or on BASE without one. "
        "An expert may be an adapter itself where its folder names its base.",
    ),
    DOWNLOAD,
    heading="Experts",
)
TRIO = options(
    click.option(
        "--safety", required=True, metavar="CHECKPOINT", help="The English safety expert."
    ),
    click.option(
        "--language",
        "languages",
        multiple=True,
        required=True,
        metavar="NAME=CHECKPOINT",
        help="A language expert. Repeat it for several.",
    ),
)
"""Both kinds of experts, for verbs that run them."""
TEMPLATE = click.option(
    "--chat-template", default="on", show_default=True, help="on, off, or a Jinja file."
)
DTYPE = click.option("--dtype", default="auto", show_default=True, help="auto is as stored.")
DEVICE = click.option("--device", default="auto", show_default=True, help="cpu, cuda, …")
WORKERS = click.option(
    "--workers", type=click.IntRange(min=1), help="Threads.  [default: the cores]"
)
PLANNING = options(
    click.option(
        "--method", help="How units are decided; see methods. [default: share-difference]"
    ),
    click.option(
        "--by", help="module, layer, or expert: each of a mixture's alone.  [default: module]"
    ),
    click.option(
        "--tau",
        type=Share(),
        help="Threshold on the difference of shares, as tables have it (0.1%) or as a fraction "
        "(0.001).  [default: 0.1%; by expert 6.4% of the mean share]",
    ),
    click.option(
        "--tau-relative",
        type=Share(),
        help="The same as a part of the mean share, e.g. 5% or 0.05.",
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
        "--router",
        help="Routers of mixtures: language, safety, blend, base, or follow (the mlp, or by expert "
        "the experts).  [default: language by expert, else follow]",
    ),
    click.option(
        "--shared-experts",
        help="Shared experts: own (by their own share), language, safety, blend, base, or follow "
        "(the mlp).  [default: own by expert, else follow]",
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
    heading="Deciding and joining units",
)
RUNNING = options(
    WORKERS,
    QUIET,
    heading="Running",
)
REMOTE = click.option(
    "--allow-remote",
    is_flag=True,
    help="Follow addresses that only the file names to other hosts than the configured hub.",
)
TRUST = click.option(
    "--trust-remote-code",
    is_flag=True,
    help="Run Python code that a checkpoint brings along. Read it first: it has all your rights.",
)
FORCE = click.option(
    "--force",
    is_flag=True,
    help="Take experts too whose configuration or weights say that they are no fine-tunes of BASE.",
)
THREADS = click.option(
    "--threads", type=click.IntRange(min=1), help="Of torch and BLAS.  [default: theirs]"
)
OVERWRITE = click.option(
    "--overwrite",
    is_flag=True,
    help="Start anew what was made with other settings; the same is gone on with.",
)
OUTSIDE = click.option(
    "--allow-outside",
    is_flag=True,
    help="Read files too that a suite's YAML names outside its own folder.",
)
DRY_RUN = click.option(
    "--dry-run", is_flag=True, help="Only say what would be read, loaded, asked and stored."
)


def _steps_aside(context: click.Context, option: click.Parameter, given: bool) -> bool:
    if given:
        steps_to_stderr(True)
    return given


JSON = click.option(
    "--json",
    "as_json",
    is_flag=True,
    callback=_steps_aside,
    help="One JSON document on stdout, for scripts.",
)


def use_threads(threads: int | None) -> None:
    """Limit the threads of torch and of numpy's BLAS; others read variables of their own."""
    if threads is None:
        return
    from threadpoolctl import threadpool_limits

    threadpool_limits(threads)
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(threads)


def codes_of(given: tuple[str, ...]) -> list[str]:
    """Language codes, each option one or several joined by commas."""
    return [code.strip() for text in given for code in text.split(",") if code.strip()]


def print_json(content: Mapping[str, Any]) -> None:
    """One document; what JSON has no name for (NaN, infinity) is null."""
    import json

    text = json.dumps(_plain(content), indent=1, ensure_ascii=not _unicode(), allow_nan=False)
    say(json_visible(text))


def say_outlook(
    record: Mapping[str, Any], in_words: Callable[[Any], Sequence[str]], as_json: bool
) -> None:
    """What a dry run found: in words, or for scripts."""
    if as_json:
        print_json(record)
        return
    for line in in_words(record):
        say(line)


def plan_record(plan: Any) -> dict[str, Any]:
    """A plan for scripts: as in its file, with the decision of every unit, and how many of each."""
    content = plan.as_dict()
    units = {u: {**r, "decision": plan.units[u].decision} for u, r in content["units"].items()}
    return {"plan": content | {"units": units}, "counts": plan.counts()}


def _unicode() -> bool:
    """Whether the terminal or file that is printed to takes every character."""
    return str(getattr(sys.stdout, "encoding", "utf-8")).lower().replace("-", "") == "utf8"


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def languages_of(pairs: tuple[str, ...], option: str = "--language") -> dict[str, str | Path]:
    """Language → checkpoint, from what was given as ``--language NAME=CHECKPOINT``; role → adapter,
    from ``--adapter``.

    Raises:
        ConfigError: one that is not of this form, or a name given twice.
    """
    found: dict[str, str | Path] = {}
    for pair in pairs:
        name, separator, source = pair.partition("=")
        if not separator or not source:
            raise ConfigError(f"{option} {pair!r} must be NAME=CHECKPOINT, e.g. sw={pair}.")
        if name in found:
            raise ConfigError(f"{option} {name} is given twice.")
        found[name] = source
    return found


def selection(given: Mapping[str, Any]) -> dict[str, Any]:
    """The method with its parameters and the donor, those that were given."""
    from safeswap.selectors import OPTIONS, find, option_of

    chosen = {key: given[key] for key in (*OPTIONS, "donor") if given[key] is not None}
    if "tau_relative" in chosen:
        if "tau" in chosen:
            raise ConfigError("--tau and --tau-relative exclude each other; give one of them.")
        chosen |= {"tau": chosen["tau_relative"], "tau_relative": True}
    method = find(given["method"] or "share-difference")
    known = {parameter.name: parameter for parameter in method.parameters}
    for name, text in _pairs("--set", given["settings"]).items():
        if name in chosen:
            raise ConfigError(f"{name} is given twice; leave one out.")
        # an unknown one is refused with the others, by the method
        chosen[name] = known[name].parse(text, option_of(name)) if name in known else text
    settings = _pairs("--operator-set", given["operator_settings"])
    if settings and not given["operator"]:
        raise ConfigError("--operator-set needs --operator NAME; see safeswap methods.")
    if given["operator"]:
        values = {name: read_value(text) for name, text in settings.items()}
        chosen["operator"] = {"name": given["operator"], **values}
    return {"method": method.name, **chosen}


def _pairs(option: str, given: tuple[str, ...]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for pair in given:
        name, separator, text = pair.partition("=")
        name = name.strip().replace("-", "_")
        if not separator:
            raise ConfigError(f"{option} {pair!r} must be NAME=VALUE; see safeswap methods NAME.")
        if name in pairs:
            raise ConfigError(f"{name} is given twice; leave one out.")
        pairs[name] = text.strip()
    return pairs
