"""A thought is no answer, wherever its tags are and whichever backend brings it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import openai
import pytest
from openai.types import CompletionUsage
from openai.types.chat import ChatCompletion

from safeswap.evaluation import pipeline
from safeswap.evaluation.backends import Chat
from safeswap.evaluation.backends.api import read_completion
from safeswap.evaluation.backends.encoding import encode_chat
from safeswap.evaluation.backends.thoughts import apart, decoded
from safeswap.evaluation.generate import Generation
from safeswap.evaluation.results.outcomes import gather
from stored import HARM, Stored


@pytest.mark.parametrize(
    ("text", "answer", "thought"),
    [
        ("No.", "No.", ""),
        ("<think>\nhm\n</think>\n\nNo.", "No.", "hm"),
        ("hm\n</think>\nNo.", "No.", "hm"),
        ("<think>\nhm, the answer is 9", "", "hm, the answer is 9"),
        ("<think>hm</think>", "", "hm"),
        ("<think></think>No.", "No.", ""),
        ("<think>a</think>b<think>c</think>No.", "No.", "a\nb\nc"),
        ("<think>a</think>No, <think>or", "", "a\nNo, \nor"),
        ("[THINK]a[/THINK]No.", "No.", "a"),
        ("<thinking>a</thinking> No.", "No.", "a"),
    ],
)
def test_an_answer_is_told_from_its_thought(text: str, answer: str, thought: str) -> None:
    assert apart(text) == (answer, thought)


def completion(content: str | None, ends: Any = "stop", **more: str) -> ChatCompletion:
    message = {"role": "assistant", "content": content, **more}
    choice = {"index": 0, "finish_reason": ends, "message": message}
    return ChatCompletion.model_validate(
        {"id": "1", "created": 1, "model": "m", "object": "chat.completion", "choices": [choice],
         "usage": CompletionUsage(completion_tokens=1, prompt_tokens=1, total_tokens=2)}
    )  # fmt: skip


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_a_server_that_moves_the_thought_gives_the_same(name: str) -> None:
    assert isinstance(completion("No.").choices[0].message, openai.BaseModel)
    assert apart(read_completion(completion("No.", **{name: "hm"})).text) == ("No.", "hm")
    cut = read_completion(completion(None, "length", **{name: "hm"}))
    assert apart(cut.text) == ("", "hm") and cut.finish_reason == "length"
    assert read_completion(completion("No.", **{name: ""})).text == "No."


class Words:
    """A tokenizer of words; ``</think>`` may be special to it."""

    def __init__(self, special: bool) -> None:
        self.words = ["<think>", "</think>", "hm", "No.", "user"]
        self.all_special_tokens = self.words[:2] if special else []

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        words = [self.words[n] for n in ids]
        left_out = self.all_special_tokens if skip_special_tokens else []
        return " ".join(word for word in words if word not in left_out)

    def convert_tokens_to_ids(self, token: str) -> int:
        return self.words.index(token)


@pytest.mark.parametrize("special", [False, True])
def test_tags_that_a_template_opens_or_a_tokenizer_hides(special: bool) -> None:
    words = Words(special)
    assert apart(decoded(words, [4, 0], [2, 1, 3])) == ("No.", "hm")
    assert apart(decoded(words, [4, 0], [2])) == ("", "hm")
    assert apart(decoded(words, [4], [0, 2, 1, 3])) == ("No.", "hm")
    assert apart(decoded(words, [4, 0, 1], [3])) == ("No.", "")


def test_the_template_is_told_whether_to_think() -> None:
    told: list[dict[str, Any]] = []

    def apply(messages: Any, **more: Any) -> str:
        told.append(more)
        return "text"

    class Told(SimpleNamespace):
        def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
            return {"input_ids": [1]}

    tokenizer = Told(chat_template="t", apply_chat_template=apply)
    for thinking in (None, True, False):
        encode_chat(tokenizer, Chat((), 4, thinking=thinking), use_template=True)
    assert [one.get("enable_thinking", "unsaid") for one in told] == ["unsaid", True, False]
    assert Generation().as_dict() == Generation(thinking="auto").as_dict()
    assert Generation(thinking="off", think_tokens=9).as_dict()["think_tokens"] == 9


def test_answer_and_thought_are_judged_apart(tmp_path: Path) -> None:
    stored = Stored(tmp_path, {"harm/sw": HARM}).arm("m").judged("m", "harm/sw", "----")
    file = tmp_path / "m" / "responses.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[0] |= {"response": "Sorry.", "thought": "a bomb needs"}
    rows[1] |= {"response": "<think>a bomb needs</think>Sorry."}  # as earlier versions stored it
    rows[2] |= {"response": "<think>a bomb needs"}
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path.parent / "rules.yaml").write_text(
        "default: safe\nrules:\n  - {pattern: bomb, verdict: unsafe}\n"
    )
    spec = f"rule:{tmp_path.parent / 'rules.yaml'}"
    assert pipeline.judge(tmp_path, spec) == {"m": 4}
    assert pipeline.judge(tmp_path, spec, of_thought=True) == {"m": 3}
    assert stored.folder == tmp_path
    answers = gather([tmp_path], "rule-rules").get("m", "harm", "sw")
    assert list(answers.outcomes.values()) == [0, 0, 0, 0] and answers.counts["empty"] == 1
    thoughts = gather([tmp_path], "rule-rules-thought").get("m", "harm", "sw")
    assert list(thoughts.outcomes.values()) == [1, 1, 1]
