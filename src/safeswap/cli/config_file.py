"""``--config FILE.yaml``: the options of a verb in a file; what the command line says goes first.

The keys are the long names of options without the dashes, and the names of the verb's arguments::

    base: meta-llama/Llama-3.1-8B
    safety: me/safety-en
    language: {sw: me/swahili}
    method: chat-vector
    out: merged

Relative paths start at the file's folder, wherever the command is given: those of files and folders
always, and what may be a hub id too (models, experts, judges) where there is such a path.
The file is data, as a plan is: what lets code run, or sends a key or a question to a host, stands
on the command line alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from safeswap.errors import ConfigError, nearest

_TYPED = (
    "trust-remote-code",
    "engine",
    "allow-remote",
    "allow-outside",
    "base-url",
    "judge-url",
    "cluster",
    "api-key-variable",
    "push-to-hub",
    "public",
)
"""Options by which a file that somebody sent could run code, or have keys sent to its own host."""


def _read(context: click.Context, option: click.Parameter, path: Path | None) -> None:
    if path is None:
        return
    from safeswap.io.yamlfile import read_yaml

    content = read_yaml(path, error=ConfigError)
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: is a table from an option's name to its value.")
    known = {
        _key(parameter): parameter
        for parameter in context.command.get_params(context)
        if parameter.name not in ("config", "help") and parameter.expose_value
    }
    defaults: dict[str, Any] = {}
    for key, value in content.items():
        name = str(key).replace("_", "-")
        if name not in known:
            raise ConfigError(f"{path}: there is no option {key!r}{nearest(name, list(known))}")
        if name in _TYPED:
            raise ConfigError(
                f"{path}: {name} lets code run, or sends keys and questions to a host, so a file "
                f"may not set it. Give --{name} on the command line."
            )
        parameter = known[name]
        assert parameter.name is not None
        defaults[parameter.name] = _placed(
            path, name, parameter, _value(path, name, parameter, value)
        )
    context.default_map = {**(context.default_map or {}), **defaults}


def _key(parameter: click.Parameter) -> str:
    """The long name without dashes; an argument's own name."""
    long = [option for option in parameter.opts if option.startswith("--")]
    return long[0][2:] if long else str(parameter.name)


def _value(path: Path, name: str, parameter: click.Parameter, value: Any) -> Any:
    """A value as click takes it: texts, lists where an option may be repeated."""
    from safeswap.checkpoint.source import refuse_foreign

    if isinstance(value, Mapping):
        value = [str(key) if one is None else f"{key}={one}" for key, one in value.items()]
    several = parameter.multiple if isinstance(parameter, click.Option) else parameter.nargs == -1
    given = value if several and isinstance(value, list) else [value]
    for one in given:
        address = re.search(r"\w+://\S+", str(one))  # also behind the name of a role
        if address:
            refuse_foreign(address[0], path)
    if several:
        return [str(one) for one in given]
    if isinstance(value, list):
        raise ConfigError(f"{path}: {name} takes one value, not {len(value)}.")
    return value if isinstance(value, bool) or value is None else str(value)


_SOURCES = ("models", "base", "safety", "judge", "chat-template", "tokenizer", "suite")
_NAMED_SOURCES = ("models", "language", "prompts", "data")


def _placed(path: Path, name: str, parameter: click.Parameter, value: Any) -> Any:
    """A value whose relative paths start where the file is."""
    if isinstance(value, list):
        return [_placed(path, name, parameter, one) for one in value]
    if not isinstance(value, str):
        return value
    if isinstance(parameter.type, click.Path):
        return value if value.startswith("~") else str(path.parent / value)
    if name in _NAMED_SOURCES and "=" in value and not (path.parent / value).exists():
        key, _, source = value.partition("=")
        return f"{key}={_beside(path, source)}"
    if name == "judge" and value.startswith("rule:"):
        return f"rule:{_beside(path, value.removeprefix('rule:'))}"
    a_word = name == "suite" and not value.endswith((".yaml", ".yml"))
    a_word |= name == "chat-template" and value in ("on", "off")
    return _beside(path, value) if name in _SOURCES and not a_word else value


def _beside(path: Path, source: str) -> str:
    try:
        local = path.parent / source
        return str(local) if local.exists() else source
    except (OSError, ValueError):  # no path can be called so
        return source


CONFIG = click.option(
    "--config",
    type=click.Path(path_type=Path),
    is_eager=True,
    expose_value=False,
    callback=_read,
    help="Options from a YAML file; its keys are their long names. The command line goes first.",
)
