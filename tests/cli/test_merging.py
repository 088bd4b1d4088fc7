"""The command line: every verb as a user types it, and what it says when something is wrong."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from safetensors.numpy import load_file

import safeswap
from safeswap.cli import main
from safeswap.io.progress import shown_bytes
from tiny import digest_of, png_size

VERBS = ("profile", "plan", "merge", "show", "verify", "demo")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def done(*arguments: object) -> str:
    """The output of a command that works."""
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


def fails(status: int, *arguments: object) -> str:
    """What a command says on stderr that exits with `status`; never a traceback."""
    result = run(*arguments)
    assert result.exit_code == status, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result.stderr


def experts(trio: dict[str, Path]) -> list[object]:
    return [trio["base"], "--safety", trio["safety"], "--language", f"sw={trio['sw']}"]


@pytest.fixture
def profile(trio: dict[str, Path], tmp_path: Path) -> Path:
    done("profile", *experts(trio), "-o", tmp_path / "profile.json")
    return tmp_path / "profile.json"


@pytest.fixture
def plan(profile: Path, tmp_path: Path) -> Path:
    done("plan", profile, "-o", tmp_path / "plan.yaml")
    return tmp_path / "plan.yaml"


def test_step_by_step_equals_everything_in_one_go(trio: dict[str, Path], tmp_path: Path) -> None:
    said = done("profile", *experts(trio), "-o", tmp_path / "p.json", "--workers", 1, "--quiet")
    assert "p.json: 21 tensors in 9 units" in said
    said = done("plan", tmp_path / "p.json", "--by", "layer", "--tau", "0.01", "--alpha", "0.3",
                "-o", tmp_path / "plan.yaml")  # fmt: skip
    assert "plan.yaml: embeddings: 1 blend" in said
    said = done("merge", "--plan", tmp_path / "plan.yaml", "--out", tmp_path / "a", "--no-figure")
    assert re.search(r"a: 13 kB; modules: .*; config and tokenizer from sw", said)
    options = ["--by", "layer", "--tau", "0.01", "--alpha", "0.3", "--no-figure"]
    done("merge", *experts(trio), "--out", tmp_path / "b", *options)
    one, two = digest_of(tmp_path / "a"), digest_of(tmp_path / "b")
    weights = [name for name in one if name.endswith(".safetensors")]
    assert len(weights) == 2 and all(one[name] == two[name] for name in weights)
    said = done("verify", tmp_path / "a")
    assert "21 tensors" in said and "computed again from the inputs: all equal" in said
    assert "edited" not in said
    assert "compared by digest only" in done("verify", tmp_path / "a", "--without-inputs")


def test_several_languages_go_into_folders(trio: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    done("merge", *experts(trio), "--language", f"te={trio['te']}", "--out", out)
    for role in ("sw", "te"):
        assert safeswap.verify_merge(out / role).from_inputs
        assert png_size(out / role / "safeswap.png")[0] >= 1000
    done("profile", *experts(trio), "--language", f"te={trio['te']}", "-o", tmp_path / "p.json")
    assert "choose one" in fails(1, "plan", tmp_path / "p.json", "-o", tmp_path / "te.yaml")
    done("plan", tmp_path / "p.json", "--only", "te", "-o", tmp_path / "te.yaml")
    done("merge", "--plan", tmp_path / "te.yaml", "--out", tmp_path / "te", "--no-figure")
    shards = {name: d for name, d in digest_of(out / "te").items() if name.endswith("tensors")}
    assert shards.items() <= digest_of(tmp_path / "te").items()


def test_an_edited_plan_is_carried_out_and_named_so(plan: Path, tmp_path: Path) -> None:
    text = plan.read_text()
    edited = re.sub(r"(  0\.mlp: .*?)safety: [0-9.]+, sw: [0-9.]+", r"\1safety: 0.0, sw: 0.0", text)
    assert edited != text
    plan.write_text(edited)
    done("merge", "--plan", plan, "--out", tmp_path / "out", "--no-figure")
    assert "weights edited by hand in 1 unit: 0.mlp" in done("verify", tmp_path / "out")
    name = "model.layers.0.mlp.up_proj.weight"
    base, out = (
        {n: w for file in folder.glob("*.safetensors") for n, w in load_file(file).items()}
        for folder in (tmp_path / "trio/base", tmp_path / "out")
    )
    assert (base[name] == out[name]).all()


@pytest.mark.parametrize("absolute", [False, True])
def test_a_plans_profile_lies_where_the_plan_says_whatever_the_folder(
    plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, absolute: bool
) -> None:
    content = plan.read_text()
    place = re.search(r"^profile: (.*)$", content, re.MULTILINE)
    assert place is not None
    if not absolute:
        plan.write_text(content.replace(place[0], "profile: profile.json"))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "profile.json").write_text("not this one")
    monkeypatch.chdir(tmp_path / "elsewhere")

    def measured(*given: object, **named: object) -> None:
        raise AssertionError("weights were measured again")

    monkeypatch.setattr("safeswap.merge.run.measure_family", measured)
    done("merge", "--plan", plan, "--out", tmp_path / "out", "--no-figure")


def test_options_reach_the_plan(profile: Path, tmp_path: Path) -> None:
    out = tmp_path / "plan.yaml"
    done("plan", profile, "-o", out, "--tau-relative", "0.25", "--norms", "blend",
         "--outside", "base", "--donor", "safety")  # fmt: skip
    made = safeswap.Plan.load(out)
    assert made.selector["tau"] == 0.25 and made.selector["tau_relative"] is True
    assert made.donor == "safety"
    assert made.units["embeddings"].decision == "base" and made.units["0.norms"].decision == "blend"


def test_show_prints_each_kind_of_file_and_draws_it(
    profile: Path, plan: Path, tmp_path: Path
) -> None:
    done("merge", "--plan", plan, "--out", tmp_path / "out", "--no-figure")
    for path in (profile, plan, tmp_path / "out", tmp_path / "out/safeswap.json"):
        png = tmp_path / "drawn.png"
        said = done("show", path, "--png", png)
        assert "0.attention" in said and "1.mlp" in said and "%" in said
        assert f"{png.name}: drawn" in said.replace("\n", "")
        width, height = png_size(png)
        assert width >= 1000 and height >= 900
        png.unlink()


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help(verb: str) -> None:
    said = done(*([verb] if verb else []), "--help")
    assert said.startswith("Usage: ") and said == done(*([verb] if verb else []), "-h")
    if not verb:
        assert all(re.search(rf"^  {name} ", said, re.MULTILINE) for name in VERBS)


def test_version() -> None:
    assert safeswap.__version__ in done("--version")


@pytest.mark.parametrize("text", ["1%", "1 points", "0.01", "1e-2", " 1 %"])
def test_tau_is_typed_as_it_is_read(text: str) -> None:
    from safeswap.cli.options import Share
    from safeswap.selectors import find

    assert Share().convert(text, None, None) == 0.01
    (tau,) = (one for one in find("share-difference").parameters if one.name == "tau")
    assert tau.parse(text, "--tau") == 0.01
    assert "0.1% or 0.001, the default" in " ".join(done("methods", "share-difference").split())


@pytest.mark.parametrize("text", ["%", "1%%", "one point", "true%", "1 point 2"])
def test_what_is_no_share_is_refused(text: str) -> None:
    assert "is not a valid float" in fails(2, "plan", "p.json", "--tau", text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["merg"], "Did you mean 'merge'?"),
        (["merge", "--outt", "x"], "Did you mean one of: '--out'"),
        (["merge", "--language"], "requires an argument"),
        (["merge", "base"], "Missing option '-o' / '--out'"),
        (["profile"], "Missing argument 'BASE'"),
        (["plan", "p.json", "--tau", "much"], "'much' is not a valid float"),
        (["verify", "out", "--workers", "0"], "0 is not in the range"),
    ],
)
def test_usage_errors_exit_with_2(arguments: list[str], message: str) -> None:
    assert message in fails(2, *arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--language", "sw=LANGUAGE"], "the safety expert is missing: add --safety"),
        (["--safety", "SAFETY"], "no language expert is given: add --language NAME=CHECKPOINT"),
        (["--safety", "SAFETY", "--language", "LANGUAGE"], "must be NAME=CHECKPOINT, e.g. sw="),
        (["--safety", "SAFETY", "--language", "sw="], "must be NAME=CHECKPOINT"),
        (["--safety", "SAFETY", "--language", "base=LANGUAGE"], "'base' is not valid"),
        (["--safety", "SAFETY", "--language", "../sw=LANGUAGE"], "'../sw' is not valid"),
        (["--safety", "SAFETY", "--language", "=LANGUAGE"], "'' is not valid"),
        (["--safety", "SAFETY", "--language", "sw=a", "--language", "sw=b"], "sw is given twice"),
        (["ALL", "--tau", "0.1", "--tau-relative", "0.1"], "exclude each other"),
        (["ALL", "--by", "modul"], "--by 'modul' is unknown; did you mean 'module'?"),
        (["ALL", "--tau", "nan"], "--tau nan is not valid"),
        (["ALL", "--alpha", "2"], "--alpha 2.0 is not valid: it must be from 0 to 1"),
        (["ALL", "--norms", "langage"], "did you mean 'language'?"),
        (["ALL", "--outside", "saftey"], "did you mean 'safety'?"),
        (["ALL", "--donor", "te"], "--donor 'te' is unknown"),
        (["ALL", "--save-dtype", "bfloat"], "did you mean 'bfloat16'?"),
        (["ALL", "--shard-size", "big"], "--shard-size 'big' is not a size"),
    ],
)
def test_what_is_refused_exits_with_1_before_weights_are_read(
    trio: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    def measured(*given: object, **named: object) -> None:
        raise AssertionError("weights were read")

    monkeypatch.setattr("safeswap.merge.run.measure_family", measured)
    given = {"SAFETY": str(trio["safety"]), "LANGUAGE": str(trio["sw"])}
    words: list[str] = []
    for word in arguments:
        whole = ["--safety", given["SAFETY"], "--language", f"sw={given['LANGUAGE']}"]
        words += (
            whole if word == "ALL" else [re.sub("SAFETY|LANGUAGE", lambda m: given[m[0]], word)]
        )
    said = fails(1, "merge", trio["base"], *words, "--out", tmp_path / "out")
    assert said.startswith("Error: ") and message in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--tau", "0.1"], "--tau"),
        (["--tau-relative", "0.1"], "--tau-relative"),
        (["--by", "layer"], "--by"),
        (["--alpha", "0.4"], "--alpha"),
        (["--norms", "blend"], "--norms"),
        (["--outside", "base"], "--outside"),
        (["--donor", "sw"], "--donor"),
        (["--safety", "x"], "BASE and the experts"),
        (["x"], "BASE and the experts"),
    ],
)
def test_a_plan_excludes_the_options_that_make_one(
    plan: Path, tmp_path: Path, options: list[str], named: str
) -> None:
    said = fails(1, "merge", "--plan", plan, *options, "--out", tmp_path / "out")
    assert f"with --plan, {named} come from the plan" in said
    assert not (tmp_path / "out").exists()


def test_merge_without_base_or_plan(tmp_path: Path) -> None:
    said = fails(1, "merge", "--out", tmp_path / "out")
    assert "give BASE with --safety and --language, or a --plan" in said


def test_an_output_that_exists_is_refused(trio: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    assert "out" in fails(1, "merge", *experts(trio), "--out", tmp_path / "out")
    assert digest_of(tmp_path / "out").keys() == {"mine.txt"}


def test_files_that_are_not_there_or_not_ours(profile: Path, plan: Path, tmp_path: Path) -> None:
    assert "cannot be read" in fails(1, "show", tmp_path / "none.yaml")
    assert "cannot be read" in fails(1, "show", tmp_path / "none.json")
    assert "safeswap did not make it" in fails(1, "show", tmp_path / "trio/base")
    assert "safeswap did not make it" in fails(1, "verify", tmp_path / "trio/base")
    assert "is not a safeswap-profile/1 file" in fails(
        1, "show", tmp_path / "trio/base/config.json"
    )
    assert "is not a profile" in fails(1, "plan", plan)
    assert "is not a safeswap-plan/1" in fails(
        1, "merge", "--plan", profile, "--out", tmp_path / "o"
    )
    for verb, source in (("plan", profile), ("show", plan)):
        option = "--png" if verb == "show" else "-o"
        assert "its folder does not exist" in fails(1, verb, source, option, tmp_path / "no/where")
        assert "is a folder. Give the name of a file" in fails(1, verb, source, option, tmp_path)


def test_a_changed_merge_exits_with_1(plan: Path, tmp_path: Path) -> None:
    done("merge", "--plan", plan, "--out", tmp_path / "out", "--no-figure")
    config = tmp_path / "out/config.json"
    config.write_text(json.dumps({"model_type": "other"}))
    assert "config.json: was changed" in fails(1, "verify", tmp_path / "out")


def test_moved_inputs_are_given_as_options(
    trio: dict[str, Path], plan: Path, tmp_path: Path
) -> None:
    done("merge", "--plan", plan, "--out", tmp_path / "out", "--no-figure")
    moved = {role: trio[role].rename(tmp_path / role) for role in ("base", "safety", "sw")}
    assert "there is no such folder" in fails(1, "verify", tmp_path / "out")
    options = ["--base", moved["base"], "--safety", moved["safety"]]
    said = done("verify", tmp_path / "out", *options, "--language", f"sw={moved['sw']}")
    assert "computed again from the inputs" in said
    said = fails(1, "verify", tmp_path / "out", *options, "--language", f"ws={moved['sw']}")
    assert "has no input 'ws'; did you mean 'sw'?" in said


def test_the_command_as_a_process(trio: dict[str, Path], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "safeswap", "merge", *map(str, experts(trio))]
    command += ["--out", str(tmp_path / "out")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert "config and tokenizer from sw" in result.stdout
    assert png_size(tmp_path / "out/safeswap.png")[0] >= 1000
    again = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert again.returncode == 1
    assert again.stderr.startswith("Error: ") and "Traceback" not in again.stderr
    assert again.stdout == ""


def test_help_imports_only_what_it_needs() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "safeswap", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "click" in imported and "safeswap.cli" in imported
    heavy = {"numpy", "yaml", "rich", "torch", "transformers", "matplotlib", "huggingface_hub"}
    assert not {name.partition(".")[0] for name in imported} & heavy


@pytest.mark.parametrize("verb", ["profile", "plan", "show"])
def test_a_place_that_cannot_be_written_is_found_first(
    trio: dict[str, Path],
    profile: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
) -> None:
    locked = tmp_path / "locked"
    locked.mkdir()
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != locked and real(path, mode))

    def read(*given: object, **named: object) -> None:
        raise AssertionError("inputs were read")

    monkeypatch.setattr("safeswap.merge.run.measure_family", read)
    monkeypatch.setattr("safeswap.profile.Profile.load", read)
    given = experts(trio) if verb == "profile" else [profile]
    option = "--png" if verb == "show" else "-o"
    said = fails(1, verb, *given, option, locked / "file")
    assert f"{locked}: cannot be written (Permission denied)" in said and "Choose another" in said


def test_a_full_disk_leaves_no_half_file(
    profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, target: Path) -> None:
        assert self.exists()  # it was written beside the file that it was to become
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr(Path, "replace", full)
    said = fails(1, "plan", profile, "-o", tmp_path / "new.yaml")
    assert "new.yaml: writing failed (No space left on device). Free some space" in said
    assert "goes on" not in said  # a plan is made anew
    assert sorted(tmp_path.iterdir()) == before


def test_without_matplotlib_a_merge_says_that_it_has_no_figure(
    plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("safeswap.report.figure_process.find_spec", lambda name: None)
    result = run("merge", "--plan", plan, "--out", tmp_path / "out")
    assert result.exit_code == 0
    assert "note: no figure is drawn: install safeswap[figures]" in result.stderr
    assert not (tmp_path / "out/safeswap.png").exists()
    assert "safeswap.png" not in (tmp_path / "out/README.md").read_text()
    result = run("merge", "--plan", plan, "--out", tmp_path / "quiet", "--no-figure")
    assert "figure" not in result.stderr


@pytest.mark.parametrize(
    ("verb", "step", "resumed"),
    [
        ("merge", "write_weights", True),
        ("merge", "measure_family", False),  # measuring starts again
        ("profile", "measure_family", False),
    ],
)
def test_an_interrupt_promises_only_what_is_kept(
    trio: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
    step: str,
    resumed: bool,
) -> None:
    def interrupt(*given: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"safeswap.merge.run.{step}", interrupt)
    place = ["--out", tmp_path / "out"] if verb == "merge" else ["-o", tmp_path / "p.json"]
    said = fails(130, verb, *experts(trio), *place)
    assert ("goes on where this one stopped" in said) == resumed
    assert "Interrupted." in said and not (tmp_path / "out").exists()


def test_a_profile_of_two_languages_is_drawn_with_both(
    trio: dict[str, Path], tmp_path: Path
) -> None:
    place = tmp_path / "two.json"
    done("profile", *experts(trio), "--language", f"te={trio['te']}", "-o", place)
    said = done("show", place, "--png", tmp_path / "two.figure")  # whatever the name, a PNG
    assert "two.figure: drawn" in said and png_size(tmp_path / "two.figure")[0] >= 1000
    assert re.search(r"attention +te [▁-█]{2}$", said, re.M)


@pytest.mark.parametrize(
    ("size", "shown"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1 kB"), (12_960, "13 kB"), (999_499, "999 kB"),
     (999_500, "1 MB"), (668_000_123, "668 MB"), (2_471_645_608, "2.47 GB"), (16 * 10**9, "16 GB")],
)  # fmt: skip
def test_sizes_are_shown_as_people_read_them(size: int, shown: str) -> None:
    assert shown_bytes(size) == shown
