"""The verb ``calibrate``: what operators need to know of layers' inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from safeswap.cli.backend_options import options_of
from safeswap.cli.options import (
    DEVICE,
    DRY_RUN,
    DTYPE,
    FORCE,
    JSON,
    OVERWRITE,
    QUIET,
    THREADS,
    TRIO,
    TRUST,
    WORKERS,
    languages_of,
    print_json,
    say_outlook,
    use_threads,
)
from safeswap.cli.verbs import Verb, quoted, say_step
from safeswap.errors import CalibrationError


@click.command(cls=Verb, renamed={"--output": "--out"}, resumes=True)
@click.argument("base")
@TRIO
@click.option(
    "--texts",
    multiple=True,
    metavar="[EXPERT=]FILE",
    help="For regmean: one text a line, JSONL with text, or a CSV of prompts; one for all, or one "
    "for each.",
)
@click.option(
    "--harmful",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="For gram-add and gram-swap: English harmful requests with refusals, JSONL with prompt "
    "and response.",
)
@click.option(
    "--harmless",
    multiple=True,
    metavar="[LANGUAGE=]FILE",
    help="Likewise harmless chats in the language, for each language expert.",
)
@click.option(
    "--parallel",
    multiple=True,
    metavar="[LANGUAGE=]FILE",
    help="For sparse-edit: the same prompts in English and the language, CSV or JSONL with label "
    "(unsafe or safe), en and the language's name.",
)
@click.option("-o", "--out", type=click.Path(path_type=Path), default="grams", show_default=True)
@click.option("--memory", default="8GB", show_default=True, help="For the sums held at once.")
@click.option(
    "--max-tokens",
    type=click.IntRange(min=1),
    default=512,
    show_default=True,
    help="Longer texts are cut.",
)
@click.option(
    "--chat-template",
    help="off: texts as they are; on, or a Jinja file: each text is a user's message.  [default: "
    "off for --texts, else on]",
)
@DTYPE
@DEVICE
@click.option(
    "--batch-tokens",
    type=click.IntRange(min=1),
    default=16384,
    show_default=True,
    help="Tokens per forward pass; lower it when memory runs out.",
)
@TRUST
@WORKERS
@THREADS
@FORCE
@OVERWRITE
@DRY_RUN
@JSON
@QUIET
def calibrate(
    base: str,
    safety: str,
    languages: tuple[str, ...],
    texts: tuple[str, ...],
    harmful: Path | None,
    harmless: tuple[str, ...],
    parallel: tuple[str, ...],
    out: Path,
    memory: str,
    max_tokens: int,
    chat_template: str | None,
    workers: int | None,
    threads: int | None,
    force: bool,
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
    **backend: Any,
) -> None:
    """Run experts over a few hundred texts and keep what their layers saw.

    --texts: every expert over its unlabelled texts, for regmean. --harmful and --harmless: every
    language expert over refusals in English and chats in its language, for gram-add and gram-swap.
    --parallel: every language expert over prompts in English and their translations, for
    sparse-edit.
    The same command goes on where it was stopped: finished experts are kept.
    """
    from safeswap.checkpoint.shards import parse_size

    experts = languages_of(languages)
    limit = parse_size(memory, "--memory")
    try:
        from safeswap.calibration import outlook, run
        from safeswap.calibration.texts import assign_texts
    except ImportError as error:
        raise CalibrationError(
            f"calibrate runs the experts and needs {error.name}: pip install 'safeswap[eval]'."
        ) from error

    if texts and (harmful is not None or parallel):
        other = "--parallel" if parallel else "--harmful"
        raise CalibrationError(f"--texts and {other} are for different operators: run one of them.")
    files: dict[str, Any] = {
        "texts": assign_texts(texts, ("safety", *experts)) if texts else {},
        "harmful": harmful,
        "harmless": assign_texts(harmless, tuple(experts), "--harmless") if harmless else {},
        "parallel": assign_texts(parallel, tuple(experts), "--parallel") if parallel else {},
    }
    if dry_run:
        record = outlook.calibration_outlook(
            base, safety=safety, languages=experts, **files, out=out, force=force
        )
        say_outlook(record, outlook.lines_of, as_json)
        return
    use_threads(threads)
    template = chat_template or ("off" if texts else "on")
    done = run.calibrate(
        base,
        safety=safety,
        languages=experts,
        **files,
        out=out,
        options=options_of(backend, template),
        memory=limit,
        max_tokens=max_tokens,
        workers=workers,
        force=force,
        overwrite=overwrite,
    )
    operator = "regmean"
    if not texts:
        name, strength = ("gram-add", 4) if harmful is not None else ("sparse-edit", 1)
        operator = f"{name} --method chat-vector --set gamma={strength}"
    say_step(f"next: safeswap plan … --operator {operator} --operator-set grams={quoted(out)}")
    if as_json:
        found = [
            {"expert": one.name, "file": one.path, "matrices": one.matrices, "kept": one.kept}
            | {"texts": one.entry.texts["texts"], "tokens": one.entry.texts["tokens"]}
            for one in done
        ]
        print_json({"kind": "calibrated", "out": out, "experts": found})


COMMANDS = (calibrate,)
