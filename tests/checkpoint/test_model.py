"""Checkpoint folders: what is opened, what is refused and why."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from safeswap.api import make_profile
from safeswap.checkpoint import join_family, open_checkpoint
from safeswap.checkpoint.digests import of_weight_file
from safeswap.checkpoint.staging import Staging
from safeswap.errors import OutputError
from tiny import edit_json, make_trio, refused, rewrite

Trio = dict[str, Path]
INDEX = "model.safetensors.index.json"


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def test_sharded_and_single_checkpoints_hold_the_same(trio: Trio) -> None:
    sharded = open_checkpoint(trio["base"])
    rewrite(trio["base"], lambda weights: None)
    single = open_checkpoint(trio["base"])
    assert set(sharded.tensors) == set(single.tensors)
    assert (len(sharded.files), len(single.files)) == (2, 1)


def test_an_index_that_does_not_match_is_refused(trio: Trio) -> None:
    folder = trio["base"]
    index, good = folder / INDEX, (folder / INDEX).read_text()
    table = json.loads(good)["weight_map"]
    first, last = shards(folder)

    def check(weight_map: Any, *words: str) -> None:
        index.write_text(json.dumps({"weight_map": weight_map}))
        refused(lambda: open_checkpoint(folder), str(folder), *words)

    name = "model.norm.weight"
    check(table | {name: "model-9.safetensors"}, "model-9.safetensors", "missing")
    check(table | {name: first.name}, name, first.name, "fetch both")
    check(table | {"made.up": last.name}, "made.up", last.name)
    check({k: v for k, v in table.items() if k != name}, name, INDEX)
    check(table | {name: "../x.safetensors"}, "outside")
    index.write_text("{")
    refused(lambda: open_checkpoint(folder), INDEX, "Fetch")
    index.unlink()
    refused(lambda: open_checkpoint(folder), "2 safetensors files", INDEX)
    index.write_text(good)
    shutil.copy(first, last)
    refused(lambda: open_checkpoint(folder), "again in", last.name, "stale")
    last.unlink()
    refused(lambda: open_checkpoint(folder), last.name, "missing")


def test_an_unreadable_shard_is_refused(trio: Trio, monkeypatch: pytest.MonkeyPatch) -> None:
    victim, real = shards(trio["base"])[1], os.open

    def forbid(path: Any, *arguments: Any, **named: Any) -> Any:
        if path == victim:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments, **named)

    monkeypatch.setattr(os, "open", forbid)
    refused(lambda: open_checkpoint(trio["base"]), str(victim), "Permission denied", "permissions")


@pytest.mark.parametrize("method", ["bitnet", "one-of-tomorrow", None])
@pytest.mark.parametrize("key", ["quantization_config", "compression_config"])
def test_a_configuration_that_quantizes_while_loading_is_refused(
    trio: Trio, method: str | None, key: str
) -> None:
    edit_json(trio["sw"] / "config.json", **{key: {"quant_method": method, "bits": 2}})
    refused(lambda: open_checkpoint(trio["sw"]), "config.json", method or "unnamed", "16-bit")


@pytest.mark.parametrize("method", ["bitsandbytes", "gptq", "awq", "fp8", "compressed-tensors"])
def test_a_quantized_configuration_is_refused_beside_weights_that_are_no_floats(
    trio: Trio, method: str
) -> None:
    edit_json(trio["sw"] / "config.json", quantization_config={"quant_method": method})
    rewrite(trio["sw"], lambda w: w.update({"model.layers.0.codes": np.zeros((4, 4), np.int16)}))
    refused(lambda: open_checkpoint(trio["sw"]), "config.json", method, "codes", "16-bit")


LINEAR = "model.layers.0.mlp.up_proj"
PACKED = {
    "bitsandbytes-4": {f"{LINEAR}.weight": np.zeros((8, 1), np.uint8)},
    "bitsandbytes-8": {f"{LINEAR}.weight": np.zeros((8, 8), np.int8), f"{LINEAR}.SCB": np.ones(8)},
    "gptq": {f"{LINEAR}.qweight": np.zeros((8, 8), np.int32), f"{LINEAR}.scales": np.ones(8)},
    "awq": {f"{LINEAR}.qzeros": np.zeros((8, 8), np.int32)},
    "fp8": {f"{LINEAR}.weight": np.zeros((8, 8), ml_dtypes.float8_e4m3fn)},
    "fp8-scale": {f"{LINEAR}.weight_scale_inv": np.ones((1, 1), np.float32)},
}


@pytest.mark.parametrize("kind", PACKED)
def test_quantized_tensors_are_refused_without_a_configuration(trio: Trio, kind: str) -> None:
    rewrite(trio["sw"], lambda weights: weights.update(PACKED[kind]))
    refused(lambda: open_checkpoint(trio["sw"]), "model.safetensors", LINEAR, "16-bit")


def test_adapters_and_other_formats_are_refused(trio: Trio, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    save_file({"q.lora_A.weight": np.ones((2, 2))}, adapter / "adapter_model.safetensors")
    refused(lambda: open_checkpoint(adapter), str(adapter), "is an adapter", "merge_and_unload")
    shutil.copy(trio["base"] / "config.json", adapter)
    refused(lambda: open_checkpoint(adapter), str(adapter), "is an adapter", "merge_and_unload")
    gguf = tmp_path / "gguf"
    gguf.mkdir()
    (gguf / "model.Q4_K_M.gguf").write_bytes(b"GGUF")
    refused(lambda: open_checkpoint(gguf), "model.Q4_K_M.gguf", "is not GGUF")
    empty = tmp_path / "empty"
    empty.mkdir()
    refused(lambda: open_checkpoint(empty), str(empty), "config.json")
    shutil.copy(trio["base"] / "config.json", empty)
    refused(lambda: open_checkpoint(empty), str(empty), "model.safetensors")
    refused(lambda: open_checkpoint(empty / "config.json"), "is a file")
    refused(lambda: open_checkpoint(tmp_path / "nowhere"), "nowhere", "no such folder")


def test_an_adapter_beside_a_whole_model_is_refused(trio: Trio) -> None:
    """transformers loads the adapter that the file names, not the weights that lie there."""
    (trio["sw"] / "adapter_config.json").write_text('{"base_model_name_or_path": "x"}')
    words = ("adapter_config.json", "beside the weights", "Remove the adapter's files")
    refused(lambda: open_checkpoint(trio["sw"]), str(trio["sw"]), *words)


@pytest.mark.parametrize("name", ["model-00001-of-00002.safetensors", "config.json"])
def test_a_git_lfs_pointer_is_called_one(trio: Trio, name: str) -> None:
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12345\n"
    (trio["sw"] / name).write_text(text)
    refused(lambda: open_checkpoint(trio["sw"]), name, "Git LFS pointer", "Run git lfs pull")


def test_a_folder_that_cannot_be_looked_into_is_refused(
    trio: Trio, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbid(self: Path) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", forbid)
    words = (str(trio["sw"]), "Permission denied", "permissions")
    refused(lambda: open_checkpoint(trio["sw"]), *words)


def vocabulary(folder: Path, table: Any, **more: Any) -> None:
    edit_json(folder / "tokenizer.json", model={"vocab": table}, **more)


def test_tokenizers_that_differ_are_matched_by_token(trio: Trio) -> None:
    members = {role: open_checkpoint(folder) for role, folder in trio.items()}
    vocabulary(trio["base"], {"a": 0, "b": 1})

    def check(*words: str) -> None:
        refused(lambda: join_family(members), *words)

    def noted(*words: str) -> None:
        notes = join_family(members).notes
        assert any(all(word in note for word in words) for note in notes), notes

    for role in ("safety", "te", "sw"):
        vocabulary(trio[role], {"a": 0, "b": 1})
    assert join_family(members).alignment is None
    vocabulary(trio["sw"], {"a": 0, "b": 2})
    noted("sw", "2 are in both, 1 of them with another id", "matched by token")
    vocabulary(trio["sw"], {"a": 0, "c": 1})  # half of them is the least
    noted("sw", "1 are in both, 0 of them with another id", "matched by token")
    vocabulary(trio["sw"], {"c": 0, "d": 1, "b": 2})
    noted("sw", "1 are in both, 1 of them")
    vocabulary(trio["sw"], [["a", 0.0], ["c", -1.0], ["d", -1.0]])
    noted("sw", "1 are in both, 0 of them")
    vocabulary(trio["sw"], {"c": 0, "d": 1})
    words = ("sw expert", "2 tokens, the base's 2; 0 are in both", "0%")
    check(*words, "do not correspond", "Use", "--force")
    assert any("do not correspond" in note for note in join_family(members, force=True).notes)
    vocabulary(trio["sw"], {"a": 0}, added_tokens=[{"content": "<x>", "id": 1}])
    noted("sw: its tokenizer adds '<x>'")
    vocabulary(trio["sw"], 7)
    check("tokenizer.json", "vocabulary", "Fetch")
    vocabulary(trio["sw"], {"a": 0, "b": 1, "new": 2}, added_tokens=[])
    assert any("'new'" in note for note in join_family(members).notes)
    vocabulary(trio["sw"], {"a": 0})
    assert any("sw: its tokenizer lacks 'b'" in note for note in join_family(members).notes)
    (trio["sw"] / "tokenizer.json").unlink()
    vocabulary(trio["safety"], {"a": 0, "b": 1})
    assert any("not compared" in note for note in join_family(members).notes)
    # where one member's tokens are not known, an id with two meanings is refused as ever
    vocabulary(trio["safety"], {"a": 0, "c": 1})
    check("safety expert", "id 1", "'c'", "'b'", "all members have a tokenizer.json")


def test_rows_are_not_matched_where_a_projection_is_of_another_height(trio: Trio) -> None:
    """Its rows would be left in another order than those of the embeddings."""

    def crop(weights: dict[str, Any]) -> None:
        weights[HEAD] = weights[HEAD][:30].copy()

    for folder in trio.values():
        rewrite(folder, crop)
        vocabulary(folder, {"a": 0, "b": 1})
    members = {role: open_checkpoint(folder) for role, folder in trio.items()}
    assert join_family(members).alignment is None
    vocabulary(trio["sw"], {"a": 1, "b": 0})
    refused(lambda: join_family(members), "sw expert", "'a'", "as high as their config.json says")


def test_tokenizers_that_are_not_read_are_compared_byte_by_byte(trio: Trio) -> None:
    members = {role: open_checkpoint(folder) for role, folder in trio.items()}
    for folder in trio.values():
        (folder / "tokenizer.json").unlink()
        (folder / "tokenizer.model").write_bytes(b"pieces")
    assert join_family(members).notes == ()
    (trio["te"] / "tokenizer.model").write_bytes(b"others")
    words = ("te", str(trio["te"] / "tokenizer.model"), "differs", "is no sentencepiece model")
    refused(lambda: join_family(members), *words)


def save_bin(folder: Path, change: Any = lambda state: state, **options: Any) -> Path:
    """Store a checkpoint's weights as pytorch_model.bin instead."""
    torch = pytest.importorskip("torch")
    state = {}
    for name, tensor in open_checkpoint(folder).tensors.items():
        raw = tensor.file.read_bytes()[tensor.start : tensor.start + tensor.nbytes]
        state[name] = torch.frombuffer(bytearray(raw), dtype=torch.bfloat16).reshape(tensor.shape)
    for file in [*shards(folder), folder / INDEX]:
        file.unlink()
    torch.save(change(state), folder / "pytorch_model.bin", **options)
    return folder / "pytorch_model.bin"


def test_a_bin_file_gives_the_same_bytes(trio: Trio) -> None:
    folder = trio["base"]
    before = {
        name: t.file.read_bytes()[t.start : t.start + t.nbytes]
        for name, t in open_checkpoint(folder).tensors.items()
    }
    content = save_bin(folder).read_bytes()
    found = open_checkpoint(folder).tensors
    assert {n: content[t.start : t.start + t.nbytes] for n, t in found.items()} == before


def test_bad_bin_files_are_refused(trio: Trio, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")

    def check(change: Any, *words: str, **options: Any) -> None:
        folder = tmp_path / "bad"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(trio["base"], folder)
        save_bin(folder, change, **options)
        refused(lambda: open_checkpoint(folder), "pytorch_model.bin", *words)

    check(lambda s: s | {"step": 7}, "'step'", "not a plain tensor")
    check(lambda s: s | {"x": torch.ones(4, 4).T[:, 1:]}, "'x'", "one piece")
    check(lambda s: [1, 2], "list", "by name")
    check(lambda s: s | {"code": Harmful()}, "weights-only", "never runs code")
    check(lambda s: s, "before torch 1.6", _use_new_zipfile_serialization=False)
    assert not HARM
    file = save_bin(trio["base"])
    file.write_bytes(file.read_bytes()[:-200])
    refused(lambda: open_checkpoint(trio["base"]), str(file), "cut off", "Fetch")
    file.write_bytes(b"")
    refused(lambda: open_checkpoint(trio["base"]), str(file), "cut off")
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("hello", "world")
    refused(lambda: open_checkpoint(trio["base"]), str(file), "weights-only")


HARM: list[int] = []


class Harmful:
    """What a malicious pickle does: it runs something when it is loaded."""

    def __reduce__(self) -> tuple[Any, tuple[int]]:
        return HARM.append, (1,)


def test_staging_survives_damaged_notes(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for state in ("[]", "", "{}", "7", "\udcff"):
        staging = Staging(out, "job")
        staging.note("a", "copy")
        staging.release()
        root = tmp_path / ".out.safeswap-partial"
        (root / "job.json").write_bytes(state.encode("utf-8", "surrogateescape"))
        staging = Staging(out, "job")
        assert staging.finished == {}
        staging.release()
        shutil.rmtree(root)


def test_a_name_taken_during_the_run_is_not_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "out"
    staging = Staging(out, "job")
    out.write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        staging.commit()
    staging.release()
    assert out.read_text() == "mine"


def test_a_lock_whose_folder_was_taken_away_is_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other run finishes between our opening of the lock and our taking it."""
    import fcntl

    out, real = tmp_path / "out", fcntl.flock

    def finish_first(descriptor: int, how: int) -> None:
        shutil.rmtree(tmp_path / ".out.safeswap-partial")
        real(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", finish_first)
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else None  # noqa: PTH208
    with pytest.raises(OutputError, match="just finished"):
        Staging(out, "job")
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_a_single_file_goes_before_an_index_beside_it_as_in_transformers(
    trio: Trio, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    folder = trio["base"]
    stale = shutil.copytree(folder, tmp_path / "stale")
    rewrite(folder, lambda weights: weights["model.norm.weight"].fill(7))
    for file in (*shards(stale), stale / INDEX):
        shutil.copy(file, folder)
    opened = open_checkpoint(folder)
    assert [file.path.name for file in opened.files] == ["model.safetensors"]
    auto: Any = AutoModelForCausalLM
    assert (auto.from_pretrained(folder).model.norm.weight == 7).all()
    # and an index that is damaged is not even looked at
    (folder / INDEX).write_text("{")
    assert open_checkpoint(folder).tensors.keys() == opened.tensors.keys()


HEAD, EMBEDDINGS = "lm_head.weight", "model.embed_tokens.weight"


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("said", [None, False, True])
def test_without_a_word_in_the_configuration_the_weights_say_what_is_tied(
    tmp_path: Path, said: bool | None, stored: bool
) -> None:
    folder = make_trio(tmp_path, tied=not stored)["base"]
    config = json.loads((folder / "config.json").read_text())
    del config["tie_word_embeddings"]
    config |= {} if said is None else {"tie_word_embeddings": said}
    (folder / "config.json").write_text(json.dumps(config))
    assert open_checkpoint(folder).tied == (not stored if said is None else said)


def store_head(folder: Path, change: float = 0.0) -> None:
    def store(weights: dict[str, Any]) -> None:
        weights[HEAD] = weights[EMBEDDINGS].copy()
        weights[HEAD][-1, -1] += change

    rewrite(folder, store)


@pytest.mark.parametrize("said", [None, True])
@pytest.mark.parametrize("role", ["base", "safety", "sw"])
def test_a_head_that_one_member_stores_is_its_embeddings_or_its_own(
    tmp_path: Path, role: str, said: bool | None
) -> None:
    trio = make_trio(tmp_path, tied=True)
    for folder in trio.values():
        edit_json(folder / "config.json", tie_word_embeddings=said)
    store_head(trio[role])
    members = {r: open_checkpoint(folder) for r, folder in trio.items()}
    family = join_family(members)
    assert family.aliases == {(role, HEAD): EMBEDDINGS}
    assert HEAD not in family.names
    store_head(trio[role], change=1.0)
    members[role] = open_checkpoint(trio[role])
    family = join_family({r: members[r] for r in ("base", "safety", "sw")})  # transformers unties
    assert family.aliases == {} and HEAD in family.names
    assert {r for r, tied in family.tying.tied.items() if not tied} == {role}
    assert any(f"a matrix of its own in {role}" in note for note in family.notes)
    assert (HEAD in family.output("sw", "sw").names) == (role == "sw")


def test_a_head_counts_as_its_own_where_the_configuration_says_untied(tmp_path: Path) -> None:
    trio = make_trio(tmp_path, tied=True)
    store_head(trio["sw"])
    edit_json(trio["base"] / "config.json", tie_word_embeddings=None)
    edit_json(trio["sw"] / "config.json", tie_word_embeddings=False)
    members = {role: open_checkpoint(trio[role]) for role in ("base", "safety", "sw")}
    family = join_family(members)
    assert HEAD in family.output("sw", "sw").names
    assert HEAD not in family.output("sw", "safety").names
    edit_json(trio["base"] / "config.json", tie_word_embeddings=False)  # and has no head
    members["base"] = open_checkpoint(trio["base"])
    refused(lambda: join_family(members), "sw", HEAD)


def test_the_bytes_of_a_dropped_head_count_in_its_files_digest(tmp_path: Path) -> None:
    trio = make_trio(tmp_path, tied=True)
    found = []
    for seed in (1, 2):  # other embeddings, so another head; all else is as it was

        def move(weights: dict[str, Any], seed: int = seed) -> None:
            weights[EMBEDDINGS][0, 0] = seed

        rewrite(trio["sw"], move)
        store_head(trio["sw"])
        measured = make_profile(trio["base"], safety=trio["safety"], languages={"sw": trio["sw"]})
        found.append(measured.inputs["sw"])
    # the head's own digest is in the file's: leaving it out gives another one
    tensors = {t.name: t.digests["sw"] for t in measured.tensors}
    (file,) = open_checkpoint(trio["sw"]).files
    wanted = of_weight_file(file.header, file.tensors, tensors | {HEAD: tensors[EMBEDDINGS]})
    assert found[1].files[0].digest == wanted != found[0].files[0].digest
