"""What verbs share: help in sections, and old spellings that still work, with a warning."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

from safeswap.display import visible, without_password
from safeswap.errors import Interrupted

Command = TypeVar("Command", bound=Callable[..., Any])
_HEADING = "Options"


def options(
    *given: Callable[[Command], Command], heading: str = ""
) -> Callable[[Command], Command]:
    """Several options as one decorator; the help lists them under ``heading``."""

    def apply(command: Command) -> Command:
        before = len(getattr(command, "__click_params__", ()))
        for option in reversed(given):
            command = option(command)
        for parameter in getattr(command, "__click_params__", ())[before:]:
            if heading and not hasattr(parameter, "heading"):
                parameter.heading = heading
        return command

    return apply


def say(text: str = "", *, err: bool = False, nl: bool = True) -> None:
    """Print; names, notes and messages from files and servers are shown, never obeyed, and no
    address with its password.
    """
    click.echo(visible(without_password(text)), err=err, nl=nl)


_steps = {"err": False}


def steps_to_stderr(aside: bool) -> None:
    """Whether the steps of a verb go to stderr, because stdout is for one JSON document."""
    _steps["err"] = aside


def say_step(text: str) -> None:
    """Print a step, or what to do next."""
    say(text, err=_steps["err"])


def quoted(path: object) -> str:
    """A path as a shell takes it back, spaces, quotes and all."""
    text = str(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def warn_renamed(old: str, new: str) -> None:
    """Say on stderr what is to be written instead."""
    say(f"warning: {old} is now {new}; the old name goes with the next version", err=True)


class Verb(click.Command):
    """A verb whose options may have headings and older names.

    Args:
        renamed: old option → new one; the old one is understood, with a warning, and not shown.
        resumes: the same command goes on where an interrupt stopped it.
    """

    def __init__(
        self,
        *args: Any,
        renamed: Mapping[str, str] | None = None,
        resumes: bool = False,
        **named: Any,
    ) -> None:
        super().__init__(*args, **named)
        self.renamed, self.resumes = dict(renamed or {}), resumes

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Options under their new names."""
        return super().parse_args(ctx, self._newly_spelt(args))

    def _newly_spelt(self, args: Sequence[str]) -> list[str]:
        found = list(args)
        for index, word in enumerate(args):
            if word == "--":
                break
            option, equals, value = word.partition("=")
            if option in self.renamed:
                warn_renamed(option, self.renamed[option])
                found[index] = f"{self.renamed[option]}{equals}{value}"
        return found

    def invoke(self, ctx: click.Context) -> Any:
        """Run it; an interrupt of one that goes on says so."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            if self.resumes:
                raise Interrupted from error
            raise

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The options under their headings, those without one last."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and not isinstance(parameter, click.Argument):
                groups.setdefault(getattr(parameter, "heading", _HEADING), []).append(record)
        for heading in sorted(groups, key=lambda name: name == _HEADING):
            with formatter.section(heading):
                formatter.write_dl(groups[heading])


class Verbs(click.Group):
    """Verbs, listed in sections; older names of them are understood, with a warning.

    Args:
        sections: title → names, in the order of the help; what no section names comes last.
        renamed: old verb → the words that stand for it now.
    """

    command_class = Verb

    def __init__(
        self,
        *args: Any,
        sections: Mapping[str, Sequence[str]] | None = None,
        renamed: Mapping[str, Sequence[str]] | None = None,
        **named: Any,
    ) -> None:
        super().__init__(*args, **named)
        self.sections, self.renamed = dict(sections or {}), dict(renamed or {})

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The verb; an old name becomes the new one, an unknown one is refused with the nearest."""
        if args and args[0] in self.renamed:
            new = self.renamed[args[0]]
            warn_renamed(args[0], " ".join(new))
            args = [*new, *args[1:]]
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The verbs with their first sentence, section by section."""
        named = {name for names in self.sections.values() for name in names}
        rest = [name for name in self.list_commands(ctx) if name not in named]
        limit = formatter.width - 6 - max(map(len, self.commands))
        for title, names in {**self.sections, "Commands": rest}.items():
            rows = [(name, self.commands[name].get_short_help_str(limit)) for name in names]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)
