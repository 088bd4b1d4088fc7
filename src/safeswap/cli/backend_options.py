"""The options of models and servers, which all verbs share that run one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from safeswap.cli.options import THREADS, TRUST
from safeswap.cli.registered import BACKENDS, either
from safeswap.cli.verbs import options
from safeswap.errors import ConfigError, EvaluationError
from safeswap.parameters import read_value

if TYPE_CHECKING:
    from safeswap.cluster import ClusterOptions
    from safeswap.evaluation.backends import BackendOptions

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
    THREADS,
    heading="Models and servers",
)


cluster_options = options(
    click.option(
        "--cluster",
        default="",
        metavar="ADDRESS",
        help="Run copies of the model on a Ray cluster: auto, HOST:PORT of its head, or local.",
    ),
    click.option(
        "--cluster-workers",
        type=click.IntRange(min=0),
        default=0,
        help="How many copies.  [default: as many as there is room for]",
    ),
    click.option("--cluster-cpus", type=float, default=1.0, show_default=True, help="Of each."),
    click.option(
        "--cluster-gpus", type=float, help="Of each.  [default: one where the cluster has any]"
    ),
    click.option(
        "--cluster-chunk",
        type=click.IntRange(min=1),
        default=64,
        show_default=True,
        help="The most questions that a copy is given at a time.",
    ),
    heading="Cluster",
)


def cluster_of(given: dict[str, Any]) -> ClusterOptions | None:
    """What the command line says of a cluster, taken out of ``given``; None without an address.

    Raises:
        ConfigError: options of a cluster without its address.
    """
    from safeswap.cluster import ClusterOptions

    address = given.pop("cluster")
    names = ("workers", "cpus", "gpus", "chunk")
    others = {name: given.pop(f"cluster_{name}") for name in names}
    if address:
        return ClusterOptions(address, **others)
    default = ClusterOptions("none")
    for name, value in others.items():
        if value != getattr(default, name):
            raise ConfigError(f"--cluster-{name}: needs --cluster ADDRESS (auto, local, …).")
    return None


def options_of(backend: dict[str, Any], chat_template: str) -> BackendOptions:
    """What the command line says of the backend, with as many of its options as a verb has."""
    from safeswap.evaluation.backends import BackendOptions

    fields = {key: value for key, value in backend.items() if key not in ("engine", "threads")}
    cluster = cluster_of(fields) if "cluster" in fields else None
    template = None if chat_template in ("on", "off") else Path(chat_template)
    engine = {
        key: read_value(value) for key, value in pairs_of("--engine", backend.get("engine", ()))
    }
    return BackendOptions(
        **fields,
        engine=engine,
        chat_template=template,
        use_template=chat_template != "off",
        cluster=cluster,
    )


@contextmanager
def needed(verb: str) -> Iterator[None]:
    """A library that is missing is named with its remedy."""
    try:
        yield
    except ImportError as error:
        raise EvaluationError(
            f"{verb} runs the models and needs {error.name}: pip install 'safeswap[eval]'."
        ) from error


def pairs_of(option: str, given: Sequence[str]) -> list[tuple[str, str]]:
    """``NAME=VALUE`` given to an option, as pairs.

    Raises:
        ConfigError: one that is not of this form.
    """
    found = []
    for text in given:
        key, separator, value = text.partition("=")
        if not separator or not value or not key:
            raise ConfigError(f"{option} {text!r}: is given as NAME=VALUE.")
        found.append((key, value))
    return found
