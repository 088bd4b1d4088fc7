"""Inputs of every verb that takes a moment only: the small world's models, four questions."""

from __future__ import annotations

import json
from pathlib import Path

from safeswap.demo import models_folder

PROMPTS = ("damanum nuduva", "munonul damanum nuduva", "nuduva munonul", "damanum munonul")
TITLE = "Hårm 日本"


def write_small_job(folder: Path) -> None:
    """Write suite, sweep, search, rules, texts and labels; none names a file outside ASCII."""
    world = models_folder()
    rows = [f"{n},tëst,[],{text}" for n, text in enumerate(PROMPTS)]
    (folder / "mine.csv").write_text("\n".join(["id,source,tags,qac", *rows]), encoding="utf-8")
    suite = f"benchmarks:\n  mine: {{prompts: mine.csv, title: {TITLE}}}\n"
    (folder / "suite.yaml").write_text(suite, encoding="utf-8")
    rules = "default: unsafe\nrules:\n  - {pattern: '^[a-n]', verdict: safe, refusal: true}\n"
    (folder / "rules.yaml").write_text(rules)
    models = {"base": str(world / "base"), "safety": str(world / "safety")}
    shared = {
        **models,
        "languages": {"qac": str(world / "qac")},
        "suite": "suite.yaml",
        "judge": "rule:rules.yaml",
        "choose": {"loss": 100, "refused": 100},
        "max_new_tokens": 2,
    }
    grid = [{"method": "uniform"}]
    (folder / "sweep.yaml").write_text(json.dumps({**shared, "grid": grid}))
    (folder / "search.yaml").write_text(json.dumps({**shared, "start": grid}))
    (folder / "texts.txt").write_text("\n".join(PROMPTS))
    (folder / "labels.csv").write_text("id,human,judge\n1,safe,safe\n2,unsafe,safe\n")


def small_verbs() -> dict[str, list[str]]:
    """Verb → its words, in an order in which each finds what it needs; run in the job's folder."""
    world = models_folder()
    experts = ["--safety", f"{world / 'safety'}", "--language", f"qac={world / 'qac'}"]
    made = [f"{world / 'base'}", *experts]
    here = ["--dtype", "float32", "--device", "cpu", "--quiet"]
    asked = ["--suite", "suite.yaml", "--only", "qac", "--max-new-tokens", "2"]
    return {
        "merge": ["merge", *made, "--no-figure", "--out", "out"],
        "evaluate": ["evaluate", "out", f"{world / 'base'}", *asked, "--out", "results", *here],
        "judge": ["judge", "results", "--judge", "rule:rules.yaml"],
        "label": ["label", "sample", "results", "--sample", "6", "--out", "sheet.csv"],
        "sweep": ["sweep", "sweep.yaml", "--out", "swept", *here],
        "search": ["search", "search.yaml", "--out", "found", "--trials", "1", *here],
        "calibrate": ["calibrate", *made, "--texts", "texts.txt", "--out", "grams", *here],
    }
