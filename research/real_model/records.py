"""What is kept of a language and a seed: verdicts by prompt, scores, norms, plans, digests.

No prompt and no answer: a prompt is its number in its benchmark, and its words are known by the
digests of the files. From these records every table and test of the docs can be computed again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import sacrebleu
import yaml

from real_model.corpora import Corpora
from real_model.methods import METHODS, RULE
from real_model.run import Study, recipe
from safeswap.profile import Profile

BROKEN = {"empty", "repetition", "echo"}


def read(study: Study, code: str, seed: int, results: Path, corpora: Corpora) -> dict[str, Any]:
    """The record of one cell, from its results folder."""
    wanted = ["base", "safety", code, *(method.name for method in METHODS)]
    names = [name for name in wanted if (results / name / "verdicts").is_dir()]
    cell = study.cell(code, seed)
    return {
        "language": code,
        "seed": seed,
        "size": study.size,
        "experts": {name: recipe(study.expert(name, seed)) for name in ("safety", code)},
        "moved": _moved(Profile.load(cell / "profile.json")),
        "shares": _shares(cell / "plans" / f"{RULE}.yaml"),
        "plans": {
            name: _plan(cell / "plans" / f"{name}.yaml")
            for name in names
            if (cell / "plans" / f"{name}.yaml").is_file()
        },
        "models": {name: model(results / name, study.suite(code)) for name in names},
        "files": corpora.digests(),
    }


def write(path: Path, record: dict[str, Any]) -> None:
    path.write_text(json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n", "utf-8")


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def _outcome(verdict: dict[str, Any]) -> str:
    """One letter: r refused in English, o in the own language, n neither, a answered otherwise."""
    if verdict.get("refusal"):
        return "r" if verdict["raw"] == "rule 1" else "o"
    return "n" if BROKEN & set(verdict.get("flags", ())) else "a"


def model(folder: Path, suite: Path) -> dict[str, Any]:
    """What one model of a results folder answered and scored."""
    return {"outcomes": outcomes(folder), **_scores(folder, suite)}


def outcomes(folder: Path) -> dict[str, str]:
    """Outcomes as a string per benchmark and language, in the order of the prompts."""
    (judged,) = (folder / "verdicts").glob("*.jsonl")
    found: dict[str, dict[str, str]] = {}
    for row in rows_of(judged):
        benchmark, language, number = row["key"].split("/", 2)
        found.setdefault(f"{benchmark}/{language}", {})[number] = _outcome(row)
    return {
        cell: "".join(rows[key] for key in sorted(rows, key=_number))
        for cell, rows in sorted(found.items())
    }


def _number(key: str) -> tuple[int, str]:
    return (int(key) if key.isdigit() else -1, key)


def _scores(folder: Path, suite: Path) -> dict[str, Any]:
    """Right or not per question; nats of each reference translation; chrF of each written one."""
    scored: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(rows_of(folder / "scores.jsonl"), key=lambda row: place(row.get("id", ""))):
        if "benchmark" in row:
            scored.setdefault(row["benchmark"], []).append(row)
    found: dict[str, Any] = {
        name: "".join(str(row["right"]) for row in scored[name])
        for name in ("topic", "xcopa")
        if name in scored
    }
    pairs = rows_of(suite / "written.jsonl")
    written = [
        sacrebleu.sentence_chrf(row["response"], [pairs[place(row["id"])]["answer"]]).score
        for row in scored["written"]
    ]
    return found | {
        "nats": [round(-row["metrics"]["perplexity"], 2) for row in scored["likely"]],
        "chrf": [round(score, 1) for score in written],
    }


def place(id_: str) -> int:
    """The number of a question in its file."""
    return int(id_.rpartition("/")[2] or -1)


def _moved(profile: Profile) -> dict[str, float]:
    """Expert to ‖W − W_base‖ / ‖W_base‖ over all projections."""
    inside = [t for t in profile.tensors if t.role == "projection" and t.base_norm]
    base = sum(t.base_norm**2 for t in inside)
    roles = [role for role in profile.inputs if role != "base"]
    return {
        role: round((sum(t.update_norm[role] ** 2 for t in inside) / base) ** 0.5, 5)
        for role in roles
    }


def _shares(path: Path) -> dict[str, list[float]]:
    """Unit to its share in the safety expert's update, in the language's, and their difference."""
    units = yaml.safe_load(path.read_text("utf-8"))["units"]
    return {
        unit: [*(round(one, 6) for one in row["shares"].values()), round(row["difference"], 6)]
        for unit, row in units.items()
        if "shares" in row
    }


def _plan(path: Path) -> dict[str, list[float]]:
    """Unit to the weights of its experts, safety first."""
    units = yaml.safe_load(path.read_text("utf-8"))["units"]
    return {unit: [round(w, 4) for w in row["weights"].values()] for unit, row in units.items()}
