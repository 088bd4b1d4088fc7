"""What can go wrong in a merge: refused with a reason, killed and resumed, never half made."""

from __future__ import annotations

import errno
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import safeswap
from safeswap.checkpoint.staging import Staging
from tiny import BF16, digest_of, edit_json, make_trio, refused, rewrite

Trio = dict[str, Path]


def merge(trio: Trio, out: Path, **options: Any) -> list[safeswap.Merged]:
    languages = {role: path for role, path in trio.items() if role == "sw"}
    return safeswap.api.merge(
        trio["base"], safety=trio["safety"], languages=languages, out=out, figure=False, **options
    )


def shard(folder: Path, number: int = 0) -> Path:
    return sorted(folder.glob("*.safetensors"))[number]


QUERY = "model.layers.1.self_attn.q_proj.weight"


# ---- inputs that are refused -------------------------------------------------------------------


@pytest.mark.parametrize("role", ["base", "safety", "sw"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(
    trio: Trio, tmp_path: Path, role: str, value: float
) -> None:
    def spoil(weights: dict[str, Any]) -> None:
        weights[QUERY][3, 5] = value

    rewrite(trio[role], spoil)
    out = tmp_path / "out"
    words = (str(trio[role] / "model.safetensors"), QUERY, role, "element 53", str(value))
    refused(lambda: merge(trio, out), *words, out=out, inputs=tmp_path / "trio")


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
@pytest.mark.parametrize("role", ["base", "safety", "sw"])
def test_a_truncated_shard_is_refused(trio: Trio, tmp_path: Path, role: str, keep: int) -> None:
    victim = shard(trio[role], 1)
    victim.write_bytes(victim.read_bytes()[:keep])
    out = tmp_path / "out"
    refused(lambda: merge(trio, out), str(victim), out=out, inputs=tmp_path / "trio")


def test_an_expert_of_another_shape_depth_or_family_is_refused(tmp_path: Path) -> None:
    trio = make_trio(tmp_path / "trio")
    out = tmp_path / "out"
    for name, sizes, words in (
        ("depth", {"layers": 3}, ("num_hidden_layers = 3", "2")),
        ("width", {"width": 32}, ("hidden_size = 32", "16")),
    ):
        other = make_trio(tmp_path / name, **sizes)["sw"]
        action = lambda other=other: merge(trio | {"sw": other}, out)  # noqa: E731
        refused(action, "sw", str(other), *words, out=out)
        # and when config.json does not say it, the tensors do
        shutil.copy(trio["base"] / "config.json", other / "config.json")
        tensor = "model.layers.2." if name == "depth" else "model.embed_tokens.weight"
        refused(action, "sw", tensor, out=out)
    other = make_trio(tmp_path / "vocabulary", words=40)["sw"]  # and not what config.json says
    shutil.copy(trio["base"] / "config.json", other / "config.json")
    refused(lambda: merge(trio | {"sw": other}, out), "sw", "[40, 16]", "vocab_size", out=out)
    (other / "tokenizer.json").unlink()
    edit_json(other / "config.json", vocab_size=40)
    words = ("row per token", "sw [40, 16]", "sw: no tokenizer", "tokenizer.json")
    refused(lambda: merge(trio | {"sw": other}, out), *words, out=out)
    other = make_trio(tmp_path / "family")["sw"]
    edit_json(other / "config.json", model_type="mistral")
    refused(lambda: merge(trio | {"sw": other}, out), "model_type = 'mistral'", "'llama'", out=out)


def test_what_a_message_says_of_shapes_and_depths(tmp_path: Path) -> None:
    """The file is named, depths only where they differ, a vocabulary only where it is one."""
    trio, out = make_trio(tmp_path / "trio"), tmp_path / "out"
    deeper = make_trio(tmp_path / "deeper", layers=3)["sw"]
    shutil.copy(trio["base"] / "config.json", deeper)
    words = (str(deeper), "model.layers.2.", "(layers: base 2, expert 3)")
    refused(lambda: merge(trio | {"sw": deeper}, out), *words, out=out)

    def rename(weights: dict[str, Any]) -> None:
        weights["model.layers.1.self_attn.qq_proj.weight"] = weights.pop(QUERY)

    rewrite(trio["safety"], rename)
    message = refused(lambda: merge(trio, out), str(trio["safety"]), f"lacks {QUERY}", out=out)
    assert "has model.layers.1.self_attn.qq_proj.weight besides" in message
    assert "layers: base" not in message
    trio = make_trio(tmp_path / "other")
    up = "model.layers.0.mlp.up_proj.weight"
    rewrite(trio["sw"], lambda w: w.update({up: w[up][:8].copy()}))
    message = refused(lambda: merge(trio, out), up, str(shard(trio["sw"])), "[8, 16]", out=out)
    assert "vocabulary" not in message
    trio = make_trio(tmp_path / "words")
    rewrite(trio["sw"], lambda w: [w.update({n: w[n][:30].copy()}) for n in w if "embed" in n])
    refused(lambda: merge(trio, out), "[30, 16]", "A resized vocabulary is matched", out=out)


def test_two_experts_with_the_same_weights_are_refused(
    trio: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same folder before weights are read, a copy of it by its digest."""
    out = tmp_path / "out"
    copy = shutil.copytree(trio["sw"], tmp_path / "copy")
    words = ("safety", "sw", "same weights", str(trio["sw"]), str(copy))
    refused(lambda: merge(trio | {"safety": copy}, out), *words, out=out)
    monkeypatch.setattr("safeswap.merge.run.measure_family", not_reached)
    for role, other in (("safety", "sw"), ("safety", "base"), ("sw", "base")):
        twice = trio | {role: trio[other]}
        refused(lambda twice=twice: merge(twice, out), "identical", str(trio[other]), out=out)


def test_a_donor_without_a_tokenizer_is_refused_before_weights_are_read(
    trio: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    (trio["sw"] / "tokenizer.json").unlink()
    with monkeypatch.context() as patch:
        patch.setattr("safeswap.merge.run.measure_family", not_reached)
        words = (str(trio["sw"]), "no tokenizer", "--donor base")
        refused(lambda: merge(trio, out), *words, out=out)
    merge(trio, out, donor="base")
    assert (out / "tokenizer.json").exists()
    for folder in trio.values():  # where nobody has one, nobody misses it
        (folder / "tokenizer.json").unlink(missing_ok=True)
    merge(trio, tmp_path / "none")


def test_what_a_user_should_know_is_told_before_weights_are_read(
    trio: Trio,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (trio["safety"] / "chat_template.jinja").write_text("{{ messages }} one")
    edit_json(trio["sw"] / "config.json", note="x")
    (trio["sw"] / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }} two"}')
    monkeypatch.setattr("safeswap.merge.run.measure_family", not_reached)
    for action in (
        lambda: merge(trio, tmp_path / "out"),
        lambda: safeswap.make_profile(
            trio["base"], safety=trio["safety"], languages={"sw": trio["sw"]}
        ),
    ):
        caplog.clear()
        with pytest.raises(AssertionError, match="weights were read"):
            action()
        assert any("chat templates of safety and sw differ" in line for line in caplog.messages)


@pytest.mark.parametrize("role", ["safety", "sw"])
def test_an_expert_identical_to_the_base_is_refused(trio: Trio, tmp_path: Path, role: str) -> None:
    out = tmp_path / "out"
    same = trio | {role: shutil.copytree(trio["base"], tmp_path / "copy")}
    refused(lambda: merge(same, out), role, str(same[role]), "identical", out=out)


def test_an_input_that_changes_during_the_merge_is_noticed(
    trio: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim, out = shard(trio["sw"]), tmp_path / "out"
    note = Staging.note

    def touch(self: Staging, chunk: str, digest: str) -> None:
        os.utime(victim, ns=(1, 1))
        note(self, chunk, digest)

    monkeypatch.setattr(Staging, "note", touch)
    with pytest.raises(safeswap.SafeswapError, match="changed during the merge"):
        merge(trio, out)
    assert not out.exists()


# ---- places that cannot be written -------------------------------------------------------------


def test_an_output_that_exists_is_left_alone(trio: Trio, tmp_path: Path) -> None:
    folder, file, link = tmp_path / "folder", tmp_path / "file", tmp_path / "link"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    file.write_text("mine")
    link.symlink_to(tmp_path / "nowhere")
    for out in (folder, file, link):
        refused(lambda out=out: merge(trio, out), str(out), "exists already")
    assert (folder / "mine.txt").read_text() == file.read_text() == "mine"
    assert link.is_symlink() and not (tmp_path / "nowhere").exists()


def test_an_empty_folder_is_filled(trio: Trio, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    merge(trio, out)
    assert safeswap.verify_merge(out).from_inputs


@pytest.mark.parametrize("role", ["base", "safety", "sw"])
def test_an_output_that_is_or_lies_in_an_input_is_refused(
    trio: Trio, tmp_path: Path, role: str
) -> None:
    detour = tmp_path / "detour"
    detour.symlink_to(trio[role])
    for out in (trio[role], trio[role] / "deep" / "out", detour / "out"):
        before = digest_of(tmp_path / "trio")
        refused(lambda out=out: merge(trio, out), role, "--out")
        assert digest_of(tmp_path / "trio") == before
    assert not any(path.name == "out" for path in tmp_path.rglob("*"))


def test_an_output_below_a_file_is_refused(trio: Trio, tmp_path: Path) -> None:
    out = trio["base"] / ".." / "file" / "out"
    (tmp_path / "trio" / "file").write_text("")
    refused(lambda: merge(trio, out), "cannot be written", "permissions", out=out)


def test_without_permission_nothing_is_written(
    trio: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbid(self: Path, *args: Any, **kwargs: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    out = tmp_path / "out"
    monkeypatch.setattr(Path, "mkdir", forbid)
    refused(lambda: merge(trio, out), str(tmp_path), "Permission denied", "--out", out=out)


def not_reached(*arguments: Any, **named: Any) -> None:
    raise AssertionError("weights were read before the output's place was looked at")


def test_a_place_that_cannot_be_written_is_found_before_weights_are_read(
    trio: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = safeswap.make_plan(
        safeswap.make_profile(trio["base"], safety=trio["safety"], languages={"sw": trio["sw"]})
    )
    locked, deep = tmp_path / "locked", tmp_path / "locked" / "new" / "out"
    locked.mkdir()
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != locked and real(path, mode))
    monkeypatch.setattr("safeswap.merge.run.measure_family", not_reached)
    for out in (locked / "out", deep):
        actions = (lambda: merge(trio, out), lambda: safeswap.merge_plans([plan], out))  # noqa: B023
        for action in actions:
            refused(action, str(locked), "Permission denied", "--out", out=out)
    (tmp_path / "file").write_text("")
    below = tmp_path / "file" / "out"
    refused(lambda: merge(trio, below), str(tmp_path / "file"), "Not a directory", out=below)
    assert not list(locked.iterdir())


def test_what_an_interrupted_run_left_needs_no_more_room(
    trio: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("safeswap.merge.run.companions.copy_rest", not_reached)
        with pytest.raises(AssertionError):
            merge(trio, out)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    (merged,) = merge(trio, out)
    assert merged.resumed_bytes > 1000


@pytest.mark.parametrize("step", ["_save_plans", "Staging.commit"])
def test_a_step_that_fails_lets_go_of_the_place(
    trio: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fail(*arguments: Any) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM), "somewhere")

    out = tmp_path / "out"
    languages = {"sw": trio["sw"]}
    swap = lambda: safeswap.api.merge(  # noqa: E731
        trio["base"], safety=trio["safety"], languages=languages, out=out
    )
    with monkeypatch.context() as patch:
        patch.setattr(f"safeswap.merge.run.{step}", fail)
        refused(swap, "somewhere", "same command", out=out)
    (merged,) = swap()  # in this very process: the lock is free
    assert merged.resumed_bytes > 0 or step == "_save_plans"
    assert safeswap.verify_merge(out).from_inputs


# ---- a disk that is full or fails ---------------------------------------------------------------


def test_too_little_room_is_found_before_weights_are_read(
    trio: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    monkeypatch.setattr("safeswap.merge.run.measure_family", not_reached)
    out, inputs = tmp_path / "out", tmp_path / "trio"
    words = (str(tmp_path), "bytes", "needed", "only 1000 bytes", "available")
    message = refused(lambda: merge(trio, out), *words, out=out, inputs=inputs)
    size = sum(file.stat().st_size for file in trio["sw"].glob("*.safetensors"))
    assert size * 0.9 < int(re.findall(r"(\d+) bytes", message)[0]) < size * 1.1
    message = refused(lambda: merge(trio, out, dtype="float32"), *words, out=out, inputs=inputs)
    assert size * 1.8 < int(re.findall(r"(\d+) bytes", message)[0]) < size * 2.1
    assert not list(tmp_path.glob(".out*"))


@pytest.mark.parametrize("call", ["pwrite", "copy_file_range"])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_write_that_fails_names_the_output_and_can_be_resumed(
    trio: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: int
) -> None:
    if not hasattr(os, call):
        pytest.skip(f"no {call} here")
    real, calls = getattr(os, call), iter(range(1000))

    def fail(*arguments: Any) -> int:
        if next(calls) >= 4:
            raise OSError(error, os.strerror(error))
        written: int = real(*arguments)
        return written

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        if call == "copy_file_range" and error == errno.EIO:
            # the kernel does not say which side failed, so reads and writes are tried apart
            merge(trio, out)
            assert safeswap.verify_merge(out).from_inputs
            return
        message = refused(lambda: merge(trio, out, workers=1), "writing failed", "same command",
                          out=out, inputs=tmp_path / "trio")  # fmt: skip
    assert "safeswap-partial" in message and str(trio["base"]) not in message
    assert ("space" in message) == (error != errno.EIO)
    (merged,) = merge(trio, out)
    assert merged.resumed_bytes > 0 or call == "pwrite"
    assert safeswap.verify_merge(out).from_inputs


def test_all_of_the_output_is_on_the_disk_before_it_gets_its_name(
    trio: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, real, settled = tmp_path / "out", os.fsync, set()

    def note(descriptor: int) -> None:
        real(descriptor)
        settled.add(os.fstat(descriptor).st_ino)

    commit = Staging.commit

    def check(staging: Staging) -> None:
        shards = [file.stat().st_ino for file in staging.folder.glob("*.safetensors")]
        assert len(shards) == 2 and settled >= {*shards}
        commit(staging)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(Staging, "commit", check)
    merge(trio, out)
    everything = {path.stat().st_ino for path in (tmp_path, out, *out.rglob("*"))}
    assert settled >= everything


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="no posix_fadvise here")
@pytest.mark.parametrize("pages", [1, 1 << 30])
def test_outputs_stay_cached_only_where_there_is_room_for_all(
    trio: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pages: int
) -> None:
    real, forgotten = os.sysconf, []

    def advise(descriptor: int, start: int, nbytes: int, advice: int) -> None:
        if advice == os.POSIX_FADV_DONTNEED:
            forgotten.append(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(os, "sysconf", lambda key: pages if key == "SC_PHYS_PAGES" else real(key))
    monkeypatch.setattr(os, "posix_fadvise", advise)
    merge(trio, tmp_path / "out")
    shards = {file.stat().st_ino for file in (tmp_path / "out").glob("*.safetensors")}
    assert set(forgotten) == (shards if pages == 1 else set())


def test_a_disk_that_fails_when_the_output_is_settled_is_no_success(
    trio: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        refused(lambda: merge(trio, out), ".safetensors", "writing failed", "Check", out=out)
    (merged,) = merge(trio, out)
    assert merged.resumed_bytes > 0
    assert safeswap.verify_merge(out).from_inputs


def test_a_full_disk_while_small_files_are_written_is_no_traceback(
    trio: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Any, target: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target.name))

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfileobj", full)
        refused(lambda: merge(trio, out), "No space left", out=out, inputs=tmp_path / "trio")
    merge(trio, out)
    assert safeswap.verify_merge(out).from_inputs


def test_a_limit_on_the_size_of_files_is_called_one(
    trio: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def limit(descriptor: int, size: int) -> None:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(os, "ftruncate", limit)
        refused(lambda: merge(trio, out), ".safetensors", "ulimit -f", "same command", out=out)
    merge(trio, out)


def test_a_disk_that_fails_while_reading_names_the_file(
    trio: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "preadv", fail)
    out = tmp_path / "out"
    refused(lambda: merge(trio, out), str(tmp_path / "trio"), "reading at byte", out=out)


def test_a_shard_that_vanishes_while_it_is_read_is_refused(
    trio: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, victim = os.open, shard(trio["safety"])

    def gone(path: Any, *arguments: Any, **named: Any) -> int:
        if Path(path) == victim and not arguments[0] & (os.O_CREAT | os.O_NONBLOCK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path, *arguments, **named)

    out = tmp_path / "out"
    monkeypatch.setattr("safeswap.io.files.os.open", gone)
    refused(lambda: merge(trio, out), str(victim), "cannot be opened", out=out)


# ---- runs that are killed or meet each other ---------------------------------------------------


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Trio:
    """About 150 MB in all: a merge takes long enough to be killed in the middle."""
    folder = tmp_path_factory.mktemp("large")
    trio = make_trio(folder, layers=8, width=512, inner=1536, words=4096, shards=3)
    shutil.rmtree(trio.pop("te"))
    return trio


@pytest.fixture(scope="module")
def whole(large: Trio, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The digests of an uninterrupted run's files."""
    out = tmp_path_factory.mktemp("whole") / "out"
    merge(large, out, workers=2)
    return digest_of(out)


def start(trio: Trio, out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "safeswap", "merge", str(trio["base"])]
    command += ["--safety", str(trio["safety"]), "--language", f"sw={trio['sw']}"]
    command += ["--out", str(out), "--no-figure", "--workers", "2"]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # what a shell runs behind "&" ignores it, and so would its children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def journal_of(out: Path) -> Path:
    return out.parent / f".{out.name}.safeswap-partial" / "journal"


def wait_for_chunks(process: subprocess.Popen[str], out: Path, chunks: int = 1) -> None:
    """Return once some chunks are journalled (or the run is over)."""
    journal = journal_of(out)
    while process.poll() is None:
        if journal.exists() and journal.read_bytes().count(b"\n") >= chunks:
            return
        time.sleep(0.002)


def finish(trio: Trio, out: Path) -> str:
    process = start(trio, out)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return output


def test_kill_9_at_any_moment_leaves_nothing_half_made(
    large: Trio, whole: dict[str, str], tmp_path: Path
) -> None:
    chance, out, resumed = random.Random(7), tmp_path / "out", 0
    before = {role: digest_of(folder) for role, folder in large.items()}
    for attempt in range(12):
        process = start(large, out)
        if attempt % 2:  # after some chunks; the others at any time, start and end included
            wait_for_chunks(process, out, chance.randrange(1, 60))
            time.sleep(0.02 * chance.random())
        else:
            time.sleep(1.2 * chance.random())
        process.kill()
        process.communicate()
        if out.exists():
            assert digest_of(out) == whole
            shutil.rmtree(out)
        if attempt % 4 == 3:
            # a kill just after the output got its name leaves a journal of chunks that moved away
            staged = (journal_of(out).parent / "out").exists()
            had_pieces = staged and journal_of(out).exists() and journal_of(out).stat().st_size > 0
            output = finish(large, out)
            assert ("written before and verified" in output) == had_pieces
            resumed += had_pieces
            assert digest_of(out) == whole
            assert not journal_of(out).parent.exists()
            shutil.rmtree(out)
    assert resumed
    assert {role: digest_of(folder) for role, folder in large.items()} == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_says_so_and_the_same_command_goes_on(
    large: Trio, whole: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "out"
    process = start(large, out)
    wait_for_chunks(process, out)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "goes on where this one stopped" in errors and "Traceback" not in errors
    assert not out.exists()
    assert "written before and verified" in finish(large, out)
    assert digest_of(out) == whole


def test_staged_pieces_that_were_spoiled_are_written_again(
    large: Trio, whole: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = start(large, out)
    wait_for_chunks(process, out, 20)
    process.kill()
    process.communicate()
    assert not out.exists()
    staged = journal_of(out).parent / "out"
    for file in staged.glob("*.safetensors"):
        content = bytearray(file.read_bytes())
        for at in range(0, len(content), 50_000):
            content[at] ^= 0x55
        file.write_bytes(content)
    # neither may what a longer run left beside the weights outlive its reason
    (staged / "safeswap.png").write_bytes(b"half a figure")
    with journal_of(out).open("ab") as journal:
        journal.write(b"0:model.norm.weight:0\tcopy\t.\nnot\ta\tjournal\tline\n0:cut")
    finish(large, out)
    assert digest_of(out) == whole
    assert safeswap.verify_merge(out).from_inputs


def test_two_runs_on_one_output_do_not_meet(large: Trio, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(large, out)
    wait_for_chunks(process, out)
    process.send_signal(signal.SIGSTOP)  # held still, with its lock, for as long as we look
    try:
        refused(lambda: merge(large, out), str(out), "another safeswap", out=out)
    finally:
        process.send_signal(signal.SIGCONT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert safeswap.verify_merge(out).from_inputs


def test_any_number_of_workers_gives_the_same_bytes(
    large: Trio, whole: dict[str, str], tmp_path: Path
) -> None:
    for workers in (1, 5):
        merge(large, tmp_path / str(workers), workers=workers)
        assert digest_of(tmp_path / str(workers)) == whole


def test_another_job_in_the_same_place_starts_afresh(trio: Trio, tmp_path: Path) -> None:
    out = tmp_path / "out"
    staging = Staging(out, "another job")
    (staging.folder / "model.safetensors").write_bytes(b"stale")
    staging.note("0:model.norm.weight:0", "copy")
    staging.release()
    (merged,) = merge(trio, out)
    assert merged.resumed_bytes == 0
    assert safeswap.verify_merge(out).from_inputs


def test_a_tied_output_stored_once_and_twice_is_merged(tmp_path: Path) -> None:
    trio = make_trio(tmp_path / "trio", tied=True)

    def store_twice(weights: dict[str, Any]) -> None:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"].copy()

    rewrite(trio["sw"], store_twice)
    merge(trio, tmp_path / "out")
    assert safeswap.verify_merge(tmp_path / "out").from_inputs
    stored = b"".join(f.read_bytes() for f in (tmp_path / "out").glob("*.safetensors"))
    assert b"lm_head" not in stored
    assert "sw: lm_head.weight" in (tmp_path / "out" / "safeswap.json").read_text()


def test_values_that_float16_cannot_hold_are_refused(tmp_path: Path) -> None:
    trio = make_trio(tmp_path / "trio")
    for role in ("base", "safety", "sw"):

        def grow(weights: dict[str, Any], role: str = role) -> None:
            weights[QUERY][0, 0] = BF16(70_000 if role != "base" else 69_000)

        rewrite(trio[role], grow)
    out = tmp_path / "out"
    refused(lambda: merge(trio, out, dtype="float16"), QUERY, "F16", "--save-dtype", out=out)
