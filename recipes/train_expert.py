"""Train an expert from any causal base: a safety expert, or a language expert; full or as LoRA.

    python recipes/train_expert.py BASE --mix MIX.yaml --out OUT [--lora-rank 32] [--device cpu]

The loss counts the answers' tokens only. The examples of a step are packed into one row, each
seeing itself alone, and logits are made where an answer's token follows: with a vocabulary of
262,144 that is most of the time saved. Embeddings and output stay as the base has them
(``--train-embeddings`` trains them too), so that the expert differs from its base in the layers
and keeps its vocabulary.

Runs on transformers' Trainer: one processor, one GPU, or several with ``accelerate launch``. The
same command goes on after an interruption from the last checkpoint (``--save-every``). The same
seed, machine and torch give the same weights.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
)
from transformers.trainer_utils import get_last_checkpoint

sys.path.insert(0, str(Path(__file__).parent))
from mixes import Example, Mix, read_mix  # a sibling, wherever this is started from

IGNORED = -100
# What is taken for a base that has no chat template: its special tokens may be any.
PLAIN_TEMPLATE = Path(__file__).parent / "templates" / "turns.jinja"


@dataclass(frozen=True)
class Recipe:
    """How an expert is trained.

    Attributes:
        epochs: passes over the mix.
        batch: examples per step and device, packed into one row.
        rate: AdamW's highest learning rate; a tenth of the steps warm up, then a cosine.
        length: tokens of an example at most; what is longer loses its end.
        seed: of the mix's sample and order, and of LoRA's first factors.
        lora_rank: 0 trains the weights themselves.
        train_embeddings: embeddings and output projection too.
    """

    epochs: float
    batch: int
    rate: float
    length: int
    seed: int
    lora_rank: int
    train_embeddings: bool


def encode(
    tokenizer: PreTrainedTokenizerBase, example: Example, length: int
) -> dict[str, list[int]]:
    """``input_ids`` of the whole chat and ``labels``, which are ignored outside the answer."""
    asked = [{"role": "user", "content": example.prompt}]
    head = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
    answered = [*asked, {"role": "assistant", "content": example.response}]
    whole = tokenizer.apply_chat_template(answered, return_dict=False)
    if whole[: len(head)] != head:
        raise SystemExit("the chat template's generation prompt is not how its answers begin")
    labels = [IGNORED] * len(head) + whole[len(head) :]
    return {"input_ids": whole[:length], "labels": labels[:length]}


def pack(rows: Sequence[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """One row of all examples, int64 (1, tokens); positions start anew in each.

    The first token of an example is never a target: it would be predicted from its neighbour.
    """
    ids = [token for row in rows for token in row["input_ids"]]
    positions = [at for row in rows for at in range(len(row["input_ids"]))]
    labels = [label for row in rows for label in [IGNORED, *row["labels"][1:]]]
    return {
        "input_ids": torch.tensor([ids]),
        "position_ids": torch.tensor([positions]),
        "labels": torch.tensor([labels]),
    }


def answer_loss(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Mean cross entropy over the answers' tokens of a packed row; logits nowhere else."""
    labels = batch["labels"][0]
    counted = (labels[1:] != IGNORED).nonzero()[:, 0]
    logits = model(
        input_ids=batch["input_ids"],
        position_ids=batch["position_ids"],
        logits_to_keep=counted,
        use_cache=False,
    ).logits
    return functional.cross_entropy(logits[0].float(), labels[counted + 1])


class AnswerTrainer(Trainer):
    """transformers' Trainer with :func:`answer_loss`."""

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any
    ) -> torch.Tensor:
        return answer_loss(model, inputs)


def trainable(model: PreTrainedModel, recipe: Recipe) -> Any:
    """The model with what the recipe trains; a PEFT model where it has a rank."""
    if recipe.lora_rank:
        from peft import LoraConfig, get_peft_model

        settings = LoraConfig(
            r=recipe.lora_rank,
            lora_alpha=2 * recipe.lora_rank,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )
        return get_peft_model(model, settings)
    ends = {model.get_input_embeddings(), model.get_output_embeddings()}
    for module in ends - {None}:
        module.requires_grad_(recipe.train_embeddings)
    return model


def end_with_the_turn(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Let generation stop at the special token that ends an answer in the chat template."""
    row = encode(tokenizer, Example("a", "b", ""), 1 << 20)
    special = set(tokenizer.all_special_ids)
    ends = [label for label in row["labels"] if label in special]
    known = model.generation_config.eos_token_id
    listed = known if isinstance(known, list) else [] if known is None else [known]
    if ends and ends[-1] not in listed:
        model.generation_config.eos_token_id = [*listed, ends[-1]]


def load(base: str, template: Path | None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The base in float32, and its tokenizer with a chat template."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(base)
    if template is not None or tokenizer.chat_template is None:
        tokenizer.chat_template = (template or PLAIN_TEMPLATE).read_text("utf-8")
    end_with_the_turn(model, tokenizer)
    return model, tokenizer


def train(base: str, mix: Mix, recipe: Recipe, out: Path, args: argparse.Namespace) -> None:
    """Train and save to ``out``: a checkpoint in the base's dtype, or an adapter."""
    model, tokenizer = load(base, args.chat_template)
    stored = torch.bfloat16 if args.bf16 else torch.float32
    rows = [encode(tokenizer, example, recipe.length) for example in mix.examples]
    rows = [row for row in rows if any(label != IGNORED for label in row["labels"][1:])]
    print(f"{len(rows)} examples: {mix.counts()}", flush=True)
    work = out.with_name(out.name + ".training")
    settings = TrainingArguments(
        output_dir=str(work),
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=recipe.batch,
        learning_rate=recipe.rate,
        warmup_steps=max(1, round(0.1 * recipe.epochs * len(rows) / recipe.batch)),
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": 0.1},
        weight_decay=0.0,
        adam_beta2=0.98,
        max_grad_norm=1.0,
        bf16=args.bf16,
        use_cpu=args.device == "cpu",
        seed=recipe.seed,
        data_seed=recipe.seed,
        logging_steps=10,
        save_steps=args.save_every,
        save_total_limit=1,
        report_to=[],
        remove_unused_columns=False,
        disable_tqdm=not sys.stderr.isatty(),
    )
    trainer = AnswerTrainer(
        model=trainable(model, recipe), args=settings, train_dataset=rows, data_collator=pack
    )
    trainer.model_accepts_loss_kwargs = False  # ours is a mean already
    trainer.train(resume_from_checkpoint=get_last_checkpoint(work) if work.is_dir() else None)
    if trainer.is_world_process_zero():
        trained = trainer.accelerator.unwrap_model(trainer.model)
        trained.to(stored).save_pretrained(out)
        tokenizer.save_pretrained(out)
        record = {"base": Path(base).name, "recipe": asdict(recipe), "mix": mix.record()}
        (out / "recipe.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")
        shutil.rmtree(work, ignore_errors=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("base", help="folder or hub id of a causal language model")
    parser.add_argument("--mix", type=Path, required=True, help="YAML: see recipes/README.md")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--batch", type=int, default=16, help="examples per step (16)")
    parser.add_argument("--rate", type=float, default=3e-5, help="highest learning rate (3e-5)")
    parser.add_argument("--length", type=int, default=512, help="tokens of an example at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lora-rank", type=int, default=0, help="0: all weights of the layers")
    parser.add_argument("--train-embeddings", action="store_true")
    parser.add_argument("--chat-template", type=Path, help="jinja; default: the base's, or turns")
    parser.add_argument("--device", choices=("cpu", "auto"), default="auto")
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--save-every", type=int, default=200, help="steps between checkpoints")
    args = parser.parse_args(arguments)
    if (args.out / "recipe.json").is_file():
        print(f"{args.out} is there")
        return
    recipe = Recipe(
        args.epochs, args.batch, args.rate, args.length, args.seed, args.lora_rank,
        args.train_embeddings,
    )  # fmt: skip
    train(args.base, read_mix(args.mix, recipe.seed), recipe, args.out, args)


if __name__ == "__main__":
    main()
