"""One language and one seed: experts, merges, answers, verdicts; everything by the product's verbs.

Each step leaves a file or folder that the next run finds, so an interrupted study goes on.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from real_model.corpora import Corpora, some
from real_model.methods import METHODS, Method
from real_model.prepare import fit_texts

HERE = Path(__file__).parent
RECIPE = HERE.parents[1] / "recipes" / "train_expert.py"
RULES = HERE / "rules.yaml"
NEW_TOKENS, HARNESS_TOKENS, DTYPE = 32, 64, "bfloat16"
# Chosen on PolyRefuse's validation requests: at 3e-5 the safety expert refuses in English and 0 %
# of them in Thai, at 8e-5 67 % (17 % of the harmless ones). A language expert trained at 8e-5 gains
# nothing in the likelihood of translations (74.6 to 74.7 nats in Thai; 63 at 3e-5).
SAFETY_RATE, LANGUAGE_RATE = "8e-5", "3e-5"
# Large buffers are kept for the next: fifteen rounds of filling one of 300 MB and its exponential
# take 1.2 s of the system's time instead of 4.0. Logits over 262,144 tokens are such buffers.
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
    "MALLOC_TOP_PAD_": str(1 << 28),
}


@dataclass(frozen=True)
class Study:
    """Where a study works, and how.

    Attributes:
        work: its folder.
        size: ``short`` or ``whole``.
        device: ``cpu`` or ``auto``.
        epochs: passes over an expert's mix.
        data: folder of the public files.
        left_out: methods that are not made, for want of time.
    """

    work: Path
    size: str
    device: str
    epochs: float
    data: Path = Path()
    left_out: frozenset[str] = frozenset()

    @property
    def base(self) -> Path:
        return self.work / "base"

    def expert(self, name: str, seed: int) -> Path:
        return self.work / "experts" / f"{name}-{seed}"

    def cell(self, code: str, seed: int) -> Path:
        """The folder of one language and seed."""
        return self.work / "cells" / f"{code}-{seed}"

    def suite(self, code: str) -> Path:
        """The folder of a language's questions."""
        return self.work / "suites" / code

    def methods(self) -> list[Method]:
        wanted = [method for method in METHODS if method.short or self.size == "whole"]
        return [method for method in wanted if method.name not in self.left_out]


def call(*arguments: object) -> None:
    """Run a program of this Python; its words go where ours go."""
    command = [sys.executable, *map(str, arguments)]
    print("$", " ".join(map(str, arguments)), flush=True)
    subprocess.run(command, check=True, env={**os.environ, **ENVIRONMENT})


def safeswap(*arguments: object) -> None:
    call("-m", "safeswap", *arguments)


def train(study: Study, mix: str, seed: int) -> Path:
    """An expert by the recipe anyone uses."""
    out = study.expert(mix, seed)
    if (out / "recipe.json").is_file():
        return out
    rate = SAFETY_RATE if mix == "safety" else LANGUAGE_RATE
    call(
        RECIPE, study.base, "--mix", study.work / "data" / f"{mix}.yaml", "--out", out,
        "--epochs", study.epochs, "--batch", 16, "--rate", rate, "--length", 160, "--seed", seed,
        "--device", study.device,
    )  # fmt: skip
    return out


def calibrate(study: Study, code: str, seed: int) -> Path:
    """What the language expert's layers see at refusals in English and at chats in both."""
    cell, data = study.cell(code, seed), study.work / "data"
    out = cell / "grams"
    harmful, harmless = cell / "harmful.jsonl", cell / "harmless.jsonl"
    kept = (f"{code}-chats", f"{code}-translations", "safety-chats")  # English ones, too
    for path, sources, count in (
        (harmful, [data / "safety-refusals.jsonl"], 200),
        (harmless, [data / f"{part}.jsonl" for part in kept], 150),
    ):
        lines = [
            line
            for source in sources
            for line in some(source.read_text("utf-8").splitlines(), count, f"grams {seed}")
        ]
        path.write_text("\n".join(lines) + "\n", "utf-8")
    safeswap(
        "calibrate", study.base, "--safety", study.expert("safety", seed),
        "--language", f"{code}={study.expert(code, seed)}", "--harmful", harmful,
        "--harmless", f"{code}={harmless}", "--max-tokens", 160, "-o", out, "--force",
    )  # fmt: skip
    return out


def fit(study: Study, code: str, seed: int, method: Method) -> Path:
    """The plan of a method that fits; on texts that no test asks."""
    cell = study.cell(code, seed)
    texts, out = cell / "fit-texts", cell / method.name
    if not texts.is_dir():
        texts.mkdir()
        fit_texts(Corpora(study.data), code, study.work / "data", texts)
    device = ("--device", "cpu") if study.device == "cpu" else ()
    safeswap(
        "fit", study.base, "--safety", study.expert("safety", seed),
        "--language", f"{code}={study.expert(code, seed)}",
        "--harmful", texts / f"harmful-{method.fitted_on}.jsonl",
        "--harmless", f"{code}={texts / 'harmless.jsonl'}",
        "--harmless", f"safety={texts / 'harmless-english.jsonl'}", "--max-tokens", 160,
        *method.options, *device, "-o", out, "--force",
    )  # fmt: skip
    return out / f"{code}.yaml"


def merge_all(study: Study, code: str, seed: int) -> dict[str, Path]:
    """A profile, a plan per method, and the merges; name to folder."""
    cell = study.cell(code, seed)
    cell.mkdir(parents=True, exist_ok=True)
    profile = cell / "profile.json"
    if not profile.is_file():
        safeswap(
            "profile", study.base, "--safety", study.expert("safety", seed),
            "--language", f"{code}={study.expert(code, seed)}", "-o", profile,
        )  # fmt: skip
    grams = calibrate(study, code, seed)
    merged = {}
    for method in study.methods():
        plan, out = cell / "plans" / f"{method.name}.yaml", cell / "merged" / method.name
        plan.parent.mkdir(exist_ok=True)
        if not plan.is_file():
            if method.fitted_on:
                shutil.copy(fit(study, code, seed, method), plan)
            else:
                options = (option.format(grams=grams) for option in method.options)
                safeswap("plan", profile, *options, "-o", plan)
        if not out.is_dir():
            safeswap("merge", "--plan", plan, "--out", out, "--quiet")
        merged[method.name] = out
    return merged


def ask(study: Study, code: str, seed: int, models: dict[str, Path]) -> Path:
    """Let all models answer the suite, and judge by rules; the results folder."""
    results = study.cell(code, seed) / "results"
    evaluate(study, models, study.suite(code) / "suite.yaml", f"{code},en", results)
    return results


def evaluate(
    study: Study, models: dict[str, Path], suite: Path, only: str, results: Path, *more: object
) -> None:
    """Answers and verdicts as everything in the study has them; ``more`` are further options."""
    tokens = ("--max-new-tokens", NEW_TOKENS, "--harness-tokens", HARNESS_TOKENS)
    device = ("--device", "cpu") if study.device == "cpu" else ()
    safeswap(
        "evaluate", *(f"{name}={folder}" for name, folder in models.items()),
        "--suite", suite, "--only", only, "-o", results, "--judge", f"rule:{RULES}",
        "--dtype", DTYPE, *tokens, *device, *more,
    )  # fmt: skip


def base_of_another_seed(study: Study, code: str, seed: int) -> None:
    """The base is the same in every seed: what it answered in one is taken over in the next."""
    own = study.cell(code, seed) / "results"
    known = sorted(study.work.glob(f"cells/{code}-*/results/base"))
    if not own.exists() and known:
        shutil.copytree(known[0], own / "base")
        shutil.copy(known[0].parent / "settings.json", own)


def one(study: Study, code: str, seed: int, keep: bool) -> Path:
    """Everything of one language and seed; the results folder."""
    base_of_another_seed(study, code, seed)
    models = {"base": study.base, "safety": train(study, "safety", seed)}
    models[code] = train(study, code, seed)
    ask(study, code, seed, models)
    models |= merge_all(study, code, seed)
    results = ask(study, code, seed, models)
    if not keep:
        shutil.rmtree(study.cell(code, seed) / "merged")
    return results


def compare(results: Path, out: Path, reference: str) -> None:
    """The product's own tables."""
    safeswap("compare", results, "--reference", reference, "--out", out)


def recipe(folder: Path) -> dict[str, object]:
    """What an expert was trained on."""
    found: dict[str, object] = json.loads((folder / "recipe.json").read_text("utf-8"))
    return found
