"""What a model thinks before it answers, told from the answer.

Models that reason write ``<think>…</think>`` first; some templates open the thought themselves, so
that only its end is generated; servers with a reasoning parser return it beside the answer;
gpt-oss has channels (``harmony``). Here all of these come to the same: an answer, and the thought.
A thought that never ended has no answer.
"""

from __future__ import annotations

import re
from typing import Any

from safeswap.evaluation.backends.harmony import decoded_channels

END = "</think>"
_WORD = "think(?:ing)?|thought|reasoning"
_CLOSING = re.compile(rf"</(?:{_WORD})>|\[/THINK\]")
_OPENING = re.compile(rf"<(?:{_WORD})>|\[THINK\]")
_TAIL = 16


def apart(text: str) -> tuple[str, str]:
    """(answer, thought): what stands after the last thought, and all that stands before.

    The thought is without its tags; both without outer space. Where a thought is open at the end,
    the answer is empty. A text without tags is all answer.
    """
    ended = list(_CLOSING.finditer(text))
    start = ended[-1].end() if ended else 0
    before, after = text[:start], text[start:]
    if _OPENING.search(after) is not None:
        before, after = text, ""
    bare = _OPENING.sub("\n", _CLOSING.sub("\n", before))
    return after.strip(), bare.strip()


def open_thought(text: str) -> str | None:
    """The tag of the thought that is open where a text ends; None where none is."""
    ended = list(_CLOSING.finditer(text))
    found = list(_OPENING.finditer(text, ended[-1].end() if ended else 0))
    return found[0].group() if found else None


def closing_of(opening: str) -> str:
    """The tag that closes a thought: ``</think>`` for ``<think>``."""
    return f"{opening[0]}/{opening[1:]}"


def joined(thought: str, answer: str) -> str:
    """A thought that came beside an answer, as the one text that other backends give."""
    return f"<think>\n{thought}\n{END}\n\n{answer}" if thought.strip() else answer


def opened_by_template(tokenizer: Any, prompt: list[int]) -> str | None:
    """The tag of a thought that a prompt ends in, so that what is generated begins in it."""
    text = str(tokenizer.decode(prompt[-_TAIL:], skip_special_tokens=False)).rstrip()
    ends = (found.group() for found in _OPENING.finditer(text) if found.end() == len(text))
    return next(ends, None)


def decoded(tokenizer: Any, prompt: list[int], new: list[int], text: str | None = None) -> str:
    """A response with the tags of its thought, also where a template or a tokenizer hides them.

    Args:
        prompt, new: ids of the prompt and of the response.
        text: the response as its engine decoded it; by default the tokenizer's.
    """
    if (told := decoded_channels(tokenizer, new)) is not None:
        return told
    if text is None:
        text = str(tokenizer.decode(new, skip_special_tokens=True))
    specials = getattr(tokenizer, "all_special_tokens", None)
    hidden = [
        token
        for token in (specials if isinstance(specials, list) else [])
        if _CLOSING.fullmatch(token) or _OPENING.fullmatch(token)
    ]
    if hidden:
        tags = {tokenizer.convert_tokens_to_ids(token): token for token in hidden}
        parts: list[list[int] | str] = [[]]
        for one in new:
            if one in tags:
                parts += [tags[one], []]
            elif isinstance(parts[-1], list):
                parts[-1].append(one)
        text = "".join(
            part if isinstance(part, str) else tokenizer.decode(part, skip_special_tokens=True)
            for part in parts
        )
    if opening := opened_by_template(tokenizer, prompt):
        text = f"{opening}{text}"
    return text.strip()
