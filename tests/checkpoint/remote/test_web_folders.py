"""Checkpoints on a web server: merged by ranges, they are what local folders give."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import safeswap
from plain_adapter import write_adapter
from safeswap.checkpoint.family import open_family
from safeswap.checkpoint.model import open_checkpoint
from safeswap.checkpoint.source import resolve
from safeswap.cli import main
from safeswap.plan.sampled import Wish, sample_family
from tiny import edit_json, make_trio, refused, swap
from web import Web

ROLES = ("base", "safety", "sw")


def addresses(web: Web, **more: str) -> dict[str, str]:
    return {role: f"{web.url}{role}/" for role in (*ROLES, "te")} | more


def merge(given: dict[str, Any], out: Path, **options: Any) -> Path:
    return swap(given, out, figure=False, **options)


def weights_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.glob("*.safetensors"))}


def stored_bytes(trio: dict[str, Path]) -> int:
    files = [file for role in ROLES for file in trio[role].glob("*.safetensors")]
    return sum(file.stat().st_size for file in files)


def test_a_merge_by_ranges_has_the_bytes_of_a_local_one_and_asks_for_each_byte_once(
    web: Web, trio: dict[str, Path], tmp_path: Path
) -> None:
    merged = merge(addresses(web), tmp_path / "out")
    assert weights_of(merged) == weights_of(merge(trio, tmp_path / "local"))
    assert (merged / "tokenizer.json").read_bytes() == (trio["sw"] / "tokenizer.json").read_bytes()
    probes = (
        8 * 2 * len(ROLES)
    )  # the first bytes of every shard, twice: when opened, and at the end
    assert web.sent() <= stored_bytes(trio) + 2 * probes
    checked = safeswap.api.verify_merge(merged, allow_remote=True)
    assert checked.from_inputs


def test_manifest_and_plan_name_addresses_and_versions(web: Web, tmp_path: Path) -> None:
    merged = merge(addresses(web), tmp_path / "out")
    manifest = json.loads((merged / "safeswap.json").read_text())
    record = manifest["profile"]["inputs"]["base"]
    assert record["source"] == record["path"] == f"{web.url}base/"
    assert manifest["plan"]["inputs"]["sw"]["source"] == f"{web.url}sw/"
    assert len(record["revision"]) == 40
    for file in record["files"]:
        tag = web.root / "base" / file["name"]
        assert file["version"].startswith('"')
        assert (file["size"], file["mtime_ns"]) == (tag.stat().st_size, 0)
    assert str(tmp_path / "cache") not in (merged / "safeswap.json").read_text()


def test_what_came_is_kept_for_the_next_command(web: Web, tmp_path: Path) -> None:
    given = addresses(web)
    experts = {"safety": given["safety"], "languages": {"sw": given["sw"]}}
    profile = safeswap.api.make_profile(given["base"], **experts)
    before = web.sent()
    plan = safeswap.api.make_plan(profile)
    kwargs: Any = {"allow_remote": True, "figure": False}
    (merged,) = safeswap.api.merge_plans([plan], tmp_path / "out", profile=profile, **kwargs)
    assert web.sent() - before <= 8 * 4 * len(ROLES)  # looks at what they are, and no weights
    assert merged.profile == profile
    small = [one for one in web.asked if one.path.endswith("base/tokenizer.json")]
    assert [one.sent > 0 for one in small] == [True] + [False] * (len(small) - 1)


def test_a_sample_asks_for_what_it_reads_and_no_more(tmp_path: Path) -> None:
    trio = make_trio(tmp_path / "large", layers=2, width=512, inner=1024, words=2048)
    web = Web(trio["base"].parent)
    try:
        given = addresses(web)
        family = open_family(given["base"], given["safety"], {"sw": given["sw"]})
        before = web.sent()
        profile = sample_family(family, Wish(budget=0.04), workers=2)
        assert profile.sample is not None
        assert 0 < profile.sample.bytes_read < 0.08 * stored_bytes(trio)
        assert web.sent() - before <= profile.sample.bytes_read
        local = open_family(trio["base"], trio["safety"], {"sw": trio["sw"]})
        assert sample_family(local, Wish(budget=0.04)).tensors == profile.tensors
    finally:
        web.stop()


def test_a_dry_run_reads_no_weights(web: Web, trio: dict[str, Path], tmp_path: Path) -> None:
    given = addresses(web)
    experts = ["--safety", given["safety"], "--language", f"sw={given['sw']}"]
    out = tmp_path / "out"
    options = ["--out", str(out), "--dry-run", "--download"]
    done = CliRunner().invoke(main, ["merge", given["base"], *experts, *options])
    assert done.exit_code == 0, done.output
    assert f"{web.url}base/" in done.output
    # of each shard what it is, and its header: of files as tiny as these that is all of it
    shards = [one for one in web.asked if re.search(r"-of-\d+\.safetensors$", one.path)]
    assert len(shards) == 2 * 2 * len(ROLES)
    assert not out.exists()


def test_an_expert_may_be_an_adapter_at_an_address(
    web: Web, trio: dict[str, Path], tmp_path: Path
) -> None:
    write_adapter(web.root / "lora", trio["base"])
    local = merge({**trio, "sw": web.root / "lora"}, tmp_path / "local")
    given = addresses(web) | {"base": str(trio["base"]), "sw": f"{web.url}lora/"}
    merged = merge(given, tmp_path / "out")
    assert weights_of(merged) == weights_of(local)
    record = json.loads((merged / "safeswap.json").read_text())["profile"]["inputs"]["sw"]
    assert record["adapter"]["source"] == f"{web.url}lora/"


def test_a_login_goes_to_its_host_alone_and_is_stored_nowhere(
    web: Web, trio: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = Web(web.root)
    try:
        web.faults.login = "Basic bWU6czNjcmV0"
        for role in ROLES:  # another host holds the first shards
            name = f"{role}/model-00001-of-00002.safetensors"
            web.faults.redirect[name] = f"{other.url}{name}"
        secret = web.url.replace("://", "://me:s3cret@")
        given = {role: f"{secret}{role}/?sig=s1gned" for role in ROLES}
        merged = merge(given, tmp_path / "out")
        assert weights_of(merged) == weights_of(merge(trio, tmp_path / "local"))
        assert {one.authorization for one in web.asked} == {"Basic bWU6czNjcmV0"}
        assert {one.query for one in web.asked} == {"sig=s1gned"}
        assert {one.authorization for one in other.asked} == {None}
        assert {one.query for one in other.asked} == {""}
        kept = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
        names = "".join(map(str, tmp_path.rglob("*")))
        for word in ("s3cret", "s1gned", "bWU6czNjcmV0"):
            assert word.encode() not in kept
            assert word not in names + caplog.text
        web.faults.login = "Basic other"
        message = refused(lambda: open_checkpoint(f"{secret}te/"), "may not be read", "401")
        assert "s3cret" not in message
    finally:
        other.stop()


def test_a_server_without_ranges_is_refused_with_the_way_out_which_works(
    web: Web, trio: dict[str, Path], tmp_path: Path
) -> None:
    web.faults.ranges = False
    given = addresses(web)
    refused(lambda: merge(given, tmp_path / "out"), "no ranges", "--download", out=tmp_path / "out")
    arguments = ["merge", given["base"], "--safety", given["safety"], "--download"]
    arguments += ["--language", f"sw={given['sw']}", "--out", str(tmp_path / "out"), "--no-figure"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    assert weights_of(tmp_path / "out") == weights_of(merge(trio, tmp_path / "local"))
    again = web.sent()
    done = CliRunner().invoke(
        main, ["verify", str(tmp_path / "out"), "--download", "--allow-remote"]
    )
    assert done.exit_code == 0, done.output
    assert (
        web.sent() - again <= 3 * 2 * 9000
    )  # a server without ranges sends all when it is looked at


def test_pickled_weights_are_read_whole_or_not_at_all(web: Web, trio: dict[str, Path]) -> None:
    for file in trio["te"].glob("model*"):
        file.unlink()
    (trio["te"] / "pytorch_model.bin").write_bytes(b"pickled" * 9)
    refused(lambda: open_checkpoint(f"{web.url}te/"), "only safetensors", "--download")


@pytest.mark.parametrize(
    "file",
    ["../base/model.safetensors", "/etc/passwd", "a/b.safetensors", "~x.safetensors", "x.py", ""],
)
def test_an_index_that_names_other_files_is_refused(
    web: Web, trio: dict[str, Path], file: str
) -> None:
    edit_json(trio["te"] / "model.safetensors.index.json", weight_map={"a": file})
    before = len(web.asked)
    refused(lambda: open_checkpoint(f"{web.url}te/"), "weights in its own folder")
    assert not [one for one in web.asked[before:] if "passwd" in one.path or ".." in one.path]


def test_an_index_that_names_a_missing_shard_is_refused(web: Web, trio: dict[str, Path]) -> None:
    (trio["te"] / "model-00002-of-00002.safetensors").unlink()
    refused(
        lambda: open_checkpoint(f"{web.url}te/"), "model-00002-of-00002.safetensors", "not there"
    )


def test_a_page_that_asks_to_log_in_is_no_configuration(web: Web, tmp_path: Path) -> None:
    (web.root / "page").mkdir()
    refused(lambda: open_checkpoint(f"{web.url}page/"), "has no config.json", "Give the folder")


def test_evaluate_and_the_like_need_the_whole_files(web: Web) -> None:
    message = refused(lambda: resolve(f"{web.url}te/"), "must lie on this machine")
    assert "SAFESWAP_DOWNLOAD=1" in message
    assert not web.asked


def test_a_file_sends_nobody_to_an_address(web: Web, tmp_path: Path) -> None:
    named = tmp_path / "plan.yaml"
    refused(lambda: open_checkpoint(f"{web.url}te/", named_in=named), "plan.yaml", "--allow-remote")
    refused(lambda: open_checkpoint("s3://bucket/te", named_in=named), "s3://bucket/te")
    assert not web.asked


def test_local_inputs_load_nothing_for_the_network(trio: dict[str, Path], tmp_path: Path) -> None:
    code = (
        "import sys, safeswap\n"
        f"safeswap.api.merge({str(trio['base'])!r}, safety={str(trio['safety'])!r}, "
        f"languages={{'sw': {str(trio['sw'])!r}}}, out={str(tmp_path / 'out')!r}, figure=False)\n"
        "libraries = {'urllib3', 'fsspec', 's3fs', 'gcsfs', 'requests', 'huggingface_hub'}\n"
        "print(sorted(libraries & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=os.environ
    )
    assert done.stdout.strip() == "[]", done.stderr
    assert not (tmp_path / "cache").exists()
