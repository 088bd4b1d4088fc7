"""Every reader of the product: a valid file of its own, how it is changed, and how it is read."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.console import Console
from safetensors.numpy import load_file

import safeswap
from fuzz import mutate
from gguf_bytes import llama_bytes
from gram_folder import write_grams
from narrow import gpt_oss, gpt_oss_config, make_fp8, make_mxfp4
from pieces import model_of
from plain_adapter import write_adapter
from safeswap.calibration.texts import read_texts
from safeswap.checkpoint.digests import of_tensor
from safeswap.checkpoint.family import join_family, open_family
from safeswap.checkpoint.header import read_header
from safeswap.checkpoint.model import open_checkpoint
from safeswap.checkpoint.precisions.gguf_header import read_gguf
from safeswap.checkpoint.staging import Staging
from safeswap.checkpoint.tokenizers import compare_tokenizers
from safeswap.checkpoint.torch_bin import read_torch_file
from safeswap.evaluation import pipeline
from safeswap.evaluation.backends.encoding import read_template
from safeswap.evaluation.benchmarks.prompts import read_prompts, with_instruction
from safeswap.evaluation.benchmarks.suites import make_suite
from safeswap.evaluation.harness.local_data import as_parquet
from safeswap.evaluation.human import agreements, read_annotations, read_labels
from safeswap.evaluation.judges import MajorityJudge, make_judge
from safeswap.evaluation.judges.rule import RuleJudge
from safeswap.evaluation.models import name_models
from safeswap.evaluation.results.candidates import CandidateResult, read_measured
from safeswap.evaluation.results.explain import explain
from safeswap.evaluation.results.journal import Journal
from safeswap.evaluation.results.majority import define_majority
from safeswap.evaluation.results.store import open_results, read_json, start_results
from safeswap.interchange import from_mergekit
from safeswap.io.jsonfile import load_json
from safeswap.merge.manifest import read_manifest
from safeswap.operators.gram_store import open_grams
from safeswap.plan import Plan
from safeswap.profile import Profile, measure_family
from safeswap.report.evaluation import compare
from safeswap.report.plan_terminal import plan_view, profile_view
from safeswap.search.search_config import read_search
from safeswap.search.sweep_config import read_sweep
from stored import BENIGN, HARM, READING, Stored
from swept import candidate
from tiny import make_trio, make_weights, save_checkpoint, swap

Read = Callable[[Path], Any]
PROMPTS = "id,source,tags,en,sw\n0,s,\"['Theft']\",a thief,mwizi\n1,s,[],a fire,moto\n"
HARMLESS = "id,prompt,type,label,focus,note\n0,kill a process,t,safe,f,n\n1,bomb,t,unsafe,f,n\n"


@dataclass(frozen=True)
class Reader:
    """One reader.

    Attributes:
        name: in the table of counts.
        file: what is changed, within the folder that `make` filled.
        change: how.
        read: reads it; whatever it raises but `SafeswapError` is a fault.
        make: fills a folder with what the reader needs; readers of one `make` share a folder.
        cost: how many cases of another reader one of its takes the time of.
    """

    name: str
    file: str
    change: mutate.Change
    read: Read
    make: Callable[[Path], Any]
    cost: int = 1


def checkpoints(folder: Path) -> None:
    """A trio in two shards, with all that lies beside weights."""
    trio = make_trio(folder, layers=1, width=8, inner=8, words=16)
    for role in ("base", "safety", "sw"):
        tokenizer: dict[str, Any] = {"chat_template": "{{ messages }}", "eos_token": "</s>"}
        tokenizer["added_tokens_decoder"] = {"9": {"content": "<x>", "special": True}}
        _json(trio[role] / "tokenizer_config.json", tokenizer)
        _json(trio[role] / "added_tokens.json", {"<x>": 9})
        _json(trio[role] / "generation_config.json", {"eos_token_id": 2})
        _json(trio[role] / "special_tokens_map.json", {"eos_token": "</s>"})


def slow_tokenizers(folder: Path) -> None:
    """The same with a vocabulary file alone."""
    checkpoints(folder)
    for role in ("base", "safety", "sw"):
        content = json.loads((folder / role / "tokenizer.json").read_text())
        _json(folder / role / "vocab.json", content["model"]["vocab"])
        (folder / role / "tokenizer.json").unlink()


def pieces_only(folder: Path) -> None:
    """The same with sentencepiece models, the language expert's longer; and with lists of lines."""
    checkpoints(folder)
    for role in ("base", "safety", "sw"):
        tokens = json.loads((folder / role / "tokenizer.json").read_text())["model"]["vocab"]
        more = ["one"] if role == "sw" else []
        (folder / role / "tokenizer.model").write_bytes(model_of([*tokens, *more]))
        (folder / role / "tokenizer.json").unlink()


def mistral_only(folder: Path) -> None:
    """The same with Mistral's files."""
    checkpoints(folder)
    for role in ("base", "safety", "sw"):
        tokens = json.loads((folder / role / "tokenizer.json").read_text())["model"]["vocab"]
        vocab = [
            {"rank": n, "token_bytes": base64.b64encode(token.encode()).decode()}
            for n, token in enumerate([*tokens, role])
        ]
        config = {"default_vocab_size": len(vocab) + 2, "default_num_special_tokens": 2}
        named = [{"rank": 0, "token_str": "[A]", "is_control": True}]
        content = {"config": config, "vocab": vocab, "special_tokens": named}
        _json(folder / role / "tekken.json", content)
        (folder / role / "tokenizer.json").unlink()


def ranks_only(folder: Path) -> None:
    """The same with tables of ranks."""
    checkpoints(folder)
    for role in ("base", "safety", "sw"):
        tokens = json.loads((folder / role / "tokenizer.json").read_text())["model"]["vocab"]
        lines = [
            f"{base64.b64encode(token.encode()).decode()} {n}\n"
            for n, token in enumerate([*tokens, role])
        ]
        (folder / role / "qwen.tiktoken").write_text("".join(lines))
        (folder / role / "tokenizer.json").unlink()


def fairseq_only(folder: Path) -> None:
    """The same with XLM-R's files, and languages."""
    checkpoints(folder)
    for role in ("base", "safety", "sw"):
        model = model_of(["<unk>", "<s>", "</s>", "a", role])
        (folder / role / "sentencepiece.bpe.model").write_bytes(model)
        _json(folder / role / "tokenizer_config.json", {"tokenizer_class": "NllbTokenizer"})
        _json(
            folder / role / "special_tokens_map.json", {"additional_special_tokens": ["sw", "ko"]}
        )
        (folder / role / "tokenizer.json").unlink()


def lines_only(folder: Path) -> None:
    """The same with a token a line."""
    checkpoints(folder)
    for role in ("base", "safety", "sw"):
        tokens = json.loads((folder / role / "tokenizer.json").read_text())["model"]["vocab"]
        (folder / role / "vocab.txt").write_text("\n".join([*tokens, role]) + "\n")
        (folder / role / "tokenizer.json").unlink()


def _family(folder: Path) -> Any:
    family = open_family(folder / "base", folder / "safety", {"sw": folder / "sw"})
    for donor in ("base", "safety", "sw"):
        family.output("sw", donor).rows.said()
    for name in family.names:
        family.measured(name)
    return join_family(family.members)


def quantized(folder: Path) -> None:
    """A trio in fp8 with scales."""
    checkpoints(folder)
    for role in ("base", "safety", "sw"):
        make_fp8(folder / role, (8, 7))


def fours(folder: Path) -> None:
    """A trio of gpt-oss in MXFP4."""
    shapes = gpt_oss(layers=1, experts=2)
    for role in ("base", "safety", "sw"):
        save_checkpoint(folder / role, make_weights(shapes), gpt_oss_config(shapes))
        make_mxfp4(folder / role)


def blocks(folder: Path) -> None:
    """A trio whose Swahili expert is GGUF."""
    trio = make_trio(folder, shards=1, layers=1, width=8, inner=8, words=16)
    config = json.loads((trio["sw"] / "config.json").read_text())
    weights = load_file(trio["sw"] / "model.safetensors")
    (folder / "sw.gguf").write_bytes(llama_bytes(weights, config))


def _blocks(folder: Path) -> Any:
    family = open_family(folder / "base", folder / "safety", {"sw": folder / "sw.gguf"}, force=True)
    return measure_family(family, workers=1)


def _measured(folder: Path) -> Any:
    return measure_family(_family(folder), workers=1)


def _model(folder: Path) -> Any:
    compare_tokenizers({role: folder / role for role in ("base", "safety", "sw")}, "base")
    make_judge_of(folder / "sw")
    name_models([f"one={folder / 'sw'}"])
    return open_checkpoint(folder / "sw")


def make_judge_of(folder: Path) -> Any:
    make_judge(str(folder), kind="llamaguard")
    return make_judge(str(folder), kind="threeway")


def adapters(folder: Path) -> None:
    """A trio whose language expert is an adapter with every kind of part that numpy can write."""
    trio = make_trio(folder, layers=1, width=8, inner=8, words=16)
    prefix = "base_model.model.model."
    more: dict[str, Any] = {
        f"{prefix}norm.weight": np.ones(8, np.float32),
        f"{prefix}embed_tokens.token_adapter.trainable_tokens_delta": np.ones((2, 8), np.float32),
    }
    settings: dict[str, Any] = {"rank_pattern": {"v_proj": 2}, "alpha_pattern": {"up_proj": 4}}
    settings |= {"modules_to_save": ["norm"], "trainable_token_indices": [1, 3], "revision": None}
    write_adapter(folder / "adapter", trio["base"], rank=2, more=more, **settings)


def _adapted(folder: Path) -> Any:
    family = open_family(folder / "base", folder / "safety", {"sw": folder / "adapter"})
    for tensor in family.members["sw"].tensors.values():
        of_tensor(tensor)
    return family


def pickled(folder: Path) -> None:
    import torch

    trio = make_trio(folder, shards=1, layers=1, width=8, inner=8, words=16)
    weights = load_file(trio["sw"] / "model.safetensors")
    tensors = {n: torch.from_numpy(v.astype(np.float32)) for n, v in weights.items()}
    torch.save(tensors, folder / "pytorch_model.bin")


def merged(folder: Path) -> None:
    """A trio, its profile, its plan, and the merge of it."""
    trio = make_trio(folder, layers=1, width=8, inner=8, words=16)
    profile = safeswap.make_profile(
        trio["base"], safety=trio["safety"], languages={"sw": trio["sw"]}
    )
    profile.save(folder / "profile.json")
    safeswap.make_plan(profile).save(folder / "plan.yaml")
    swap(trio, folder / "out")


def _profile(folder: Path) -> Any:
    profile = Profile.load(folder / "profile.json")
    _drawn(profile_view(profile))
    return safeswap.make_plan(profile, profile.languages[0]).text()


def _plan(folder: Path) -> Any:
    plan = Plan.load(folder / "plan.yaml")
    _drawn(plan_view(plan))
    return Plan.from_dict(yaml.safe_load(plan.text()), "again")


def _drawn(view: Any) -> None:
    Console(file=io.StringIO(), width=160).print(view)


def _manifest(folder: Path) -> Any:
    out = folder / "out"
    read_manifest(out)
    safeswap.api.verify_merge(out, without_inputs=True, workers=1)
    name_models([f"one={out}"])
    return safeswap.api.verify_merge(out, workers=1)


def grams(folder: Path) -> None:
    matrix = np.eye(4, dtype=np.float32)
    write_grams(folder, {"safety": {"a": matrix}, "sw": {"a": matrix}}, left_out={"b": "odd"})


def _grams(folder: Path) -> Any:
    found = open_grams(folder)
    found.digest(("safety", "sw"))
    for role in ("safety", "sw"):
        found.check_file(role)
        record = found.record(role, "a", (4, 4))
        if record is not None:
            list(found.blocks(role, record))


def questions(folder: Path) -> None:
    """All that a suite, a sweep and a search name, and themselves."""
    (folder / "harm.csv").write_text(PROMPTS)
    (folder / "benign.csv").write_text(HARMLESS)
    (folder / "attack.txt").write_text("do as I say: {prompt}\n")
    (folder / "template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    (folder / "read.jsonl").write_text('{"question": "a", "answer": 1}\n' * 3)
    (folder / "numbers.tsv").write_text("how many\t12\nand now\t7\n")
    (folder / "table.csv").write_text("question,answer\na,1\nb,2\n")
    (folder / "topics.tsv").write_text("index_id\tcategory\ttext\n7\ttravel\tqa qi\n")
    more_prompts(folder)
    (folder / "texts.txt").write_text("qa qi\nqo qu\n")
    (folder / "texts.jsonl").write_text('{"text": "qa qi"}\n{"text": "qo qu"}\n')
    benchmarks = {
        "harm": {"prompts": "harm.csv", "title": "Harm"},
        "benign": {"prompts": "benign.csv", "language": "sw"},
        "read": {
            "tasks": {"sw": {"task": "t", "file": "read.jsonl", "num_fewshot": 0}},
            "cluster": "link",
            "numbers": True,
        },
    }
    _yaml(folder / "suite.yaml", {"benchmarks": benchmarks})
    rules = [
        {"prefix": ["sorry"], "verdict": "safe", "refusal": True},
        {"pattern": "(?i)cannot", "where": "response", "verdict": "safe"},
        {"field": "reference", "when": {"benchmark": "mine"}, "verdict": "safe"},
    ]
    _yaml(folder / "rules.yaml", {"default": "unsafe", "rules": rules})
    sweep = {
        "base": "a/base",
        "safety": "a/safety",
        "languages": {"sw": "a/sw"},
        "suite": "suite.yaml",
        "judge": "rule:rules.yaml",
        "split": {"fraction": 0.5, "seed": 0},
        "choose": {"loss": 1.0, "refused": 2.0},
        "max_new_tokens": 9,
    }
    _yaml(
        folder / "named.yaml",
        {
            **sweep,
            "suite": "multijail",
            "prompts": {"multijail": "harm.csv"},
            "data": {},
            "instruction": "attack.txt",
            "grid": [],
        },
    )
    ties = {"name": "ties", "density": [0.2, 0.5]}
    grid = [
        {"method": "share-difference", "by": ["module", "layer"], "tau": [0, 0.001]},
        {"method": "uniform", "operator": ["slerp", ties]},
    ]
    _yaml(folder / "sweep.yaml", {**sweep, "grid": grid})
    start = [{"method": "gated", "gamma": [0.5, 1]}]
    space = {"weights": "free", "high": 1.5, "step": 0.05}
    _yaml(folder / "search.yaml", {**sweep, "start": start, "space": space})


def more_prompts(folder: Path) -> None:
    """Files of the benchmarks that have forms of their own."""
    asked = [{"instruction": t, "instruction_translated": t, "category": None} for t in "ab"]
    _json(folder / "poly.json", asked)
    about = {"metadata": {"language": "vi", "topic": "t"}}
    lines = [
        {"label": label, "prompts": [{"local_prompt": label, "en_prompt": f"x {label}"}], **about}
        for label in ("An toàn", "Có hại")
    ]
    (folder / "sea.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "strong.csv").write_text("category,source,forbidden_prompt\na,b,c\nd,e,f\n")
    (folder / "Insult_n.csv").write_text('one\n"two, three"\n')


def mergekit(folder: Path) -> None:
    trio = make_trio(folder, layers=2, width=8, inner=8, words=16)
    models = [
        {"model": str(trio["safety"]), "parameters": {"weight": 0.4, "density": 0.5}},
        {
            "model": str(trio["sw"]),
            "parameters": {
                "weight": [{"filter": "mlp", "value": [0.2, 1]}, {"value": 0.6}],
                "density": 0.5,
            },
        },
    ]
    content = {
        "merge_method": "ties",
        "base_model": str(trio["base"]),
        "models": models,
        "parameters": {"normalize": False, "lambda": 1.0},
        "dtype": "float32",
        "tokenizer_source": "base",
    }
    _yaml(folder / "ties.yaml", content)
    sources = [{"model": str(trio[role]), "layer_range": [0, 2]} for role in ("safety", "sw")]
    pieces = [{"sources": sources, "parameters": {"t": [0, 0.5, 1]}}]
    _yaml(
        folder / "slerp.yaml",
        {
            "merge_method": "slerp",
            "base_model": str(trio["safety"]),
            "slices": pieces,
            "dtype": "bfloat16",
        },
    )


def _mergekit(name: str) -> Read:
    def read(folder: Path) -> Any:
        return from_mergekit(
            folder / name,
            safety=str(folder / "safety"),
            languages={"sw": str(folder / "sw")},
            base=str(folder / "base"),
        ).plan.text()

    return read


def results(folder: Path) -> None:
    """Two models with answers, verdicts and scores; a labelled sheet of them."""
    cells = {"harm/sw": HARM, "benign/sw": BENIGN, "read/sw": READING}
    made = Stored(folder / "results", cells)
    made.arm("expert", "language", language="sw").arm("merge", "merged", "expert", "sw")
    for arm, letters in (("expert", "uusr"), ("merge", "usr?")):
        made.judged(arm, "harm/sw", letters, flags={1: ["repetition"]})
        made.judged(arm, "benign/sw", "srsr")
        made.scored(arm, "read/sw", "0110", number=None, expected="3", response="x", cut=False)
    model = folder / "results" / "merge" / "model.json"
    content = json.loads(model.read_text())
    about = {"method": "gated", "settings": {"gamma": 1}, "aliases": ["one"]}
    about["operator"] = {"name": "ties", "settings": {"density": 0.2}}
    chosen = {"split": {"part": "dev", "fraction": 0.5, "seed": 0}, "cells": ["harm/sw"]}
    _json(model, content | {"candidate": about, "chosen": chosen})
    sheet = folder / "sheet.csv"
    pipeline.annotate(folder / "results", sheet, 8)
    lines = sheet.read_text(encoding="utf-8-sig").splitlines()
    sheet.write_text("\n".join(lines[:1] + [f'{line[:-2]}"safe"' for line in lines[1:]]))
    labels = "id,human,judge,rater_1,rater_2\n1,safe,safe,safe,unsafe\n2,unsafe,safe,unsafe,safe\n"
    (folder / "labels.csv").write_text(labels)
    _json(folder / "memory.json", candidate("sw", "gated", {"gamma": 1}, 0.5).as_dict())


def voters(folder: Path) -> None:
    """Answers that three judges have read, and their majority, defined anew."""
    made = Stored(folder / "results", {"harm/sw": HARM}).arm("expert", "language", language="sw")
    made.judged("expert", "harm/sw", "uusr", "a")
    for judge in ("b", "c"):
        made.also_judged("expert", "harm/sw", "ussr", judge)
    for members in ("abd", "abc"):
        opened = open_results(folder / "results")
        define_majority(opened, MajorityJudge([*members]), overwrite=True)


def _voted(folder: Path) -> Any:
    return [table.title for table in compare([folder / "results"], judge="majority")]


def _results(folder: Path) -> Any:
    where = folder / "results"
    for table in compare([where], dev=True):
        assert table.title
    explain([where], "harm/sw/merge:expert")
    explain([where], "read/all/merge")
    pipeline.count_verdicts(where, "guard", kind="qwen3guard")
    start_results(where, {**open_results(where).settings}, ["merge"])
    read_json(where / "merge" / "model.json")
    with Journal(where / "merge" / "responses.jsonl"):
        pass
    return read_measured(where, "sw")


def _memory(folder: Path) -> Any:
    content = load_json(folder / "memory.json", constants=True, names=False)
    return CandidateResult.from_dict(content, "the search's memory").as_dict()


def _local(name: str) -> Read:
    def read(folder: Path) -> Any:
        scratch = folder / "scratch"
        scratch.mkdir(exist_ok=True)
        for old in scratch.iterdir():
            old.unlink()
        return as_parquet(folder / name, scratch)

    return read


def _suite(folder: Path) -> Any:
    return make_suite(str(folder / "suite.yaml"), ["sw"])


def _rules(folder: Path) -> Any:
    judge = RuleJudge.load(folder / "rules.yaml")
    return judge.decide("prompt", "sorry", {"benchmark": "mine", "reference": "x"})


def _prompts(folder: Path) -> Any:
    made = make_suite("multijail", ["sw"], prompts={"multijail": folder / "harm.csv"})
    return made, read_texts(folder / "harm.csv", "sw")


def _asked(benchmark: str, name: str) -> Read:
    return lambda folder: make_suite(benchmark, ["vi"], prompts={f"{benchmark}/vi": folder / name})


def _instruction(folder: Path) -> Any:
    return with_instruction(read_prompts(folder / "harm.csv", "harm"), folder / "attack.txt")


def _labels(folder: Path) -> Any:
    return agreements(read_labels(folder / "labels.csv"))


def unfinished(folder: Path) -> None:
    stage = Staging(folder / "out", "job")
    stage.note("piece", "ab")
    stage.release()


def _stage(folder: Path) -> Any:
    stage = Staging(folder / "out", "job")
    stage.release()
    return dict(stage.finished)


def _json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))


def _yaml(path: Path, value: Any) -> None:
    path.write_text(yaml.safe_dump(value, sort_keys=False))


_SHARD = "sw/model-00001-of-00002.safetensors"
_M = mutate
READERS: tuple[Reader, ...] = (
    Reader(
        "safetensors header",
        _SHARD,
        _M.of_safetensors,
        lambda f: read_header(f / _SHARD),
        checkpoints,
    ),
    Reader("shards of a model", _SHARD, _M.of_safetensors, _family, checkpoints),
    Reader("index", "sw/model.safetensors.index.json", _M.of_json, _model, checkpoints),
    Reader("config.json", "sw/config.json", _M.of_json, _family, checkpoints),
    Reader("config.json of the base", "base/config.json", _M.of_json, _family, checkpoints),
    Reader("config.json of a judge", "sw/config.json", _M.of_json, _model, checkpoints),
    Reader("tokenizer.json", "sw/tokenizer.json", _M.of_json, _family, checkpoints),
    Reader("tokenizer_config.json", "sw/tokenizer_config.json", _M.of_json, _model, checkpoints),
    Reader("added_tokens.json", "sw/added_tokens.json", _M.of_json, _family, checkpoints),
    Reader("generation_config.json", "sw/generation_config.json", _M.of_json, _family, checkpoints),
    Reader(
        "special_tokens_map.json", "sw/special_tokens_map.json", _M.of_json, _family, checkpoints
    ),
    Reader("vocab.json", "sw/vocab.json", _M.of_json, _family, slow_tokenizers),
    Reader("fp8", "sw/model.safetensors", _M.of_safetensors, _measured, quantized, 4),
    Reader("config.json of fp8", "sw/config.json", _M.of_json, _measured, quantized, 4),
    Reader("MXFP4", "sw/model.safetensors", _M.of_safetensors, _measured, fours, 4),
    Reader("GGUF header", "sw.gguf", _M.of_gguf, lambda f: read_gguf(f / "sw.gguf"), blocks),
    Reader("GGUF", "sw.gguf", _M.of_gguf, _blocks, blocks, 4),
    Reader("tokenizer.model", "sw/tokenizer.model", _M.of_bytes, _family, pieces_only),
    Reader("tekken.json", "sw/tekken.json", _M.of_json, _family, mistral_only),
    Reader("qwen.tiktoken", "sw/qwen.tiktoken", _M.of_text, _family, ranks_only),
    Reader(
        *("sentencepiece.bpe.model", "sw/sentencepiece.bpe.model", _M.of_bytes, _family),
        make=fairseq_only,
    ),
    Reader(
        *("languages of a tokenizer", "sw/special_tokens_map.json", _M.of_json, _family),
        make=fairseq_only,
    ),
    Reader("vocab.txt", "sw/vocab.txt", _M.of_text, _family, lines_only),
    Reader(
        "pytorch_model.bin",
        "pytorch_model.bin",
        _M.of_torch,
        lambda f: read_torch_file(f / "pytorch_model.bin"),
        pickled,
    ),
    Reader("adapter's config", "adapter/adapter_config.json", _M.of_json, _adapted, adapters, 2),
    Reader(
        *("adapter", "adapter/adapter_model.safetensors", _M.of_safetensors, _adapted, adapters),
        cost=2,
    ),
    Reader("profile", "profile.json", _M.of_json, _profile, merged, 2),
    Reader("plan", "plan.yaml", _M.of_yaml, _plan, merged),
    Reader("manifest", "out/safeswap.json", _M.of_json, _manifest, merged, 4),
    Reader("Gram folder", "grams.json", _M.of_json, _grams, grams),
    Reader("Gram matrices", "sw.safetensors", _M.of_safetensors, _grams, grams),
    Reader("suite", "suite.yaml", _M.of_yaml, _suite, questions),
    Reader("rules", "rules.yaml", _M.of_yaml, _rules, questions),
    Reader(
        "sweep",
        "sweep.yaml",
        _M.of_yaml,
        lambda f: read_sweep(f / "sweep.yaml", fetch=False),
        questions,
    ),
    Reader(
        "sweep of named suites",
        "named.yaml",
        _M.of_yaml,
        lambda f: read_sweep(f / "named.yaml", fetch=False),
        questions,
    ),
    Reader(
        "search",
        "search.yaml",
        _M.of_yaml,
        lambda f: read_search(f / "search.yaml", fetch=False),
        questions,
    ),
    Reader("mergekit ties", "ties.yaml", _M.of_yaml, _mergekit("ties.yaml"), mergekit, 2),
    Reader("mergekit slerp", "slerp.yaml", _M.of_yaml, _mergekit("slerp.yaml"), mergekit),
    Reader("prompts, harmful", "harm.csv", _M.of_csv, _prompts, questions),
    Reader("prompts, harmless", "benign.csv", _M.of_csv, _suite, questions),
    Reader("PolyRefuse", "poly.json", _M.of_json, _asked("polyrefuse", "poly.json"), questions),
    Reader(
        *("SEA-Safeguard", "sea.jsonl", _M.of_lines, _asked("sea-safeguard", "sea.jsonl")),
        questions,
    ),
    Reader(
        *("StrongREJECT", "strong.csv", _M.of_csv, _asked("strongreject", "strong.csv")),
        questions,
    ),
    Reader("XSafety", "Insult_n.csv", _M.of_csv, _asked("xsafety", "Insult_n.csv"), questions),
    Reader("instruction", "attack.txt", _M.of_text, _instruction, questions),
    Reader(
        "chat template",
        "template.jinja",
        _M.of_text,
        lambda f: read_template(f / "template.jinja"),
        questions,
    ),
    Reader("data, csv", "table.csv", _M.of_csv, _local("table.csv"), questions),
    Reader("data, tsv", "numbers.tsv", _M.of_text, _local("numbers.tsv"), questions),
    Reader("data, tsv of SIB", "topics.tsv", _M.of_text, _local("topics.tsv"), questions),
    Reader("data, jsonl", "read.jsonl", _M.of_lines, _local("read.jsonl"), questions),
    Reader(
        "texts", "texts.txt", _M.of_text, lambda f: read_texts(f / "texts.txt", "sw"), questions
    ),
    Reader(
        "texts, jsonl",
        "texts.jsonl",
        _M.of_lines,
        lambda f: read_texts(f / "texts.jsonl", "sw"),
        questions,
    ),
    Reader("settings.json", "results/settings.json", _M.of_json, _results, results, 8),
    Reader("majority.json", "results/majority.json", _M.of_json, _voted, voters, 8),
    Reader("model.json", "results/merge/model.json", _M.of_json, _results, results, 8),
    Reader("responses", "results/merge/responses.jsonl", _M.of_lines, _results, results, 8),
    Reader("verdicts", "results/merge/verdicts/guard.jsonl", _M.of_lines, _results, results, 8),
    Reader("scores", "results/merge/scores.jsonl", _M.of_lines, _results, results, 8),
    Reader("sheet", "sheet.csv", _M.of_csv, lambda f: read_annotations(f / "sheet.csv"), results),
    Reader(
        "key of a sheet",
        "sheet.csv.key.json",
        _M.of_json,
        lambda f: read_annotations(f / "sheet.csv"),
        results,
    ),
    Reader("labels", "labels.csv", _M.of_csv, _labels, results),
    Reader("a search's memory", "memory.json", _M.of_json, _memory, results),
    Reader("journal", ".out.safeswap-partial/journal", _M.of_text, _stage, unfinished),
    Reader("state of a run", ".out.safeswap-partial/job.json", _M.of_json, _stage, unfinished),
)
BY_NAME: Mapping[str, Reader] = {reader.name: reader for reader in READERS}
