"""A checkpoint's folder: nothing in it leads out of it, stalls a reader, or smuggles weights."""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import safeswap
from safeswap.checkpoint.digests import of_small_file
from safeswap.checkpoint.inside import files_below, is_plain_name, why_not_read
from safeswap.checkpoint.loaded_names import LARGEST, is_companion, is_weights
from safeswap.checkpoint.model import open_checkpoint
from safeswap.errors import SafeswapError, VerificationError
from tiny import edit_json, make_trio, refused, swap

SECRET = "the private key"


@pytest.fixture
def trio(tmp_path: Path) -> dict[str, Path]:
    return make_trio(tmp_path / "trio")


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text(SECRET)
    return tmp_path / "secret"


def manifest_of(out: Path) -> Any:
    return json.loads((out / "safeswap.json").read_text())


# ---- links ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["notes.txt", "a/b.txt", "x.csv"])
def test_a_strangers_link_is_left_out_and_named(
    trio: dict[str, Path], secret: Path, tmp_path: Path, name: str
) -> None:
    (trio["sw"] / name).parent.mkdir(exist_ok=True)
    (trio["sw"] / name).symlink_to(secret)
    out = swap(trio, tmp_path / "out")
    assert name in manifest_of(out)["files_left_out"] and not (out / name).exists()
    assert SECRET not in "".join(p.read_text("latin-1") for p in out.rglob("*") if p.is_file())


@pytest.mark.parametrize(
    "name",
    [
        *("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"),
        *("chat_template.jinja", "chat_templates/x.jinja", "LICENSE", "vocab.txt", "spiece.model"),
        *("model-00001-of-00002.safetensors", "model.safetensors.index.json", "modeling_x.py"),
    ],
)
@pytest.mark.parametrize("relative", [True, False], ids=["relative", "absolute"])
def test_what_a_loader_opens_may_not_lead_out(
    trio: dict[str, Path], tmp_path: Path, name: str, relative: bool
) -> None:
    path = trio["sw"] / name
    path.parent.mkdir(exist_ok=True)
    outside = tmp_path / "outside"
    if path.exists():
        path.rename(outside)
    else:
        outside.write_text("{}")
    path.symlink_to(os.path.relpath(outside, path.parent) if relative else outside)
    refused(lambda: swap(trio, tmp_path / "out"), name, "leads out", out=tmp_path / "out")


def test_a_folder_that_is_a_link_does_not_hide_it(trio: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x.jinja").write_text(SECRET)
    (trio["sw"] / "chat_templates").symlink_to(tmp_path / "elsewhere")
    refused(lambda: swap(trio, tmp_path / "out"), "chat_templates", "leads out")
    (trio["sw"] / "chat_templates").rename(trio["sw"] / "notes")
    out = swap(trio, tmp_path / "out")
    assert "notes" in manifest_of(out)["files_left_out"] and not (out / "notes").exists()


def test_links_within_the_folder_and_into_the_hubs_cache_are_followed(
    trio: dict[str, Path], tmp_path: Path
) -> None:
    cache = tmp_path / "hub" / "models--org--sw"
    snapshot, blobs = cache / "snapshots" / "c0ffee", cache / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate(sorted(trio["sw"].iterdir())):
        path.rename(blobs / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    (snapshot / "LICENSE").symlink_to("tokenizer.json")
    out = swap({**trio, "sw": snapshot}, tmp_path / "out")
    assert (out / "LICENSE").is_file() and not (out / "LICENSE").is_symlink()
    assert safeswap.verify_merge(out).from_inputs
    # another repository's blobs, or blobs that are a link themselves, are not its own
    other = tmp_path / "hub" / "models--org--other" / "blobs"
    other.mkdir(parents=True)
    (other / "0").write_text("{}")
    (snapshot / "NOTICE").symlink_to("../../../models--org--other/blobs/0")
    assert "leads out" in str(why_not_read(snapshot, snapshot / "NOTICE"))
    blobs.rename(cache / "real")
    blobs.symlink_to(cache / "real")
    assert "leads out" in str(why_not_read(snapshot, snapshot / "config.json"))


# ---- pipes, devices, names -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "model.safetensors", "vocab.txt"]
)
def test_nobody_waits_at_a_pipe(trio: dict[str, Path], name: str) -> None:
    (trio["sw"] / name).unlink(missing_ok=True)
    os.mkfifo(trio["sw"] / name)
    refused(lambda: open_checkpoint(trio["sw"]), name, "a pipe, socket or device")


def test_a_strangers_pipe_is_left_out(trio: dict[str, Path], tmp_path: Path) -> None:
    os.mkfifo(trio["sw"] / "notes.fifo")
    out = swap(trio, tmp_path / "out")
    assert "notes.fifo" in manifest_of(out)["files_left_out"]


NAMES = [
    "../../etc/passwd",
    "/dev/zero",
    "/etc/passwd",
    "a/../../x",
    "..",
    "~/x",
    "C:\\x",
    "a\\b",
    "",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("key", ["files", "about", "input_files"])
def test_a_manifest_names_its_own_files_only(
    trio: dict[str, Path], tmp_path: Path, key: str, name: str
) -> None:
    assert not is_plain_name(name)
    out = swap(trio, tmp_path / "out")
    manifest = manifest_of(out)
    (manifest[key]["sw"] if key == "input_files" else manifest[key])[name] = "0" * 64
    (out / "safeswap.json").write_text(json.dumps(manifest))
    with pytest.raises(VerificationError, match="outside its folder"):
        safeswap.verify_merge(out)


Replace = Callable[[Path, Path], None]
REPLACED: dict[str, Replace] = {
    "device": lambda path, outside: path.symlink_to("/dev/zero"),
    "pipe": lambda path, outside: os.mkfifo(path),
    "link": lambda path, outside: path.symlink_to(outside),
}


@pytest.mark.parametrize("how", REPLACED)
@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "model-00001-of-00002.safetensors", "README.md",
             "safeswap-plan.yaml", "safeswap.json", "stray.txt"],
)  # fmt: skip
def test_verify_reads_plain_files_only(
    trio: dict[str, Path], tmp_path: Path, name: str, how: str
) -> None:
    out = swap(trio, tmp_path / "out")
    outside = tmp_path / "outside"
    if (out / name).exists():
        (out / name).rename(outside)  # the very bytes, and yet not the folder's own
    else:
        outside.write_text("x")
    REPLACED[how](out / name, outside)
    with pytest.raises(SafeswapError):
        safeswap.verify_merge(out)


def test_a_file_is_hashed_in_blocks(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as stream:
        stream.truncate(64 << 20)
    tracemalloc.start()
    of_small_file(tmp_path / "large")
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


# ---- what belongs into a merge -------------------------------------------------------------------

BELONGS = [
    *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"),
    *("tokenizer.model", "tokenizer.model.v3", "vocab.json", "vocab.txt", "merges.txt"),
    *("added_tokens.json", "special_tokens_map.json", "chat_template.jinja", "spiece.model"),
    *("chat_template.json", "chat_templates/tools.jinja", "additional_chat_templates/x.jinja"),
    *("qwen.tiktoken", "preprocessor_config.json", "processor_config.json", "tekken.json"),
    *("video_preprocessor_config.json", "LICENSE", "LICENSE.txt", "LICENCE.md", "NOTICE"),
    *("USE_POLICY.md", "COPYING", "sentencepiece.bpe.model"),
]
STRANGERS = [
    *("__0_0.distcp", ".metadata", "model.onnx", "model.onnx_data", "model.tar.gz", "old.zip"),
    *("model.safetensors.bak", "pytorch_model.bin.old", "consolidated.00.pth", "x.gguf", "x.npz"),
    *("x.pkl", "x.msgpack", "x.safetensors.zip", "LICENSE.safetensors", "license.bin", "x.ckpt"),
    *("notes.txt", "eval.csv", "events.out.tfevents.1", "train.log", "wandb/run.json", "x.sh"),
    *("modeling_x.py", "chat_templates/x.bin", "original/params.json", "params.json", "core"),
    *("tokenizer_secret.json", "tokenizer.secret.json", "tokenizer_secret.model", "vocab-own.json"),
    *("secret.model", "merges_old.txt", "chat_template_mine.jinja", "image_processor_x.json"),
    *("tokenizer.model.vault", "feature_extractor_own.json", "vocab.secret.txt", "secret.spm"),
    *("tokenizer.json.bak", "config.json~", "model.mlmodel", "Model.SafeTensors", "data.parquet"),
]


def test_what_belongs_goes_along_and_strangers_are_named(
    trio: dict[str, Path], tmp_path: Path
) -> None:
    for name in (*BELONGS, *STRANGERS):
        path = trio["sw"] / name
        path.parent.mkdir(exist_ok=True)
        if name not in ("config.json", "tokenizer.json"):
            text = "{}" if name.endswith(".json") else "plain text"
            path.write_text(text)
    (trio["sw"] / "Model.SafeTensors").rename(trio["sw"] / "Model.SAFETENSORS")
    before = set(files_below(trio["sw"]))
    out = swap(trio, tmp_path / "out")
    manifest = manifest_of(out)
    ours = {"safeswap.json", "safeswap-plan.yaml", "README.md", "model.safetensors.index.json"}
    shards = {row["name"] for row in manifest["outputs"]}
    assert set(files_below(out)) == {*BELONGS, *ours, *shards}
    assert before <= {*manifest["files"], *manifest["files_left_out"]}
    assert all(manifest["files_left_out"].values())
    assert safeswap.verify_merge(out).from_inputs


@pytest.mark.parametrize("name", STRANGERS)
def test_names_of_strangers_are_no_companions(name: str) -> None:
    assert not is_companion(name)
    assert not (is_companion(name) and is_weights(name))


def test_code_goes_along_where_the_configuration_names_it(
    trio: dict[str, Path], tmp_path: Path
) -> None:
    (trio["sw"] / "modeling_x.py").write_text("")
    assert "modeling_x.py" in manifest_of(swap(trio, tmp_path / "a"))["files_left_out"]
    edit_json(trio["sw"] / "config.json", auto_map={"AutoModel": "modeling_x.X"})
    assert "modeling_x.py" in manifest_of(swap(trio, tmp_path / "b"))["files"]


CONTENT = {
    "safetensors": (40).to_bytes(8, "little") + b'{"a":' + b" " * 60,
    "zip": b"PK\x03\x04" + b"\0" * 60,
    "gzip": b"\x1f\x8b" + b"\0" * 60,
    "gguf": b"GGUF" + b"\0" * 60,
    "pickle": b"\x80\x04" + b"\0" * 60,
}


@pytest.mark.parametrize("kind", CONTENT)
@pytest.mark.parametrize("name", ["spiece.model", "LICENSE", "notes.txt", "deep/er/notes"])
def test_weights_under_a_harmless_name_are_known_by_their_content(
    trio: dict[str, Path], tmp_path: Path, kind: str, name: str
) -> None:
    (trio["sw"] / name).parent.mkdir(parents=True, exist_ok=True)
    (trio["sw"] / name).write_bytes(CONTENT[kind])
    out = swap(trio, tmp_path / "out")
    assert name in manifest_of(out)["files_left_out"]
    (out / name).parent.mkdir(parents=True, exist_ok=True)
    (out / name).write_bytes(CONTENT[kind])
    with pytest.raises(VerificationError, match="which the merge did not write"):
        safeswap.verify_merge(out)


@pytest.mark.parametrize("name", ["x.distcp", "x.onnx_data", "a/x.bak", "old.tar", "a/b/x.gguf"])
def test_weights_beside_the_merge_are_an_error_even_where_the_manifest_has_them(
    trio: dict[str, Path], tmp_path: Path, name: str
) -> None:
    out = swap(trio, tmp_path / "out")
    (out / name).parent.mkdir(parents=True, exist_ok=True)
    (out / name).write_text("whatever")
    with pytest.raises(VerificationError, match="which the merge did not write"):
        safeswap.verify_merge(out)
    manifest = manifest_of(out)
    manifest["files"][name] = of_small_file(out / name)
    (out / "safeswap.json").write_text(json.dumps(manifest))
    with pytest.raises(VerificationError, match="not safe to hand on"):
        safeswap.verify_merge(out)


def test_a_companion_that_is_too_large_is_left_out(trio: dict[str, Path], tmp_path: Path) -> None:
    with (trio["sw"] / "spiece.model").open("wb") as stream:
        stream.truncate(LARGEST + 1)
    out = swap(trio, tmp_path / "out")
    assert "larger than" in manifest_of(out)["files_left_out"]["spiece.model"]
    assert not (out / "big.model").exists()


@pytest.mark.parametrize(
    "name", [".env", ".netrc", ".git/config", ".cache/huggingface/token", ".x/y"]
)
def test_hidden_strangers_are_left_out_and_verify_names_them(
    trio: dict[str, Path], tmp_path: Path, name: str
) -> None:
    (trio["sw"] / name).parent.mkdir(parents=True, exist_ok=True)
    (trio["sw"] / name).write_text(SECRET)
    out = swap(trio, tmp_path / "out")
    assert name in manifest_of(out)["files_left_out"] and not (out / name).exists()
    assert not safeswap.verify_merge(out).notes
    (out / name).parent.mkdir(parents=True, exist_ok=True)
    (out / name).write_text(SECRET)
    (note,) = safeswap.verify_merge(out).notes
    assert note.partition(" ")[0].rstrip("/") in (name, name.partition("/")[0])


def test_weights_in_a_hidden_folder_are_no_secret(trio: dict[str, Path], tmp_path: Path) -> None:
    out = swap(trio, tmp_path / "out")
    (out / ".old").mkdir()
    (out / ".old" / "a").write_bytes(next(trio["sw"].glob("*.safetensors")).read_bytes())
    with pytest.raises(VerificationError, match=r"holds \.old/a, which the merge did not write"):
        safeswap.verify_merge(out)
