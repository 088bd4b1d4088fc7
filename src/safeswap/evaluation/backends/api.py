"""An OpenAI-compatible server as a backend (vLLM's, llama.cpp's, a provider's), by ``openai``.

The client repeats after rate limits, timeouts and server errors, waiting longer each time and as
long as the server asks. What still fails is not an answer: the replies that did come are kept, and
the run ends with an error that says how many are missing; the same command asks for those again.

A server may add a checkpoint's own sampling defaults, such as a repetition penalty, to every
request; start vLLM's with ``--generation-config vllm`` to have plain greedy decoding.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any

import openai

from safeswap.display import without_password
from safeswap.errors import EvaluationError, nearest
from safeswap.evaluation.backends import APIOptions, Chat, FinishReason, Reply
from safeswap.evaluation.backends.encoding import joined_text
from safeswap.evaluation.backends.thoughts import joined
from safeswap.io.address import split_login

GIVE_UP_AFTER = 3
"""Chats in a row that may fail, after all their retries, before the rest are not even asked."""
REFUSED = (openai.BadRequestError, openai.UnprocessableEntityError)
"""What a server says of this very request, such as that its prompt is too long."""


class MalformedReplyError(Exception):
    """A body that is no chat completion."""


class APIBackend:
    """A model behind ``/chat/completions``; see ``Backend``. The server applies its template.

    With the template off, or for a chat without it, the words go to ``/completions`` as they are.
    For a conversation that ends without a generation prompt (guards) vLLM's
    ``add_generation_prompt`` is sent; servers that do not know it pass it over, and the guards'
    templates open the answer themselves.
    """

    def __init__(self, source: str, options: APIOptions) -> None:
        if not options.base_url:
            raise EvaluationError(
                "the backend api needs --base-url, such as http://localhost:8000/v1."
            )
        if options.chat_template is not None:
            raise EvaluationError(
                f"--chat-template {options.chat_template}: a server applies the template that it "
                "was started with. Start it with this one (vLLM: --chat-template FILE), and leave "
                "the option away here."
            )
        self.source, self.options = source, options
        self.shown = without_password(options.base_url)
        # the client's own errors and logs repeat the address that it was given
        self.address, login = split_login(options.base_url)
        key = os.environ.get(options.api_key_variable) or "none"
        self._authorization = login or f"Bearer {key}"
        self.client = openai.OpenAI(
            base_url=self.address,
            api_key=key,
            default_headers={"Authorization": login} if login else None,
            timeout=options.timeout,
            max_retries=options.retries,
        )
        self.description: dict[str, Any] = {"backend": "api", "base_url": self.shown}
        self._longest: int | None = None
        self._check_reachable()

    def respond(self, chats: Sequence[Chat]) -> Iterator[tuple[int, Reply]]:
        """As they come back; ``concurrency`` requests are under way at a time."""
        stop, answered, in_a_row = Event(), 0, 0
        failures: list[Exception] = []
        try:
            for n, reply in _in_threads(self._ask, chats, self.options.concurrency, stop):
                if isinstance(reply, (openai.OpenAIError, MalformedReplyError)):
                    failures.append(reply)
                    # A request that is refused as such says nothing about the next one.
                    in_a_row += not isinstance(reply, REFUSED)
                    if in_a_row >= GIVE_UP_AFTER:
                        stop.set()
                elif isinstance(reply, Exception):
                    raise reply
                else:
                    answered, in_a_row = answered + 1, 0
                    yield n, reply
        finally:
            stop.set()
        if failures:
            unasked = len(chats) - answered - len(failures)
            more = f", and {unasked} were not asked any more" if unasked else ""
            raise EvaluationError(
                f"{self.shown}: {len(failures)} of {len(chats)} requests failed, with "
                f"up to {self.options.retries} retries each{more}; the last: "
                f"{self._hidden(_in_words(failures[-1]))} What was answered is kept; run the same "
                "command again for the rest."
            )

    def harness(self) -> Any:
        """lm-eval's client for ``/completions``, which scores choices by echoed log-probabilities.

        Raises:
            EvaluationError: no tokenizer was named (chat servers do not tell theirs), or a library
                is missing.
        """
        if not self.options.tokenizer:
            raise EvaluationError(
                "MMMLU, BELEBELE and MGSM through a server need the model's tokenizer: add "
                "--tokenizer FOLDER_OR_HUB_ID, and a server with /completions that returns "
                "log-probabilities with echo (vLLM's does). Or evaluate with --backend hf or vllm."
            )
        try:
            from safeswap.evaluation.backends.completions import Completions

            return Completions(
                base_url=self.address.rstrip("/") + "/completions",
                model=self.source,
                tokenizer=self.options.tokenizer,
                tokenizer_backend="huggingface",
                # As transformers and vLLM do it: a template writes its own opening tokens.
                add_bos_token=not self.options.use_template,
                longest=self._longest,
                trusted=self.options.trust_remote_code,
                num_concurrent=self.options.concurrency,
                max_retries=self.options.retries + 1,
                timeout=max(1, round(self.options.timeout)),
                header={"Authorization": self._authorization},
            )
        except ImportError as error:
            raise EvaluationError(
                f"lm-evaluation-harness's client for servers is not whole ({error}): "
                "pip install 'lm_eval[api]'."
            ) from error

    def close(self) -> None:
        """Close the connections."""
        self.client.close()

    def _check_reachable(self) -> None:
        try:
            served = {m.id: m for m in self.client.with_options(max_retries=1).models.list()}
        except openai.APIConnectionError as error:
            raise EvaluationError(
                f"{self.shown}: cannot be reached "
                f"({self._hidden(error.__cause__ or error)}). Is the server running, "
                "and does the address end in /v1?"
            ) from error
        except openai.AuthenticationError as error:
            raise EvaluationError(
                f"{self.shown}: refuses the key. Set the environment variable "
                f"{self.options.api_key_variable} (--api-key-variable names another one)."
            ) from error
        except (openai.OpenAIError, ValueError, TypeError, AttributeError):
            self._refuse_without_v1()
            return  # a server need not list its models
        if served and self.source not in served:
            raise EvaluationError(
                f"{self.shown}: serves no model {self.source!r}{nearest(self.source, served)}"
            )
        longest = getattr(served.get(self.source), "max_model_len", None)  # as vLLM's says
        self._longest = longest if isinstance(longest, int) else None

    def _refuse_without_v1(self) -> None:
        """Say that /v1 is missing where the server answers there and not here."""
        given = self.address.rstrip("/")
        if given.endswith("/v1"):
            return
        try:
            list(self.client.with_options(base_url=f"{given}/v1", max_retries=0).models.list())
        except (openai.OpenAIError, ValueError, TypeError, AttributeError):
            return
        raise EvaluationError(
            f"{self.shown}: the server does not answer there, but under /v1. Give "
            f"--base-url {self.shown.rstrip('/')}/v1."
        )

    def _hidden(self, said: object) -> str:
        """What a library said, without the password of the address and without the key."""
        text = without_password(str(said))
        key = os.environ.get(self.options.api_key_variable)
        return text.replace(key, "…") if key else text

    def _ask(self, chat: Chat) -> Reply:
        limits: dict[str, Any] = {"temperature": 0.0, "max_tokens": chat.max_new_tokens}
        try:
            if not (self.options.use_template and chat.template):
                text = joined_text(chat)
                return read_completion(
                    self.client.completions.create(model=self.source, prompt=text, **limits)
                )
            extra: dict[str, Any] = {}  # vLLM's and SGLang's parameters
            if not chat.add_generation_prompt:  # guards are asked with it
                extra["add_generation_prompt"] = False
            if chat.thinking is not None:
                extra["chat_template_kwargs"] = {"enable_thinking": chat.thinking}
            if extra:
                limits["extra_body"] = extra
            messages: Any = [dict(message) for message in chat.messages]
            return read_completion(
                self.client.chat.completions.create(model=self.source, messages=messages, **limits)
            )
        except openai.BadRequestError as error:
            if error.code == "content_filter":  # a provider that will not even pass on the prompt
                return Reply("", None, None, "filtered")
            raise
        except ValueError as error:  # what the client lets through of a body that is no JSON
            raise MalformedReplyError(f"the body is no JSON ({error}).") from error


def read_completion(completion: Any) -> Reply:
    """The reply in a completion, of a chat or of a text.

    Raises:
        MalformedReplyError: there is no choice in it, or nothing said in the choice.
    """
    choices = getattr(completion, "choices", None)
    if not isinstance(choices, list) or not choices:
        raise MalformedReplyError("the body holds no choices.")
    first = choices[0]
    message, text = getattr(first, "message", None), getattr(first, "text", None)
    if isinstance(message, openai.BaseModel):
        text = getattr(message, "content", None) or getattr(message, "refusal", None) or ""
        thought = _reasoning(message)
        if thought and isinstance(text, str):  # as the other backends give it: in one text
            text = joined(thought, text) if text.strip() else f"<think>{thought}"
    if not isinstance(text, str):
        raise MalformedReplyError("its choice holds no message with a text.")
    reasons: dict[str, FinishReason] = {"length": "length", "content_filter": "filtered"}
    usage = getattr(completion, "usage", None)
    return Reply(
        _whole(text).strip(),
        _count(getattr(usage, "prompt_tokens", None)),
        _count(getattr(usage, "completion_tokens", None)),
        reasons.get(str(getattr(first, "finish_reason", None)), "stop"),
    )


def _reasoning(message: Any) -> str:
    """The thought that a server's parser has moved out of the answer; it has two names."""
    found = (getattr(message, name, None) for name in ("reasoning_content", "reasoning"))
    return next((text for text in found if isinstance(text, str) and text.strip()), "")


def _whole(text: str) -> str:
    """Halves of surrogate pairs, which JSON can hold and UTF-8 cannot, as U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _in_threads(
    ask: Callable[[Chat], Reply], chats: Sequence[Chat], threads: int, stop: Event
) -> Iterator[tuple[int, Reply | Exception]]:
    """Replies, or what was raised instead, as they come; no new chat is begun after ``stop``.

    Its threads hold up nobody: an interrupted run ends at once, whatever is still under way.
    """
    waiting: SimpleQueue[int] = SimpleQueue()
    done: SimpleQueue[tuple[int, Reply | Exception] | None] = SimpleQueue()
    for n in range(len(chats)):
        waiting.put(n)

    def work() -> None:
        while not stop.is_set():
            try:
                n = waiting.get_nowait()
            except Empty:
                break
            try:
                done.put((n, ask(chats[n])))
            except Exception as error:
                done.put((n, error))
        done.put(None)

    working = min(threads, len(chats))
    for _ in range(working):
        Thread(target=work, daemon=True).start()
    while working:
        found = done.get()
        if found is None:
            working -= 1
        else:
            yield found


def _in_words(error: Exception) -> str:
    if isinstance(error, openai.APITimeoutError):
        return "the server did not answer in time (--timeout)."
    if isinstance(error, openai.RateLimitError):
        return "rate limit (429); lower --concurrency."
    if isinstance(error, openai.APIStatusError):
        return f"HTTP {error.status_code}: {str(error.message)[:200]}."
    return f"{error or type(error).__name__}"[:300]
