"""transformers as a backend: batching changes no answer, and what does not load says why."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from evaluation.standin import FLOAT32, MODEL, chat, chats, small, text
from safeswap.errors import EvaluationError
from safeswap.evaluation.backends import BackendOptions, Reply, open_backend
from safeswap.evaluation.backends.encoding import encode_chat, load_tokenizer
from safeswap.evaluation.backends.hf import HFBackend


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of the model, to spoil."""
    return Path(shutil.copytree(MODEL, tmp_path / "copy"))


def edit(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def replies(responder: HFBackend, asked: list[Any]) -> list[Reply]:
    found = dict(responder.respond(asked))
    assert sorted(found) == list(range(len(asked)))
    return [found[n] for n in range(len(asked))]


def by_plain_generate(content: str, limit: int) -> tuple[str, int]:
    """The oracle: one prompt, no padding, transformers as a user calls it."""
    model, tokenizer = small().model, small().tokenizer
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    out = model.generate(**ids, max_new_tokens=limit, do_sample=False)
    new = out[0, ids["input_ids"].shape[1] :]
    return tokenizer.decode(new, skip_special_tokens=True).strip(), len(new)


def test_batches_answer_as_single_prompts_do() -> None:
    asked = chats(24)
    found = replies(small(), asked)
    alone = [replies(small(), [one])[0] for one in asked]
    assert found == alone
    assert len({reply.prompt_tokens for reply in found}) > 3  # so there was padding
    for n in (0, 7, 23):
        assert by_plain_generate(text(n), 12) == (found[n].text, found[n].new_tokens)


def test_batches_keep_to_the_budget_and_to_one_limit() -> None:
    asked = [*chats(20, limit=4), *chats(20, limit=9)]
    tight = HFBackend(str(MODEL), replace(FLOAT32, batch_tokens=60))
    sizes: list[tuple[int, int, int]] = []
    plain = tight._generate

    def counted(prompts: list[list[int]], limit: int, thought: int) -> list[Reply]:
        sizes.append((len(prompts), max(map(len, prompts)), limit))
        return plain(prompts, limit, thought)

    tight._generate = counted  # type: ignore[method-assign]
    assert replies(tight, asked) == replies(small(), asked)
    assert all(count * (longest + limit) <= 60 for count, longest, limit in sizes)
    assert max(count for count, _, _ in sizes) > 1
    assert sum(count for count, _, _ in sizes) == 40
    limits = [limit for _, _, limit in sizes]
    assert limits == sorted(limits, reverse=True)
    for limit in (4, 9):
        longest = [length for _, length, one in sizes if one == limit]
        assert longest == sorted(longest, reverse=True)


def test_a_budget_too_small_for_one_prompt_asks_one_at_a_time() -> None:
    tight = HFBackend(str(MODEL), replace(FLOAT32, batch_tokens=1))
    assert replies(tight, chats(3)) == replies(small(), chats(3))


def test_finish_reasons_and_counts() -> None:
    whole = replies(small(), chats(8, limit=40))
    stopped = [n for n, reply in enumerate(whole) if reply.finish_reason == "stop"]
    assert stopped, "the model never ends an answer"
    n = stopped[0]
    length = whole[n].new_tokens
    assert length is not None and length > 1
    exact, cut = (replies(small(), [chat(text(n), one)])[0] for one in (length, length - 1))
    assert exact == whole[n]  # the end itself was the last token there was room for
    assert (cut.finish_reason, cut.new_tokens, cut.text) == ("length", length - 1, whole[n].text)


def test_every_token_that_ends_an_answer_is_known(copied: Path) -> None:
    full = replies(small(), chats(6))
    first = small().tokenizer(full[0].text)["input_ids"][0]

    def another_end(content: dict[str, Any]) -> None:
        content["eos_token_id"] = [content["eos_token_id"], first]

    edit(copied / "generation_config.json", another_end)
    found = replies(HFBackend(str(copied), FLOAT32), chats(6))
    assert found[0] == Reply("", full[0].prompt_tokens, 1, "stop")


def test_the_tokenizer_s_end_counts_where_the_checkpoint_names_none(copied: Path) -> None:
    (copied / "generation_config.json").unlink()
    edit(copied / "config.json", lambda content: content.update(eos_token_id=None))
    assert replies(HFBackend(str(copied), FLOAT32), chats(6)) == replies(small(), chats(6))


def test_decoding_is_greedy_whatever_the_checkpoint_would_like(copied: Path) -> None:
    def sampling(content: dict[str, Any]) -> None:
        content |= {"do_sample": True, "temperature": 5.0, "top_k": 7, "repetition_penalty": 30.0}
        content |= {"min_new_tokens": 11, "max_length": 3, "no_repeat_ngram_size": 1}

    edit(copied / "generation_config.json", sampling)
    assert replies(HFBackend(str(copied), FLOAT32), chats(6)) == replies(small(), chats(6))


def test_without_padding_token(copied: Path) -> None:
    edit(copied / "tokenizer_config.json", lambda content: content.pop("pad_token"))
    assert replies(HFBackend(str(copied), FLOAT32), chats(6)) == replies(small(), chats(6))


def test_without_template_the_words_are_sent_as_they_are() -> None:
    bare = HFBackend(str(MODEL), replace(FLOAT32, use_template=False))
    (reply,) = replies(bare, [chat(text(5))])
    assert reply.prompt_tokens == len(bare.tokenizer(text(5))["input_ids"])
    two = replace(chat(""), messages=({"role": "a", "content": "x"}, {"role": "b", "content": "y"}))
    assert encode_chat(bare.tokenizer, two, False) == bare.tokenizer("x\n\ny")["input_ids"]
    own = replace(two, template=False)  # a judge that writes its whole prompt
    assert encode_chat(bare.tokenizer, own, True) == bare.tokenizer("x\n\ny")["input_ids"]
    assert encode_chat(bare.tokenizer, two, True) != bare.tokenizer("x\n\ny")["input_ids"]


def test_typed_parts_need_a_template() -> None:
    parts = [{"type": "text", "text": text(1)}]
    bare = HFBackend(str(MODEL), replace(FLOAT32, use_template=False))
    with pytest.raises(EvaluationError, match="typed parts, which only a chat template"):
        list(bare.respond([chat(parts)]))


def test_template_of_the_users_own(tmp_path: Path, copied: Path) -> None:
    file = tmp_path / "t.jinja"
    file.write_text("{{ messages[0]['content'][0]['text'] }} <assistant>")
    tokenizer = load_tokenizer(str(MODEL), replace(FLOAT32, chat_template=file))
    parts = [{"type": "text", "text": text(1)}]
    wanted = tokenizer(f"{text(1)} <assistant>", add_special_tokens=False)["input_ids"]
    assert encode_chat(tokenizer, chat(parts), True) == wanted
    file.write_text("{{ raise_exception('no system prompt, please') }}")
    tokenizer = load_tokenizer(str(MODEL), replace(FLOAT32, chat_template=file))
    with pytest.raises(EvaluationError, match=r"no system prompt, please.*--chat-template off"):
        encode_chat(tokenizer, chat("a"), True)
    file.write_bytes(b"\xff")
    with pytest.raises(EvaluationError, match="the chat template cannot be read"):
        load_tokenizer(str(MODEL), replace(FLOAT32, chat_template=file))
    (copied / "chat_template.jinja").unlink()
    with pytest.raises(EvaluationError, match=r"has no chat template. Give one"):
        encode_chat(load_tokenizer(str(copied), FLOAT32), chat("a"), True)


def truncated(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def without_a_tensor(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    tensors.pop("model.layers.1.mlp.up_proj.weight")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: (f / "model.safetensors").unlink(), "does not load"),
        (lambda f: (f / "model.safetensors").write_bytes(b"no"), "does not load"),
        (truncated, "does not load"),
        (without_a_tensor, "lacks weights .*layers.1.mlp.up_proj"),
        (lambda f: (f / "config.json").write_text("{"), "does not load"),
        (lambda f: (f / "config.json").write_text('{"model_type": "nosuch"}'), "nosuch"),
        (lambda f: (f / "tokenizer.json").write_text('{"a": 1}'), "load its tokenizer"),
        (lambda f: (f / "tokenizer.json").unlink(), "load its tokenizer"),
        (lambda f: edit(f / "config.json", lambda c: c.update(hidden_size=96)), "does not load"),
    ],
)
def test_what_does_not_load_says_so(copied: Path, spoil: Any, said: str) -> None:
    spoil(copied)
    with pytest.raises(EvaluationError, match=rf"(?s)copy: .*{said}"):
        HFBackend(str(copied), FLOAT32)


def test_options_that_are_wrong() -> None:
    with pytest.raises(EvaluationError, match="--dtype float17"):
        HFBackend(str(MODEL), BackendOptions(dtype="float17", device="cpu"))
    for device in ("gpu", "cuda:77", "cpu:x"):
        with pytest.raises(EvaluationError, match=f"--device {device}: torch cannot use it"):
            HFBackend(str(MODEL), BackendOptions(device=device))
    with pytest.raises(EvaluationError, match="did you mean 'vllm'"):
        open_backend(str(MODEL), "vlm", FLOAT32)


def test_memory_that_runs_out_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    responder = HFBackend(str(MODEL), FLOAT32)

    def full(**settings: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(responder.model, "generate", full)
    with pytest.raises(EvaluationError, match=r"Lower --batch-tokens \(16384\)"):
        list(responder.respond(chats(2)))


def test_a_library_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "openai", None)
    monkeypatch.delitem(sys.modules, "safeswap.evaluation.backends.api", raising=False)
    with pytest.raises(EvaluationError, match=r"api needs openai: pip install 'safeswap\[api\]'"):
        open_backend("x", "api", FLOAT32)


def test_close_lets_go_of_the_model() -> None:
    responder = HFBackend(str(MODEL), FLOAT32)
    assert responder.description["dtype"] == "float32"
    responder.close()
    assert not hasattr(responder, "model")


def save(model: Any, folder: Path) -> str:
    """A tiny model with the small world's tokenizer."""
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(MODEL / name, folder / name)
    return str(folder)


def test_guards_that_read_pictures_too_are_loaded(tmp_path: Path) -> None:
    """Llava's kind is unknown to AutoModelForCausalLM; Llama 4's (Llama Guard 4) is not."""
    import torch
    from transformers import (
        CLIPVisionConfig,
        Llama4Config,
        Llama4ForConditionalGeneration,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
    )

    torch.manual_seed(0)
    words = small().model.config.vocab_size
    size = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    size |= {"num_hidden_layers": 2}
    reads = {**size, "vocab_size": words, "num_key_value_heads": 2, "head_dim": 8}
    picture = {"image_size": 8, "patch_size": 4}
    llava = LlavaConfig(
        text_config=LlamaConfig(**reads), vision_config=CLIPVisionConfig(**size, **picture)
    )
    llama4 = Llama4Config(
        text_config={**reads, "intermediate_size_mlp": 16, "num_local_experts": 2},
        vision_config={
            **size, **picture, "vision_output_dim": 16, "projector_input_dim": 16,
            "projector_output_dim": 16, "pixel_shuffle_ratio": 1.0,
        },
    )  # fmt: skip
    for kind, config in (
        (LlavaForConditionalGeneration, llava),
        (Llama4ForConditionalGeneration, llama4),
    ):
        model = kind(config).eval()
        responder = HFBackend(save(model, tmp_path / config.model_type), FLOAT32)
        asked = chats(5, limit=6)
        found = replies(responder, asked)
        ids = torch.tensor([encode_chat(responder.tokenizer, asked[3], True)])
        out = model.generate(ids, max_new_tokens=6, do_sample=False, eos_token_id=-1)
        wanted = responder.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        assert found[3].text == wanted.strip() != ""
