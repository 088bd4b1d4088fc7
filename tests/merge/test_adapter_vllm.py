"""vLLM serves a merged adapter on its base: ``make engines``. Left out where it is not installed.

What it answers and how likely it finds it, token by token, is what transformers and peft say of
base and adapter in float32, and what they say of the whole checkpoint that the same plan gives.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

vllm = pytest.importorskip("vllm")
peft = pytest.importorskip("peft")

import torch  # noqa: E402
from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: E402
from transformers import (  # noqa: E402
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from adapted import make_adapter  # noqa: E402
from safeswap import api  # noqa: E402

pytestmark = pytest.mark.timeout(600)

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
PROMPTS = [[1, 5, 9, 33], [1, 40, 41, 42, 43], [1, 7]]
NEW = 12
TOLERANCE = 1e-3
"""Of a log-probability; measured: at most 1e-6."""
PLANS: dict[str, dict[str, Any]] = {
    "swap": {"tau": 1e-6},
    "blend": {"method": "uniform", "alpha": 0.4},
    "cut": {"method": "uniform", "alpha": 0.4, "rank": 3},
}


def write_base(folder: Path) -> Path:
    """A small Llama of head size 32, which vLLM's attention on a processor takes, and 64 words."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        initializer_range=0.1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({f"w{n}": n for n in range(64)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="w1", eos_token="w2", pad_token="w0"
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A base, and a merged adapter and a merged checkpoint for each plan."""
    folder = tmp_path_factory.mktemp("vllm")
    base = write_base(folder / "base")
    safety = make_adapter(base, folder / "safety", 1, target_modules=ALL, size=0.1)
    sw = make_adapter(base, folder / "sw", 2, r=2, size=0.1)
    given: dict[str, Any] = {"safety": safety, "languages": {"sw": sw}}
    found = {"base": base}
    for name, options in PLANS.items():
        out = folder / name
        (made,) = api.merge(base, **given, out=out, as_adapter=True, **options)
        assert any(line.startswith("vLLM: --enable-lora --max-lora-rank 8") for line in made.said)
        found[name] = made.folder
        if "rank" not in options:
            (whole,) = api.merge(base, **given, out=folder / f"{name}-whole", **options)
            found[f"{name}-whole"] = whole.folder
    return found


def of_transformers(model: Any) -> list[tuple[list[int], list[float]]]:
    """The greedy answers, and the log-probability of each of their tokens."""
    found = []
    for prompt in PROMPTS:
        ids = torch.tensor([prompt])
        with torch.inference_mode():
            answer = model.generate(ids, max_new_tokens=NEW, do_sample=False, eos_token_id=None)
            scores = model(answer).logits[0].double().log_softmax(-1)
        new = answer[0, len(prompt) :].tolist()
        at = range(len(prompt) - 1, answer.shape[1] - 1)
        found.append((new, [float(scores[p, t]) for p, t in zip(at, new, strict=True)]))
    return found


@pytest.fixture(scope="module")
def answered(outputs: dict[str, Path]) -> dict[str, list[tuple[list[int], list[float]]]]:
    """What vLLM says with each adapter, and with none."""
    from vllm.lora.request import LoRARequest

    engine = vllm.LLM(
        model=str(outputs["base"]),
        dtype="float32",
        enable_lora=True,
        max_lora_rank=8,
        max_model_len=64,
        gpu_memory_utilization=0.1,
        enforce_eager=True,
    )
    asked = vllm.SamplingParams(temperature=0, max_tokens=NEW, logprobs=0, ignore_eos=True)
    prompts = [{"prompt_token_ids": one} for one in PROMPTS]
    found = {}
    for number, name in enumerate(("base", *PLANS)):
        adapter = LoRARequest(name, number, str(outputs[name])) if number else None
        said = [one.outputs[0] for one in engine.generate(prompts, asked, lora_request=adapter)]
        found[name] = [
            (
                list(one.token_ids),
                [step[t].logprob for step, t in zip(one.logprobs, one.token_ids, strict=True)],
            )
            for one in said
        ]
    engine.llm_engine.engine_core.shutdown()
    return found


def compare(found: Any, wanted: Any) -> None:
    assert [tokens for tokens, _ in found] == [tokens for tokens, _ in wanted]
    for (_, ours), (_, theirs) in zip(found, wanted, strict=True):
        assert ours == pytest.approx(theirs, abs=TOLERANCE)


@pytest.mark.parametrize("name", PLANS)
def test_vllm_answers_as_transformers_with_peft(
    outputs: dict[str, Path], answered: dict[str, Any], name: str
) -> None:
    base: Any = AutoModelForCausalLM.from_pretrained(outputs["base"], dtype=torch.float32)
    alone = of_transformers(base)
    wanted = of_transformers(peft.PeftModel.from_pretrained(base, str(outputs[name])).eval())
    compare(answered["base"], alone)
    compare(answered[name], wanted)
    assert [tokens for tokens, _ in wanted] != [tokens for tokens, _ in alone]  # it does something


@pytest.mark.parametrize("name", [name for name, given in PLANS.items() if "rank" not in given])
def test_vllm_answers_as_the_whole_checkpoint(
    outputs: dict[str, Path], answered: dict[str, Any], name: str
) -> None:
    whole: Any = AutoModelForCausalLM.from_pretrained(outputs[f"{name}-whole"], dtype=torch.float32)
    compare(answered[name], of_transformers(whole))
