"""The command line: one command per verb. It parses, calls the API and prints; no logic."""

from __future__ import annotations

import errno
import io
import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from safeswap.cli import (
    calibration,
    checking,
    diagnosing,
    evaluation,
    exploring,
    fitting,
    interchange,
    merging,
    methods,
    publishing,
    results,
    search,
)
from safeswap.cli.verbs import Verb, Verbs, say, say_step, steps_to_stderr
from safeswap.display import visible, without_password
from safeswap.errors import Interrupted, SafeswapError
from safeswap.io import progress
from safeswap.version import __version__

_SECTIONS = {
    "Merge": ("profile", "plan", "merge", "show", "verify", "push"),
    "Evaluate": ("evaluate", "judge", "compare", "report", "label"),
    "Choose": ("diagnose", "explore", "sweep", "search", "fit", "attribute"),
    "Tools": ("methods", "convert", "calibrate", "demo"),
}
_RENAMED = {
    "export": ("convert", "--to", "mergekit"),
    "import": ("convert", "--from", "mergekit"),
    "annotate": ("label", "sample"),
    "agreement": ("label", "agreement"),
}


class _Printed(logging.Handler):
    """What the package logs, as a user reads it: steps on stdout, what to know on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        note = record.levelno >= logging.WARNING
        text = record.getMessage()
        if note:
            say(f"note: {text}", err=True)
        else:
            say_step(text)


_LEVELS = ("debug", "info", "warning", "error")


@contextmanager
def _heard(level: str) -> Iterator[None]:
    """Print what is logged; only here, for libraries that we call may set up handlers of theirs."""
    log, handler = logging.getLogger("safeswap"), _Printed()
    before = log.level, log.propagate
    log.setLevel(level.upper())
    log.propagate = False
    steps_to_stderr(False)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before[0])
        log.propagate = before[1]


@contextmanager
def _misfits_in_words() -> Iterator[None]:
    """As `safeswap.evaluation.backends.misfits`, which is imported only where it is needed."""
    try:
        yield
    except (ImportError, RuntimeError, AttributeError, OSError, SafeswapError) as error:
        if isinstance(error, click.exceptions.Exit):
            raise
        from safeswap.evaluation.backends.misfits import misfits_in_words

        with misfits_in_words():
            raise


class _Group(Verbs):
    """Errors become one readable message and an exit status: 1 refused, 130 interrupted."""

    def invoke(self, ctx: click.Context) -> Any:
        signal.signal(signal.SIGTERM, _interrupt)
        try:
            level = "debug" if ctx.params.get("verbose") else ctx.params.get("log_level") or "info"
            with _heard(level), progress.switched(True), _misfits_in_words():
                return super().invoke(ctx)
        except click.ClickException as error:
            message = visible(without_password(error.message))  # it may repeat what was given
            error.args = (message,)
            vars(error)["message"] = message
            raise
        except UnicodeError as error:  # of a path: an 8-bit locale, or a name that is no text
            say(
                f"Error: a name or path cannot be written in this locale ({error}). Set "
                "PYTHONUTF8=1 and run the same command again.",
                err=True,
            )
            ctx.exit(1)
        except SafeswapError as error:
            say(f"Error: {error}", err=True)
            ctx.exit(1)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            from safeswap.io.files import remedy  # with numpy, which no help should wait for

            say(f"Error: {error.strerror}. {remedy(error)}", err=True)
            ctx.exit(1)
        except KeyboardInterrupt as error:
            again = "Nothing is left half written; run the same command again."
            if isinstance(error, Interrupted):
                again = "The same command goes on where this one stopped."
            say(f"Interrupted. {again}", err=True)
            ctx.exit(130)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


@click.group(
    cls=_Group,
    sections=_SECTIONS,
    renamed=_RENAMED,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__)
@click.option("-v", "--verbose", is_flag=True, help="Say more: the same as --log-level debug.")
@click.option(
    "--log-level",
    type=click.Choice(_LEVELS),
    default="info",
    show_default=True,
    help="What of the steps and notes is said; before the verb.",
)
def main(verbose: bool, log_level: str) -> None:
    """Give a fine-tuned language model its safety back, without training.

    Checkpoints are local folders, hub ids (org/name@revision) or their URLs.
    """


@main.command(cls=Verb)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    default="safeswap-demo",
    show_default=True,
    help="The new folder.",
)
def demo(out: Path) -> None:
    """Run the whole job on the small models that come with safeswap."""
    try:
        import torch  # noqa: F401
        import transformers
    except ImportError:
        raise SafeswapError(
            "the demo measures models with transformers: install safeswap[demo]."
        ) from None
    from safeswap.demo.demo import run_demo

    transformers.utils.logging.disable_progress_bar()
    say("The small world shows the mechanism; it is no evidence about large models.")
    run_demo(out)


_VERBS = (
    merging,
    checking,
    publishing,
    methods,
    interchange,
    calibration,
    evaluation,
    results,
    diagnosing,
    exploring,
    fitting,
    search,
)
for _command in (command for module in _VERBS for command in module.COMMANDS):
    main.add_command(_command)


def run() -> None:
    """The entry point of the ``safeswap`` command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a terminal cannot show is shown as ?
            stream.reconfigure(errors="replace")
    sys.exit(main(standalone_mode=True))
