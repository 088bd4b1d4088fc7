"""What a merge wrote, pushed to a hub: a stand-in that speaks its API and keeps what it is sent."""

from __future__ import annotations

import json
import logging
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from huggingface_hub import constants
from pushing import call, fetched, settings, shown
from stand_in import TOKEN, WritableHub

from plain_adapter import write_adapter
from safeswap import api
from safeswap.cli import main
from tiny import edit_json, swap

Trio = dict[str, Path]
pytestmark = pytest.mark.timeout(60)


REWRITTEN = {"README.md", "safeswap.json", "safeswap-plan.yaml"}


def test_one_commit_shows_the_merge_in_a_private_repository(merged: Path, hub: WritableHub) -> None:
    hub.part_bytes = 3000
    (merged / "notes.txt").write_text("not the merge's")
    (merged / ".lock").write_text("")
    done = call("push", merged, "--to", "me/safe")
    assert done.exit_code == 0, done.output
    repo = hub.repos["me/safe"]
    assert (repo.private, repo.commits()) == (True, 1)
    files = shown(hub)
    local = {p.name: p.read_bytes() for p in merged.iterdir()}
    assert set(files) == set(local) - {"notes.txt", ".lock"}
    assert {name for name in files if files[name] != local[name]} == REWRITTEN
    assert "private" in done.output and f"{len(files)} files" in done.output


def test_the_copy_verifies_against_its_inputs_and_names_no_place(
    trio: Trio, merged: Path, hub: WritableHub, tmp_path: Path
) -> None:
    assert call("push", merged, "--to", "me/safe").exit_code == 0
    for name, raw in shown(hub).items():
        assert str(tmp_path).encode() not in raw, name
        assert str(Path.home()).encode() not in raw, name
    assert b"Before an upload" not in shown(hub)["README.md"]
    copy = fetched(hub, tmp_path / "copy")
    where = {"base": trio["base"], "safety": trio["safety"], "sw": trio["sw"]}
    checked = api.verify_merge(copy, inputs=where)
    assert (checked.from_inputs, checked.rewritten, checked.notes) == (True, (), ())
    edit_json(copy / "safeswap.json", not_used={"base: x": "no reason"})
    with pytest.raises(api.SafeswapError, match=r"edited|not what plan"):
        api.verify_merge(copy, inputs=where)


def test_the_token_is_nowhere_but_in_the_header_for_the_hub(
    merged: Path, hub: WritableHub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    hub.before = lambda method, path: (
        (403, f"no right for {TOKEN}") if path.endswith("/commit/main") else None
    )
    done = call("-v", "push", merged, "--to", "me/safe")
    assert done.exit_code == 1 and "may not write" in done.output
    assert done.exception is None or TOKEN not in repr(done.exception)
    with pytest.raises(api.SafeswapError) as caught:
        api.push(merged, "me/safe")
    error: BaseException | None = caught.value
    assert error is not None and error.__cause__ is None and error.__context__ is None
    printed = [done.output, str(caught.value), *(r.getMessage() for r in caplog.records)]
    printed += [p.read_text(errors="replace") for p in tmp_path.rglob("*") if p.is_file()]
    assert not [text for text in printed if TOKEN in text or "SECRETSIG" in text]
    carried = {token for path, token in hub.tokens if path.startswith("/lfs/")}
    assert carried == {None}
    assert all(TOKEN.encode() not in raw for raw in hub.objects.values())


def test_failures_that_pass_are_waited_out(merged: Path, hub: WritableHub) -> None:
    failures: dict[str, list[Any]] = {
        "/api/models/me/safe": [500],
        "/api/repos/create": [503, "drop"],
        "/api/models/me/safe/preupload/main": [502, "drop"],
        "/me/safe.git/info/lfs/objects/batch": [500],
        "/api/validate-yaml": [500],
        "/api/models/me/safe/commit/main": [500, "drop"],
    }

    def fail(method: str, path: str) -> Any:
        if path.startswith("/lfs/"):
            return failures.setdefault("lfs", [500, "drop"]).pop(0) if failures.get("lfs", 1) else 0
        return failures[path].pop(0) if failures.get(path) else None

    hub.before = fail
    done = call("push", merged, "--to", "me/safe")
    assert done.exit_code == 0, done.output
    assert not any(failures.values())
    assert hub.repos["me/safe"].commits() == 1


def test_a_commit_whose_answer_was_lost_is_not_made_twice(merged: Path, hub: WritableHub) -> None:
    told: list[str] = []

    def lose(method: str, path: str) -> str | None:
        if path.endswith("/commit/main") and not told:
            told.append(path)
            return "late"
        return None

    hub.before = lose
    done = call("push", merged, "--to", "me/safe")
    assert done.exit_code == 0, done.output
    assert hub.repos["me/safe"].commits() == 1
    assert "model-00001-of-00002.safetensors" in shown(hub)


@pytest.mark.parametrize("at", ["second file", "commit"])
def test_a_push_that_is_killed_goes_on_with_what_is_missing(
    merged: Path, hub: WritableHub, at: str
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "safeswap", "push", str(merged), "--to", "me/safe", "--yes"],
        env=settings(hub.url) | {"HF_TOKEN": TOKEN},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )

    def kill(method: str, path: str) -> str | None:
        second = path.startswith("/lfs/") and len(hub.objects) == 1
        if path.endswith("/commit/main") if at == "commit" else second:
            process.send_signal(signal.SIGKILL)
            process.wait(20)
            return "drop"
        return None

    hub.before = kill
    output, _ = process.communicate(timeout=40)
    assert process.returncode == -signal.SIGKILL, output.decode()
    hub.before = lambda method, path: None
    assert shown(hub) == {}
    before = {
        path for method, path in hub.asked if method == "PUT" and path.split("/")[2] in hub.objects
    }
    assert len(before) == (2 if at == "commit" else 1)
    hub.asked.clear()
    done = call("push", merged, "--to", "me/safe")
    assert done.exit_code == 0, done.output
    assert not before & {path for method, path in hub.asked if method == "PUT"}
    assert hub.repos["me/safe"].commits() == 1
    weights = "model-00002-of-00002.safetensors"
    assert shown(hub)[weights] == (merged / weights).read_bytes()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((401, "Invalid credentials in Authorization header"), "hf auth login"),
        ((403, "You don't have the rights to create a model under me"), "role write"),
        ((403, "Private repository storage limit reached"), "--public"),
        ((402, "Payment required"), "no room"),
        ((409, "conflicting"), "at the same time"),
        ((429, "slow down"), "asks for a pause"),
        ((500, "broken"), "the hub failed, several times"),
        ("drop", "cannot be reached"),
    ],
)
def test_what_the_hub_refuses_is_said_with_what_to_do(
    merged: Path, hub: WritableHub, answer: Any, said: str
) -> None:
    hub.before = lambda method, path: answer if path.endswith("/commit/main") else None
    done = call("push", merged, "--to", "me/safe")
    assert done.exit_code == 1
    assert said in done.output, done.output
    assert shown(hub) == {}


def test_a_wrong_token_none_and_offline_are_refused_before_anything_is_sent(
    merged: Path, hub: WritableHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrongwrongwrong")
    done = call("push", merged, "--to", "me/safe")
    assert done.exit_code == 1 and "the token is not accepted" in done.output
    assert "hf_wrong" not in done.output
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    hub.asked.clear()
    done = call("push", merged, "--to", "me/safe")
    assert done.exit_code == 1 and "there is no token" in done.output
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    done = call("push", merged, "--to", "me/safe")
    assert done.exit_code == 1 and "HF_HUB_OFFLINE is set" in done.output
    assert hub.asked == [] and hub.repos == {}


def test_a_dry_run_asks_nothing(
    merged: Path, hub: WritableHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    done = call("push", merged, "--to", "me/safe", "--dry-run", "--json")
    assert done.exit_code == 0, done.output
    (record,) = json.loads(done.stdout)["pushed"]
    assert (record["to"], record["private"]) == ("me/safe", True)
    assert record["files"]["config.json"] == (merged / "config.json").stat().st_size
    assert hub.asked == []


def test_what_is_public_is_not_pushed_to_unless_asked(merged: Path, hub: WritableHub) -> None:
    hub.add("me/safe", private=False)
    done = call("push", merged, "--to", "me/safe")
    assert done.exit_code == 1 and "is public" in done.output
    assert hub.objects == {} and shown(hub) == {}
    assert call("push", merged, "--to", "me/safe", "--public").exit_code == 0
    assert "config.json" in shown(hub)
    done = call("push", merged, "--to", "me/new", "--public")
    assert done.exit_code == 0 and not hub.repos["me/new"].private
    hub.add("me/hidden", private=True)
    done = call("push", merged, "--to", "me/hidden", "--public")
    assert "stays so" in done.output and hub.repos["me/hidden"].private


def test_files_of_others_stay_and_leftovers_go_in_the_same_commit(
    trio: Trio, merged: Path, hub: WritableHub, tmp_path: Path
) -> None:
    hub.add("me/code", private=True, files={"train.py": b"print()"})
    done = call("push", merged, "--to", "me/code", "--overwrite")
    assert done.exit_code == 1 and "no merge wrote (" in done.output
    assert shown(hub, "me/code") == {"train.py": b"print()"}
    assert call("push", merged, "--to", "me/safe").exit_code == 0
    single = swap(trio, tmp_path / "single", shard_size="1GB", method="uniform")
    done = call("push", single, "--to", "me/safe")
    assert done.exit_code == 1 and "--overwrite" in done.output
    done = call("push", single, "--to", "me/safe", "--overwrite", "--message", "second")
    assert done.exit_code == 0, done.output
    assert set(shown(hub)) == {p.name for p in single.iterdir()}
    assert hub.repos["me/safe"].commits() == 2


def test_a_branch_is_made_and_main_stays(merged: Path, hub: WritableHub) -> None:
    done = call("push", merged, "--to", "me/safe", "--revision", "v2")
    assert done.exit_code == 0, done.output
    assert shown(hub) == {} and "config.json" in shown(hub, branch="v2")


def test_a_merge_is_pushed_when_it_is_whole(trio: Trio, hub: WritableHub, tmp_path: Path) -> None:
    given = [trio["base"], "--safety", trio["safety"], "--language", f"sw={trio['sw']}"]
    given += ["--no-figure", "--quiet", "--push-to-hub", "me/safe"]
    done = call("merge", *given, "--out", tmp_path / "out", "--dry-run")
    assert done.exit_code == 0 and "→ me/safe, private" in done.output
    assert hub.asked == []
    both = ["--language", f"te={trio['te']}", "--out", tmp_path / "both"]
    done = call("merge", *given, *both)
    assert done.exit_code == 0, done.output
    assert set(hub.repos) == {"me/safe-sw", "me/safe-te"}
    for language in ("sw", "te"):
        weights = (tmp_path / "both" / language / "model-00001-of-00002.safetensors").read_bytes()
        assert shown(hub, f"me/safe-{language}")["model-00001-of-00002.safetensors"] == weights
    hub.before = lambda method, path: 403 if "create" in path else None
    done = call("merge", *given, "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert f"go on with: safeswap push {tmp_path / 'out'} --to me/safe" in done.output
    assert (tmp_path / "out/safeswap.json").exists()
    done = call("merge", *given, "--out", "s3://models/out")
    assert done.exit_code == 1 and "local --out" in done.output


def test_a_file_of_options_cannot_publish(trio: Trio, hub: WritableHub, tmp_path: Path) -> None:
    for key, value in (("push-to-hub", "me/safe"), ("public", "true"), ("out", "s3://models/x")):
        (tmp_path / "o.yaml").write_text(f"base: {trio['base']}\n{key}: {value}\n")
        done = call("merge", "--config", tmp_path / "o.yaml")
        assert done.exit_code == 1, done.output
        assert key in done.output or "not on the configured hub" in done.output
    assert hub.asked == []


def test_what_is_not_the_merges_any_more_is_not_sent(merged: Path, hub: WritableHub) -> None:
    shard = merged / "model-00001-of-00002.safetensors"
    raw = bytearray(shard.read_bytes())
    raw[-1] ^= 1
    shard.write_bytes(raw)
    done = call("push", merged, "--to", "me/safe")
    assert done.exit_code == 1 and "was changed" in done.output
    assert hub.asked == []


@pytest.mark.parametrize("name", ["safe", "me/safe@v2", "me/sa fe", "../x/y", "https://host/me/x"])
def test_what_is_no_repository(merged: Path, hub: WritableHub, name: str) -> None:
    done = call("push", merged, "--to", name)
    assert done.exit_code == 1
    assert "ORG/NAME" in done.output or "--revision v2" in done.output
    assert hub.asked == []


def test_a_folder_that_no_merge_wrote(trio: Trio, hub: WritableHub) -> None:
    done = call("push", trio["sw"], "--to", "me/safe")
    assert done.exit_code == 1 and "has no safeswap.json" in done.output
    shutil.rmtree(trio["sw"])
    assert hub.asked == []


def test_a_login_in_the_endpoint_takes_the_tokens_place(
    merged: Path, hub: WritableHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.accepts = "Basic bWU6c2VjcmV0d29yZA=="
    monkeypatch.setattr(constants, "ENDPOINT", hub.url.replace("://", "://me:secretword@"))
    done = call("push", merged, "--to", "me/safe")
    assert done.exit_code == 0, done.output
    assert "secretword" not in done.output
    sent = {token for path, token in hub.tokens if path.startswith(("/api/models", "/me/safe"))}
    assert sent == {hub.accepts}


@pytest.mark.parametrize(("answer", "sent"), [("n\n", False), ("y\n", True)])
def test_on_a_terminal_it_is_asked_first(
    merged: Path, hub: WritableHub, monkeypatch: pytest.MonkeyPatch, answer: str, sent: bool
) -> None:
    monkeypatch.setattr("safeswap.cli.publishing._is_terminal", lambda: True)
    words = ["push", str(merged), "--to", "me/safe"]
    done = CliRunner().invoke(main, words, input=answer)
    assert "→ me/safe, private" in done.output and "config.json" in done.output
    assert ("me/safe" in hub.repos) is sent
    assert call(*words, "--yes").exit_code == 0
    assert hub.repos["me/safe"].commits() == 1


def test_an_adapter_is_pushed_with_a_card_of_its_own(
    trio: Trio, hub: WritableHub, tmp_path: Path
) -> None:
    for seed, role in enumerate(("safety", "sw"), 1):
        write_adapter(tmp_path / role, trio["base"], seed)
    given = {"safety": tmp_path / "safety", "languages": {"sw": tmp_path / "sw"}}
    api.merge(trio["base"], **given, out=tmp_path / "lora", as_adapter=True)
    done = call("push", tmp_path / "lora", "--to", "me/lora")
    assert done.exit_code == 0, done.output
    files = shown(hub, "me/lora")
    weights = "adapter_model.safetensors"
    assert files[weights] == (tmp_path / "lora" / weights).read_bytes()
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == "base"
    assert all(str(tmp_path).encode() not in raw for raw in files.values())
    assert (
        api.verify_merge(fetched(hub, tmp_path / "copy", "me/lora"), without_inputs=True).rewritten
        == ()
    )


def test_a_hub_without_xet_storage_gets_plain_lfs(
    merged: Path, hub: WritableHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("hf_xet")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    done = call("push", merged, "--to", "me/safe")
    assert done.exit_code == 0, done.output
    tokens = [path for method, path in hub.asked if "xet-write-token" in path]
    assert 0 < len(tokens) < 5 and not constants.HF_HUB_DISABLE_XET
    assert len(hub.objects) == 2 and hub.repos["me/safe"].commits() == 1


def test_a_hub_that_shows_other_bytes_is_told(merged: Path, hub: WritableHub) -> None:
    def change(method: str, path: str) -> None:
        if "/revision/" in path:
            head = hub.repos["me/safe"].head()
            weights = "model-00001-of-00002.safetensors"
            head[weights] = head[weights][:-1] + b"?"

    hub.before = change
    done = call("push", merged, "--to", "me/safe")
    assert done.exit_code == 1
    assert "shows other bytes than were sent for model-00001-of-00002" in done.output
