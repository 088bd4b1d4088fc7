"""What goes in, what comes out: every row of the tables in README.md and docs/inputs.md is made,
merged and verified here, and what it says is compared with a float64 computation.

`PAGE` has a case for each row of docs/inputs.md, by its first cell, with the words of its second
cell that the case shows; `README` says which of them a row of README.md sums up. A row without a
case fails, and so does a case without a row. A new kind of input is a row in each table and a case.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("peft")
torch = pytest.importorskip("torch")

import transformers  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

import grown  # noqa: E402
from adapted import make_adapter, merged_by_peft, state_of  # noqa: E402
from families import save_all, save_tiny, t5, with_pictures  # noqa: E402
from gguf_bytes import llama_bytes  # noqa: E402
from mixtures import loaded as mixtures_loaded  # noqa: E402
from mixtures import merge as merge_mixture  # noqa: E402
from mixtures import names_in, same_logits, save_trio  # noqa: E402
from narrow import (  # noqa: E402
    alter,
    gpt_oss,
    gpt_oss_config,
    make_fp8,
    make_mxfp4,
    stored_in,
)
from safeswap import api  # noqa: E402
from safeswap.checkpoint.precisions.remedies import COMMANDS  # noqa: E402
from safeswap.plan import Plan  # noqa: E402
from tiny import (  # noqa: E402
    edit_json,
    make_trio,
    make_weights,
    refused,
    rewrite,
    save_checkpoint,
    swap,
)
from web import Web  # noqa: E402

ROOT = Path(__file__).parents[2]
ROLES = ("base", "safety", "sw")
Trio = Mapping[str, Path]
Numbers = Mapping[str, Mapping[str, Any]]


def table_of(page: str, title: str) -> dict[str, str]:
    """First cell → the other cells, of the first table below a title."""
    text = (ROOT / page).read_text(encoding="utf-8")
    _, found, section = text.partition(f"\n## {title}\n")
    assert found, f"{page} has no section {title!r}"
    table = re.search(r"(?:^\|.*\n)+", section.partition("\n## ")[0], re.MULTILINE)
    assert table, f"the section {title!r} of {page} has no table"
    rows = [[c.strip() for c in line.strip("|\n ").split(" | ")] for line in table[0].splitlines()]
    assert rows[0][0] == "what goes in"
    found_rows = {first: " | ".join(rest) for first, *rest in rows[2:]}
    assert len(found_rows) == len(rows) - 2, "two rows with one first cell"
    return found_rows


def doubles(folder: Path) -> dict[str, Any]:
    """A checkpoint's tensors in float64; narrow formats are not decoded."""
    return {name: torch.from_numpy(v.astype(np.float64)) for name, v in stored_in(folder).items()}


def planned(out: Path, numbers: Numbers) -> dict[str, Any]:
    """``base + Σ w · (expert − base)`` in float64, with the weights of the plan in OUT."""
    plan = Plan.load(out / "safeswap-plan.yaml")
    log = json.loads((out / "safeswap.json").read_text())
    units = {t["name"]: t["unit"] for t in log["profile"]["tensors"]}
    found = {}
    for name, base in numbers["base"].items():
        parts = [
            w * (numbers[role][name] - base) for role, w in plan.units[units[name]].weights.items()
        ]
        found[name] = sum(parts, base)
    return found


def holds(
    out: Path, numbers: Numbers, dtype: str = "", but: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Assert that OUT is verified, and is what its plan says of the members' numbers, but for one
    rounding to its format; returns its tensors."""
    assert api.verify_merge(out).from_inputs
    found, wanted = stored_in(out), planned(out, numbers)
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        if name in but:
            continue
        step = 2.0**-8 if found[name].dtype.itemsize == 2 else 2.0**-21
        apart = np.abs(found[name].astype(np.float64) - values.numpy()).max()
        assert apart <= step * max(float(values.abs().max()), 1e-9), name
        assert not dtype or found[name].dtype == dtype, name
    return found


def numbers_of(trio: Trio) -> dict[str, dict[str, Any]]:
    return {role: doubles(trio[role]) for role in ROLES}


def loads(out: Path, auto: str = "AutoModelForCausalLM") -> Any:
    """Assert that transformers loads OUT with no tensor missing or left over, and runs it."""
    model, info = getattr(transformers, auto).from_pretrained(out, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    ids = torch.tensor([[1, 5, 9]])
    more = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        assert model.eval()(ids, **more).logits.isfinite().all()
    return model


# --- whole checkpoints ---------------------------------------------------------------------------


def full(tmp: Path) -> None:
    trio = make_trio(tmp, shards=2)
    out = swap(trio, tmp / "out", tau=0.02)
    found = holds(out, numbers_of(trio), "bfloat16")
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == stored_in(trio["base"]).keys()
    plan, donor = Plan.load(out / "safeswap-plan.yaml"), stored_in(trio["sw"])
    whole = [u for u, row in plan.units.items() if row.weights == {"safety": 0.0, "sw": 1.0}]
    kept = [
        n
        for n in found
        if any(f"layers.{u.split('.')[0]}.{WORDS[u.split('.')[1]]}" in n for u in whole)
    ]
    assert kept and all(found[name].tobytes() == donor[name].tobytes() for name in kept)
    loads(out)


WORDS = {"attention": "self_attn", "mlp": "mlp", "norms": "none"}


def formats(tmp: Path) -> None:
    trio = make_trio(tmp)
    for role, kind in (("safety", np.float16), ("sw", np.float32)):
        rewrite(
            trio[role], lambda w, kind=kind: w.update({n: v.astype(kind) for n, v in w.items()})
        )
    holds(swap(trio, tmp / "out"), numbers_of(trio), "float32")
    holds(swap(trio, tmp / "half", dtype="float16"), numbers_of(trio), "float16")


def names(tmp: Path) -> None:
    trio = make_trio(tmp)
    numbers = numbers_of(trio)
    rewrite(trio["sw"], lambda w: [w.update({f"module._orig_mod.{n}": w.pop(n)}) for n in list(w)])
    holds(swap(trio, tmp / "out"), numbers)


def tied(tmp: Path) -> None:
    trio = make_trio(tmp, tied=True)
    rewrite(trio["sw"], lambda w: w.update({grown.HEAD: w[grown.EMBED] * 2}))
    edit_json(trio["sw"] / "config.json", tie_word_embeddings=False)
    numbers = numbers_of(trio)
    for role in ("base", "safety"):
        numbers[role][grown.HEAD] = numbers[role][grown.EMBED]
    holds(swap(trio, tmp / "out"), numbers)
    base = swap(trio, tmp / "tied", donor="base")
    assert grown.HEAD not in stored_in(base) and api.verify_merge(base).from_inputs


def frozen(tmp: Path) -> None:
    trio = make_trio(tmp)
    first = stored_in(trio["base"])
    rewrite(trio["sw"], lambda w: w.update({n: first[n] for n in w if "layers.0" in n}))
    out = swap(trio, tmp / "out")
    holds(out, numbers_of(trio))
    log = json.loads((out / "safeswap.json").read_text())
    still = [t["update_norm"]["sw"] for t in log["profile"]["tensors"] if "layers.0" in t["name"]]
    assert still and set(still) == {0.0}


# --- adapters ------------------------------------------------------------------------------------

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def adapters_of(tmp: Path, family: str, safety: Any, spoken: Any) -> tuple[dict[str, Path], Any]:
    """A base with two adapters; and the members' numbers, those that peft merges."""
    base = save_tiny(family, tmp / "base")
    trio, numbers = {"base": base}, {"base": doubles(base)}
    for seed, (role, settings) in enumerate((("safety", safety), ("sw", spoken)), 1):
        trio[role] = make_adapter(base, tmp / role, seed, size=0.05, **settings)
        numbers[role] = {
            n: v.double() for n, v in merged_by_peft(base, trio[role], tmp / f"{role}-p").items()
        }
    return trio, numbers


def lora(tmp: Path) -> None:
    patterns = {
        "target_modules": ALL,
        "rank_pattern": {"q_proj": 2},
        "alpha_pattern": {"up_proj": 3},
    }
    saved = {"use_rslora": True, "modules_to_save": ["lm_head"]}
    trio, numbers = adapters_of(tmp, "llama", patterns, saved)
    holds(swap(trio, tmp / "out"), numbers)


def dora(tmp: Path) -> None:
    tokens = {"use_dora": True, "trainable_token_indices": [3, 61]}
    trio, numbers = adapters_of(tmp, "llama", {"target_modules": ALL}, tokens)
    holds(swap(trio, tmp / "out"), numbers)


def parameters(tmp: Path) -> None:
    stacks = {"target_parameters": ["experts.gate_up_proj", "experts.down_proj"]}
    trio, numbers = adapters_of(
        tmp, "gpt-oss", {"target_modules": ["q_proj"], **stacks}, {"target_modules": ["v_proj"]}
    )
    holds(swap(trio, tmp / "out"), numbers)


def beside_full(tmp: Path) -> None:
    trio = {role: save_tiny("llama", tmp / role, seed=seed) for seed, role in enumerate(ROLES)}
    for seed, role in enumerate(ROLES[1:], 1):
        save_tiny("llama", trio[role], seed=seed, of=0)
    adapter = make_adapter(trio["sw"], tmp / "adapter", size=0.05)
    numbers = numbers_of(trio)
    merged = merged_by_peft(trio["sw"], adapter, tmp / "p")
    numbers["sw"] = {name: values.double() for name, values in merged.items()}
    holds(swap(trio, tmp / "out", adapters={"sw": adapter}), numbers)


def as_adapter(tmp: Path) -> None:
    trio, numbers = adapters_of(tmp, "llama", {"target_modules": ALL}, {"r": 2})
    out = swap(trio, tmp / "out", as_adapter=True)
    assert api.verify_merge(out).from_inputs
    assert {f.name for f in out.glob("*.safetensors")} == {"adapter_model.safetensors"}
    found = merged_by_peft(trio["base"], out, tmp / "p")
    for name, values in planned(out, numbers).items():
        assert torch.allclose(found[name].double(), values, rtol=1e-5, atol=2e-6), name
    small = swap(trio, tmp / "small", as_adapter=True, rank=1, method="uniform")
    said = json.loads((small / "safeswap.json").read_text())["adapter"]["discarded"]
    assert said and all(0 < share < 1 for share in said.values())
    ranks = {min(v.shape) for n, v in state_of(small).items() if "lora_" in n}
    assert ranks == {1}


# --- tokens --------------------------------------------------------------------------------------


def rows(tmp: Path, safety: Any, spoken: Any, height: int | None = None) -> Path:
    """A trio whose base has a byte-level vocabulary; OUT's rows are those of `merged_rows`."""
    base = grown.member(tmp / "base", grown.bpe())
    trio = {
        "base": base,
        "safety": grown.member(tmp / "safety", safety, base, seed=1),
        "sw": grown.member(tmp / "sw", spoken, base, seed=2, height=height),
    }
    out = swap(trio, tmp / "out")
    assert api.verify_merge(out).from_inputs
    plan, found = Plan.load(out / "safeswap-plan.yaml"), doubles(out)
    for name, unit in ((grown.EMBED, "embeddings"), (grown.HEAD, "lm_head")):
        wanted = grown.merged_rows(trio, name, plan.units[unit].weights, "sw")
        assert torch.allclose(found[name], wanted, rtol=1e-6, atol=1e-6), name
    assert grown.tokens_of(out) == grown.tokens_of(trio["sw"])
    loads(out)
    return out


def added(tmp: Path) -> None:
    out = rows(tmp, grown.bpe(), grown.grown(grown.bpe(), 5))
    own, donor = doubles(out)[grown.EMBED], doubles(tmp / "sw")[grown.EMBED]
    assert torch.equal(own[-5:], donor[-5:])  # the five are the language expert's


def reordered(tmp: Path) -> None:
    rows(tmp, grown.moved(grown.bpe()), grown.grown(grown.bpe(), 2))


def padded(tmp: Path) -> None:
    count = grown.bpe().get_vocab_size()
    out = rows(tmp, grown.bpe(), grown.bpe(), height=count + 24)
    own, donor = doubles(out)[grown.EMBED], doubles(tmp / "sw")[grown.EMBED]
    assert len(own) == count + 24 and torch.equal(own[count:], donor[count:])


def without_fast(tmp: Path) -> None:
    """A table of ranks beside a tokenizer.json: the same bytes as with one of its own."""
    base = grown.member(tmp / "base", grown.bpe())
    spoken = grown.member(tmp / "sw", grown.grown(grown.moved(grown.bpe()), 3), base, seed=2)
    trio = {"base": base, "sw": spoken}
    trio["safety"] = grown.member(tmp / "safety", grown.bpe(), base, seed=1)
    wanted = swap(trio, tmp / "fast")
    grown.as_ranks(spoken)
    out = swap(trio, tmp / "out")
    assert api.verify_merge(out).from_inputs
    rows = json.loads((out / "safeswap.json").read_text())["rows"][grown.EMBED]
    assert rows["donor"] == 3 and rows["merged"] == grown.bpe().get_vocab_size()
    assert all((out / f.name).read_bytes() == f.read_bytes() for f in wanted.glob("*.safetensors"))


# --- stored narrow -------------------------------------------------------------------------------


def fp8(tmp: Path) -> None:
    trio = make_trio(tmp)
    kinds = {role: make_fp8(trio[role], (8, 7)) for role in ROLES}
    numbers = {r: {n: torch.from_numpy(v) for n, v in w.items()} for r, w in kinds.items()}
    out = swap(trio, tmp / "out")
    holds(out, numbers, "bfloat16")
    assert "quantization_config" not in json.loads((out / "config.json").read_text())
    again = swap(trio, tmp / "again", dtype="same")
    assert {v.dtype.name for n, v in stored_in(again).items() if n.endswith("_proj.weight")} == {
        "float8_e4m3fn"
    }
    assert api.verify_merge(again).from_inputs


def mxfp4(tmp: Path) -> None:
    shapes = gpt_oss(layers=1, experts=2)
    base, trio, numbers = make_weights(shapes), {}, {}
    for seed, role in enumerate(ROLES):
        weights = make_weights(shapes, base, seed) if seed else base
        trio[role] = save_checkpoint(tmp / role, weights, gpt_oss_config(shapes))
        numbers[role] = {n: torch.from_numpy(v) for n, v in make_mxfp4(trio[role]).items()}
    holds(swap(trio, tmp / "out"), numbers, "bfloat16")
    again = swap(trio, tmp / "again", dtype="same")
    assert any(name.endswith("_blocks") for name in stored_in(again))
    assert api.verify_merge(again).from_inputs


def gguf(tmp: Path) -> None:
    trio = make_trio(tmp, shards=1)
    config = json.loads((trio["sw"] / "config.json").read_text())
    numbers = numbers_of(trio)
    (tmp / "sw.gguf").write_bytes(llama_bytes(stored_in(trio["sw"]), config))
    numbers["sw"] = {n: v.half().double() if v.dim() > 1 else v for n, v in numbers["sw"].items()}
    out = swap(dict(trio) | {"sw": tmp / "sw.gguf"}, tmp / "out", donor="safety")
    holds(out, numbers, "bfloat16")


def narrow_base(tmp: Path) -> None:
    trio = make_trio(tmp)
    make_fp8(trio["base"], (8, 7))
    out = tmp / "out"
    refused(lambda: swap(trio, out), "base", "fp8", "--force", out=out)
    assert api.verify_merge(swap(trio, out, force=True)).from_inputs


def packed(tmp: Path) -> None:
    linear = "model.layers.0.mlp.up_proj"
    kinds = {
        "bitsandbytes": {f"{linear}.weight": np.zeros((8, 1), np.uint8)},
        "gptq": {f"{linear}.qweight": np.zeros((8, 8), np.int32)},
        "awq": {f"{linear}.qzeros": np.zeros((8, 8), np.int32)},
    }
    for method, stored in kinds.items():
        trio = make_trio(tmp / method)
        edit_json(trio["sw"] / "config.json", quantization_config={"quant_method": method})
        alter(trio["sw"], lambda weights, stored=stored: weights.update(stored))
        said = refused(lambda trio=trio: swap(trio, tmp / "out"), method, out=tmp / "out")
        assert COMMANDS[method] in said


# --- architectures -------------------------------------------------------------------------------


def of_family(tmp: Path, family: str) -> tuple[Path, Plan]:
    """A merge of a family's trio, which transformers loads and runs."""
    trio = {}
    for seed, role in enumerate(ROLES):
        trio[role] = save_tiny(family, tmp / role, seed=seed, of=0 if seed else None)
    out = swap(trio, tmp / "out", method="uniform", alpha=0.25)
    holds(out, numbers_of(trio))
    loads(out)
    return out, Plan.load(out / "safeswap-plan.yaml")


def mixture(tmp: Path) -> None:
    _, plan = of_family(tmp, "qwen3-moe")
    assert {"0.attention", "0.mlp", "0.norms"} <= plan.units.keys()


def by_expert(tmp: Path) -> None:
    trio = save_trio(tmp, "qwen3-moe")
    out = swap(trio, tmp / "out", by="expert")
    assert api.verify_merge(out).from_inputs
    members = [mixtures_loaded(trio[role]) for role in ROLES]
    wanted = merge_mixture(*members, by="expert", halves=True)
    assert len(set(wanted.decisions.values())) > 1
    assert same_logits(out, wanted.state)
    assert "0.experts.0" in Plan.load(out / "safeswap-plan.yaml").units


def other_layout(tmp: Path) -> None:
    """The safety expert in one tensor, the others apart: as with all apart."""
    trio = save_trio(tmp, "qwen3-moe", {"safety": False})
    out = swap(trio, tmp / "out")
    assert api.verify_merge(out).from_inputs
    members = [mixtures_loaded(trio[role]) for role in ROLES]
    assert same_logits(out, merge_mixture(*members, by="module", halves=True).state)
    assert names_in(out) == names_in(trio["sw"]) != names_in(trio["safety"])


def at_an_address(tmp: Path) -> None:
    """Byte for byte what local folders give."""
    trio = make_trio(tmp / "served")
    local = swap(trio, tmp / "local")
    served = Web(tmp / "served")
    cache, before = str(tmp / "cache"), os.environ.get("SAFESWAP_CACHE")
    os.environ["SAFESWAP_CACHE"] = cache
    try:
        found: Any = {role: f"{served.url}{role}/" for role in ROLES}
        out = swap(found, tmp / "out")
    finally:
        served.stop()
        if before is None:
            del os.environ["SAFESWAP_CACHE"]
        else:
            os.environ["SAFESWAP_CACHE"] = before
    names = [file.name for file in local.glob("*.safetensors")]
    assert names and all((out / n).read_bytes() == (local / n).read_bytes() for n in names)


def hybrid(tmp: Path) -> None:
    _, plan = of_family(tmp, "jamba")
    assert {"0.mixer", "0.mlp", "1.attention", "1.mlp"} <= plan.units.keys()


def mixer(tmp: Path) -> None:
    _, plan = of_family(tmp, "mamba2")
    assert {"0.mixer", "0.norms"} <= plan.units.keys()


def towers(tmp: Path) -> None:
    save_all(tmp, transformers.Qwen2VLForConditionalGeneration, with_pictures)
    trio = {role: tmp / role for role in ROLES}
    out = swap(trio, tmp / "out", method="uniform")
    found, donor = holds(out, numbers_of(trio)), stored_in(trio["sw"])
    of_tower = [name for name in found if "visual" in name]
    assert of_tower and all(np.array_equal(found[n], donor[n]) for n in of_tower)
    _, info = transformers.Qwen2VLForConditionalGeneration.from_pretrained(
        out, output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]


def pairs(tmp: Path) -> None:
    save_all(tmp, transformers.T5ForConditionalGeneration, t5)
    trio = {role: tmp / role for role in ROLES}
    out = swap(trio, tmp / "out")
    holds(out, numbers_of(trio))
    loads(out, "T5ForConditionalGeneration")
    units = Plan.load(out / "safeswap-plan.yaml").units
    assert {"encoder.0.attention", "decoder.0.cross_attention"} <= units.keys()


# --- refused -------------------------------------------------------------------------------------


def other_adapters(tmp: Path) -> None:
    trio, out = make_trio(tmp), tmp / "out"
    folder = tmp / "adapter"
    folder.mkdir()
    save_file({"a": torch.zeros(1)}, folder / "adapter_model.safetensors")
    for kind in ("LOHA", "IA3", "VERA"):
        said = {"peft_type": kind, "base_model_name_or_path": str(trio["base"])}
        (folder / "adapter_config.json").write_text(json.dumps(said))
        refused(lambda: swap(dict(trio) | {"sw": folder}, out), kind, "merge_and_unload", out=out)


def no_fine_tune(tmp: Path) -> None:
    trio, out = make_trio(tmp), tmp / "out"
    stranger = make_weights({n: v.shape for n, v in load_file_of(trio["base"]).items()}, seed=9)
    rewrite(trio["sw"], lambda w: w.update(stranger))
    refused(lambda: swap(trio, out), "1.4", "--force", out=out)
    assert api.verify_merge(swap(trio, out, force=True)).from_inputs


def load_file_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for file in folder.glob("*.safetensors"):
        found |= load_file(file)
    return found


def other_tokens(tmp: Path) -> None:
    base = grown.member(tmp / "base", grown.bpe())
    trio = {"base": base, "safety": grown.member(tmp / "safety", grown.bpe(), base, seed=1)}
    trio["sw"] = grown.member(tmp / "sw", grown.unigram(), base, seed=2)
    refused(lambda: swap(trio, tmp / "out"), "tokens", "--force", out=tmp / "out")


def computes_otherwise(tmp: Path) -> None:
    trio, out = make_trio(tmp), tmp / "out"
    edit_json(trio["sw"] / "config.json", hidden_act="gelu")
    refused(lambda: swap(trio, out), "hidden_act", "gelu", "--force", out=out)
    assert api.verify_merge(swap(trio, out, force=True)).from_inputs


def lacking(tmp: Path) -> None:
    trio, out = make_trio(tmp), tmp / "out"
    gone = "model.layers.0.mlp.up_proj.weight"
    numbers = numbers_of(trio)
    rewrite(trio["sw"], lambda w: w.pop(gone))
    refused(lambda: swap(trio, out), gone, out=out)
    numbers["sw"][gone] = numbers["base"][gone]
    holds(swap(trio, out, force=True, donor="base"), numbers)


@dataclass(frozen=True)
class Case:
    """What shows a row: `words` of it are what `show` asserts."""

    show: Callable[[Path], None]
    words: tuple[str, ...]


PAGE: dict[str, Case] = {
    "whole fine-tunes in one format": Case(full, ("base's names and shards", "to the byte")),
    "members in BF16, F16 and F32, in any mixture": Case(formats, ("donor's", "`--save-dtype`")),
    "names with a prefix or a training wrapper's marks": Case(names, ("base's names",)),
    "an output projection tied in some members only": Case(tied, ("donor's way",)),
    "an expert that is the base in parts": Case(frozen, ("share there is 0",)),
    "LoRA of peft: patterns, rsLoRA, biases, `modules_to_save`": Case(lora, ("merge_and_unload",)),
    "DoRA, `trainable_token_indices`": Case(dora, ("merge_and_unload",)),
    "`target_parameters`: LoRA on stacks of experts": Case(parameters, ("merge_and_unload",)),
    "an adapter on an expert of its own": Case(beside_full, ("that expert",)),
    "adapters of one base, with `--as adapter`": Case(as_adapter, ("an adapter", "`--rank r`")),
    "added tokens": Case(added, ("by its string", "donor")),
    "another order of tokens": Case(reordered, ("by its string",)),
    "padded matrices": Case(padded, ("never cropped",)),
    "tokens without a `tokenizer.json`": Case(without_fast, ("`tekken.json`", "by its string")),
    "fp8 with scales": Case(fp8, ("BF16", "`--save-dtype same`")),
    "MXFP4": Case(mxfp4, ("BF16", "`--save-dtype same`")),
    "GGUF": Case(gguf, ("BF16", "`--donor`")),
    "a narrow base, wider experts": Case(narrow_base, ("refused", "`--force`")),
    "mixtures of experts": Case(mixture, ("`N.mlp`",)),
    "mixtures of experts, with `--by expert`": Case(by_expert, ("`N.experts.E`",)),
    "experts apart in one member, in one tensor in another": Case(other_layout, ("donor",)),
    "weights at `https://`, `s3://`, `gs://`, `hf://`": Case(at_an_address, ("by ranges",)),
    "layers of state-space, linear attention or convolution": Case(hybrid, ("`N.mixer`",)),
    "mixers alone": Case(mixer, ("`N.mixer`",)),
    "towers for pictures or sound": Case(towers, ("donor's",)),
    "encoder-decoders": Case(pairs, ("`decoder.N.cross_attention`",)),
    "bitsandbytes, GPTQ, AWQ and other packed integers": Case(packed, ("refused", "command")),
    "adapters that are no LoRA": Case(other_adapters, ("refused", "command")),
    "weights that are no fine-tune of the base": Case(no_fine_tune, ("refused", "`--force`")),
    "tokens of which less than half are shared": Case(other_tokens, ("refused", "`--force`")),
    "another computation": Case(computes_otherwise, ("refused", "`--force`")),
    "tensors that an expert lacks or has besides": Case(lacking, ("refused", "`--force`")),
}

README: dict[str, tuple[str, ...]] = {
    "whole fine-tunes in 16 or 32 bits, also mixed": (
        "whole fine-tunes in one format",
        "members in BF16, F16 and F32, in any mixture",
        "names with a prefix or a training wrapper's marks",
        "an expert that is the base in parts",
    ),
    "LoRA adapters: rsLoRA, DoRA, experts, token rows, saved modules": (
        "LoRA of peft: patterns, rsLoRA, biases, `modules_to_save`",
        "DoRA, `trainable_token_indices`",
        "`target_parameters`: LoRA on stacks of experts",
        "an adapter on an expert of its own",
    ),
    "adapters only, with `--as adapter`": ("adapters of one base, with `--as adapter`",),
    "added tokens, another order, padding": (
        "added tokens",
        "another order of tokens",
        "padded matrices",
        "tokens without a `tokenizer.json`",
    ),
    "an output projection tied in some members only": (
        "an output projection tied in some members only",
    ),
    "fp8 with scales, MXFP4": ("fp8 with scales", "MXFP4", "a narrow base, wider experts"),
    "GGUF": ("GGUF",),
    "mixtures of experts, stored apart or in one tensor": (
        "mixtures of experts",
        "mixtures of experts, with `--by expert`",
        "experts apart in one member, in one tensor in another",
    ),
    "weights at `https://`, `s3://`, `gs://`, `hf://`": (
        "weights at `https://`, `s3://`, `gs://`, `hf://`",
    ),
    "hybrids, mixers alone (Jamba, Qwen3-Next, Mamba)": (
        "layers of state-space, linear attention or convolution",
        "mixers alone",
    ),
    "towers for pictures or sound": ("towers for pictures or sound",),
    "encoder-decoders (T5, NLLB)": ("encoder-decoders",),
    "bitsandbytes, GPTQ, AWQ; adapters that are no LoRA": (
        "bitsandbytes, GPTQ, AWQ and other packed integers",
        "adapters that are no LoRA",
    ),
    "no fine-tune of the base, another computation, foreign tokens, missing tensors": (
        "weights that are no fine-tune of the base",
        "tokens of which less than half are shared",
        "another computation",
        "tensors that an expert lacks or has besides",
    ),
}
TITLE = "What goes in, what comes out"


def test_every_row_has_a_case_and_every_case_a_row() -> None:
    assert list(table_of("docs/inputs.md", TITLE)) == list(PAGE)
    assert list(table_of("README.md", TITLE)) == list(README)
    summed = [name for names in README.values() for name in names]
    assert sorted(summed) == sorted(PAGE)


@pytest.mark.parametrize("name", PAGE)
def test_a_row_says_what_its_case_shows(name: str) -> None:
    for word in PAGE[name].words:
        assert word in table_of("docs/inputs.md", TITLE)[name], word


@pytest.mark.parametrize("name", README)
def test_a_refusal_is_called_one_in_both(name: str) -> None:
    row = table_of("README.md", TITLE)[name]
    others = table_of("docs/inputs.md", TITLE)
    assert ("refused" in row) == any("refused" in others[one] for one in README[name])


@pytest.mark.parametrize("name", PAGE)
def test_what_comes_out(name: str, tmp_path: Path) -> None:
    PAGE[name].show(tmp_path)
