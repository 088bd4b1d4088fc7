"""The harmony format of gpt-oss: messages in channels, of which only ``final`` is the answer.

As github.com/openai/harmony (``docs/format.md``) says, a model writes one message after another::

    <|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>final<|message|>…<|return|>

The marks are special tokens. A tokenizer that leaves them out when it decodes runs everything into
one text, ``analysis…assistantfinal…``, in which nobody can tell thought from answer: so tokens are
decoded with their marks, and come out in the one form that thoughts have here.
"""

from __future__ import annotations

import re
from typing import Any, Final

CHANNEL: Final = "<|channel|>"
_MESSAGE = "<|message|>"
_ENDS = re.compile(r"<\|(?:start|end|return|call)\|>")
_NAME = re.compile(r"[a-z]+")
_FINAL = "final"
_TAGS = re.compile(r"</?(?:think(?:ing)?|thought|reasoning)>|\[/?THINK\]")


def decoded_channels(tokenizer: Any, new: list[int]) -> str | None:
    """A response in harmony's channels, as ``without_channels`` gives it; None where it has none.

    Args:
        new: ids of the response.
    """
    try:
        mark = tokenizer.convert_tokens_to_ids(CHANNEL)
    except (AttributeError, LookupError, ValueError):  # as some do that do not know a token
        return None
    if not isinstance(mark, int) or mark not in new:
        return None
    text = str(tokenizer.decode(new, skip_special_tokens=False))
    return without_channels(text) if CHANNEL in text else None  # else the mark is "unknown"


def without_channels(text: str) -> str:
    """Harmony's messages as ``<think>…</think>`` and the answer; other texts as they are.

    The answer is what stands in ``final``. All other channels are thought; tags written out in them
    are left out, for they would end it. Without a final message the thought stays open: such a
    response never came to an answer.
    """
    if CHANNEL not in text:
        return text
    thoughts: list[str] = []
    answers: list[str] = []
    for message in _ENDS.split(text):
        header, mark, content = message.partition(_MESSAGE)
        channel = _NAME.match(header.partition(CHANNEL)[2].strip()) if mark else None
        is_final = channel is not None and channel.group() == _FINAL
        words = content if mark else header
        if is_final:
            answers.append(words)
        elif mark or words.strip() not in ("", "assistant"):
            thoughts.append(words)
    thought = _TAGS.sub("", "\n".join(thoughts)).strip()
    if not answers:
        return f"<think>{thought}"
    answer = "\n".join(answers).strip()
    return f"<think>\n{thought}\n</think>\n\n{answer}" if thought else answer
