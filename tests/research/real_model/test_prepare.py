"""Mixes and suites from made-up public files: nothing that is asked is trained on."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("py3langid")

from mixes import read_mix
from real_model import prepare
from real_model.corpora import Corpora
from real_model.languages import NAMES, language
from real_model.prepare import SIZES
from safeswap.evaluation.benchmarks.suites import make_suite

TOPICS = ["travel", "sports", "health"]


@pytest.fixture
def corpora(tmp_path: Path) -> Corpora:
    """A few rows of every file, in the authors' forms; the words mean nothing."""
    root = tmp_path / "data"

    def put(name: str, text: str) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, "utf-8")

    codes = ("en", "ko", "sw", "th")
    rows = [[str(n), "made up", "[]", *(f"forbidden {n} {c}" for c in codes)] for n in range(9)]
    lines = [",".join(row) for row in [["id", "source", "tags", *codes], *rows]]
    put("multijail/MultiJail.csv", "\ufeff" + "\n".join(lines))

    def requests(what: str, count: int, translated: str = "") -> str:
        made: list[dict[str, Any]] = [
            {"instruction": f"{what} {n}", "category": None} for n in range(count)
        ]
        for row in made if translated else []:
            row["instruction_translated"] = f"{row['instruction']} {translated}"
        return json.dumps(made)

    put("polyrefuse/harmful_train_en.json", requests("bad train", 8))
    put("polyrefuse/harmful_val_en.json", requests("bad val", 3))
    put("polyrefuse/harmful_test_en.json", requests("bad test", 5))
    put("polyrefuse/advbench_en.json", requests("bad test", 7))  # 5 of them are asked
    put("polyrefuse/harmless_train_en.json", requests("good train", 6))
    put("polyrefuse/harmless_test500_en.json", requests("good test", 130))
    for code in ("ko", "th"):
        put(f"polyrefuse/harmful_test_{code}.json", requests("bad test", 5, code))
        put(f"polyrefuse/harmless_test_{code}.json", requests("good test", 12, code))
        for split in ("train", "val"):
            put(f"polyrefuse/harmless_{split}_{code}.json", requests(f"{split} {code}", 4))
    for code in ("eng_Latn", "kor_Hang", "swh_Latn", "tha_Thai"):
        for split in ("train", "test"):
            made = [f"{n}\t{TOPICS[n % 3]}\t{split} sentence {n} {code}" for n in range(9)]
            put(f"sib200/{code}_{split}.tsv", "\n".join(["index_id\tcategory\ttext", *made]))
    news = [f"A sentence of the news, number {n}, of a fitting length." for n in range(9)]
    put("ntrex/newstest2019-src.eng.txt", "\n".join(news))
    for code in ("kor", "swa", "tha"):
        put(f"ntrex/newstest2019-ref.{code}.txt", "\n".join(f"{code} {n}" for n in range(9)))
    for code, split in ((c, s) for c in ("sw", "th") for s in ("val", "test")):
        made = [
            {"premise": f"{split} {n}", "choice1": "a", "choice2": "b", "question": "cause",
             "label": n % 2} for n in range(6)
        ]  # fmt: skip
        put(f"xcopa/{split}.{code}.jsonl", "\n".join(map(json.dumps, made)))
    labels = [language("th")["safe_label"], "อันตราย"]
    wild = [{"label": labels[n % 2], "prompts": [{"local_prompt": f"wild {n}"}]} for n in range(8)]
    put("sea_safeguard/th.jsonl", "\n".join(map(json.dumps, wild)))
    chats = [{"instruction": f"task {n}", "instances": [{"input": "", "output": "done"}]}
             for n in range(3)]  # fmt: skip
    for name in ("seed_tasks", "user_oriented_instructions"):
        put(f"seed_tasks/{name}.jsonl", "\n".join(map(json.dumps, chats)))
    return Corpora(root)


def answers(prompts: Any) -> dict[str, str]:
    return dict.fromkeys(prompts, "This is a plain answer to what was asked.")


def _asked(folder: Path) -> set[str]:
    """Every prompt of a suite's files."""
    found = set()
    for path in folder.glob("*.csv"):
        with path.open(encoding="utf-8") as file:
            for row in csv.DictReader(file):
                found |= {v for k, v in row.items() if k in ("prompt", "en", "ko", "sw", "th")}
    return found


@pytest.mark.parametrize("code", [name for name in NAMES if name != "en"])
def test_nothing_that_is_asked_is_trained_on(corpora: Corpora, code: str, tmp_path: Path) -> None:
    prepare.suite(corpora, code, SIZES["short"], tmp_path / "suite")
    (tmp_path / "mixes").mkdir()
    trained = {
        example.prompt
        for path in (
            prepare.safety_mix(corpora, answers, tmp_path / "mixes"),
            prepare.language_mix(corpora, code, answers, tmp_path / "mixes"),
        )
        for example in read_mix(path, 0).examples
    }
    asked = _asked(tmp_path / "suite")
    assert asked and trained and not asked & trained
    originals = {f"bad test {n}" for n in range(5)} | {f"good test {n}" for n in range(12)}
    assert not originals & trained
    assert "bad test 6" in trained  # of AdvBench, and in no test


@pytest.mark.parametrize("code", [name for name in NAMES if name != "en"])
def test_nothing_that_is_asked_is_fitted_on(
    corpora: Corpora, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = prepare.Size(4, 3, 2, 3, 3)
    monkeypatch.setattr(prepare, "SIZES", {"short": size})
    prepare.suite(corpora, code, size, tmp_path / "suite")
    (tmp_path / "mixes").mkdir()
    (tmp_path / "fit").mkdir()
    prepare.safety_mix(corpora, answers, tmp_path / "mixes")
    prepare.language_mix(corpora, code, answers, tmp_path / "mixes")
    prepare.fit_texts(corpora, code, tmp_path / "mixes", tmp_path / "fit")
    fitted = {
        path.stem: [json.loads(line)["prompt"] for line in path.open(encoding="utf-8")]
        for path in (tmp_path / "fit").glob("*.jsonl")
    }
    assert {name: len(found) > 0 for name, found in fitted.items()} == dict.fromkeys(
        ("harmful-own", "harmful-english", "harmless", "harmless-english"), True
    )
    assert len(fitted["harmful-own"]) == 5 and all(
        one.endswith(f" {code}") for one in fitted["harmful-own"]
    )
    asked = _asked(tmp_path / "suite")
    for path in (tmp_path / "suite").glob("*.jsonl"):
        asked |= {json.loads(line)["text"] for line in path.open(encoding="utf-8")}
    assert not asked & {one for found in fitted.values() for one in found}


@pytest.mark.parametrize("code", [name for name in NAMES if name != "en"])
def test_a_suite_is_one_that_evaluate_takes(corpora: Corpora, code: str, tmp_path: Path) -> None:
    path = prepare.suite(corpora, code, SIZES["short"], tmp_path / "suite")
    suite = make_suite(str(path), [code, "en"])
    names = {benchmark.name for benchmark in suite.benchmarks}
    assert {"multijail", "multijail_en", "benign", "topic", "likely", "written"} <= names
    assert ("polyharm" in names) == (code != "sw") and ("wild" in names) == (code == "th")
    harmful = next(b for b in suite.benchmarks if b.name == "multijail_en")
    assert harmful.prompts is not None and harmful.prompts.languages == ("en",)


def test_a_seed_draws_refusals_and_keeps_all_chats(corpora: Corpora, tmp_path: Path) -> None:
    path = prepare.safety_mix(corpora, answers, tmp_path)
    parts = yaml.safe_load(path.read_text())["parts"]
    assert [part["name"] for part in parts] == ["refusals", "chats", "tasks", "topics"]
    refused = [json.loads(line) for line in (tmp_path / "safety-refusals.jsonl").open()]
    assert {row["response"] for row in refused} <= set(prepare.REFUSALS)
    assert len(refused) == 8 + 2
