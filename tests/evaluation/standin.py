"""What the evaluation's tests share: a small real model, a server around it, real processes.

The model is one of the small world's; what it answers is never pinned, for it may be trained anew.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from safeswap.demo import models_folder  # noqa: E402
from safeswap.evaluation.backends import BackendOptions, Chat  # noqa: E402
from safeswap.evaluation.backends.hf import HFBackend  # noqa: E402
from safeswap.evaluation.benchmarks.prompts import Prompt, PromptSet  # noqa: E402
from safeswap.evaluation.benchmarks.suites import Benchmark, Suite  # noqa: E402
from safeswap.evaluation.measures import Measure  # noqa: E402

MODEL = models_folder() / "safety"
OTHER = models_folder() / "base"
NAME = "small"
FLOAT32 = BackendOptions(dtype="float32", device="cpu")
RULES = "default: unsafe\nrules:\n  - {pattern: '^$', verdict: invalid}\n"


@cache
def small() -> HFBackend:
    """The model, loaded once for all tests."""
    torch.set_num_threads(1)
    return HFBackend(str(MODEL), FLOAT32)


@cache
def words() -> tuple[str, ...]:
    """Words that the model knows."""
    known = small().tokenizer.get_vocab()
    return tuple(sorted(word for word in known if not word.startswith("<")))


def text(number: int) -> str:
    """A made-up prompt of two to nine known words, another one for every number."""
    every = words()
    return " ".join(every[(37 * number + 11 * n) % len(every)] for n in range(2 + number % 8))


def chat(content: Any, limit: int = 12, **settings: Any) -> Chat:
    """A chat of one user turn."""
    return Chat(({"role": "user", "content": content},), limit, **settings)


def chats(count: int, limit: int = 12) -> list[Chat]:
    """Chats of different lengths."""
    return [chat(text(number), limit) for number in range(count)]


def suite_of(count: int, name: str = "mine", language: str = "qab") -> Suite:
    """A suite of one benchmark of that many prompts."""
    prompts = tuple(Prompt(str(n), language, text(n)) for n in range(count))
    return Suite(
        (language,), (Benchmark(name, name, Measure.UNSAFE, PromptSet(name, "harmful", prompts)),)
    )


def write_suite(folder: Path, count: int) -> Path:
    """The same as files: a suite's YAML with a CSV in MultiJail's columns."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "mine.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "source", "tags", "qab"])
        rows.writerows([n, "test", "[]", text(n)] for n in range(count))
    (folder / "suite.yaml").write_text("benchmarks:\n  mine: {prompts: mine.csv}\n")
    return folder / "suite.yaml"


@contextmanager
def no_bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Progress that is not shown."""
    yield lambda count: None


# A server ---------------------------------------------------------------------------------------

Answer = tuple[int, Mapping[str, str], bytes]
"""Status, headers, body."""


def answer(status: int, body: Any = "", **headers: str) -> Answer:
    """An answer of a server; what is no text becomes JSON. Clients are told to retry at once."""
    raw = body if isinstance(body, str) else json.dumps(body)
    told = {"content_type": "application/json", "retry_after_ms": "1", **headers}
    return status, {key.replace("_", "-"): value for key, value in told.items()}, raw.encode()


class Server:
    """The model behind OpenAI's protocol: a real HTTP server in a thread.

    Attributes:
        trouble: called with each request's number and body; what it returns is sent instead of an
            answer, None lets the model answer.
        asked: (path, body) of every POST so far.
    """

    def __init__(self) -> None:
        self.trouble: Callable[[int, dict[str, Any]], Answer | None] = lambda n, body: None
        self.models: Answer = answer(200, {"object": "list", "data": [_model(NAME)]})
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.keys: list[str] = []
        self.let_go = threading.Event()
        self._turn = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self.let_go.set()
        self._http.shutdown()
        self._http.server_close()

    def hang(self) -> None:
        """Wait, in `trouble`, until the test is over."""
        self.let_go.wait(60)

    def contents(self) -> list[str]:
        """What the chats so far said."""
        return [body["messages"][-1]["content"] for _, body in self.asked]

    def _post(self, path: str, body: dict[str, Any]) -> Answer:
        with self._turn:
            number = len(self.asked)
            self.asked.append((path, body))
        found = self.trouble(number, body)
        if found is not None:
            return found
        with self._turn:
            made = _chat_completion(body) if "messages" in body else _completion(body)
        return answer(200, {"id": "x", "created": 0, "model": NAME, **made})

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._send(server.models)

            def do_POST(self) -> None:
                server.keys.append(self.headers.get("Authorization", ""))
                length = int(self.headers["Content-Length"])
                self._send(server._post(self.path, json.loads(self.rfile.read(length))))

            def _send(self, what: Answer) -> None:
                status, headers, body = what
                try:
                    self.send_response(status)
                    for key, value in headers.items():
                        self.send_header(key, value)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                except OSError:  # the client went away
                    self.close_connection = True

            def log_message(self, *arguments: Any) -> None:
                pass

        return Handler


@contextmanager
def serving() -> Iterator[Server]:
    """A server for the length of a test."""
    server = Server()
    try:
        yield server
    finally:
        server.close()


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "tests", "max_model_len": 64}


def _chat_completion(body: Mapping[str, Any]) -> dict[str, Any]:
    prompted = body.get("add_generation_prompt", True)
    question = Chat(tuple(body["messages"]), body["max_tokens"], prompted)
    ((_, reply),) = small().respond([question])
    message = {"role": "assistant", "content": reply.text}
    return {
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": reply.finish_reason}],
        "usage": _usage(reply.prompt_tokens, reply.new_tokens),
    }


def _completion(body: Mapping[str, Any]) -> dict[str, Any]:
    model, prompts = small(), body["prompt"]
    if isinstance(prompts, str):
        prompts = [model.tokenizer(prompts)["input_ids"]]
    choices: list[dict[str, Any]] = []
    for index, ids in enumerate(prompts):
        if body.get("echo"):
            choices.append({"index": index, "text": "", "logprobs": _logprobs(ids)})
            continue
        (reply,) = model._generate([list(ids)], body["max_tokens"])
        choices.append({"index": index, "text": reply.text, "finish_reason": reply.finish_reason})
        choices[-1]["logprobs"] = None
        usage = _usage(reply.prompt_tokens, reply.new_tokens)
    return {"object": "text_completion", "choices": choices} | (
        {} if body.get("echo") else {"usage": usage}
    )


def _logprobs(ids: Sequence[int]) -> dict[str, Any]:
    """Of every token of the prompt, and one more that is generated."""
    with torch.inference_mode():
        logits = small().model(torch.tensor([list(ids)])).logits[0].float()
    logs = torch.log_softmax(logits, dim=-1)
    following = [*ids[1:], int(logs[-1].argmax())]
    said = [None, *(float(logs[n, token]) for n, token in enumerate(following))]
    best = [None, *({str(int(row.argmax())): float(row.max())} for row in logs)]
    return {"token_logprobs": said, "top_logprobs": best, "tokens": list(map(str, following))}


def _usage(prompt: int | None, new: int | None) -> dict[str, int]:
    prompt, new = prompt or 0, new or 0
    return {"prompt_tokens": prompt, "completion_tokens": new, "total_tokens": prompt + new}


# Processes --------------------------------------------------------------------------------------

_FORKING = """
import json, os, signal, sys
import torch, openai, transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM
import safeswap.evaluation.backends.hf, safeswap.evaluation.backends.api
from safeswap.cli import run
torch.set_num_threads(1)
for line in sys.stdin:
    arguments, log = json.loads(line)
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1), os.dup2(out, 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.argv = ["safeswap", *arguments]
        run()
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Commands:
    """The ``safeswap`` command as real processes, each forked from one that did the imports."""

    def __init__(self, log: Path) -> None:
        self.log = log
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        self._parent = subprocess.Popen(
            [sys.executable, "-c", _FORKING],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def start(self, *arguments: str | Path) -> int:
        """Start a command; its process id."""
        assert self._parent.stdin is not None
        line = json.dumps([list(map(str, arguments)), str(self.log)])
        self._parent.stdin.write(line + "\n")
        self._parent.stdin.flush()
        return self._number()

    def wait(self) -> int:
        """Its exit status, or minus the signal that ended it."""
        return self._number()

    def run(self, *arguments: str | Path) -> str:
        """Run a command that must succeed; what it printed."""
        self.start(*arguments)
        status = self.wait()
        printed = self.log.read_text()
        assert status == 0, printed
        return printed

    def close(self) -> None:
        """End the parent."""
        assert self._parent.stdin is not None and self._parent.stdout is not None
        self._parent.stdin.close()
        self._parent.wait()
        self._parent.stdout.close()

    def _number(self) -> int:
        assert self._parent.stdout is not None
        return int(self._parent.stdout.readline())


def lines(path: Path) -> int:
    """How many whole lines a file has."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def alive(process: int) -> bool:
    """Whether a process runs."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for_lines(path: Path, count: int, process: int) -> None:
    """Until a file has that many lines, or the process that writes them has ended."""
    while lines(path) < count and alive(process):
        time.sleep(0.002)
