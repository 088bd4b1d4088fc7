"""docs/formats.md: every key of every file that safeswap makes is there, and no other."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
import yaml
from blake3 import blake3
from safetensors import safe_open
from safetensors.numpy import load_file

import safeswap
from attributions import make_attribution
from plain_adapter import write_adapter
from safeswap import api
from safeswap.checkpoint.staging import _REPLACED, Staging
from safeswap.checkpoint.vocabularies.view import RowsRecord
from safeswap.demo import models_folder
from safeswap.evaluation.benchmarks.limit import Limit
from safeswap.evaluation.benchmarks.prompts import identity_of
from safeswap.evaluation.benchmarks.splits import Split
from safeswap.evaluation.generate import Generation
from safeswap.evaluation.human import sampling
from safeswap.evaluation.judges import MajorityJudge
from safeswap.evaluation.results import majority, rows, store
from safeswap.merge import manifest
from safeswap.operators import gram_store
from safeswap.plan import chosen
from safeswap.plan import file as plan_file
from safeswap.profile import attribution
from safeswap.profile import table as profile_table
from safeswap.search import search_config, sweep_config

PAGE = (Path(__file__).parents[2] / "docs/formats.md").read_text(encoding="utf-8")
Table = dict[str, str]
"""Key → when it is absent."""


def parsed() -> dict[str, Table]:
    """The page's tables of keys, by the title above each."""
    found: dict[str, Table] = {}
    title, inside = "", False
    for line in PAGE.splitlines():
        if line.startswith("#"):
            title, inside = line.lstrip("# "), False
        elif line.startswith("| key |"):
            assert title not in found, f"two tables under {title}"
            found[title], inside = {}, True
        elif inside and line.startswith("| `"):
            key, _, absent, _ = (cell.strip() for cell in line.strip("|").split(" |", 3))
            found[title][key.strip("` ")] = absent
        elif not line.startswith("|"):
            inside = False
    return found


KEYS = parsed()


def holds(title: str, found: Mapping[str, Any] | Iterable[str], more: Iterable[str] = ()) -> None:
    """A record of a file has no key that the page lacks, and every one that is never absent."""
    known = set(KEYS[title]) | set(more)
    needed = {key for key, absent in KEYS[title].items() if absent == "never"}
    assert needed <= set(found) <= known, title


def holds_all(title: str, records: Iterable[Mapping[str, Any]]) -> None:
    found = list(records)
    assert found, title
    for record in found:
        holds(title, record)


def check_profile(content: Mapping[str, Any]) -> None:
    holds("Profile", content)
    holds_all("Profile: input", content["inputs"].values())
    holds_all("Profile: file", (f for one in content["inputs"].values() for f in one["files"]))
    holds_all("Profile: tensor", content["tensors"])
    if "sample" in content:
        holds("Profile: sample", content["sample"])
        tables = [by for one in content["sample"]["intervals"].values() for by in one.values()]
        holds_all("Profile: interval", (row for table in tables for row in table.values()))
    adapters = [one["adapter"] for one in content["inputs"].values() if "adapter" in one]
    for one in adapters:
        holds("Profile: adapter", one)
        holds_all("Profile: file", one["files"])


def check_plan(content: Mapping[str, Any]) -> None:
    holds("Plan", content)
    holds_all("Plan: input", content["inputs"].values())
    holds_all("Plan: unit", content["units"].values())
    for operator in (
        content["operator"],
        *(row.get("operator") for row in content["units"].values()),
    ):
        if isinstance(operator, dict):
            holds("Plan: operator", {"name", "PARAMETER"} if len(operator) > 1 else operator)
    if "chosen" in content:
        holds("Plan: chosen", content["chosen"])
        if "split" in content["chosen"]:  # a fit has none
            holds("Split", content["chosen"]["split"])


def yaml_of(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def json_of(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def lines_of(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# The page against the code -----------------------------------------------------------------------


def names(kind: type) -> set[str]:
    return {field.name for field in fields(kind)}


@pytest.mark.parametrize(
    ("title", "known"),
    [
        ("Profile", {"format"} | names(profile_table.Profile)),
        ("Profile: input", names(profile_table.InputRecord)),
        ("Profile: adapter", names(profile_table.AdapterRecord)),
        ("Profile: file", names(profile_table.FileRecord)),
        ("Profile: tensor", names(profile_table.TensorProfile)),
        ("Profile: experts", names(profile_table.ExpertNumbers)),
        ("Profile: sample", names(profile_table.Sample)),
        ("Profile: interval", names(profile_table.Interval)),
        ("Attribution", {"format"} | names(attribution.Attribution)),
        ("Attribution: readouts", {*attribution.READOUTS}),
        ("Plan", {*plan_file._KEYS}),
        ("Plan: unit", {*plan_file._UNIT_KEYS}),
        ("Plan: chosen", {*chosen._KEYS}),
        ("Split", chosen._SPLIT_KEYS),
        (
            "Settings: generation",
            {*Generation(thinking="on", think_tokens=1, cut_thoughts=True).as_dict()},
        ),
        ("Settings: limit", names(Limit)),
        ("Manifest", {*manifest._KEYS}),
        ("Manifest: rows", {*RowsRecord.__slots__}),
        ("Gram folder", {*gram_store._KEYS}),
        ("Gram folder: expert", {*gram_store._EXPERT_KEYS}),
        ("Gram folder: tensor", {*gram_store._TENSOR_KEYS}),
        ("Sheet", {*sampling.COLUMNS}),
        ("Sweep file", {*sweep_config.KEYS}),
        ("Search file", {*search_config.KEYS} - {*sweep_config.KEYS}),
        ("Search file: space", {*search_config._SPACE}),
        ("Pareto: space", {"group", *search_config._SPACE}),
    ],
)
def test_the_page_has_the_codes_keys(title: str, known: set[str]) -> None:
    assert set(KEYS[title]) == known


def test_a_search_has_the_keys_of_a_sweep_but_for_its_grid() -> None:
    assert {*sweep_config.KEYS} - {*search_config.KEYS} == {"grid"}


@pytest.mark.parametrize(
    ("title", "row"),
    [
        ("Settings", rows.Settings),
        ("Settings: cell", rows.CellSettings),
        ("Responses", rows.ResponseRow),
        ("Majority", majority.MajorityRecord),
        ("Majority: earlier", majority.EarlierMajority),
        ("Verdicts", rows.VerdictRow),
        ("Scores", rows.ScoreRow),
        ("Scores: done", rows.CompleteRow),
    ],
)
def test_rows_are_their_typed_dicts(title: str, row: Any) -> None:
    hints = get_type_hints(row, include_extras=True)
    optional = {key for key, hint in hints.items() if "NotRequired" in str(hint)}
    assert set(KEYS[title]) == set(hints)
    assert {key for key, absent in KEYS[title].items() if absent != "never"} == optional


@pytest.mark.parametrize(
    "version",
    [
        profile_table.FORMAT,
        attribution.FORMAT,
        plan_file.FORMAT,
        manifest.FORMAT,
        gram_store.FORMAT,
        sampling.KEY_FORMAT,
        majority.FORMAT,
        "safeswap-results/1",
        "safeswap-pareto/1",
    ],
)
def test_versions_are_named(version: str) -> None:
    assert f"`{version}`" in PAGE


def test_links_lead_somewhere() -> None:
    titles = {
        re.sub(r"[^\w -]", "", line.lstrip("# ")).lower().replace(" ", "-")
        for line in PAGE.splitlines()
        if line.startswith("#")
    }
    for anchor in re.findall(r"\]\(#([\w-]+)\)", PAGE):
        assert anchor in titles, anchor
    for page in re.findall(r"\]\((\w+\.md)\)", PAGE):
        assert (Path(__file__).parents[2] / "docs" / page).exists(), page


# The page against the files ----------------------------------------------------------------------


@pytest.fixture
def merged(trio: dict[str, Path], tmp_path: Path) -> Path:
    """A merge of the tiny trio with a profile, and a plan with shares and an operator's setting."""
    profile = safeswap.make_profile(
        trio["base"], safety=trio["safety"], languages={"sw": trio["sw"]}
    )
    profile.save(tmp_path / "profile.json")
    plan = safeswap.make_plan(profile, operator={"name": "ties", "density": 0.5})
    plan.save(tmp_path / "plan.yaml")
    safeswap.merge_plans([plan], tmp_path / "out", profile=profile, figure=False)
    return tmp_path


def test_profile_plan_and_manifest(merged: Path) -> None:
    check_profile(json_of(merged / "profile.json"))
    for path in (merged / "plan.yaml", merged / "out/safeswap-plan.yaml"):
        content = yaml_of(path)
        check_plan(content)
        assert all("shares" in row for name, row in content["units"].items() if ".att" in name)
    found = json_of(merged / "out/safeswap.json")
    holds("Manifest", found)
    check_plan(found["plan"])
    check_profile(found["profile"])
    holds_all("Manifest: output", found["outputs"])
    holds_all("Manifest: tensor", found["tensors"].values())
    assert set(found["versions"]) == {"safeswap", "python", "numpy", "ml_dtypes", "blake3"}
    digest = found.pop("digest")
    found["plan"].pop("profile", None)
    for role, record in found["profile"]["inputs"].items():
        assert record["revision"] is None
        for inputs, key in (("plan", "source"), ("profile", "source"), ("profile", "path")):
            del found[inputs]["inputs"][role][key]
    text = json.dumps(found, sort_keys=True, separators=(",", ":"))
    assert digest == hashlib.sha256(text.encode()).hexdigest()


def test_the_files_of_a_merged_adapter(trio: dict[str, Path], tmp_path: Path) -> None:
    for seed, role in enumerate(("safety", "sw"), 1):
        write_adapter(tmp_path / role, trio["base"], seed)
    given: Any = {"safety": tmp_path / "safety", "languages": {"sw": tmp_path / "sw"}}
    out = tmp_path / "out"
    api.merge(trio["base"], **given, out=out, as_adapter=True, rank=2, method="uniform")
    found = json_of(out / "safeswap.json")
    holds("Manifest", found)
    holds("Manifest: adapter", found["adapter"])
    check_plan(found["plan"])
    check_profile(found["profile"])
    digest = found.pop("digest")
    for record in found["profile"]["inputs"].values():
        del record["source"], record["path"]
        for key in ("source", "path") if "adapter" in record else ():
            del record["adapter"][key]
    for record in found["plan"]["inputs"].values():
        del record["source"]
        record.pop("adapter", None)
    text = json.dumps(found, sort_keys=True, separators=(",", ":"))
    assert digest == hashlib.sha256(text.encode()).hexdigest()


def test_the_digest_of_an_update_is_computed_as_the_page_says(
    trio: dict[str, Path], tmp_path: Path
) -> None:
    write_adapter(tmp_path / "sw", trio["base"], rank=3)
    profile = api.make_profile(
        trio["base"], safety=trio["safety"], languages={"sw": tmp_path / "sw"}
    )
    name = "model.layers.0.mlp.up_proj.weight"
    tensor = next(one for one in profile.tensors if one.name == name)
    factors = load_file(tmp_path / "sw" / "adapter_model.safetensors")
    lines = [
        "safeswap-update/1",
        tensor.digests["base"],
        repr(6 / 3),
        "3",
        "False",
        "1",
        "None",
        "0",
    ]
    for kind in ("lora_A", "lora_B"):
        values = factors[f"base_model.model.model.layers.0.mlp.up_proj.{kind}.weight"]
        chunk = blake3(values.tobytes()).digest()
        lines.append(f"F32 {list(values.shape)} {blake3(chunk).hexdigest()}")
    assert tensor.digests["sw"] == blake3("\n".join(lines).encode()).hexdigest()


def test_digests_are_computed_as_the_page_says(trio: dict[str, Path], merged: Path) -> None:
    """From the bytes, with nothing of safeswap's."""
    profile = json_of(merged / "profile.json")
    known = {tensor["name"]: tensor for tensor in profile["tensors"]}
    told = {}
    for entry in profile["inputs"]["safety"]["files"]:
        raw = (trio["safety"] / entry["name"]).read_bytes()
        length = 8 + int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8:length])
        header.pop("__metadata__", None)
        file = blake3(raw[:length])
        for name, about in sorted(header.items(), key=lambda pair: pair[1]["data_offsets"]):
            begin, end = (length + offset for offset in about["data_offsets"])
            size = (end - begin) // max(1, int(np.prod(about["shape"])))
            grid = range(begin, max(end, begin + 1), 4_194_304 * size)
            chunks = [blake3(raw[at : min(end, at + grid.step)]).digest() for at in grid]
            tensor = blake3(b"".join(chunks))
            file.update(tensor.digest())
            told[name] = f"{name} {about['dtype']} {about['shape']} {tensor.hexdigest()}\n"
            assert known[name]["digests"]["safety"] == tensor.hexdigest()
        assert entry["digest"] == file.hexdigest()
    whole = blake3("".join(told[name] for name in sorted(told)).encode())
    assert profile["inputs"]["safety"]["digest"] == whole.hexdigest()


def test_short_digests_and_splits() -> None:
    text = json.dumps(["é", 1], sort_keys=True, ensure_ascii=False)
    assert store.digest_of(["é", 1]) == blake3(text.encode()).hexdigest(length=16)
    for name in map(str, range(20)):
        first = int.from_bytes(hashlib.sha256(f"3:{name}".encode()).digest()[:8], "big")
        assert Split("dev", 0.4, 3).holds(name) == (first < 0.4 * 2**64)


def test_limits_and_identities() -> None:
    def first(name: str) -> str:
        return hashlib.sha256(f"limit:7:{name}".encode()).hexdigest()

    ids = [str(number) for number in range(20)]
    assert Limit(5, 7).chosen(ids) == set(sorted(ids, key=first)[:5])
    said = hashlib.sha256("où est-ce ?".encode()).hexdigest()
    assert identity_of(" OÙ  est-ce\n?") == said[:12]


def test_staging(tmp_path: Path) -> None:
    staging = Staging(tmp_path / "OUT", "f" * 64)
    staging.note("0:model.norm.weight:0", "copy")
    staging.release()
    place = tmp_path / ".OUT.safeswap-partial"
    (listed,) = re.findall(r"^## Staging folder\n.*?^(\| path.*?)\n\n", PAGE, re.M | re.S)
    paths = set(re.findall(r"^\| `([\w.]+)/?` \|", listed, re.M))
    assert {path.name for path in place.iterdir()} == paths - {_REPLACED} != paths
    holds("Job", json_of(place / "job.json"))
    assert (place / "journal").read_text() == "0:model.norm.weight:0\tcopy\t.\n"


# The small world ---------------------------------------------------------------------------------

WORLD = models_folder()


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search of one trial: results with all kinds of rows, plans, a Pareto set, a study."""
    for module in ("torch", "transformers", "lm_eval", "optuna"):
        pytest.importorskip(module)
    from safeswap.demo.suite import write_suite
    from safeswap.evaluation.backends import BackendOptions
    from safeswap.search.search import run_search

    folder = tmp_path_factory.mktemp("formats")
    write_suite(folder)
    for name, count in (("harm.csv", 12), ("knowledge_qac.csv", 12), ("sums_qac.tsv", 12)):
        whole = (folder / name).read_text(encoding="utf-8").splitlines(keepends=True)
        (folder / name).write_text("".join(whole[:count]), encoding="utf-8")
    benchmarks = yaml_of(folder / "suite.yaml")["benchmarks"]
    asked = {name: benchmarks[name] for name in ("harm", "knowledge", "sums")}
    (folder / "suite.yaml").write_text(yaml.safe_dump({"benchmarks": asked}))
    content = {
        **{role: str(WORLD / role) for role in ("base", "safety")},
        "languages": {"qac": str(WORLD / "qac")},
        "suite": "suite.yaml",
        "judge": "rule:rules.yaml",
        "split": {"fraction": 0.5, "seed": 0},
        "choose": {"loss": 100, "refused": 100},
        "max_new_tokens": 3,
        "harness_tokens": 3,
        "start": [{"method": "share-difference", "tau": [9, 10]}],
        "space": {"weights": "convex", "high": 1.0, "step": 0.5},
    }
    (folder / "search.yaml").write_text(yaml.safe_dump(content))
    holds("Search file", {k: v for k, v in content.items() if k in KEYS["Search file"]})
    holds("Search file: space", content["space"])
    holds("Sweep file", set(content) - set(KEYS["Search file"]) | {"grid"})
    options = BackendOptions(dtype="float32", device="cpu")
    read = search_config.read_search(folder / "search.yaml", "kind")
    run_search(read, folder / "r", trials=1, options=options)
    return folder


def test_folder_of_a_search(searched: Path) -> None:
    made = searched / "r"
    check_profile(json_of(made / "profile.json"))
    check_plan(chosen_plan := yaml_of(made / "chosen-qac.yaml"))
    assert "chosen" in chosen_plan
    found = json_of(made / "pareto/qac/pareto.json")
    holds("Pareto", found)
    holds("Split", found["split"])
    holds("Pareto: space", found["space"])
    for one in found["candidates"]:
        holds("Pareto: candidate", one)
        check_plan(yaml_of(made / "pareto/qac" / one["plan"]))
        rates = [one[key] for key in ("unsafe", "refused", "right") if one[key] is not None]
        holds_all("Pareto: rate", rates)
    known = {"profile.json", "dev", "test", "chosen-qac.yaml", "pareto", "search.db", "workers"}
    assert {path.name for path in made.iterdir()} == known


def test_optuna_study(searched: Path) -> None:
    optuna = pytest.importorskip("optuna")
    url = f"sqlite:///{searched / 'r/search.db'}"
    (summary,) = optuna.get_all_study_summaries(url)
    assert re.fullmatch(r"safeswap qac [0-9a-f]{16}", summary.study_name)
    study = optuna.load_study(study_name=summary.study_name, storage=url)
    for key, candidate in study.user_attrs.items():
        assert re.fullmatch(r"table:[0-9a-f]{32}", key)
        holds("Pareto: candidate", candidate)
    for trial in study.trials:
        holds("Optuna study", trial.user_attrs)
        assert all(re.fullmatch(r"\w+:safety", name) for name in trial.params)
    assert any("start" in trial.user_attrs for trial in study.trials)


def check_settings(content: Mapping[str, Any]) -> None:
    holds("Settings", content)
    holds("Settings: generation", content["generation"])
    if "limit" in content:
        holds("Settings: limit", content["limit"])
    holds_all("Settings: cell", content["cells"].values())
    if "split" in content:
        holds("Split", content["split"])


def check_model(content: Mapping[str, Any]) -> None:
    holds("Model", content)
    if "candidate" in content:
        holds("Candidate", content["candidate"])
        holds("Candidate: operator", content["candidate"]["operator"])
        for alias in content["candidate"]["aliases"]:
            holds("Candidate: alias", alias)


def test_results_folder(searched: Path) -> None:
    results = searched / "r/dev/qac"
    check_settings(json_of(results / "settings.json"))
    models = [path.parent for path in results.glob("*/model.json")]
    records = [json_of(model / "model.json") for model in models]
    assert any(record.get("candidate", {}).get("aliases") for record in records)
    for model, record in zip(models, records, strict=True):
        check_model(record)
        holds_all("Responses", lines_of(model / "responses.jsonl"))
        holds_all("Verdicts", lines_of(model / "verdicts/rule-rules.jsonl"))
        holds("Judge", json_of(model / "verdicts/rule-rules.json"))
        scores = lines_of(model / "scores.jsonl")
        holds_all("Scores", [row for row in scores if "benchmark" in row])
        holds_all("Scores: done", [row for row in scores if "benchmark" not in row])
        holds_all("Requests", lines_of(model / "requests.jsonl"))


def test_majority(searched: Path) -> None:
    results = store.open_results(searched / "r/dev/qac")
    for last in ("c", "d"):
        majority.define_majority(results, MajorityJudge(["rule-rules", "b", last]), overwrite=True)
    content = json_of(results.folder / majority.MAJORITY_FILE)
    holds("Majority", content)
    holds_all("Majority: earlier", content["earlier"])
    (results.folder / majority.MAJORITY_FILE).unlink()


def test_annotation_sheet(searched: Path, tmp_path: Path) -> None:
    from safeswap.evaluation import pipeline

    key, _ = pipeline.annotate(searched / "r/dev/qac", tmp_path / "sheet.csv", 12)
    raw = (tmp_path / "sheet.csv").read_bytes()
    assert raw.startswith(b"\xef\xbb\xbf") and b"\r\n" in raw
    head = next(csv.reader(io.StringIO(raw.decode("utf-8-sig"), newline="")))
    assert head == list(KEYS["Sheet"])
    content = json_of(key)
    assert key.name == "sheet.csv.key.json"
    holds("Key", content)
    holds_all("Key: stratum", content["strata"].values())
    holds_all("Key: row", content["rows"].values())


def test_sweep_file() -> None:
    content = yaml.safe_load(sweep_config.__doc__.split("::\n\n")[1].split("\n\n")[0])  # type: ignore[union-attr]
    holds("Sweep file", content)
    holds("Sweep file: split", content["split"])
    holds("Sweep file: choose", content["choose"])
    for entry in content["grid"]:
        holds("Sweep file: entry", {key for key in entry if key in ("method", "operator")})


def test_gram_folder(tmp_path: Path) -> None:
    for module in ("torch", "transformers"):
        pytest.importorskip(module)
    (tmp_path / "texts.txt").write_text("qa qi\nqo qu\n")
    safeswap.calibrate(
        WORLD / "base",
        safety=WORLD / "safety",
        languages={"qab": WORLD / "qab"},
        texts=dict.fromkeys(("safety", "qab"), tmp_path / "texts.txt"),
        out=tmp_path / "grams",
    )
    content = json_of(tmp_path / "grams/grams.json")
    holds("Gram folder", content)
    holds_all("Gram folder: expert", content["experts"].values())
    for role, expert in content["experts"].items():
        holds("Gram folder: texts", expert["texts"])
        holds("Gram folder: settings", expert["settings"])
        holds_all("Gram folder: tensor", expert["tensors"].values())
        assert set(expert["backend"]) <= set(KEYS["Model"])
        with safe_open(tmp_path / f"grams/{role}.safetensors", "numpy") as file:
            assert not file.metadata()
            assert {row["gram"] for row in expert["tensors"].values()} == set(file.keys())
            for row in expert["tensors"].values():
                matrix = file.get_tensor(row["gram"])
                assert matrix.dtype == np.float32
                assert row["digest"] == blake3(matrix.tobytes()).hexdigest()


def test_every_table_is_held_against_a_file() -> None:
    """By this file's own text: its tests may run in several processes."""
    source = Path(__file__).read_text(encoding="utf-8")
    for title in KEYS:
        assert f'"{title}"' in source, title


def test_an_attribution(tmp_path: Path) -> None:
    make_attribution().save(tmp_path / "attribution.json")
    content = json_of(tmp_path / "attribution.json")
    holds("Attribution", content)
    sides = (content[side] for side in ("before", "after"))
    holds_all("Attribution: readouts", (*sides, *content["units"].values()))


def test_folder_of_a_fit(tmp_path: Path) -> None:
    from safeswap.demo.documents import language_documents, safety_documents
    from safeswap.demo.world import default_world
    from safeswap.evaluation.backends import BackendOptions
    from safeswap.search.fit import FitSettings

    world, models = default_world(), models_folder()
    refusals = (one for one in safety_documents(world, 1) if world.is_refusal(one.response))
    chats = (one for one in language_documents(world, "qac", 1) if one.prompt)
    for name, documents in (("refusals", refusals), ("chats", chats)):
        rows = [{"prompt": one.prompt, "response": one.response} for one in islice(documents, 8)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    api.fit(
        models / "base",
        safety=models / "safety",
        languages={"qac": models / "qac"},
        harmful=tmp_path / "refusals.jsonl",
        harmless={"qac": tmp_path / "chats.jsonl"},
        out=tmp_path / "out",
        settings=FitSettings(steps=1, batch=2),
        options=BackendOptions(dtype="float32", device="cpu"),
        force=True,
    )
    made = tmp_path / "out"
    assert {path.name for path in made.iterdir()} - {".lock"} == {
        "profile.json",
        "qac.yaml",
        "qac.json",
    }
    content = json_of(made / "qac.json")
    holds("Fit", content)
    holds("Fit: held", content["held"])
    holds_all("Fit: reading", (content["held"][side] for side in ("before", "after")))
    holds_all("Fit: step", content["steps"])
    check_plan(yaml_of(made / "qac.yaml"))


def test_file_of_a_diagnosis(tmp_path: Path) -> None:
    from safeswap.demo.documents import Document, language_documents, safety_documents
    from safeswap.demo.world import default_world
    from safeswap.evaluation.backends import BackendOptions

    world, models = default_world(), models_folder()
    english = [*islice(safety_documents(world, 1), 60)]
    trained = (item for item in world.items if item.safety_trained)
    documents = {
        "bad": (one for one in english if world.is_refusal(one.response)),
        "good": (one for one in english if not world.is_refusal(one.response)),
        "own": (Document(world.request("qac", i, 0), world.refusal("qac", 0, i)) for i in trained),
        "chats": (one for one in language_documents(world, "qac", 1) if one.prompt),
    }
    for name, every in documents.items():
        rows = [{"prompt": one.prompt, "response": one.response} for one in islice(every, 8)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    api.diagnose(
        models / "base",
        safety=models / "safety",
        languages={"qac": models / "qac"},
        harmful={"safety": tmp_path / "bad.jsonl", "qac": tmp_path / "own.jsonl"},
        harmless={"safety": tmp_path / "good.jsonl", "qac": tmp_path / "chats.jsonl"},
        out=tmp_path / "diagnosis.json",
        options=BackendOptions(dtype="float32", device="cpu"),
        force=True,
    )
    content = json_of(tmp_path / "diagnosis.json")
    holds("Diagnosis", content)
    one = content["languages"]["qac"]
    holds("Diagnosis: language", one)
    holds_all("Diagnosis: reason", one["reasons"])
    holds_all("Diagnosis: layer", one["layers"])
    holds_all("Diagnosis: estimate", (layer["transfer"] for layer in one["layers"]))
    holds("Diagnosis: spelling", one["spelling"])
    holds_all("Diagnosis: refusing", one["refusing"])
    holds("Diagnosis: knowledge", one["knowledge"])
    holds_all("Diagnosis: unit", one["units"])
