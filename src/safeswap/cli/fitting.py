"""Verbs that run the merge on texts: ``fit`` finds weights, ``attribute`` says what units do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from safeswap.cli.backend_options import needed, options_of
from safeswap.cli.options import (
    DEVICE,
    DRY_RUN,
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
    say_outlook,
    use_threads,
)
from safeswap.cli.verbs import Verb, options, quoted, say, say_step

_TEXTS = options(
    click.option(
        "--harmful",
        type=click.Path(path_type=Path),
        required=True,
        metavar="FILE",
        help="Harmful requests with refusals, JSONL with prompt and response: in the language "
        "where there are some, else in English.",
    ),
    click.option(
        "--harmless",
        multiple=True,
        required=True,
        metavar="[LANGUAGE=]FILE",
        help="Harmless chats in the language, likewise, that are to stay as likely; safety=FILE: "
        "harmless English chats, which are not to be refused.",
    ),
)
_MAX_TOKENS = click.option(
    "--max-tokens",
    type=click.IntRange(min=1),
    default=256,
    show_default=True,
    help="Longer answers are cut.",
)
LOUD = 0.05
"""Part of harmless requests held back beyond which a fit that refuses them says so. In the real
model's Swahili it was 0.11, and 85 % of other harmless requests were refused; in Thai and Korean
0.02 and 0.03, and none."""


@click.command(cls=Verb, renamed={"--output": "--out"}, resumes=True)
@click.argument("base")
@TRIO
@_TEXTS
@click.option("-o", "--out", type=click.Path(path_type=Path), default="fitted", show_default=True)
@click.option("--by", default="module", show_default=True, help="module or layer.")
@click.option("--steps", type=int, default=50, show_default=True, help="Of the optimiser.")
@click.option("--rate", type=float, default=0.06, show_default=True, help="Length of a step.")
@click.option("--batch", type=int, default=8, show_default=True, help="Texts of a kind per step.")
@click.option(
    "--start",
    type=(float, float),
    default=(0.6, 0.8),
    show_default=True,
    metavar="SAFETY LANGUAGE",
    help="Both weights of every unit before the first step.",
)
@click.option("--high", type=float, default=1.5, show_default=True, help="The largest weight.")
@click.option(
    "--margin",
    type=float,
    default=6.0,
    show_default=True,
    help="Log-odds of refusing beyond which a harmful request counts no more.",
)
@click.option(
    "--keep",
    type=float,
    default=6.0,
    show_default=True,
    help="Nats of refusing that the language expert's whole gain is worth.",
)
@click.option(
    "--spend",
    type=float,
    default=0.3,
    show_default=True,
    help="Part of the gain that may be lost before it counts.",
)
@click.option(
    "--over",
    type=float,
    default=4.0,
    show_default=True,
    help="Nats of refusing that one of refusing the harmless is worth.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the texts' order.")
@_MAX_TOKENS
@TEMPLATE
@DTYPE
@DEVICE
@TRUST
@WORKERS
@THREADS
@FORCE
@DRY_RUN
@JSON
@QUIET
def fit(
    base: str,
    safety: str,
    languages: tuple[str, ...],
    harmful: Path,
    harmless: tuple[str, ...],
    out: Path,
    start: tuple[float, float],
    max_tokens: int,
    workers: int | None,
    threads: int | None,
    force: bool,
    dry_run: bool,
    as_json: bool,
    chat_template: str,
    dtype: str,
    device: str,
    trust_remote_code: bool,
    **given: Any,
) -> None:
    """Fit each unit's two weights on what the merged model does with a few hundred texts.

    The table moves, the models do not: refusing after harmful requests is made likely while the
    language's own texts stay as likely as under its expert. Writes a plan per language. The same
    command goes on where it was stopped.
    """
    from safeswap import api

    with needed("fit"):
        from safeswap.search.fit import FitSettings, outlook
    experts = languages_of(languages)
    settings = FitSettings(start_safety=start[0], start_language=start[1], **given)
    backend = {"dtype": dtype, "device": device, "trust_remote_code": trust_remote_code}
    asked: dict[str, Any] = {
        "safety": safety,
        "languages": experts,
        "harmful": harmful,
        "harmless": _chats(harmless, experts),
        "out": out,
        "settings": settings,
        "force": force,
    }
    if dry_run:
        say_outlook(outlook.fit_outlook(base, **asked), outlook.lines_of, as_json)
        return
    use_threads(threads)
    done = api.fit(
        base,
        **asked,
        options=options_of(backend, chat_template),
        max_tokens=max_tokens,
        workers=workers,
    )
    if as_json:
        print_json({"kind": "fitted", "out": out, "languages": [_plain(one) for one in done]})
        return
    for one in done:
        click.echo(_said(one))
        if (one.after.overrefused or 0.0) > LOUD:
            say(
                f"warning: a refusal opens {one.after.overrefused:.0%} of the answers to harmless "
                "requests that were held back. Give more harmless chats of the kind that users "
                "ask, or a larger --over.",
                err=True,
            )
        say_step(f"next: safeswap merge --plan {quoted(one.plan)} --out OUT")


@click.command(cls=Verb, renamed={"--output": "--out"})
@click.argument("base")
@TRIO
@_TEXTS
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    default="attribution.json",
    show_default=True,
    help="The file; one that is there is replaced.",
)
@click.option(
    "--by",
    default="module",
    show_default=True,
    help="layer, module, or head: groups of attention heads, and MLPs.",
)
@click.option(
    "--points",
    type=int,
    default=4,
    show_default=True,
    help="Between the language expert and all of the safety vector.",
)
@click.option("--limit", type=int, default=100, show_default=True, help="Texts of a kind.")
@click.option("--batch", type=int, default=8, show_default=True, help="Texts run together.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of which texts are taken.")
@click.option("--units", is_flag=True, help="Print all units, not the best alone.")
@_MAX_TOKENS
@TEMPLATE
@click.option(
    "--dtype", default="float32", show_default=True, help="Of the model; auto is as stored."
)
@DEVICE
@TRUST
@WORKERS
@THREADS
@FORCE
@JSON
@QUIET
def attribute(
    base: str,
    safety: str,
    languages: tuple[str, ...],
    harmful: Path,
    harmless: tuple[str, ...],
    out: Path,
    units: bool,
    max_tokens: int,
    workers: int | None,
    threads: int | None,
    force: bool,
    as_json: bool,
    chat_template: str,
    dtype: str,
    device: str,
    trust_remote_code: bool,
    **given: Any,
) -> None:
    """Say what each unit's part of the safety vector brings to refusing, and what it costs.

    Gradients at a few points between the language expert and all of the safety vector, on some
    hundred texts, give every unit's share of what changes. For plan --method attribution.
    """
    from safeswap import api

    with needed("attribute"):
        from safeswap.search.attribute import AttributionSettings
    experts = languages_of(languages)
    backend = {"dtype": dtype, "device": device, "trust_remote_code": trust_remote_code}
    use_threads(threads)
    found = api.attribute(
        base,
        safety=safety,
        languages=experts,
        harmful=harmful,
        harmless=_chats(harmless, experts),
        out=out,
        settings=AttributionSettings(**given),
        options=options_of(backend, chat_template),
        max_tokens=max_tokens,
        workers=workers,
        force=force,
    )
    show_attribution(found, out, units=units, as_json=as_json)
    say_step(
        f"next: safeswap plan PROFILE --method attribution --set file={quoted(out)} "
        "--set keeping=NATS"
    )


def show_attribution(found: Any, path: Path, *, units: bool, as_json: bool) -> None:
    """Print what units bring: the best of them, or all."""
    from safeswap.cli.tables import print_tables
    from safeswap.report import attribution

    if as_json:
        print_json({"path": path, **attribution.record(found)})
        return
    limit = None if units else attribution.FEW
    tables = [attribution.units_table(found, limit), attribution.sums_table(found)]
    print_tables(tables, "terminal")


def _chats(given: tuple[str, ...], languages: Mapping[str, Any]) -> dict[str, Path]:
    """Language → its chats, and safety's where there are."""
    from safeswap.calibration.texts import assign_texts

    named = any(text.partition("=")[0] == "safety" for text in given)
    roles = (*languages, *(["safety"] if named else []))
    return assign_texts(given, roles, "--harmless")


def _said(one: Any) -> str:
    """What the held-back texts say, in a line each."""
    before, after = one.before, one.after
    return (
        f"{one.language}: of the texts held back, the language expert and the plan:\n"
        f"  a refusal opens the answer to a harmful request: "
        f"{before.refused:.1%} and {after.refused:.1%} (log-odds {before.refusing:.1f} and "
        f"{after.refusing:.1f})\n"
        f"  and to a harmless one: {before.overrefused:.1%} and {after.overrefused:.1%}\n"
        f"{_besides(before, after)}"
        f"  kept of the expert's gain on its own texts: {one.kept:.0%}"
    )


def _besides(before: Any, after: Any) -> str:
    """The same of harmless requests besides, where there were some."""
    if before.others_refused is None:
        return ""
    return f"  and to one of safety's: {before.others_refused:.1%} and {after.others_refused:.1%}\n"


def _plain(one: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "language": one.language,
        "plan": one.plan,
        "record": one.record,
        "before": asdict(one.before),
        "after": asdict(one.after),
        "kept": one.kept,
    }


COMMANDS = (fit, attribute)
