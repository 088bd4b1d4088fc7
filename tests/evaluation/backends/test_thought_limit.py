"""Thoughts that are cut: closed with their tag after so many tokens, and the answer goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lm_eval")

import tokenizers
import torch
from lm_eval.api.instance import Instance
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from safeswap.errors import EvaluationError
from safeswap.evaluation.backends import BackendOptions, Chat
from safeswap.evaluation.backends.hf import HFBackend
from safeswap.evaluation.backends.thoughts import apart, closing_of, open_thought
from safeswap.evaluation.generate import Generation, refuse_uncut
from safeswap.search.sweep_config import read_sweep

WORDS = [f"w{n}" for n in range(24)]
TAGS = ["<think>", "</think>", "[THINK]", "[/THINK]"]
OPENED = "{% for m in messages %}{{ m.content }}{% endfor %} {{ '%s' if add_generation_prompt }}"
FLOAT32 = BackendOptions(dtype="float32", device="cpu")


def thinker(folder: Path, tag: str, hidden: bool) -> HFBackend:
    """A random model whose template opens a thought; it does not know how to end one."""
    vocabulary = {word: n for n, word in enumerate(["<unk>", "<s>", "</s>", *TAGS, *WORDS])}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        unk_token="<unk>",
        eos_token="</s>",
        pad_token="</s>",
        additional_special_tokens=TAGS if hidden else [],
    )
    tokenizer.chat_template = OPENED.replace("%s", tag)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, eos_token_id=2, pad_token_id=2,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.lm_head.weight.data[: 3 + len(TAGS)] = 0  # it says words only, and never ends
    model.save_pretrained(folder)
    return HFBackend(str(folder), FLOAT32)


def chat(text: str, new: int, limit: int = 0) -> Chat:
    return Chat(({"role": "user", "content": text},), new, thought_limit=limit)


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("tag", ["<think>", "[THINK]"])
def test_a_thought_is_closed_and_the_answer_is_what_follows(
    tmp_path: Path, tag: str, hidden: bool
) -> None:
    backend = thinker(tmp_path, tag, hidden)
    asked = ["w1 w2 w3", "w4", "w5 w6"]  # of several lengths: padded into one batch
    free = dict(backend.respond([chat(text, 12) for text in asked]))
    assert all(apart(reply.text)[0] == "" for reply in free.values())
    cut = dict(backend.respond([chat(text, 5 + 4, limit=5) for text in asked]))
    for number, text in enumerate(asked):
        answer, thought = apart(cut[number].text)
        assert len(thought.split()) == 5
        assert apart(free[number].text)[1].startswith(thought)
        # the oracle: transformers, given the prompt, the thought and the closing tag
        whole = f"{text} {tag} {thought} {closing_of(tag)}"
        ids = backend.tokenizer(whole, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            out = backend.model.generate(ids, max_new_tokens=4)[0, ids.shape[1] :]
        assert answer == backend.tokenizer.decode(out, skip_special_tokens=True)
        assert len(answer.split()) == 4 and cut[number].finish_reason == "length"


def test_who_does_not_think_answers_as_ever(tmp_path: Path) -> None:
    backend = thinker(tmp_path, "<think>", False)
    backend.tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    (_, free), (_, cut) = [
        *backend.respond([chat("w1 w2", 9)]),
        *backend.respond([chat("w1 w2", 8, limit=3)]),  # and one token for the closing tag
    ]
    assert free.text == cut.text and "think" not in cut.text


def test_tasks_of_lm_eval_are_cut_too(tmp_path: Path) -> None:
    backend = thinker(tmp_path, "<think>", False)
    settings: dict[str, Any] = {"until": ["\n"], "max_gen_toks": 8, "do_sample": False}

    def asked(limit: int) -> list[str]:
        model = backend.harness()
        model.thought_limit, model.think_end_token = limit, None  # the thought is shown here
        requests = [
            Instance("generate_until", {}, (f"{text} <think>", settings), number)
            for number, text in enumerate(("w1 w2 w3", "w4"))
        ]
        found: list[str] = model.generate_until(requests, disable_tqdm=True)
        return found

    free, cut = asked(0), asked(3)
    for whole, ended in zip(free, cut, strict=True):
        thought, closing, answer = ended.partition("</think>")
        assert "</think>" not in whole and closing
        assert thought.split() == whole.split()[:3] and len(answer.split()) == 4


def test_which_thought_is_open() -> None:
    assert open_thought("a <think> b") == "<think>"
    assert open_thought("<think>a</think> b") is None
    assert open_thought("<think>a</think> b [THINK] c") == "[THINK]"
    assert open_thought("no thought") is None
    assert closing_of("[THINK]") == "[/THINK]"


def test_only_backends_that_can_are_asked_to() -> None:
    cutting = Generation(think_tokens=9, cut_thoughts=True)
    assert cutting.as_dict()["cut_thoughts"] is True
    assert "cut_thoughts" not in Generation(think_tokens=9).as_dict()
    refuse_uncut("hf", cutting)
    for name in ("vllm", "api"):
        refuse_uncut(name, Generation(think_tokens=9))
        with pytest.raises(EvaluationError, match="--backend hf"):
            refuse_uncut(name, cutting)
    with pytest.raises(EvaluationError, match="--think-tokens N"):
        Generation(cut_thoughts=True)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("thinking: maybe", "auto, on or off"),
        ("cut_thoughts: 3", "true or false"),
        ("cut_thoughts: true", "--think-tokens N"),
        ("think_tokens: -1", "0 or more"),
        ("think_token: 1", "did you mean 'think_tokens'"),
    ],
)
def test_sweep_files_say_it_too(tmp_path: Path, lines: str, words: str) -> None:
    prompts = "id,prompt,label\n1,May I?,safe\n"
    (tmp_path / "xstest.csv").write_text(prompts)
    (tmp_path / "rules.yaml").write_text("default: safe\nrules: []\n")
    text = (
        "base: b/b\nsafety: s/s\nlanguages: {en: l/l}\nsuite: xstest\ngrid: []\n"
        "prompts: {xstest: xstest.csv}\njudge: rule:rules.yaml\n"
    )
    path = tmp_path / "sweep.yaml"
    path.write_text(f"{text}{lines}\n")
    with pytest.raises(EvaluationError, match=words):
        read_sweep(path)
    path.write_text(f"{text}thinking: on\nthink_tokens: 64\ncut_thoughts: true\n")
    wanted = Generation(thinking="on", think_tokens=64, cut_thoughts=True)
    assert read_sweep(path).generation == wanted
