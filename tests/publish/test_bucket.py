"""A merge that goes into a bucket, against a server that speaks S3; looked at by boto3."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bucket import KEYS, Bucket
from click.testing import CliRunner, Result

from plain_adapter import write_adapter
from safeswap import api
from safeswap.cli import main
from safeswap.errors import ConfigError, OutputError
from safeswap.publish import s3
from tiny import make_trio, swap

Trio = dict[str, Path]
pytestmark = pytest.mark.timeout(60)
HELPERS = Path(__file__).parent
MAIN = """
import sys
from safeswap.publish import s3
s3.PART_BYTES, s3._AT_ONCE = 4096, 1  # what was sent before a request arrived
from safeswap.cli import run
run()
"""


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "PART_BYTES", 4096)


@pytest.fixture
def local(trio: Trio, tmp_path: Path) -> dict[str, bytes]:
    """The oracle: what the same merge writes into a folder."""
    return content_of(swap(trio, tmp_path / "local"))


def content_of(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def below(files: dict[str, bytes], prefix: str) -> dict[str, bytes]:
    return {name.removeprefix(prefix): raw for name, raw in files.items()}


def words(trio: Trio, tmp_path: Path, *more: object) -> list[str]:
    given = [
        *("merge", trio["base"], "--safety", trio["safety"], "--language", f"sw={trio['sw']}"),
        *("--out", "s3://models/a/out", "--scratch", tmp_path / "scratch"),
        *("--no-figure", "--quiet", "--workers", 2, *more),
    ]
    return [str(word) for word in given]


def call(*given: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in given])


def killed(given: list[str], bucket: Bucket, when: Any) -> None:
    """Run safeswap in a process that is killed, as by kill -9, at the request that `when` picks."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, *given],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=HELPERS,
    )

    def kill(method: str, path: str, query: str) -> int | None:
        if when(method, path, query):
            process.send_signal(signal.SIGKILL)
            process.wait(20)
            return 500
        return None

    bucket.before = kill
    try:
        output, _ = process.communicate(timeout=40)
    finally:
        process.kill()
        bucket.before = None
    assert process.returncode == -signal.SIGKILL, output.decode()


def counted(number: int, wanted: Any) -> Any:
    """True at the n-th request that is wanted."""
    seen = [0]

    def when(method: str, path: str, query: str) -> bool:
        seen[0] += bool(wanted(method, path, query))
        return seen[0] == number and bool(wanted(method, path, query))

    return when


def is_part(method: str, path: str, query: str) -> bool:
    return method == "PUT" and "partNumber" in query


def is_completion(method: str, path: str, query: str) -> bool:
    return method == "POST" and "uploadId" in query


def test_the_bytes_are_those_of_a_local_merge_and_nothing_stays_here(
    trio: Trio, local: dict[str, bytes], bucket: Bucket, tmp_path: Path
) -> None:
    done = call(*words(trio, tmp_path))
    assert done.exit_code == 0, done.output
    assert "s3://models/a/out: " in done.output
    assert below(bucket.files("a/out/"), "a/out/") == local
    assert bucket.uploads() == []
    assert list((tmp_path / "scratch").iterdir()) == []


def test_nothing_is_shown_before_all_is_there_and_config_json_is_the_last(
    trio: Trio, local: dict[str, bytes], bucket: Bucket, tmp_path: Path
) -> None:
    seen: list[tuple[int, set[str]]] = []

    def look(method: str, path: str, query: str) -> None:
        if is_completion(method, path, query) and not seen:
            bucket.before = None
            seen.append((len(bucket.files()), set(bucket.uploads())))

    bucket.before = look
    swap(trio, "s3://models/a/out", scratch=tmp_path / "scratch")  # type: ignore[arg-type]
    assert seen == [(0, {f"a/out/{name}" for name in local})]
    order = [key.removeprefix("a/out/") for key in bucket.shown()]
    assert sorted(order) == sorted(local)
    assert (order[0], order[-1]) == ("safeswap.json", "config.json")


def test_whole_shards_leave_the_disk_while_others_are_made(bucket: Bucket, tmp_path: Path) -> None:
    trio = make_trio(tmp_path / "wide", layers=8, width=64, inner=96, words=64)
    size, most = 70_000, []

    def look(method: str, path: str, query: str) -> None:
        if is_part(method, path, query):
            shards = (tmp_path / "scratch").rglob("*.safetensors")
            most.append(sum(file.stat().st_blocks * 512 for file in shards))

    bucket.before = look
    (merged,) = api.merge(
        trio["base"],
        safety=trio["safety"],
        languages={"sw": trio["sw"]},
        out="s3://models/wide",
        scratch=tmp_path / "scratch",
        shard_size=f"{size // 1000}KB",
        figure=False,
        workers=1,
    )
    assert merged.nbytes > 8 * size
    headers = 8192 * len(bucket.files("wide/model-"))
    assert max(most) < 4 * size + headers < merged.nbytes
    whole = swap(trio, tmp_path / "whole", shard_size=f"{size // 1000}KB")
    assert below(bucket.files("wide/"), "wide/") == content_of(whole)


@pytest.mark.parametrize("part", [2, 4])
def test_a_run_killed_in_an_upload_goes_on_and_sends_nothing_twice(
    trio: Trio, local: dict[str, bytes], bucket: Bucket, tmp_path: Path, part: int
) -> None:
    given = words(trio, tmp_path)
    killed(given, bucket, counted(part, is_part))
    assert bucket.files() == {}
    before = bucket.parts_held()
    assert before
    bucket.sent.clear()
    done = call(*given)
    assert done.exit_code == 0, done.output
    assert below(bucket.files(), "a/out/") == local
    assert not before & set(bucket.parts_sent())
    assert (part < 4) or "were written before and verified" in done.output


def test_a_run_killed_while_it_shows_files_goes_on_and_sends_nothing_twice(
    trio: Trio, local: dict[str, bytes], bucket: Bucket, tmp_path: Path
) -> None:
    given = words(trio, tmp_path)
    killed(given, bucket, counted(4, is_completion))
    assert len(bucket.files()) == 3
    bucket.sent.clear()
    done = call(*given)
    assert done.exit_code == 0, done.output
    assert below(bucket.files(), "a/out/") == local
    assert bucket.parts_sent() == []


def test_uploads_that_the_bucket_dropped_meanwhile_are_made_anew(
    trio: Trio, local: dict[str, bytes], bucket: Bucket, tmp_path: Path
) -> None:
    given = words(trio, tmp_path)
    killed(given, bucket, counted(1, is_completion))
    bucket.clear()
    done = call(*given)
    assert done.exit_code == 0, done.output
    assert below(bucket.files(), "a/out/") == local


def test_another_merge_in_the_same_place_removes_what_was_left_there(
    trio: Trio, bucket: Bucket, tmp_path: Path
) -> None:
    killed(words(trio, tmp_path), bucket, counted(3, is_part))
    assert bucket.uploads()
    done = call(*words(trio, tmp_path, "--method", "uniform"))
    assert done.exit_code == 0, done.output
    whole = swap(trio, tmp_path / "whole", method="uniform")
    assert below(bucket.files(), "a/out/") == content_of(whole)
    assert bucket.uploads() == []


def test_a_passing_failure_is_waited_out(
    trio: Trio, local: dict[str, bytes], bucket: Bucket, tmp_path: Path
) -> None:
    failed: set[str] = set()

    def fail_once(method: str, path: str, query: str) -> int | None:
        if is_part(method, path, query) and len(failed) < 2 and query not in failed:
            failed.add(query)
            return 503
        return None

    bucket.before = fail_once
    done = call(*words(trio, tmp_path))
    assert done.exit_code == 0, done.output
    assert len(failed) == 2
    assert below(bucket.files(), "a/out/") == local


def test_what_is_refused_is_said_without_a_key_and_the_same_command_goes_on(
    trio: Trio, local: dict[str, bytes], bucket: Bucket, tmp_path: Path
) -> None:
    bucket.before = lambda method, path, query: 403 if is_part(method, path, query) else None
    done = CliRunner().invoke(main, ["-v", *words(trio, tmp_path)])
    assert done.exit_code == 1
    assert "access was refused" in done.output
    assert "The same command goes on" in done.output
    journals = "".join(p.read_text() for p in (tmp_path / "scratch").rglob("uploads"))
    assert not [secret for secret in KEYS.values() if len(secret) > 15 and secret in done.output]
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in journals
    assert bucket.files() == {}
    bucket.before = None
    assert call(*words(trio, tmp_path)).exit_code == 0
    assert below(bucket.files(), "a/out/") == local


def test_what_lies_there_is_refused_before_anything_is_read(
    trio: Trio, bucket: Bucket, tmp_path: Path
) -> None:
    bucket.s3.put_object(Bucket="models", Key="a/out/notes.txt", Body=b"mine")
    done = call(*words(trio, tmp_path))
    assert (done.exit_code, bucket.parts_sent()) == (1, [])
    assert "exists already" in done.output and "--overwrite" in done.output
    done = call(*words(trio, tmp_path, "--overwrite"))
    assert done.exit_code == 1
    assert "only what a merge wrote" in done.output and "notes.txt" in done.output
    assert bucket.files() == {"a/out/notes.txt": b"mine"}


def test_overwriting_takes_the_old_config_away_first_and_its_leftovers_last(
    trio: Trio, bucket: Bucket, tmp_path: Path
) -> None:
    assert call(*words(trio, tmp_path)).exit_code == 0
    before = bucket.files()
    bucket.sent.clear()
    done = call(*words(trio, tmp_path, "--overwrite", "--method", "uniform", "--shard-size", "1GB"))
    assert done.exit_code == 0, done.output
    whole = swap(trio, tmp_path / "whole", method="uniform", shard_size="1GB")
    after = below(bucket.files(), "a/out/")
    assert after == content_of(whole)
    assert set(after) < set(below(before, "a/out/")) | {"model.safetensors"}
    steps = [(m, p.split("?")[0].rpartition("/")[2]) for m, p, _ in bucket.sent]
    removed = [name for method, name in steps if method == "DELETE"]
    assert removed[0] == "config.json"
    first = next(i for i, (m, p, _) in enumerate(bucket.sent) if is_completion(m, p, p))
    assert steps.index(("DELETE", "config.json")) < first


def test_a_run_killed_while_it_overwrites_never_leaves_a_mixture(
    trio: Trio, bucket: Bucket, tmp_path: Path
) -> None:
    assert call(*words(trio, tmp_path)).exit_code == 0
    given = words(trio, tmp_path, "--overwrite", "--method", "uniform")
    killed(given, bucket, counted(3, is_completion))
    assert "a/out/config.json" not in bucket.files()
    done = call(*given)
    assert done.exit_code == 0, done.output
    whole = swap(trio, tmp_path / "whole", method="uniform")
    assert below(bucket.files(), "a/out/") == content_of(whole)


def test_several_languages_lie_side_by_side(trio: Trio, bucket: Bucket, tmp_path: Path) -> None:
    done = call(*words(trio, tmp_path, "--language", f"te={trio['te']}", "--json"))
    assert done.exit_code == 0, done.output
    folders = [one["folder"] for one in json.loads(done.stdout)["merges"]]
    assert folders == ["s3://models/a/out/sw", "s3://models/a/out/te"]
    both = swap(trio, tmp_path / "both", "sw", "te")
    assert below(bucket.files(), "a/out/") == content_of(both)
    assert {key.rpartition("/")[2] for key in bucket.shown()[-2:]} == {"config.json"}


def test_an_adapter_goes_there_as_well(trio: Trio, bucket: Bucket, tmp_path: Path) -> None:
    for seed, role in enumerate(("safety", "sw"), 1):
        write_adapter(tmp_path / role, trio["base"], seed)
    given = {"safety": tmp_path / "safety", "languages": {"sw": tmp_path / "sw"}}
    api.merge(trio["base"], **given, out=tmp_path / "one", as_adapter=True)
    (merged,) = api.merge(
        trio["base"],
        **given,
        out="s3://models/adapter",
        scratch=tmp_path / "scratch",
        as_adapter=True,
    )
    assert merged.sent_to == "s3://models/adapter"
    assert below(bucket.files(), "adapter/") == content_of(tmp_path / "one")
    assert bucket.shown()[-1] == "adapter/adapter_config.json"


def test_a_finished_folder_is_pushed_byte_for_byte(
    trio: Trio, local: dict[str, bytes], bucket: Bucket, tmp_path: Path
) -> None:
    (tmp_path / "local" / ".hidden").write_text("not the merge's")
    given = ("push", tmp_path / "local", "--to", "s3://models/pushed")
    done = call(*given, "--dry-run")
    assert (done.exit_code, bucket.sent) == (0, []), done.output
    done = call(*given, "--scratch", tmp_path / "scratch")
    assert done.exit_code == 0, done.output
    assert below(bucket.files(), "pushed/") == local
    assert "for a hub" in call(*given, "--public").output


def test_a_dry_run_asks_the_bucket_nothing(trio: Trio, bucket: Bucket, tmp_path: Path) -> None:
    done = call(*words(trio, tmp_path, "--dry-run"))
    assert done.exit_code == 0, done.output
    assert "write: s3://models/a/out: " in done.output
    assert "here at once" in done.output
    assert bucket.sent == []


def test_no_bucket_no_key_no_server_are_told_apart(
    trio: Trio, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def message(out: str) -> str:
        with pytest.raises(OutputError) as caught:
            swap(trio, out, scratch=tmp_path / "scratch")  # type: ignore[arg-type]
        return str(caught.value)

    assert "the bucket is not there" in message("s3://absent/out")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    assert "credentials" in message("s3://models/out")


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("s4://models/out", "did you mean 's3://'"),
        ("s3://models", "names no folder"),
        ("s3://Not_A_Bucket!/out", "no name of a bucket"),
        ("s3://me:secret@models/out", "holds a login"),
        ("s3://models/out?key=secret", "? or #"),
        ("s3://models/../out", ". and .."),
        ("hf://me/out", "--push-to-hub"),
        ("https://host/out", "--push-to-hub"),
    ],
)
def test_addresses_that_cannot_be_written_to(
    trio: Trio, tmp_path: Path, out: str, said: str
) -> None:
    done = call(*words(trio, tmp_path, "--out", out))
    assert done.exit_code == 1
    assert said in done.output
    assert "secret" not in done.output
    with pytest.raises(ConfigError, match="local"):
        swap(trio, tmp_path / "out", scratch=tmp_path)


def test_verify_says_how(tmp_path: Path) -> None:
    done = call("verify", "s3://models/out")
    assert done.exit_code == 1 and "Fetch it first" in done.output
