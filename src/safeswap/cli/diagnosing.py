"""The verb ``diagnose``: whether a merge is likely to work, asked before anything is merged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from safeswap.cli.backend_options import needed, options_of
from safeswap.cli.options import (
    DEVICE,
    DTYPE,
    FORCE,
    JSON,
    QUIET,
    TEMPLATE,
    THREADS,
    TRIO,
    TRUST,
    WORKERS,
    languages_of,
    print_json,
    use_threads,
)
from safeswap.cli.verbs import Verb, say_step
from safeswap.roles import SAFETY


@click.command(cls=Verb, renamed={"--output": "--out"})
@click.argument("base")
@TRIO
@click.option(
    "--harmful",
    multiple=True,
    required=True,
    metavar="[LANGUAGE=]FILE",
    help="Harmful requests with refusals, JSONL with prompt and response: FILE in English, and "
    "LANGUAGE=FILE in a language, without which the grade is never likely.",
)
@click.option(
    "--harmless",
    multiple=True,
    required=True,
    metavar="ROLE=FILE",
    help="Harmless chats, likewise: LANGUAGE=FILE in each language, safety=FILE in English.",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="Write every figure into this file (JSON).",
)
@click.option("--layers", is_flag=True, help="Print every layer's figures.")
@click.option(
    "--limit", type=int, default=100, show_default=True, help="Texts of a file that are read."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the texts and halves.")
@click.option(
    "--max-tokens",
    type=click.IntRange(min=1),
    default=256,
    show_default=True,
    help="Of a request with its answer; longer answers are cut.",
)
@TEMPLATE
@DTYPE
@DEVICE
@click.option(
    "--batch-tokens",
    type=click.IntRange(min=1),
    default=4096,
    show_default=True,
    help="Tokens per batch; lower it when memory runs out.",
)
@TRUST
@WORKERS
@THREADS
@FORCE
@JSON
@QUIET
def diagnose(
    base: str,
    safety: str,
    languages: tuple[str, ...],
    harmful: tuple[str, ...],
    harmless: tuple[str, ...],
    out: Path | None,
    layers: bool,
    limit: int,
    seed: int,
    max_tokens: int,
    workers: int | None,
    threads: int | None,
    force: bool,
    as_json: bool,
    chat_template: str,
    **backend: Any,
) -> None:
    """Say whether a merge is likely to work, before anything is merged.

    Each model is opened by itself and read on some hundred texts, by forward passes alone: how
    harmful and harmless requests lie apart in it, what it refuses, and what it knows of the
    language. The grade is likely, open or unlikely, with the reasons.
    """
    from safeswap import api
    from safeswap.io.files import check_writable

    with needed("diagnose"):
        from safeswap.calibration.texts import assign_texts
        from safeswap.search.diagnose.texts import harmful_files
    experts = languages_of(languages)
    if out is not None:
        check_writable(out)
    use_threads(threads)
    done = api.diagnose(
        base,
        safety=safety,
        languages=experts,
        harmful=harmful_files(harmful, list(experts)),
        harmless=assign_texts(harmless, (SAFETY, *experts), "--harmless"),
        out=out,
        options=options_of(backend, chat_template),
        limit=limit,
        max_tokens=max_tokens,
        seed=seed,
        workers=workers,
        force=force,
    )
    if as_json:
        print_json({"kind": "diagnosis", "out": out, **done.record})
        return
    from safeswap.report.diagnosis_terminal import diagnosis_view
    from safeswap.report.plan_terminal import print_view

    for one in done.languages:
        print_view(diagnosis_view(one, layers=layers))
    if out is not None:
        say_step(f"{out}: written, with every figure")


COMMANDS = (diagnose,)
