"""A model on a cluster: as many copies of it as there is room for, each loaded by a worker.

To those who ask it is a backend like any other. Chats and lm-eval's requests go to the workers in
chunks, the long ones first; rows come back as they are done and are stored where they always are,
by the process that asked.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from blake3 import blake3

from safeswap.cluster import ClusterOptions, Pool, parts
from safeswap.errors import ClusterError, EvaluationError
from safeswap.evaluation.backends.base import Backend, Chat, Reply
from safeswap.evaluation.backends.encoding import load_tokenizer, read_template
from safeswap.evaluation.backends.options import BackendOptions
from safeswap.evaluation.backends.registry import BACKENDS, BackendKind, open_here, register

_TOLD = ("thought_limit", "chat_template_args", "enable_thinking")
"""What lm-eval's model is told of a run, beside its requests."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model as it travels to the workers.

    Attributes:
        source: its folder, the same on every node.
        mark: what tells the folder's content, see :func:`mark_of`.
        kind: the backend that loads it; also one of a user's own, which no worker has imported.
        template: the text of the chat template that takes the place of its own.
    """

    source: str
    mark: str
    kind: BackendKind
    options: BackendOptions
    template: str | None


class ModelWorker:
    """What a worker holds: the model, loaded.

    Raises:
        ClusterError: the folder is not there, or holds other files than where the command runs.
        EvaluationError: it does not load.
    """

    def __init__(self, spec: ModelSpec) -> None:
        if spec.kind.name not in BACKENDS:
            register(spec.kind)
        refuse_other_folder(spec.source, spec.mark)
        with with_template(spec.options, spec.template) as options:
            self.backend: Backend = open_here(spec.source, spec.kind.name, options)
        self._harness: Any = None

    def ready(self) -> dict[str, Any]:
        """What goes into the results."""
        return self.backend.description

    def answer(self, chats: Sequence[Chat]) -> list[tuple[int, Reply]]:
        """All replies, with their places in ``chats``."""
        return list(self.backend.respond(chats))

    def score(self, kind: str, asked: Sequence[Any], told: dict[str, Any]) -> list[Any]:
        """What lm-eval's model says to requests of a kind, given by their arguments."""
        from lm_eval.api.instance import Instance

        model = self.harness()
        for name, value in told.items():
            setattr(model, name, value)
        requests = [Instance(kind, {}, arguments, n) for n, arguments in enumerate(asked)]
        return list(getattr(model, kind)(requests, disable_tqdm=True))

    def about(self) -> dict[str, Any]:
        """What is asked of lm-eval's model beside requests."""
        model = self.harness()
        told = {name: getattr(model, name) for name in _TOLD if hasattr(model, name)}
        return {
            "max_length": getattr(model, "max_length", None),
            "tokenizer_name": str(getattr(model, "tokenizer_name", "")),
            "told": told,
        }

    def harness(self) -> Any:
        """lm-eval's model, made once."""
        if self._harness is None:
            self._harness = self.backend.harness()
        return self._harness


class ClusterBackend:
    """A model whose copies answer on a cluster; see ``Backend``.

    Raises:
        ClusterError: as :class:`~safeswap.cluster.Pool`; the model's folder is not on a node.
        EvaluationError: it does not load, or is a server's.
    """

    def __init__(self, source: str, kind: BackendKind, options: BackendOptions) -> None:
        if kind.remote and kind.name == "api":
            raise EvaluationError(
                "--cluster with --backend api: a server is asked from here, and may itself be "
                "many. Leave --cluster out, or use --backend vllm."
            )
        assert options.cluster is not None
        self.source, self.kind, self.options, self.cluster = source, kind, options, options.cluster
        alone, template = travelling(options)
        alone = with_gpus(alone, kind, self.cluster)
        spec = ModelSpec(source, mark_of(source), kind, alone, template)
        self.pool = Pool(ModelWorker, (spec,), self.cluster)
        self.description: dict[str, Any] = dict(self.pool.about)

    def respond(self, chats: Sequence[Chat]) -> Iterator[tuple[int, Reply]]:
        """In chunks, the longest first."""
        order = sorted(range(len(chats)), key=lambda n: -_length(chats[n]))
        runs = parts(len(order), len(self.pool), self.cluster.chunk)
        chunks = [([chats[order[n]] for n in run],) for run in runs]
        for number, replies in self.pool.spread("answer", chunks):
            for at, reply in replies:
                yield order[runs[number][at]], reply

    def harness(self) -> Any:
        """lm-eval's model whose requests go to the workers."""
        from safeswap.evaluation.backends.clustered_harness import ClusterLM

        tokenizer = load_tokenizer(self.source, self.options)
        return ClusterLM(self.pool, self.cluster.chunk, tokenizer)

    def close(self) -> None:
        """End the workers."""
        self.pool.close()


@contextmanager
def with_template(options: BackendOptions, text: str | None) -> Iterator[BackendOptions]:
    """The options with a file that holds a chat template, as long as a model is being loaded."""
    if text is None:
        yield options
        return
    with tempfile.TemporaryDirectory(prefix="safeswap-template-") as folder:
        path = Path(folder) / "template.jinja"
        path.write_text(text, encoding="utf-8")
        yield replace(options, chat_template=path)


def travelling(options: BackendOptions) -> tuple[BackendOptions, str | None]:
    """The options as a worker gets them, and the text of the chat template that goes along."""
    given = options.chat_template if options.use_template else None
    text = None if given is None else read_template(given)
    return replace(options, cluster=None, chat_template=None), text


def with_gpus(
    options: BackendOptions, kind: BackendKind, cluster: ClusterOptions
) -> BackendOptions:
    """The options of a worker that has several GPUs: vLLM divides a model among them.

    Raises:
        EvaluationError: a backend that uses one.
    """
    if cluster.gpus is None or cluster.gpus <= 1:
        return options
    if kind.name != "vllm":
        raise EvaluationError(
            f"--cluster-gpus {cluster.gpus:g}: a worker of the backend {kind.name} uses one GPU. "
            "Use --backend vllm, which divides a model among several."
        )
    return replace(options, engine={"tensor_parallel_size": int(cluster.gpus), **options.engine})


def mark_of(source: str) -> str:
    """What tells a folder's content on another machine, without reading all of it: names and sizes
    of its files, and each one's first 64 KiB. Empty where there is no such folder.
    """
    folder = Path(source)
    if not folder.is_dir():
        return ""
    whole = blake3()
    for path in sorted(one for one in folder.iterdir() if one.is_file()):
        with path.open("rb") as stream:
            whole.update(f"{path.name}\0{path.stat().st_size}\0".encode() + stream.read(1 << 16))
    return whole.hexdigest(length=16)


def refuse_other_folder(source: str, mark: str) -> None:
    """Refuse a folder that is another here than where the command runs.

    Raises:
        ClusterError: it is not there, or holds other files.
    """
    found = mark_of(source)
    if found != mark:
        what = "is not there" if not found else "holds other files there"
        raise ClusterError(
            f"{source}: {what}, on a node of the cluster. Models lie under the same path on all "
            "nodes: use a shared file system, or copy the folder."
        )


def _length(chat: Chat) -> int:
    return chat.max_new_tokens + sum(len(str(one.get("content"))) for one in chat.messages)
