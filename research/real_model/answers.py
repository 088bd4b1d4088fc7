"""Answers to harmless requests: English ones by a small chat model, others by the base itself.

No public set has short answers in Korean, Thai or Swahili under a licence that lets it be used
here, so the base answers after a few example chats. Its answers are simple and often wrong in
fact; what the language expert learns from them is to answer in its language. Kept is what is none
of: empty, repeating, cut in the middle without a stop, or in another script.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from safeswap.evaluation.quality import flag


def generate(
    model: Any, tokenizer: Any, prompts: Sequence[str], tokens: int, penalty: float
) -> list[str]:
    """Greedy continuations, 32 at a time."""
    found: list[str] = []
    for at in range(0, len(prompts), 32):
        batch = tokenizer(list(prompts[at : at + 32]), return_tensors="pt", padding=True)
        batch = batch.to(model.device)
        with torch.inference_mode():
            out = model.generate(
                **batch, max_new_tokens=tokens, do_sample=False, repetition_penalty=penalty
            )
        found += tokenizer.batch_decode(
            out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True
        )
        print(f"answers: {len(found)} of {len(prompts)}", flush=True)
    return found


def stored(path: Path, prompts: Sequence[str], make: Callable[[], list[str]]) -> dict[str, str]:
    """Request to answer; made once and kept in ``path``."""
    if path.is_file():
        found = dict(json.loads(line) for line in path.read_text("utf-8").splitlines())
        if set(found) == set(prompts):
            return found
    answers = dict(zip(prompts, make(), strict=True))
    lines = [json.dumps(pair, ensure_ascii=False) + "\n" for pair in answers.items()]
    path.write_text("".join(lines), "utf-8")
    return answers


def whole_sentences(text: str) -> str:
    """The first line up to its last full stop; the whole line where it has none."""
    line = text.strip().split("\n")[0].strip()
    ends = [line.rfind(stop) for stop in (".", "!", "?", "。")]
    return line[: max(ends) + 1] if max(ends) > 0 else line


def chat_answers(model: Any, tokenizer: Any, prompts: Sequence[str], tokens: int = 36) -> list[str]:
    """A chat model's answers through its own template."""
    asked = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, tokenize=False
        )
        for prompt in prompts
    ]
    return [whole_sentences(text) for text in generate(model, tokenizer, asked, tokens, 1.0)]


def few_shot_answers(
    model: Any, tokenizer: Any, prompts: Sequence[str], texts: dict[str, Any], tokens: int = 40
) -> list[str]:
    """The base's answers after the language's example chats."""
    turn = texts["turn"]
    shots = "".join(
        f"{turn['question']}: {chat['question']}\n{turn['answer']}: {chat['answer']}\n\n"
        for chat in texts["chats"]
    )
    asked = [f"{shots}{turn['question']}: {prompt}\n{turn['answer']}:" for prompt in prompts]
    return [whole_sentences(text) for text in generate(model, tokenizer, asked, tokens, 1.1)]


def good(prompt: str, answer: str, code: str) -> bool:
    """Whether an answer is fit to be trained on."""
    return len(answer) >= 8 and not flag(prompt, answer, code)
