"""Made-up public files of the study, and what a suite made of them asks."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from real_model.corpora import Corpora
from real_model.languages import language

TOPICS = ["travel", "sports", "health"]


def made_up(root: Path) -> Corpora:
    """A few rows of every file, in the authors' forms; the words mean nothing."""

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
        put(f"polyrefuse/harmful_val_{code}.json", requests(f"bad val {code}", 3))
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


def asked_in(folder: Path) -> set[str]:
    """Every prompt of a suite's files."""
    found = set()
    for path in folder.glob("*.csv"):
        with path.open(encoding="utf-8") as file:
            for row in csv.DictReader(file):
                found |= {v for k, v in row.items() if k in ("prompt", "en", "ko", "sw", "th")}
    return found
