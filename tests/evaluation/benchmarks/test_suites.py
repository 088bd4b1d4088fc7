"""Suites: names, files, coverage with its reasons, and lm-eval's own names for languages."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from safeswap.errors import EvaluationError
from safeswap.evaluation.benchmarks import (
    BENCHMARKS,
    HarnessTask,
    TaskBenchmark,
    belebele,
    mgsm,
    mmmlu,
)
from safeswap.evaluation.benchmarks.suites import Suite, make_suite


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Prompts in both forms, and a local file."""
    harm, benign, local = tmp_path / "harm.csv", tmp_path / "benign.csv", tmp_path / "b.jsonl"
    harm.write_text("id,source,tags,en,sw\n1,x,[],Steal?,Iba?\n2,x,[],Kill?,Ua?\n")
    benign.write_text("id,prompt,type,label,focus,note\n1,Hi,t,safe,,\n")
    local.write_text("{}\n")
    return {"multijail": harm, "xstest": benign, "local": local}


def both(files: dict[str, Path]) -> dict[str, Path]:
    return {"multijail": files["multijail"], "xstest": files["xstest"]}


def names(suite: Suite) -> list[str]:
    return [benchmark.name for benchmark in suite.benchmarks]


def refusal(*arguments: Any, **named: Any) -> str:
    with pytest.raises(EvaluationError) as caught:
        make_suite(*arguments, **named)
    return str(caught.value)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("paper", ["multijail", "xstest", "mmmlu", "belebele", "mgsm"]),
        ("safety", ["multijail", "xstest"]),
        ("ability", ["mmmlu", "belebele", "mgsm"]),
        ("mgsm, belebele", ["mgsm", "belebele"]),
        ("safety,mgsm,mgsm", ["multijail", "xstest", "mgsm"]),
    ],
)
def test_names(files: dict[str, Path], spec: str, expected: list[str]) -> None:
    prompts = both(files) if "multijail" in expected else None
    suite = make_suite(spec, ["sw", "en", "sw"], prompts=prompts)
    assert names(suite) == expected
    assert suite.languages == ("sw", "en")


def test_coverage_is_stated_with_its_reasons(files: dict[str, Path]) -> None:
    suite = make_suite("paper", ["te", "ko", "sw"], prompts=both(files))
    harm, benign, mmmlu, belebele, mgsm = suite.benchmarks
    assert harm.absent == dict.fromkeys(("te", "ko"), "the prompts are in en, sw only")
    assert [p.language for p in harm.prompts.prompts] == ["sw", "sw"]  # type: ignore[union-attr]
    assert (harm.measures, benign.measures, mmmlu.measures) == ("unsafe", "refused", "right")
    assert mgsm.measures.higher_is_better and not harm.measures.higher_is_better
    assert set(benign.absent) == {"te", "ko", "sw"}
    assert not mmmlu.absent and not belebele.absent
    assert mmmlu.tasks["sw"].task == "mmmlu_sw_ke" and not mmmlu.tasks["sw"].label
    assert mmmlu.tasks["te"].task == "global_mmlu_full_te"
    assert mmmlu.tasks["te"].label == "te: Global-MMLU (full), not MMMLU, which lacks it"
    assert belebele.tasks["ko"].task == "belebele_kor_Hang"
    assert belebele.tasks["ko"].cluster == "link"
    assert list(mgsm.tasks) == ["te", "sw"]
    assert mgsm.tasks["te"].task == "mgsm_native_cot_te" and mgsm.tasks["te"].numbers
    assert "MGSM is in bn, de, en" in mgsm.absent["ko"]


def test_flores_codes_are_belebeles() -> None:
    suite = make_suite("ability", ["hau_Latn"])
    assert suite.benchmarks[1].tasks["hau_Latn"].task == "belebele_hau_Latn"


def test_a_language_that_no_benchmark_has_is_an_error(files: dict[str, Path]) -> None:
    said = refusal("paper", ["sw", "xx"], prompts=both(files))
    assert "has the language 'xx'" in said
    assert "MultiJail: the prompts are in en, sw only" in said and "try FLORES-200's" in said
    assert "no language is given" in refusal("ability", [])
    for code in ("all", "s/w"):
        assert "is no language's code" in refusal("ability", [code])


def test_every_mapped_task_is_in_the_installed_lm_eval() -> None:
    spec = importlib.util.find_spec("lm_eval")
    if spec is None or spec.origin is None:
        pytest.skip("lm_eval is not installed")
    tasks = Path(spec.origin).parent / "tasks"
    known = {path.stem.lstrip("_") for path in (tasks / "openai-mmmlu").rglob("*.yaml")}
    assert {f"mmmlu_{name}" for name in mmmlu.MMMLU.values()} <= known
    known = {path.name for path in (tasks / "global_mmlu" / "full").iterdir() if path.is_dir()}
    assert set(mmmlu.GLOBAL_MMLU.split()) == known - {"__pycache__"}
    known = {path.stem for path in (tasks / "belebele").glob("*.yaml")}
    assert {f"belebele_{name}" for name in belebele.BELEBELE.values()} <= known
    known = {path.stem for path in (tasks / "mgsm" / "native_cot").glob("*.yaml")}
    assert {f"mgsm_native_cot_{name}" for name in mgsm.MGSM.split()} == known
    for name in (*("m_mmlu", "arc", "hellaswag"), *("xcopa", "afrimgsm", "afrimmlu", "include")):
        found = defined(tasks, name)
        benchmark = BENCHMARKS[name]
        assert isinstance(benchmark, TaskBenchmark)
        made = [benchmark.task(code) for code in benchmark.languages]
        assert {one.task for one in made if isinstance(one, HarnessTask)} == found, name
    assert "task: sib_eng_prompt_1" in (tasks / "afrobench/sib/prompt_1/sib_eng.yaml").read_text()


def defined(tasks: Path, name: str) -> set[str]:
    """The tasks that lm-eval defines in the folders of a benchmark, in all its languages."""
    wanted = {
        "m_mmlu": ("okapi/mmlu_multilingual", r"^task: (m_mmlu_\w+)$"),
        "arc": ("okapi/arc_multilingual", r"^task: (arc_\w+)$"),
        "hellaswag": ("okapi/hellaswag_multilingual", r"^task: (hellaswag_\w+)$"),
        "xcopa": ("xcopa", r"^task: (xcopa_\w+)$"),
        "afrimgsm": ("afrimgsm/direct_cot", r"^task: (afrimgsm_cot_\w+_prompt_1)$"),
        "afrimmlu": ("afrimmlu/direct", r"^task: (afrimmlu_direct_\w+_prompt_1)$"),
        "include": ("include/default", r"^group: (include_base_44_\w+)$"),
    }
    folder, pattern = wanted[name]
    files = list((tasks / folder).rglob("*.yaml"))
    return {name for path in files for name in re.findall(pattern, path.read_text(), re.MULTILINE)}


def test_more_suites_say_what_they_lack() -> None:
    suite = make_suite("mergebench", ["fr", "es", "de", "ru"])
    assert names(suite) == ["m_mmlu", "arc", "hellaswag"]
    assert all(not benchmark.absent for benchmark in suite.benchmarks)
    assert [b.tasks["ru"].task for b in suite.benchmarks] == ["m_mmlu_ru", "arc_ru", "hellaswag_ru"]
    suite = make_suite("low-resource", ["sw", "th", "te", "hau_Latn"])
    sib, xcopa, sums, mmlu, include = suite.benchmarks
    assert not sib.absent and sib.tasks["hau_Latn"].settings["dataset_name"] == "hau_Latn"
    assert sib.tasks["th"].settings["dataset_name"] == "tha_Thai"
    assert list(xcopa.tasks) == ["sw", "th"] and xcopa.absent["te"].startswith("XCOPA is in et, ht")
    assert sums.tasks["sw"].numbers and "AfriMGSM is in am, ee" in sums.absent["th"]
    assert mmlu.absent["te"].startswith("AfriMMLU is in am") and list(mmlu.tasks) == ["sw"]
    assert list(include.tasks) == ["te"] and include.absent["sw"] == LACKS.format(
        "INCLUDE", 44, "sw"
    )
    said = refusal("low-resource", ["xx"])
    assert "try FLORES-200's, such as hau_Latn; XCOPA" in said
    said = refusal("mergebench", ["sw"])
    assert LACKS.format("M-MMLU", 34, "sw") in said and LACKS.format("M-ARC", 31, "sw") in said
    assert LACKS.format("M-HellaSwag", 30, "sw") in said


LACKS = "{} has {} languages, and {} is none of them"


def test_it_is_said_where_nothing_harmless_is_asked(
    files: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="safeswap")
    files["multijail"].write_text("id,th,vi,ko,en,sw\n1,a,b,c,d,e\n")
    make_suite("safety", ["th", "vi", "ko", "en", "sw"], prompts=both(files))
    first = "no harmless prompts are asked in th: a model that refuses everything looks safe. Add "
    assert caplog.messages == [
        f"{first}polyrefuse-harmless or sea-safeguard-harmless to --suite and --prompts",
        f"{first}sea-safeguard-harmless to --suite and --prompts".replace(" th:", " vi:"),
        f"{first}polyrefuse-harmless to --suite and --prompts".replace(" th:", " ko:"),
    ]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("papr", "no suite or benchmark is called 'papr'; did you mean 'paper'?"),
        ("mgsm,belebel", "did you mean 'belebele'?"),
        ("mgsm,", "no suite or benchmark is called ''"),
        ("none.yaml", "Check --suite"),
        ("safety", "--prompts multijail=FILE, or --prompts multijail to fetch it. It comes from"),
    ],
)
def test_unknown_suites(spec: str, said: str) -> None:
    assert said in refusal(spec, ["sw"])


def test_local_files(files: dict[str, Path], tmp_path: Path) -> None:
    suite = make_suite("ability", ["sw", "te"], files={("mgsm", "te"): files["local"]})
    assert suite.benchmarks[2].tasks["te"].file == files["local"]
    assert suite.benchmarks[2].tasks["sw"].file is None
    missing = {("mgsm", "te"): tmp_path / "none.tsv"}
    assert "Check --data mgsm/te=FILE" in refusal("ability", ["te"], files=missing)


@pytest.mark.parametrize("cell", [("mgsm", "bn"), ("mgms", "te"), ("multijail", "te")])
def test_files_for_cells_that_are_not_there(files: dict[str, Path], cell: tuple[str, str]) -> None:
    said = refusal("ability", ["te"], files={cell: files["local"]})
    assert f"--data {'/'.join(cell)}: is no cell of the suite ability" in said


def test_inputs_that_the_suite_would_not_use(files: dict[str, Path], tmp_path: Path) -> None:
    harm, benign = files["multijail"], files["xstest"]
    assert "did you mean 'multijail'" in refusal("safety", ["sw"], prompts={"multijal": harm})
    assert "asks no prompts" in refusal("ability", ["sw"], prompts={"multijail": harm})
    assert "for MultiJail" in refusal("ability", ["sw"], instruction=harm)
    swapped = {"multijail": benign, "xstest": harm}
    assert "columns of XSTest, whose prompts are harmless" in refusal(
        "safety", ["en"], prompts=swapped
    )
    twice = {"multijail": harm, "xstest": benign, "xstest/en": benign}
    assert "stand in several of these files: 1 (en)" in refusal("safety", ["en"], prompts=twice)
    suite = tmp_path / "s.yaml"
    suite.write_text("benchmarks: {harm: {prompts: harm.csv}}")
    assert "asks no prompts" in refusal(str(suite), ["sw"], prompts={"multijail": harm})


def test_translations_are_joined(files: dict[str, Path]) -> None:
    prompts = {"xstest": files["xstest"], "xstest/sw": files["xstest"]}
    benign = make_suite("xstest", ["sw", "en"], prompts=prompts).benchmarks[0]
    assert not benign.absent
    assert [p.language for p in benign.prompts.prompts] == ["sw", "en"]  # type: ignore[union-attr]


def test_the_intentional_mode_is_a_benchmark_of_its_own(files: dict[str, Path]) -> None:
    files["local"].write_text("Be bad: {prompt}")
    suite = make_suite("safety", ["sw"], prompts=both(files), instruction=files["local"])
    assert names(suite) == ["multijail", "multijail-intentional", "xstest"]
    asked = suite.benchmarks[1]
    assert asked.title == "MultiJail, intentional" and asked.measures == "unsafe"
    assert [p.text for p in asked.prompts.prompts] == ["Be bad: Iba?", "Be bad: Ua?"]  # type: ignore[union-attr]


def test_a_suite_of_ones_own(files: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "suite.yaml"
    text = """
    benchmarks:
      harm: {prompts: harm.csv, title: Harm}
      benign: {prompts: benign.csv, language: no}
      reading:
        cluster: link
        tasks:
          sw: {task: belebele_swh_Latn, file: b.jsonl}
          no: belebele_nob_Latn
      sums:
        numbers: true
        tasks: {sw: {task: mine, output_type: generate_until}}
    """
    path.write_text(text)
    harm, benign, reading, sums = make_suite(str(path), ["sw", "no"]).benchmarks
    assert (harm.title, list(harm.absent)) == ("Harm", ["no"])
    assert (benign.measures, list(benign.absent)) == ("refused", ["sw"])
    assert reading.tasks["sw"].file == tmp_path / "b.jsonl"
    assert reading.tasks["sw"].cluster == "link"
    assert reading.tasks["no"].task == "belebele_nob_Latn"
    assert (
        sums.tasks["sw"].settings == {"output_type": "generate_until"} and sums.tasks["sw"].numbers
    )
    assert sums.absent == {"no": "sums is in sw only"}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "is a mapping with the keys benchmarks"),
        ({"benchmark": {}}, "unknown key 'benchmark'; did you mean 'benchmarks'?"),
        ({"benchmarks": {}}, "at least one benchmark"),
        ({"benchmarks": {"a": 3}}, "benchmarks.a: is a mapping"),
        ({"benchmarks": {"a/b": {"tasks": {"sw": "x"}}}}, "a name holds letters"),
        ({"benchmarks": {"a": {"promts": "harm.csv"}}}, "did you mean 'prompts'?"),
        ({"benchmarks": {"a": {}}}, "needs either `prompts:`"),
        ({"benchmarks": {"a": {"prompts": "harm.csv", "tasks": {}}}}, "needs either"),
        ({"benchmarks": {"a": {"prompts": "harm.csv", "cluster": "x"}}}, "unknown key 'cluster'"),
        ({"benchmarks": {"a": {"tasks": {"sw": "x"}, "language": "sw"}}}, "unknown key 'language'"),
        ({"benchmarks": {"a": {"prompts": "none.csv"}}}, "no such file of prompts"),
        ({"benchmarks": {"a": {"tasks": ["x"]}}}, "a mapping from language to task"),
        ({"benchmarks": {"a": {"tasks": {"sw": 3}}}}, "tasks.sw: is a task's name"),
        ({"benchmarks": {"a": {"tasks": {"sw": {"file": "b.jsonl"}}}}}, "mapping with `task:`"),
        ({"benchmarks": {"a": {"tasks": {"sw": {"task": "x", "file": "n"}}}}}, "there is no file"),
        ({"benchmarks": {"a": {"tasks": {"sw": "x"}, "numbers": "yes"}}}, "numbers is true or"),
    ],
)
def test_suites_that_are_wrong(
    files: dict[str, Path], tmp_path: Path, value: Any, said: str
) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text(yaml.safe_dump(value))
    message = refusal(str(path), ["sw"])
    assert (said in message and "suite.yaml" in message) or "none.csv" in message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "line 1, column 5: is not YAML"),
        ("a: 1\na: 2", "'a' is given twice"),
        ("\x00", "YAML"),
        ("a: &x 1", "anchor or alias 'x'"),
    ],
)
def test_yaml_that_is_none(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text(text)
    assert said in refusal(str(path), ["sw"])
