"""What a backend is: one loaded or reached model that answers chats."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

FinishReason = Literal["stop", "length", "filtered"]


@dataclass(frozen=True, slots=True)
class Chat:
    """What is asked.

    Attributes:
        messages: role and content, in turn (content is text, or typed parts for some judges).
        max_new_tokens: where a response is cut off.
        add_generation_prompt: end with the template's opening of an answer; guards that moderate a
            whole conversation want none.
        thinking: what the template is told of ``enable_thinking``; None leaves it to the template.
        thought_limit: new tokens after which no thought stays open; 0 is no limit. Only backends of
            a kind that ``cuts_thoughts`` know it.
        template: False gives the contents as they are, for a judge that writes its whole prompt.
    """

    messages: tuple[Mapping[str, Any], ...]
    max_new_tokens: int
    add_generation_prompt: bool = True
    thinking: bool | None = None
    thought_limit: int = 0
    template: bool = True


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back.

    Attributes:
        text: without special tokens, but with the tags of a thought (`thoughts.apart`).
        prompt_tokens, new_tokens: how many; None where the backend does not say.
        finish_reason: ``length`` is a response cut off, ``filtered`` one the server withheld.
    """

    text: str
    prompt_tokens: int | None
    new_tokens: int | None
    finish_reason: FinishReason


class Backend(Protocol):
    """One loaded (or reached) model."""

    description: dict[str, Any]
    """What goes into the results: backend, versions, dtype."""

    def respond(self, chats: Sequence[Chat]) -> Iterator[tuple[int, Reply]]:
        """Yield (index in ``chats``, reply) as they are done, in any order."""
        ...

    def harness(self) -> Any:
        """The same model as lm-evaluation-harness's ``LM``."""
        ...

    def close(self) -> None:
        """Let go of the model and its memory."""
        ...
