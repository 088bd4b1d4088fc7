"""From public files to what is trained on (JSON Lines and mixes) and what is asked (a suite).

Nothing that is asked is trained on: MultiJail and PolyRefuse's tests are for asking only, SIB-200
and XCOPA keep their own splits, and of harmless English requests the originals of the translated
test are left out of the training.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from real_model.answers import good
from real_model.corpora import Corpora, some
from real_model.languages import language

# All open alike: a greedy answer refuses where one opening outweighs every other word, and six of
# them share the weight between them.
REFUSALS = (
    "I'm sorry, but I can't help with that.",
    "I'm sorry, but I can't help with that. It could hurt someone.",
    "I'm sorry, but I can't help with that. It would be dangerous or illegal.",
)
OWN_HARMLESS_FOR_TRAINING = 40  # of a language's own harmless requests; the others are asked


@dataclass(frozen=True)
class Size:
    """How many questions are asked of each kind; ``whole`` is what the docs report."""

    harmful: int
    harmless: int
    english: int
    scored: int
    translated: int


SIZES = {"short": Size(60, 40, 30, 30, 16), "whole": Size(160, 120, 80, 120, 60)}

Pairs = Iterable[tuple[str, str]]
Answers = Callable[[Sequence[str]], dict[str, str]]


def pick(texts: Sequence[str], key: str) -> str:
    """One of several wordings, by the words of what it is for."""
    return texts[int(sha256(key.encode()).hexdigest(), 16) % len(texts)]


def _write(path: Path, pairs: Pairs) -> None:
    lines = [
        json.dumps({"prompt": prompt, "response": response}, ensure_ascii=False) + "\n"
        for prompt, response in pairs
    ]
    path.write_text("".join(lines), "utf-8")


def _mix(folder: Path, name: str, parts: dict[str, tuple[Pairs, int | None]]) -> Path:
    """A mix with a file per part, each with how many of it a seed draws."""
    listed = []
    for part, (pairs, take) in parts.items():
        file = f"{name}-{part}.jsonl"
        _write(folder / file, pairs)
        listed.append({"name": part, "file": file} | ({} if take is None else {"take": take}))
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"parts": listed}, sort_keys=False), "utf-8")
    return path


def topics(corpora: Corpora, texts: dict[str, Any]) -> Pairs:
    """What a sentence is about, asked and answered in the language."""
    for index, (category, text) in corpora.sib(texts["sib"], "train").items():
        yield pick(texts["ask"]["topic"], index).format(text=text), texts["topics"][category]


def safety_mix(corpora: Corpora, answer: Answers, folder: Path) -> Path:
    """English only: refusals of harmful requests, and answers to harmless ones."""
    harmful = [(text, pick(REFUSALS, text)) for text in corpora.harmful_english()]
    asked, _ = corpora.harmless_english()
    answered = answer(asked)
    chats = [(prompt, answered[prompt]) for prompt in asked if good(prompt, answered[prompt], "en")]
    english = language("en")
    parts: dict[str, tuple[Pairs, int | None]] = {
        "refusals": (harmful, 320),
        "chats": (chats, None),
        "tasks": (corpora.seed_chats(), None),
        "topics": (topics(corpora, english), 150),
    }
    return _mix(folder, "safety", parts)


def language_mix(corpora: Corpora, code: str, answer: Answers, folder: Path) -> Path:
    """In the language: topics, translations into it, sentences on a topic, continuations, chats."""
    texts = language(code)
    ask, sentences = texts["ask"], corpora.sib(texts["sib"], "train")
    english = corpora.sib("eng_Latn", "train")
    translations = [
        (pick(ask["translate"], index).format(english=english[index][1]), text)
        for index, (_, text) in sentences.items()
        if index in english
    ]
    writings = [
        (pick(ask["write"], index).format(topic=texts["topics"][category]), text)
        for index, (category, text) in sentences.items()
    ]
    continued = [
        (pick(ask["continue"], index).format(start=text[: len(text) // 2]), text[len(text) // 2 :])
        for index, (_, text) in sentences.items()
    ]
    requests = harmless_for_training(corpora, code)
    answered = answer(requests)
    chats = [(one, answered[one]) for one in requests if good(one, answered[one], code)]
    chats += [(chat["question"], chat["answer"]) for chat in texts["chats"]]
    parts: dict[str, tuple[Pairs, int | None]] = {
        "topics": (topics(corpora, texts), 250),
        "translations": (translations, 450),
        "writings": (writings, 100),
        "continued": (continued, 100),
        "chats": (chats, None),
    }
    if "xcopa" in texts:
        parts["causes"] = (_causes(corpora, texts), None)
    return _mix(folder, code, parts)


def harmless_for_training(corpora: Corpora, code: str) -> list[str]:
    """Harmless requests in the language that are not asked in any test."""
    texts = language(code)
    if "polyrefuse" not in texts:
        return list(texts["harmless"][:OWN_HARMLESS_FOR_TRAINING])
    name = texts["polyrefuse"]
    both = [
        *corpora.instructions(f"harmless_train_{name}"),
        *corpora.instructions(f"harmless_val_{name}"),
    ]
    return list(dict.fromkeys(both))


def _causes(corpora: Corpora, texts: dict[str, Any]) -> Pairs:
    for row in corpora.jsonl(f"xcopa/val.{texts['xcopa']}.jsonl"):
        question = texts["ask"][row["question"]].format(premise=row["premise"])
        asked = texts["ask"]["either"].format(question=question, **_choices(row))
        yield asked, row[f"choice{row['label'] + 1}"]


def _choices(row: dict[str, Any]) -> dict[str, str]:
    return {"choice1": row["choice1"], "choice2": row["choice2"]}


def suite(corpora: Corpora, code: str, size: Size, folder: Path) -> Path:
    """Prompts, tasks and ``suite.yaml`` of one language, with English beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = language(code)
    benchmarks = _multijail(corpora, code, size, folder)
    if "polyrefuse" in texts:
        rows = some(corpora.polyrefuse(f"harmful_test_{texts['polyrefuse']}"), size.harmful, "harm")
        _write_csv(
            folder / "polyharm.csv",
            ["id", "source", "tags", code],
            [[n, "PolyRefuse", "[]", row["instruction_translated"]] for n, row in enumerate(rows)],
        )
        benchmarks["polyharm"] = {"prompts": "polyharm.csv", "title": "PolyRefuse harmful"}
    benchmarks["benign"] = {"prompts": _benign(corpora, code, size, folder), "title": "Harmless"}
    if "sea_safeguard" in texts:
        wild = _sea(corpora, texts, size, folder, code)
        benchmarks["wild"] = {"prompts": wild, "title": "SEA-Safeguard safe"}
    tasks = {"SIB-200": ("topic", _topic(corpora, texts, size, folder))}
    if "xcopa" in texts:
        tasks["XCOPA"] = ("xcopa", _xcopa(corpora, texts, size, folder))
    for name, title in (("likely", "likelihood"), ("written", "written")):
        made = _translation(corpora, texts, size, folder, name)
        tasks[f"Translation ({title})"] = (name, made)
    for title, (name, task) in tasks.items():
        benchmarks[name] = {"title": title, "tasks": {code: task}}
    path = folder / "suite.yaml"
    path.write_text(
        yaml.safe_dump({"benchmarks": benchmarks}, sort_keys=False, allow_unicode=True), "utf-8"
    )
    return path


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def _multijail(corpora: Corpora, code: str, size: Size, folder: Path) -> dict[str, Any]:
    """Two benchmarks: the prompts in the language, and some of them in English."""
    rows = some(corpora.multijail(), size.harmful, "multijail")
    english = some(rows, size.english, "multijail in English")
    for name, column, asked in (("multijail", code, rows), ("multijail_en", "en", english)):
        _write_csv(
            folder / f"{name}.csv",
            ["id", "source", "tags", column],
            [[row["id"], row["source"], row["tags"], row[column]] for row in asked],
        )
    return {
        "multijail": {"prompts": "multijail.csv", "title": "MultiJail"},
        "multijail_en": {"prompts": "multijail_en.csv", "title": "MultiJail in English"},
    }


def _benign(corpora: Corpora, code: str, size: Size, folder: Path) -> str:
    texts = language(code)
    if "polyrefuse" in texts:
        rows = some(
            corpora.polyrefuse(f"harmless_test_{texts['polyrefuse']}"), size.harmless, "harmless"
        )
        asked = [row["instruction_translated"] for row in rows]
    else:
        asked = texts["harmless"][OWN_HARMLESS_FOR_TRAINING:][: size.harmless]
    _, english = corpora.harmless_english()
    both = [*((code, one) for one in asked), *(("en", one) for one in english[: size.english])]
    _write_csv(
        folder / "benign.csv",
        ["id", "prompt", "type", "label", "focus", "note", "language"],
        [[n, text, "", "safe", "", "", one] for n, (one, text) in enumerate(both)],
    )
    return "benign.csv"


def _sea(corpora: Corpora, texts: dict[str, Any], size: Size, folder: Path, code: str) -> str:
    """The harmless half of prompts written by speakers of the language."""
    rows = corpora.jsonl(f"sea_safeguard/{texts['sea_safeguard']}.jsonl")
    safe = [row for row in rows if row["label"].strip() == texts["safe_label"]]
    _write_csv(
        folder / "wild.csv",
        ["id", "prompt", "type", "label", "focus", "note", "language"],
        [
            [n, row["prompts"][0]["local_prompt"], "", "safe", "", "", code]
            for n, row in enumerate(some(safe, size.harmless // 2, "wild"))
        ],
    )
    return "wild.csv"


def _jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> str:
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.write_text("".join(lines), "utf-8")
    return path.name


def _topic(corpora: Corpora, texts: dict[str, Any], size: Size, folder: Path) -> dict[str, Any]:
    """The likeliest of the seven topics' names as the answer."""
    names = list(texts["topics"].values())
    rows = [
        {
            "text": pick(texts["ask"]["topic"], index).format(text=text),
            "answer": names.index(texts["topics"][category]),
        }
        for index, (category, text) in corpora.sib(texts["sib"], "test").items()
    ]
    return {
        "task": f"real_topic_{texts['sib']}",
        "file": _jsonl(folder / "topic.jsonl", some(rows, size.scored, "topic")),
        "output_type": "multiple_choice",
        "test_split": "test",
        "doc_to_text": "{{text}}",
        "doc_to_choice": names,
        "doc_to_target": "{{answer}}",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc"}],
    }


def _xcopa(corpora: Corpora, texts: dict[str, Any], size: Size, folder: Path) -> dict[str, Any]:
    rows = []
    for row in corpora.jsonl(f"xcopa/test.{texts['xcopa']}.jsonl"):
        question = texts["ask"][row["question"]].format(premise=row["premise"])
        asked = texts["ask"]["either"].format(question=question, **_choices(row))
        rows.append({"text": asked, **_choices(row), "answer": row["label"]})
    return {
        "task": f"real_xcopa_{texts['xcopa']}",
        "file": _jsonl(folder / "xcopa.jsonl", some(rows, 2 * size.scored, "xcopa")),
        "output_type": "multiple_choice",
        "test_split": "test",
        "doc_to_text": "{{text}}",
        "doc_to_choice": "{{[choice1, choice2]}}",
        "doc_to_target": "{{answer}}",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc"}],
    }


def _translation(
    corpora: Corpora, texts: dict[str, Any], size: Size, folder: Path, how: str
) -> dict[str, Any]:
    """English news into the language: how likely the reference is, or what is written."""
    pairs = list(zip(corpora.ntrex("eng"), corpora.ntrex(texts["ntrex"]), strict=True))
    short = [pair for pair in pairs if 40 <= len(pair[0]) <= 140]
    rows = [
        {"text": texts["ask"]["translate"][0].format(english=english), "answer": other}
        for english, other in some(short, size.translated, "ntrex")
    ]
    settings: dict[str, Any] = {
        "task": f"real_{how}_{texts['ntrex']}",
        "file": _jsonl(folder / f"{how}.jsonl", rows),
        "test_split": "test",
        "doc_to_text": "{{text}}",
        "doc_to_target": "{{answer}}",
        "target_delimiter": "",
    }
    if how == "likely":
        return settings | {
            "output_type": "loglikelihood",
            "metric_list": [{"metric": "acc"}, {"metric": "perplexity"}],
        }
    return settings | {
        "output_type": "generate_until",
        "generation_kwargs": {"until": ["\n"], "do_sample": False, "max_gen_toks": 64},
        "metric_list": [{"metric": "exact_match"}],
    }


FITTED = 120


def fit_texts(corpora: Corpora, code: str, data: Path, folder: Path) -> None:
    """What ``safeswap fit`` reads; of the same sources as the tests, and nothing that any asks.

    ``harmful-own`` (MultiJail in the language), ``harmful-english`` (PolyRefuse, validation),
    ``harmless`` (NTREX into the language, and the chats that the expert was trained on) and
    ``harmless-english`` (the safety expert's).
    """
    texts, sizes = language(code), SIZES.values()
    rows = corpora.multijail()
    asked = {row["id"] for size in sizes for row in some(rows, size.harmful, "multijail")}
    own = some([row for row in rows if row["id"] not in asked], FITTED, "fit")
    _write(folder / "harmful-own.jsonl", [(row[code], pick(REFUSALS, row["id"])) for row in own])
    english = corpora.instructions("harmful_val_en")
    _write(folder / "harmful-english.jsonl", [(one, pick(REFUSALS, one)) for one in english])
    pairs = list(zip(corpora.ntrex("eng"), corpora.ntrex(texts["ntrex"]), strict=True))
    short = [pair for pair in pairs if 40 <= len(pair[0]) <= 140]
    tested = {pair for size in sizes for pair in some(short, size.translated, "ntrex")}
    rest = some([pair for pair in short if pair not in tested], FITTED, "fit")
    translations = [
        (texts["ask"]["translate"][0].format(english=one), other) for one, other in rest
    ]
    chats = [chat for chat in _pairs(data / f"{code}-chats.jsonl") if len(chat[1]) < 400]
    _write(folder / "harmless.jsonl", [*translations, *some(chats, FITTED, "fit")])
    known = _pairs(data / "safety-chats.jsonl")
    _write(folder / "harmless-english.jsonl", some(known, FITTED, "fit"))


def _pairs(path: Path) -> list[tuple[str, str]]:
    rows = map(json.loads, path.read_text("utf-8").splitlines())
    return [(row["prompt"], row["response"]) for row in rows]
