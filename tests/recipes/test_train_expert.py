"""The recipe trains what it says, on the answers alone, as an independent computation has it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: E402

import train_expert  # noqa: E402
from mixes import Example  # noqa: E402

WORDS = ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>", "user", "model", *"abcdefghij"]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A Gemma 3 of two layers, whose window is shorter than the examples, and a tokenizer."""
    words = {word: n for n, word in enumerate([*WORDS, "<unk>", "\n"])}
    tokenizer = Tokenizer(models.WordLevel(words, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>", unk_token="<unk>"
    )
    fast.add_special_tokens({"additional_special_tokens": WORDS[2:4]})
    torch.manual_seed(0)
    config = transformers.Gemma3TextConfig(
        vocab_size=len(fast), hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8, sliding_window=4,
        layer_types=["sliding_attention", "full_attention"], max_position_embeddings=64,
        bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    folder = tmp_path / "base"
    transformers.Gemma3ForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


EXAMPLES = [
    Example("a b c d e f g", "h i j a", "x"),
    Example("b", "c", "x"),
    Example("d e f a b", "g h i j a b c", "y"),
]


def test_packed_examples_do_not_see_each_other(base: Path) -> None:
    model, tokenizer = train_expert.load(str(base), None)
    rows = [train_expert.encode(tokenizer, example, 64) for example in EXAMPLES]
    with torch.no_grad():
        packed = float(train_expert.answer_loss(model, train_expert.pack(rows)))
        sums, count = 0.0, 0
        for row in rows:  # one by one, with the model's own loss
            labels = torch.tensor([row["labels"]])
            counted = int((labels[:, 1:] != train_expert.IGNORED).sum())
            out = model(input_ids=torch.tensor([row["input_ids"]]), labels=labels)
            sums, count = sums + float(out.loss) * counted, count + counted
    assert packed == pytest.approx(sums / count, rel=1e-5)


def test_the_answer_alone_counts(base: Path) -> None:
    _, tokenizer = train_expert.load(str(base), None)
    row = train_expert.encode(tokenizer, EXAMPLES[0], 64)
    counted = [token for token, label in zip(row["input_ids"], row["labels"], strict=True)
               if label != train_expert.IGNORED]  # fmt: skip
    assert tokenizer.decode(counted).split()[:5] == ["h", "i", "j", "a", "<end_of_turn>"]


def _mix(folder: Path) -> Path:
    lines = [json.dumps({"prompt": e.prompt, "response": e.response}) for e in EXAMPLES * 4]
    (folder / "rows.jsonl").write_text("\n".join(lines))
    (folder / "mix.yaml").write_text("parts: [{name: all, file: rows.jsonl}]")
    return folder / "mix.yaml"


def _train(base: Path, out: Path, *more: str) -> None:
    train_expert.main(
        [str(base), "--mix", str(_mix(out.parent)), "--out", str(out), "--device", "cpu",
         "--batch", "4", "--epochs", "2", "--rate", "1e-2", "--no-bf16", *more]
    )  # fmt: skip


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return dict(model.state_dict())


def test_the_layers_move_and_the_embeddings_do_not(base: Path, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    _train(base, tmp_path / "expert")
    before, after = _weights(base), _weights(tmp_path / "expert")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert "model.embed_tokens.weight" not in moved
    assert {name for name in before if "proj" in name} <= moved
    record = json.loads((tmp_path / "expert" / "recipe.json").read_text())
    assert record["mix"]["parts"] == {"all": 12}
    ends = transformers.GenerationConfig.from_pretrained(tmp_path / "expert").eos_token_id
    assert ends == [1, 3]  # an answer ends with its turn


def test_the_same_seed_gives_the_same_weights(base: Path, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        _train(base, tmp_path / name, "--seed", str(seed))
    one, two, three = (_weights(tmp_path / name) for name in ("one", "two", "three"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(not torch.equal(one[name], three[name]) for name in one)


def test_an_adapter_is_what_a_rank_makes(base: Path, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    pytest.importorskip("peft")
    _train(base, tmp_path / "lora", "--lora-rank", "2")
    assert (tmp_path / "lora" / "adapter_config.json").is_file()
