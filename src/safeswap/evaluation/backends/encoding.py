"""Chats to token ids, the same for every backend that runs the model itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safeswap.errors import CheckpointError, ConfigError, EvaluationError
from safeswap.evaluation.backends import Chat, TemplateOptions
from safeswap.evaluation.backends.misfits import misfits_in_words
from safeswap.io.regular import read_regular, shortened

LONGEST = 131072
"""Tokens of a prompt that lm-eval does not cut, where neither server nor tokenizer names a limit:
what is too long the server refuses, which is better than an answer to half a question."""

_TEMPLATE_BYTES = 4 << 20


@misfits_in_words()
def load_tokenizer(source: str, options: TemplateOptions) -> Any:
    """The checkpoint's tokenizer, padding on the left, with the chosen chat template.

    Raises:
        EvaluationError: transformers does not load it; it brings code along; the template file
            cannot be read.
    """
    from transformers import AutoTokenizer

    from safeswap.evaluation.backends.adapted import tokenizer_source
    from safeswap.evaluation.backends.bounds import refuse_unbounded
    from safeswap.evaluation.backends.own_code import refuse_own_code
    from safeswap.evaluation.templates import bound_chat_templates

    source = tokenizer_source(source)
    refuse_own_code(source, options.trust_remote_code)
    if Path(source).is_dir():
        try:
            refuse_unbounded(Path(source))
        except CheckpointError as error:
            raise EvaluationError(f"{source}: does not load: {error}") from error
    bound_chat_templates()
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            source, padding_side="left", trust_remote_code=options.trust_remote_code
        )
    except Exception as error:  # the tokenizers library raises plain Exceptions
        raise EvaluationError(
            f"{source}: transformers does not load its tokenizer: {type(error).__name__}: {error}. "
            "Is the folder a whole checkpoint?"
        ) from error
    if options.chat_template is not None:
        tokenizer.chat_template = read_template(options.chat_template)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def encode_chat(tokenizer: Any, chat: Chat, use_template: bool) -> list[int]:
    """The ids a model is given for a chat.

    With the template, it writes its own opening tokens; without, or where the chat wants none, the
    contents are joined by an empty line and the tokenizer adds its own.

    Raises:
        EvaluationError: the template refuses the chat, or there is none.
    """
    if not (use_template and chat.template):
        return _ids(tokenizer, joined_text(chat))
    from jinja2 import TemplateError

    if not tokenizer.chat_template:
        raise EvaluationError(
            f"{tokenizer.name_or_path}: has no chat template. Give one with --chat-template FILE, "
            "or turn it off for every model with --chat-template off."
        )
    try:
        text = tokenizer.apply_chat_template(
            [dict(message) for message in chat.messages],
            add_generation_prompt=chat.add_generation_prompt,
            tokenize=False,
            **({} if chat.thinking is None else {"enable_thinking": chat.thinking}),
        )
    except (TemplateError, ArithmeticError, LookupError, ValueError, TypeError) as error:
        raise EvaluationError(
            f"{tokenizer.name_or_path}: its chat template refuses the chat: {error}. Give another "
            "with --chat-template FILE, or turn it off for every model with --chat-template off."
        ) from error
    return _ids(tokenizer, text, add_special_tokens=False)


def _ids(tokenizer: Any, text: str, **settings: Any) -> list[int]:
    try:
        return list(tokenizer(text, **settings)["input_ids"])
    except BaseException as error:  # a panic of the tokenizers library is no Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise EvaluationError(
            f"{tokenizer.name_or_path}: its tokenizer fails on a text of {len(text)} letters "
            f"({type(error).__name__}: {shortened(error)}). Fetch its files again."
        ) from error


def joined_text(chat: Chat) -> str:
    """A chat's words without a template: the contents, an empty line between them.

    Raises:
        EvaluationError: contents in typed parts, which only a template can read.
    """
    contents = [message["content"] for message in chat.messages]
    if not all(isinstance(content, str) for content in contents):
        raise EvaluationError(
            "this chat has contents in typed parts, which only a chat template can read, and the "
            "template is off. A guard is always asked with its own: use --chat-template on."
        )
    return "\n\n".join(contents)


def read_template(path: Path) -> str:
    """A chat template file's text.

    Raises:
        EvaluationError: it cannot be read.
    """
    try:
        return read_regular(path, _TEMPLATE_BYTES).decode("utf-8")
    except (OSError, UnicodeDecodeError, ConfigError) as error:
        raise EvaluationError(f"{path}: the chat template cannot be read ({error}).") from error
