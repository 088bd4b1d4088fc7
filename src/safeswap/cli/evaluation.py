"""The verbs of evaluation on the command line: evaluate, judge, compare, label."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from safeswap.cli.config_file import CONFIG
from safeswap.cli.options import JSON, QUIET, RESULTS, TRUST, codes_of, print_json
from safeswap.cli.registered import BACKENDS, JUDGE_KINDS, either
from safeswap.cli.verbs import Verb, Verbs, options, quoted, say
from safeswap.errors import ConfigError, nearest
from safeswap.parameters import read_value

if TYPE_CHECKING:
    from safeswap.evaluation.backends import BackendOptions
    from safeswap.tables import Table

FORMATS = ("terminal", "md", "csv", "latex", "html")

_results = click.argument("results", type=click.Path(path_type=Path))
_many_results = click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
_judge_choice = click.option("--judge", help="Whose verdicts count, if there are several.")
_counting = click.option(
    "--loose", is_flag=True, help="Count “controversial” as safe (default: as unsafe)."
)

_sheet_key = click.option(
    "--key",
    type=click.Path(path_type=Path),
    help="The key of a sheet that was renamed.  [default: SHEET.key.json]",
)

backend_options = options(
    click.option("--backend", default="hf", show_default=True, help=f"{either(BACKENDS)}."),
    click.option("--dtype", default="auto", show_default=True, help="For hf and vllm."),
    click.option("--device", default="auto", show_default=True, help="For hf: cpu, cuda, …"),
    click.option(
        "--batch-tokens",
        type=click.IntRange(min=1),
        default=16384,
        show_default=True,
        help="For hf: padded tokens per batch; lower it when memory runs out.",
    ),
    click.option("--base-url", default="", help="For api: the server, ending in /v1."),
    click.option(
        "--api-key-variable",
        default="OPENAI_API_KEY",
        show_default=True,
        help="For api: the environment variable that holds the key.",
    ),
    click.option("--concurrency", type=click.IntRange(min=1), default=8, show_default=True),
    click.option("--timeout", type=float, default=120.0, show_default=True, help="Seconds."),
    click.option("--retries", type=click.IntRange(min=0), default=5, show_default=True),
    click.option("--tokenizer", default="", help="For api with tasks that score choices."),
    click.option(
        "--engine",
        multiple=True,
        metavar="KEY=VALUE",
        help="For vllm: an engine argument, such as tensor_parallel_size=2. Repeat it.",
    ),
    TRUST,
    heading="Models and servers",
)


@click.command(cls=Verb, renamed={"--languages": "--only", "--results": "--out"}, resumes=True)
@click.argument("models", nargs=-1, required=True)
@options(
    click.option(
        "--suite",
        default="paper",
        show_default=True,
        help="paper, safety, ability, benchmarks joined by commas, or a YAML file.",
    ),
    click.option(
        "--only",
        multiple=True,
        required=True,
        metavar="CODE",
        help="In these languages. Repeat it, or join by commas: ko,sw,bn,te.",
    ),
    click.option(
        "--prompts",
        multiple=True,
        metavar="NAME[/LANGUAGE]=FILE",
        help="multijail=MultiJail.csv, xstest=xstest_prompts.csv, xstest/sw=translated.csv.",
    ),
    click.option(
        "--data",
        multiple=True,
        metavar="NAME/LANGUAGE=FILE",
        help="A local file in place of a benchmark's dataset, such as mgsm/te=mgsm_te.tsv.",
    ),
    click.option(
        "--instruction",
        type=click.Path(path_type=Path),
        help="Adds MultiJail's intentional mode with this malicious instruction.",
    ),
    click.option(
        "--split",
        metavar="PART[:FRACTION[:SEED]]",
        help="Only the dev or the test questions, such as test or dev:0.5:0 (default: all).",
    ),
    click.option(
        "--limit",
        type=click.IntRange(min=1),
        metavar="N",
        help="A trial: at most N questions of each benchmark and language; every table says so.",
    ),
    click.option(
        "--limit-seed", type=int, default=0, show_default=True, help="Another choice of them."
    ),
    heading="Questions",
)
@options(
    click.option(
        "--chat-template",
        default="on",
        show_default=True,
        help="on, off, or a Jinja file: the same for every model.",
    ),
    click.option("--max-new-tokens", type=click.IntRange(min=1), default=512, show_default=True),
    click.option(
        "--harness-tokens",
        type=click.IntRange(min=1),
        default=1024,
        show_default=True,
        help="New tokens for lm-eval's generating tasks.",
    ),
    click.option(
        "--thinking",
        type=click.Choice(["auto", "on", "off"]),
        default="auto",
        show_default=True,
        help="What chat templates are told of enable_thinking.",
    ),
    click.option(
        "--think-tokens",
        type=click.IntRange(min=0),
        default=0,
        show_default=True,
        help="Room for a thought, beside that for the answer.",
    ),
    heading="Answers",
)
@options(
    click.option("--judge", "judge_spec", help="Judge right after; see `safeswap judge`."),
    click.option("--judge-kind", help=f"{either(JUDGE_KINDS)}."),
    click.option("--judge-backend", help=f"{either(BACKENDS)}.  [default: that of the models]"),
    click.option("--judge-url", default="", help="For a judge on another server."),
    heading="Judge",
)
@backend_options
@RESULTS
@click.option(
    "--dry-run", is_flag=True, help="Only say which models would be asked what, and the memory."
)
@click.option("--threads", type=click.IntRange(min=1), help="Of torch and BLAS.  [default: theirs]")
@QUIET
@CONFIG
def evaluate(
    models: tuple[str, ...],
    suite: str,
    only: tuple[str, ...],
    prompts: tuple[str, ...],
    data: tuple[str, ...],
    instruction: Path | None,
    chat_template: str,
    max_new_tokens: int,
    harness_tokens: int,
    thinking: Any,
    think_tokens: int,
    split: str | None,
    limit: int | None,
    limit_seed: int,
    results: Path,
    judge_spec: str | None,
    judge_kind: str | None,
    judge_backend: str | None,
    judge_url: str,
    dry_run: bool,
    threads: int | None,
    **backend: Any,
) -> None:
    """Let MODELS answer a suite, and store every answer in the results folder.

    MODELS are folders, hub ids or a server's names, each as SOURCE or NAME=SOURCE. The same command
    goes on where it was stopped.
    """
    from safeswap.evaluation import pipeline
    from safeswap.evaluation.backends import refuse_foreign_options
    from safeswap.evaluation.benchmarks.limit import Limit
    from safeswap.evaluation.benchmarks.splits import read_split
    from safeswap.evaluation.judges import make_judge
    from safeswap.evaluation.outlook import outlook

    kind = backend.pop("backend")
    asked = options_of(backend, chat_template)
    refuse_foreign_options(asked, (kind, judge_backend or kind))
    if judge_spec is not None:  # a wrong name should not show after hours of answering
        make_judge(judge_spec, kind=judge_kind)
    made = pipeline.make_suite(
        suite,
        codes_of(only),
        prompts={key: Path(path) for key, path in _pairs("--prompts", prompts)},
        files={_cell(key): Path(path) for key, path in _pairs("--data", data)},
        instruction=instruction,
    ).on(None if split is None else read_split(split))
    made = made.limited(None if limit is None else Limit(limit, limit_seed))
    for benchmark in made.benchmarks:
        for code, reason in benchmark.absent.items():
            say(f"n/a: {benchmark.title} in {code}: {reason}")
    generation = pipeline.Generation(
        max_new_tokens, harness_tokens, thinking=thinking, think_tokens=think_tokens
    )
    if dry_run:
        for line in outlook(models, made, results, kind, asked):
            say(line)
        return
    if threads is not None:
        _use_threads(threads)
    for done in pipeline.evaluate(
        models, made, results, backend=kind, options=asked, generation=generation
    ):
        say(f"{done.arm}: {done.responses} responses and {done.scores} scores added")
    if judge_spec is not None:
        judging = options_of({**backend, "base_url": judge_url or backend["base_url"]}, "on")
        _judge(results, judge_spec, judge_kind, judge_backend or kind, judging, ())
    elif any(benchmark.prompts for benchmark in made.benchmarks):
        say(f"next: safeswap judge {quoted(results)} --judge Qwen/Qwen3Guard-Gen-4B")


def _use_threads(threads: int) -> None:
    """Of torch, and of the BLAS of numpy; other libraries read their own variables."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(threads)
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(threads)


@click.command(cls=Verb, resumes=True)
@_results
@click.option("--judge", "spec", required=True, help="A hub id, a folder, or rule:FILE.yaml.")
@click.option(
    "--kind",
    help=f"{either(JUDGE_KINDS)}, if the name does not tell; qwen3guard-prompt is of the prompts "
    "alone.",
)
@click.option("--models", default="", help="Only these, joined by commas.")
@click.option("--thoughts", is_flag=True, help="Judge what was thought, not what was answered.")
@backend_options
@QUIET
def judge(
    results: Path, spec: str, kind: str | None, models: str, thoughts: bool, **backend: Any
) -> None:
    """Judge the stored responses of a results folder, without generating any.

    Each judge has a file of its own; what it has read already is not judged again.
    """
    names = tuple(name.strip() for name in models.split(",") if name.strip())
    from safeswap.evaluation.backends import refuse_foreign_options

    chosen = backend.pop("backend")
    asked = options_of(backend, "on")
    refuse_foreign_options(asked, (chosen,))
    _judge(results, spec, kind, chosen, asked, names, thoughts)


def _judge(
    results: Path,
    spec: str,
    kind: str | None,
    backend: str,
    options: BackendOptions,
    models: Sequence[str],
    thoughts: bool = False,
) -> None:
    from safeswap.evaluation import pipeline

    added = pipeline.judge(
        results,
        spec,
        kind=kind,
        backend=backend,
        options=options,
        models=models,
        of_thought=thoughts,
    )
    for arm, count in added.items():
        say(f"{arm}: {count} verdicts of {spec} added")
    if not added:
        say(f"nothing to judge: {spec} has read every response")
    for arm, verdicts in pipeline.count_verdicts(
        results, spec, kind=kind, of_thought=thoughts
    ).items():
        if nonsense := verdicts["unparsed"]:
            say(
                f"warning: {nonsense} of {verdicts.total()} verdicts on {arm} are in no form that "
                "this judge answers in; they count as neither safe nor unsafe. Look at `raw` in "
                f"{results / arm / 'verdicts'}: is it the right judge, and --kind?",
                err=True,
            )
    say(f"next: safeswap compare {quoted(results)}")


@click.command(cls=Verb)
@_many_results
@_judge_choice
@_counting
@click.option("--reference", help="Compare all with this model (default: each merge with its own).")
@click.option(
    "--primary",
    multiple=True,
    metavar="MODEL",
    help="The merge whose comparison is primary, where several are of one language. Repeat it.",
)
@click.option(
    "--margin",
    type=click.FloatRange(0, 100, min_open=True, max_open=True),
    default=2.0,
    show_default=True,
    help="Points of ability that may be lost.",
)
@click.option(
    "--annotations",
    type=click.Path(path_type=Path),
    help="A labelled sheet of `safeswap label sample`: corrects the rates for the judge's errors.",
)
@_sheet_key
@click.option(
    "--dev", is_flag=True, help="Also where a model was chosen on these very questions; it is said."
)
@click.option(
    "--explain",
    "cell",
    metavar="CELL",
    help="BENCHMARK/LANGUAGE/MODEL[:REFERENCE]: the rows of it.",
)
@click.option("--format", "form", default="terminal", help="terminal, md, csv, latex or html.")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="Write report.md, .csv, .tex, .html into this folder.",
)
@JSON
def compare(
    results: tuple[Path, ...],
    judge: str | None,
    loose: bool,
    reference: str | None,
    primary: tuple[str, ...],
    margin: float,
    annotations: Path | None,
    key: Path | None,
    dev: bool,
    cell: str | None,
    form: str,
    out: Path | None,
    as_json: bool,
) -> None:
    """Print the tables of one or more results folders of the same settings."""
    from safeswap import tables as render
    from safeswap.evaluation import pipeline
    from safeswap.report import evaluation as evaluation_report

    _check_format(form)
    if as_json and (cell is not None or form != "terminal"):
        raise ConfigError("--json excludes --explain and --format; leave one out.")
    if cell is not None:
        say(pipeline.explain(results, cell, judge=judge, strict=not loose))
        return
    tables = evaluation_report.compare(
        results,
        judge=judge,
        strict=not loose,
        reference=reference,
        primary=primary,
        margin=margin / 100,
        annotations=annotations,
        key=key,
        dev=dev,
    )
    if as_json:
        print_json({"kind": "tables", "tables": render.as_records(tables)})
    else:
        print_tables(tables, form)
    if out is not None:
        for path in render.write_reports(tables, out):
            say(f"{path}: written", err=as_json)


@click.group(cls=Verbs)
def label() -> None:
    """Label a sample by hand, and see how well judges agree with people."""


@label.command("agreement")
@click.argument("labels", type=click.Path(path_type=Path))
@click.option("--human", help="The column of human labels.")
@click.option("--judge", "judges", multiple=True, help="A judge's column. Repeat it for several.")
@click.option("--positive", multiple=True, help="A label that counts as positive. Repeat it.")
@click.option("--by", help="Also for each value of this column.")
@_sheet_key
@click.option("--format", "form", default="terminal", help="terminal, md, csv, latex or html.")
def agreement(
    labels: Path,
    human: str | None,
    judges: tuple[str, ...],
    positive: tuple[str, ...],
    by: str | None,
    key: Path | None,
    form: str,
) -> None:
    """Compare judges with human labels: accuracy, κ, sensitivity, specificity, confusion.

    LABELS is a CSV with a column of human labels and one per judge; or a sheet that
    `safeswap label sample` made, labelled, with its key beside it.
    """
    _check_format(form)
    from safeswap.evaluation.human import (
        agreements,
        is_blind,
        key_of,
        read_annotations,
        read_labels,
    )
    from safeswap.report import agreement as agreement_report

    if key is not None or key_of(labels).exists() or is_blind(labels):
        read = read_annotations(labels, key)
        found = [read.agreement(positive)]
        if read.left_out:
            say(f"of the sheet's rows, {read.left_out}", err=True)
    else:
        sheet = read_labels(labels, human=human, judges=judges)
        found = agreements(sheet, positive, by)
    print_tables(agreement_report.agreement_tables(found), form)


@label.command("sample")
@_results
@click.option("--sample", type=click.IntRange(min=1), default=200, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@_judge_choice
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), default="annotate.csv", show_default=True
)
def sample_to_label(results: Path, sample: int, seed: int, judge: str | None, out: Path) -> None:
    """Draw a stratified, blind sample of responses to label by hand.

    Labels (safe, unsafe, invalid) go into the sheet; `safeswap label agreement SHEET` and
    `safeswap compare RESULTS --annotations SHEET` read it back.
    """
    from safeswap.evaluation import pipeline

    key, count = pipeline.annotate(results, out, sample, seed=seed, judge=judge)
    say(f"{out}: {count} responses to label with safe, unsafe or invalid")
    say(f"{key}: which is which; keep it from whoever labels")


def options_of(backend: dict[str, Any], chat_template: str) -> BackendOptions:
    """What the command line says of the backend."""
    from safeswap.evaluation.backends import BackendOptions

    fields = {key: value for key, value in backend.items() if key != "engine"}
    template = None if chat_template in ("on", "off") else Path(chat_template)
    engine = {key: read_value(value) for key, value in _pairs("--engine", backend["engine"])}
    return BackendOptions(
        **fields, engine=engine, chat_template=template, use_template=chat_template != "off"
    )


def _pairs(option: str, given: Sequence[str]) -> list[tuple[str, str]]:
    found = []
    for text in given:
        key, separator, value = text.partition("=")
        if not separator or not value or not key:
            raise ConfigError(f"{option} {text!r}: is given as NAME=VALUE.")
        found.append((key, value))
    return found


def _cell(key: str) -> tuple[str, str]:
    benchmark, separator, language = key.partition("/")
    if not separator:
        raise ConfigError(f"--data {key}: is given as BENCHMARK/LANGUAGE=FILE.")
    return benchmark, language


def _check_format(form: str) -> None:
    if form not in FORMATS:
        raise ConfigError(f"--format {form}: there is no such format{nearest(form, FORMATS)}")


def print_tables(tables: Sequence[Table], form: str) -> None:
    """Print tables to standard output in one of ``FORMATS``."""
    from safeswap import tables as render

    if form == "terminal":
        from rich.console import Console

        render.print_tables(tables, Console())
        return
    say(_rendered(tables, form))


def _rendered(tables: Sequence[Table], form: str) -> str:
    from safeswap import tables as render

    if form == "html":
        return render.as_html(tables, "safeswap: evaluation")
    if form == "csv":
        return render.as_csv(tables)
    one = {"md": render.as_markdown, "latex": render.as_latex}
    return "\n".join(one[form](table) for table in tables)


COMMANDS = (evaluate, judge, compare, label)
