"""Train the small world's models from scratch: the base, the safety expert, the language experts.

    python -m small_world.train --out DIR [--expert-seeds 0 1 2]

writes DIR/base and, per expert seed N, DIR/seed-N/{safety,qab,qac,qad}: ordinary checkpoint folders
in bf16. Models that exist are kept, so an interrupted run continues. Then the gates are printed.
On two cores this takes less than half an hour. The same seeds give the same weights on the same
machine and torch; elsewhere the last bits of float32 sums differ, and the figures with them a
little.

The experts start from the base *as stored in bf16* and train its layers only: embeddings and final
norm stay bit-identical to the base's.

The world shows a mechanism; it is no evidence about large models.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from safeswap.demo.documents import (
    Document,
    base_documents,
    language_documents,
    safety_documents,
)
from safeswap.demo.tokenizer import (
    ASSISTANT,
    BOS,
    END,
    PAD,
    USER,
    make_tokenizer,
    vocabulary,
)
from safeswap.demo.world import SMALL_LANGUAGES, World, default_world


@dataclass(frozen=True)
class Recipe:
    """How one model is trained.

    Attributes:
        steps: optimizer steps.
        batch: documents per step.
        rate: AdamW's highest learning rate; warmed up linearly, then a cosine down to a tenth.
        layers_only: embeddings and final norm are frozen.
        decay: AdamW's weight decay of matrices. None for experts: it would swell a task vector.
        answers_only: loss on the assistant's words only (fine-tuning) or on all (pretraining).
    """

    steps: int
    batch: int
    rate: float
    layers_only: bool
    answers_only: bool
    decay: float


BASE_SEED = 0
BASE = Recipe(steps=2200, batch=128, rate=2e-3, layers_only=False, answers_only=False,
              decay=0.05)  # fmt: skip
SAFETY = Recipe(steps=250, batch=64, rate=2e-4, layers_only=True, answers_only=True, decay=0.0)
LANGUAGE = replace(SAFETY, rate=1.6e-4)


def config(world: World) -> LlamaConfig:
    """The architecture: Llama, 6 layers of width 128, tied embeddings, about 1.25 M parameters."""
    ids = vocabulary(world)
    return LlamaConfig(
        vocab_size=len(ids),
        hidden_size=128,
        intermediate_size=344,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        pad_token_id=ids[PAD],
        bos_token_id=ids[BOS],
        eos_token_id=ids[END],
    )


def encode(ids: dict[str, int], document: Document) -> tuple[list[int], int]:
    """Token ids as the chat template gives them, and the position where the answer's loss starts.

    A plain line is <s> WORDS <end>; all of it counts.
    """
    answer = [ids[word] for word in document.response.split()] + [ids[END]]
    if not document.prompt:
        return [ids[BOS], *answer], 1
    prompt = [ids[word] for word in document.prompt.split()]
    head = [ids[BOS], ids[USER], *prompt, ids[END], ids[ASSISTANT]]
    return head + answer, len(head)


def batches(
    world: World, documents: Iterator[Document], recipe: Recipe
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless (inputs, targets), int64 (batch, longest); targets that do not count are -100."""
    ids = vocabulary(world)
    while True:
        rows = [encode(ids, d) for d in itertools.islice(documents, recipe.batch)]
        longest = max(len(tokens) for tokens, _ in rows) - 1
        inputs = torch.full((recipe.batch, longest), ids[PAD])
        targets = torch.full((recipe.batch, longest), -100)
        for n, (tokens, answer) in enumerate(rows):
            first = answer if recipe.answers_only else 1
            inputs[n, : len(tokens) - 1] = torch.tensor(tokens[:-1])
            targets[n, first - 1 : len(tokens) - 1] = torch.tensor(tokens[first:])
        yield inputs, targets


def train(
    model: LlamaForCausalLM, world: World, documents: Iterator[Document], recipe: Recipe, name: str
) -> None:
    """Train in place, printing the loss now and then."""
    for key, parameter in model.named_parameters():
        parameter.requires_grad_(not recipe.layers_only or ".layers." in key)
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim == 2], "weight_decay": recipe.decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=recipe.rate, betas=(0.9, 0.98))
    warmup = recipe.steps // 10

    def pace(step: int) -> float:
        done = max(0.0, (step - warmup) / (recipe.steps - warmup))
        return min((step + 1) / warmup, 0.1 + 0.45 * (1 + math.cos(math.pi * done)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, pace)
    model.train()
    started, mean = time.monotonic(), 0.0
    for step, (inputs, targets) in enumerate(batches(world, documents, recipe)):
        if step == recipe.steps:
            break
        loss = _loss(model, inputs, targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        mean += loss.item() / 50
        if step % 50 == 49:
            print(f"{name}: step {step + 1}/{recipe.steps}, loss {mean:.4f}, "
                  f"{time.monotonic() - started:.0f} s", flush=True)  # fmt: skip
            mean = 0.0
    model.eval()


def _loss(model: LlamaForCausalLM, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy over the targets that count; logits are made for those alone."""
    # Padding stands on the right, where causal attention never looks: no mask is needed.
    hidden = model.model(input_ids=inputs, use_cache=False).last_hidden_state
    counts = targets != -100
    logits = model.lm_head(hidden[counts])
    return functional.cross_entropy(logits, targets[counts])


def save(model: LlamaForCausalLM, world: World, folder: Path) -> None:
    """Write a checkpoint folder in bf16; it appears under its name only when whole."""
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    model.generation_config.do_sample = False
    model.to(torch.bfloat16).save_pretrained(part)
    make_tokenizer(world).save_pretrained(part)
    # The name that transformers 4 and 5 both know, for a file that is the same in both.
    path = part / "tokenizer_config.json"
    settings = {**json.loads(path.read_text()), "tokenizer_class": "PreTrainedTokenizerFast"}
    path.write_text(json.dumps(settings, indent=2) + "\n")
    part.rename(folder)


def train_base(world: World, out: Path, seed: int = BASE_SEED, recipe: Recipe = BASE) -> Path:
    """Train DIR/base unless it is there."""
    folder = out / "base"
    if not folder.exists():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config(world))
        train(model, world, base_documents(world, seed), recipe, "base")
        save(model, world, folder)
    return folder


def train_experts(world: World, out: Path, seed: int, layers_only: bool = True) -> dict[str, Path]:
    """Train the experts of one seed, as far as they are not there; role to folder.

    Args:
        layers_only: embeddings and final norm are frozen; else all is trained, in a folder of
            its own, DIR/seed-N-free.
    """
    folders: dict[str, Path] = {}
    for role in ("safety", *SMALL_LANGUAGES):
        folder = folders[role] = out / f"seed-{seed}{'' if layers_only else '-free'}" / role
        if folder.exists():
            continue
        torch.manual_seed(seed)
        model = LlamaForCausalLM.from_pretrained(out / "base", dtype=torch.float32)
        if role == "safety":
            documents, recipe = safety_documents(world, seed), SAFETY
        else:
            documents, recipe = language_documents(world, role, seed), LANGUAGE
        recipe = replace(recipe, layers_only=layers_only)
        train(model, world, documents, recipe, f"seed {seed} {role}")
        save(model, world, folder)
    return folders


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is missing, then print the gates of every seed."""
    parser = argparse.ArgumentParser(
        prog="python -m small_world.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoints")
    parser.add_argument("--expert-seeds", type=int, nargs="+", default=[0], metavar="N")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: 2)")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    world = default_world()
    started = time.monotonic()
    train_base(world, chosen.out)
    roles = {seed: train_experts(world, chosen.out, seed) for seed in chosen.expert_seeds}
    print(f"trained in {time.monotonic() - started:.0f} s", flush=True)
    from small_world.gates import check_gates

    for seed, experts in roles.items():
        print(f"\nexpert seed {seed}")
        for gate in check_gates(chosen.out / "base", experts, world):
            print(gate)


if __name__ == "__main__":
    main()
