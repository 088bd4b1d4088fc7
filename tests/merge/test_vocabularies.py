"""Members with tokenizers of their own: the output is what a float64 computation by token string
says, and transformers loads, encodes and generates with it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from transformers import AutoModelForCausalLM, AutoTokenizer

from grown import (
    EMBED,
    HEAD,
    KINDS,
    TEMPLATE,
    bpe,
    grown,
    member,
    merged_rows,
    moved,
    steps,
    tokens_of,
)
from oracle import State, state_of
from pieces import model_of
from safeswap import api
from safeswap.cli import main
from safeswap.errors import VerificationError
from safeswap.merge.manifest import read_manifest
from safeswap.plan import Plan
from safeswap.plan.sampled import Wish
from tiny import edit_json, refused

Trio = dict[str, Path]
LINE = "the miller counts neno7 birds over neno299 the water"


def merge(trio: Trio, out: Path, **options: Any) -> Plan:
    (merged,) = api.merge(
        trio["base"],
        safety=trio["safety"],
        languages={"sw": trio["sw"]},
        out=out,
        figure=False,
        **options,
    )
    return merged.plan


def expected(trio: Trio, plan: Plan, donor: str = "sw", head: bool = True) -> State:
    """The whole output in float64."""
    states = {role: state_of(folder) for role, folder in trio.items()}
    found: State = {}
    for name, start in states["base"].items():
        weights = plan.units[unit_of(name)].weights
        if name in (EMBED, HEAD):
            continue
        found[name] = start.double() + sum(
            weight * (states[role][name].double() - start.double())
            for role, weight in weights.items()
        )
    for name in (EMBED, HEAD) if head else (EMBED,):
        unit = "embeddings" if name == EMBED else "lm_head"
        found[name] = merged_rows(trio, name, plan.units[unit].weights, donor)
    return found


def unit_of(name: str) -> str:
    parts = name.split(".")
    if name in (EMBED, HEAD) or parts[1] == "norm":
        return {EMBED: "embeddings", HEAD: "lm_head"}.get(name, "final_norm")
    kind = "attention" if parts[3] == "self_attn" else parts[3]
    return f"{parts[2]}.{kind if kind in ('attention', 'mlp') else 'norms'}"


def check(out: Path, wanted: State, tolerance: float = 1e-6) -> State:
    found = state_of(out)
    assert found.keys() == wanted.keys()
    for name, weight in wanted.items():
        assert found[name].shape == weight.shape, name
        assert torch.allclose(found[name].double(), weight, rtol=tolerance, atol=tolerance), name
    return found


def loaded(out: Path) -> Any:
    auto: Any = AutoModelForCausalLM
    model, info = auto.from_pretrained(out, output_loading_info=True, dtype=torch.float64)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model.eval()


def answers_as(out: Path, wanted: State, text: str = LINE) -> None:
    """The output encodes, scores and generates as the float64 weights do."""
    tokenizer: Any = AutoTokenizer.from_pretrained(out)
    model = loaded(out)
    reference: Any = AutoModelForCausalLM.from_config(model.config, dtype=torch.float64).eval()
    reference.load_state_dict({HEAD: wanted[EMBED]} | wanted)
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    with torch.inference_mode():
        scores = [one(ids).logits for one in (model, reference)]
    assert scores[0].shape[-1] == model.config.vocab_size == len(wanted[EMBED])
    assert torch.allclose(*scores, rtol=1e-4, atol=1e-4)
    written = [
        one.generate(ids, max_new_tokens=12, do_sample=False)[0].tolist()
        for one in (model, reference)
    ]
    assert written[0] == written[1]
    assert isinstance(tokenizer.decode(written[0]), str)


@pytest.mark.parametrize("kind", KINDS)
def test_a_language_expert_with_300_added_tokens(tmp_path: Path, kind: str) -> None:
    tokenizer = KINDS[kind]()
    base = member(tmp_path / "base", tokenizer)
    trio = {
        "base": base,
        "safety": member(tmp_path / "safety", tokenizer, base, seed=1),
        "sw": member(tmp_path / "sw", grown(tokenizer, 300), base, seed=2),
    }
    out, old = tmp_path / "out", tokenizer.get_vocab_size()
    plan = merge(trio, out, alpha=0.25)
    wanted = expected(trio, plan)
    found = check(out, wanted)
    assert len(found[EMBED]) == old + 300
    for name in (EMBED, HEAD):  # the added ones are the expert's, bit for bit
        assert torch.equal(found[name][old:], state_of(trio["sw"])[name][old:])
        assert not torch.equal(found[name][:old], state_of(trio["sw"])[name][:old])
    answers_as(out, wanted)
    text: Any = AutoTokenizer.from_pretrained(out)
    assert {old + 7, old + 299} <= set(text(LINE)["input_ids"])
    rows = read_manifest(out)["rows"][EMBED]
    assert {k: rows[k] for k in ("rows", "merged", "donor", "padding")} == {
        "rows": old + 300,
        "merged": old,
        "donor": 300,
        "padding": 0,
    }
    assert f"{old} merged, 300 from sw alone" in (out / "README.md").read_text()
    assert api.verify_merge(out).from_inputs


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("donor", ["sw", "safety", "base"])
def test_another_order_and_another_donor(tmp_path: Path, kind: str, donor: str) -> None:
    tokenizer = KINDS[kind]()
    base = member(tmp_path / "base", tokenizer)
    trio = {
        "base": base,
        "safety": member(
            tmp_path / "safety", grown(moved(tokenizer, 5), 3, "<|salama"), base, seed=1
        ),
        "sw": member(tmp_path / "sw", grown(moved(tokenizer, 6), 20), base, seed=2),
    }
    out = tmp_path / "out"
    plan = merge(trio, out, alpha=0.25, donor=donor)
    wanted = expected(trio, plan, donor)
    check(out, wanted)
    answers_as(out, wanted)
    ids = tokens_of(out)
    assert ids == tokens_of(trio[donor])
    config, generation = (
        json.loads((out / name).read_text()) for name in ("config.json", "generation_config.json")
    )
    assert config["eos_token_id"] == generation["eos_token_id"] == ids["</s>"]
    assert config["pad_token_id"] == generation["pad_token_id"] == ids["<pad>"]
    assert config["vocab_size"] == len(wanted[EMBED])
    assert "chat_template.jinja" in {p.name for p in out.iterdir()}
    assert (out / "chat_template.jinja").read_text() == TEMPLATE
    assert api.verify_merge(out).from_inputs


def test_a_row_is_swapped_as_a_whole_and_blended_nowhere_else(tmp_path: Path) -> None:
    """With all weight on one expert the rows are its own bytes, whatever the order."""
    tokenizer = bpe()
    base = member(tmp_path / "base", tokenizer, dtype=torch.bfloat16)
    trio = {
        "base": base,
        "safety": member(
            tmp_path / "safety", moved(tokenizer, 1), base, seed=1, dtype=torch.bfloat16
        ),
        "sw": member(
            tmp_path / "sw", grown(tokenizer, 5), base, seed=2, height=384, dtype=torch.bfloat16
        ),
    }
    merge(trio, tmp_path / "out", outside="safety")
    found, safety, sw = (state_of(f) for f in (tmp_path / "out", trio["safety"], trio["sw"]))
    theirs, ours = tokens_of(trio["safety"]), tokens_of(trio["sw"])
    for name in (EMBED, HEAD):
        for token, row in ours.items():
            wanted = safety[name][theirs[token]] if token in theirs else sw[name][row]
            assert torch.equal(found[name][row], wanted), token
        assert torch.equal(found[name][len(ours) :], sw[name][len(ours) :])
    assert api.verify_merge(tmp_path / "out").from_inputs


@pytest.mark.parametrize("heights", [(384, 384, 384), (360, 384, 448), (448, 384, 384)])
def test_padding_is_never_cropped_and_stays_as_the_donor_has_it(
    tmp_path: Path, heights: tuple[int, int, int]
) -> None:
    """Qwen's config.vocab_size is larger than its tokenizer; others are resized to multiples."""
    tokenizer = bpe()
    base = member(tmp_path / "base", tokenizer, height=heights[0])
    trio = {
        "base": base,
        "safety": member(tmp_path / "safety", tokenizer, base, seed=1, height=heights[1]),
        "sw": member(tmp_path / "sw", grown(tokenizer, 8), base, seed=2, height=heights[2]),
    }
    out = tmp_path / "out"
    plan = merge(trio, out, alpha=0.25)
    wanted = expected(trio, plan)
    found = check(out, wanted)
    assert len(found[EMBED]) == heights[2] > tokenizer.get_vocab_size() + 8
    padding = slice(tokenizer.get_vocab_size() + 8, None)
    assert torch.equal(found[EMBED][padding], state_of(trio["sw"])[EMBED][padding])
    answers_as(out, wanted)


def test_padding_alone_is_matched_too(tmp_path: Path) -> None:
    """One tokenizer, matrices of other heights."""
    tokenizer = bpe()
    base = member(tmp_path / "base", tokenizer)
    trio = {
        "base": base,
        "safety": member(tmp_path / "safety", tokenizer, base, seed=1, height=384),
        "sw": member(tmp_path / "sw", tokenizer, base, seed=2, height=448),
    }
    plan = merge(trio, tmp_path / "out", alpha=0.25)
    check(tmp_path / "out", expected(trio, plan))
    notes = read_manifest(tmp_path / "out")["profile"]["notes"]
    assert any("vocab_size = 384, the base says 360: rows are matched by" in n for n in notes)


def test_tokens_of_two_experts_that_the_base_lacks(tmp_path: Path) -> None:
    """No task vector without a row of the base: the donor's."""
    tokenizer = bpe()
    base = member(tmp_path / "base", tokenizer)
    both = grown(tokenizer, 2, "<|im_")
    trio = {
        "base": base,
        "safety": member(tmp_path / "safety", both, base, seed=1),
        "sw": member(tmp_path / "sw", grown(both, 2), base, seed=2),
    }
    plan = merge(trio, tmp_path / "out", alpha=0.25)
    found = check(tmp_path / "out", expected(trio, plan))
    old = tokenizer.get_vocab_size()
    assert torch.equal(found[EMBED][old:], state_of(trio["sw"])[EMBED][old:])


def test_what_the_safety_expert_alone_has_is_dropped_and_said(tmp_path: Path) -> None:
    tokenizer = bpe()
    base = member(tmp_path / "base", tokenizer)
    trio = {
        "base": base,
        "safety": member(tmp_path / "safety", grown(tokenizer, 4, "<|salama"), base, seed=1),
        "sw": member(tmp_path / "sw", tokenizer, base, seed=2),
    }
    plan = merge(trio, tmp_path / "out", alpha=0.25)
    check(tmp_path / "out", expected(trio, plan))
    card = (tmp_path / "out/README.md").read_text()
    assert "4 tokens of safety have no id in sw's tokenizer" in card


@pytest.mark.parametrize(
    "tied",
    [
        (True, True, True),
        (True, True, False),
        (False, False, True),
        (False, True, False),
        (True, False, True),
    ],
)
def test_tied_and_untied(tmp_path: Path, tied: tuple[bool, bool, bool]) -> None:
    """A tied member's embeddings are its projection too; a tied donor has one matrix."""
    tokenizer = bpe()
    base = member(tmp_path / "base", tokenizer, tied=tied[0])
    trio = {
        "base": base,
        "safety": member(tmp_path / "safety", tokenizer, base, seed=1, tied=tied[1]),
        "sw": member(tmp_path / "sw", grown(tokenizer, 12), base, seed=2, tied=tied[2]),
    }
    out = tmp_path / "out"
    plan = merge(trio, out, alpha=0.25)
    wanted = expected(trio, plan, head=not tied[2])
    check(out, wanted)
    model = loaded(out)
    same = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert same == tied[2]
    answers_as(out, wanted)
    manifest = read_manifest(out)
    assert {*manifest["rows"]} == ({EMBED} if tied[2] else {EMBED, HEAD})
    if len(set(tied)) > 1:
        (note,) = [n for n in manifest["profile"]["notes"] if HEAD in n]
        assert "(tied)" in note and "as its donor does" in note
    if tied[2] and not tied[1]:
        assert "sw) is tied" in manifest["not_used"][f"safety: {HEAD}"]
    assert api.verify_merge(out).from_inputs


def test_a_tied_donor_that_stores_its_projection_twice(tmp_path: Path) -> None:
    tokenizer = bpe()
    base = member(tmp_path / "base", tokenizer)
    trio = {
        "base": base,
        "safety": member(tmp_path / "safety", tokenizer, base, seed=1),
        "sw": member(tmp_path / "sw", grown(tokenizer, 2), base, seed=2, tied=True),
    }
    from safetensors.torch import save_file

    state = state_of(trio["sw"])
    file = trio["sw"] / "model.safetensors"
    save_file(state | {HEAD: state[EMBED].clone()}, file, metadata={"format": "pt"})
    plan = merge(trio, tmp_path / "out", alpha=0.25)
    check(tmp_path / "out", expected(trio, plan, head=False))
    assert api.verify_merge(tmp_path / "out").from_inputs


def test_languages_with_vocabularies_of_their_own(tmp_path: Path) -> None:
    """Each output follows its own donor, as if it had been merged alone, byte for byte."""
    tokenizer = bpe()
    base = member(tmp_path / "base", tokenizer)
    places = {
        "base": base,
        "safety": member(tmp_path / "safety", tokenizer, base, seed=1),
        "sw": member(tmp_path / "sw", grown(tokenizer, 300), base, seed=2),
        "te": member(tmp_path / "te", moved(tokenizer), base, seed=3),
        "ko": member(tmp_path / "ko", tokenizer, base, seed=4),
    }
    languages = ("sw", "te", "ko")
    api.merge(
        base,
        safety=places["safety"],
        languages={code: places[code] for code in languages},
        out=tmp_path / "all",
        figure=False,
    )
    for code in languages:
        alone = tmp_path / f"alone-{code}"
        api.merge(
            base, safety=places["safety"], languages={code: places[code]}, out=alone, figure=False
        )
        one, other = (tmp_path / "all" / code, alone)
        assert (one / "model.safetensors").read_bytes() == (
            other / "model.safetensors"
        ).read_bytes()
        assert api.verify_merge(one).from_inputs
        # but for the files' names, the profile of a run of several is that of one
        assert read_manifest(one)["tensors"] == read_manifest(other)["tensors"]
    assert "rows" not in read_manifest(tmp_path / "all/ko")


def test_languages_tied_in_other_ways_need_runs_of_their_own(tmp_path: Path) -> None:
    tokenizer = bpe()
    base = member(tmp_path / "base", tokenizer, tied=True)
    experts = {
        "safety": member(tmp_path / "safety", tokenizer, base, seed=1, tied=True),
        "sw": member(tmp_path / "sw", tokenizer, base, seed=2, tied=True),
        "te": member(tmp_path / "te", tokenizer, base, seed=3, tied=False),
    }
    languages = {code: experts[code] for code in ("sw", "te")}
    refused(
        lambda: api.make_profile(base, safety=experts["safety"], languages=languages),
        "te",
        "output projection of its own",
        "runs of their own",
    )


def test_the_profile_counts_differences_on_shared_tokens_only(tmp_path: Path) -> None:
    tokenizer = bpe()
    base = member(tmp_path / "base", tokenizer, height=384)
    trio = {
        "base": base,
        "safety": member(tmp_path / "safety", moved(tokenizer), base, seed=1),
        "sw": member(tmp_path / "sw", grown(tokenizer, 30), base, seed=2),
    }
    profile = api.make_profile(base, safety=trio["safety"], languages={"sw": trio["sw"]})
    (found,) = [t for t in profile.tensors if t.name == EMBED]
    states = {role: state_of(folder)[EMBED].double() for role, folder in trio.items()}
    ids = {role: tokens_of(folder) for role, folder in trio.items()}
    start = states["base"]
    change = {}
    for role in ("safety", "sw"):
        rows = {ids["base"][t]: states[role][ids[role][t]] for t in ids["base"] if t in ids[role]}
        change[role] = torch.zeros_like(start)
        for row, values in rows.items():
            change[role][row] = values - start[row]
        assert found.update_norm[role] == pytest.approx(change[role].norm().item(), rel=1e-6)
    assert found.base_norm == pytest.approx(start.norm().item(), rel=1e-6)
    assert found.inner["sw"] == pytest.approx(
        (change["safety"] * change["sw"]).sum().item(), rel=1e-6, abs=1e-9
    )


@pytest.mark.parametrize("operator", ["ties", {"name": "slerp"}, {"name": "dare", "drop": 0.5}])
def test_operators_leave_unshared_rows_to_the_donor(tmp_path: Path, operator: Any) -> None:
    tokenizer = bpe()
    base = member(tmp_path / "base", tokenizer)
    trio = {
        "base": base,
        "safety": member(tmp_path / "safety", moved(tokenizer), base, seed=1),
        "sw": member(tmp_path / "sw", grown(tokenizer, 30), base, seed=2),
    }
    merge(trio, tmp_path / "out", operator=operator)
    found, own, old = state_of(tmp_path / "out"), state_of(trio["sw"]), tokenizer.get_vocab_size()
    for name in (EMBED, HEAD):
        assert torch.equal(found[name][old:], own[name][old:])
        assert not torch.equal(found[name][:old], own[name][:old])
    assert api.verify_merge(tmp_path / "out").from_inputs


def test_a_killed_run_is_resumed_and_other_rows_begin_anew(tmp_path: Path) -> None:
    """What decides the rows is in the identity of a run: another tokenizer, other bytes."""
    tokenizer = bpe()
    base = member(tmp_path / "base", tokenizer)
    trio = {
        "base": base,
        "safety": member(tmp_path / "safety", tokenizer, base, seed=1),
        "sw": member(tmp_path / "sw", moved(tokenizer), base, seed=2),
    }
    merge(trio, tmp_path / "out", workers=1)
    again = tmp_path / "again"
    merge(trio, again, workers=3)
    assert (again / "model.safetensors").read_bytes() == (
        tmp_path / "out/model.safetensors"
    ).read_bytes()


def test_verify_finds_another_tokenizer_of_an_input(tmp_path: Path) -> None:
    tokenizer = bpe()
    base = member(tmp_path / "base", tokenizer)
    trio = {
        "base": base,
        "safety": member(tmp_path / "safety", moved(tokenizer, 3), base, seed=1),
        "sw": member(tmp_path / "sw", grown(tokenizer, 5), base, seed=2),
    }
    out = tmp_path / "out"
    merge(trio, out)
    kept = (trio["safety"] / "tokenizer.json").read_text()
    moved(tokenizer, 4).save(str(trio["safety"] / "tokenizer.json"))
    with pytest.raises(VerificationError, match="the inputs now give other bytes"):
        api.verify_merge(out)
    (trio["safety"] / "tokenizer.json").write_text(kept)
    assert api.verify_merge(out).from_inputs
    edited = json.loads((out / "safeswap.json").read_text())
    edited["rows"][EMBED]["merged"] -= 1
    edit_json(out / "safeswap.json", rows=edited["rows"])
    refused(lambda: api.verify_merge(out), "rows", EMBED)


def test_a_tokenizer_that_the_weights_were_not_trained_with(tmp_path: Path) -> None:
    """The tokens are in another order than the rows: refused with the numbers, forced on."""
    tokenizer = bpe()
    base = member(tmp_path / "base", tokenizer)
    trio = {
        "base": base,
        "safety": member(tmp_path / "safety", tokenizer, base, seed=1),
        "sw": member(tmp_path / "sw", tokenizer, base, seed=2),
    }
    moved(tokenizer).save(str(trio["sw"] / "tokenizer.json"))
    words = ("sw expert", EMBED, "1.4", "cosine", "1.00 row by row", "tokenizer", "--force")
    refused(lambda: merge(trio, tmp_path / "out"), *words, out=tmp_path / "out")
    merge(trio, tmp_path / "out", force=True)


def test_vocabularies_that_do_not_correspond(tmp_path: Path) -> None:
    """Byte-level tokens beside sentencepiece's: the numbers are said, and --force goes on."""
    base = member(tmp_path / "base", bpe())
    trio = {
        "base": base,
        "safety": member(tmp_path / "safety", bpe(), base, seed=1),
        "sw": member(tmp_path / "sw", KINDS["unigram"](), base, seed=2),
    }
    words = ("sw expert", "the base's 360", "are in both", "model.type", "--force")
    refused(lambda: merge(trio, tmp_path / "out"), *words[:1], *words[3:], out=tmp_path / "out")
    for folder in trio.values():  # so that only the tokens tell them apart
        edit_model(folder, type="BPE", merges=[])
    tokens = {token: n for n, token in enumerate(["<unk>", *(f"▁{n}" for n in range(200))])}
    edit_model(trio["sw"], vocab=tokens)
    refused(lambda: merge(trio, tmp_path / "out"), *words[:3], "2% of the smaller", "--force")
    plan = merge(trio, tmp_path / "out", force=True, alpha=0.25)
    rows = read_manifest(tmp_path / "out")["rows"][EMBED]
    assert plan.donor == "sw" and rows["merged"] == 4  # the special ones


def edit_model(folder: Path, **changes: Any) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    edit_json(folder / "tokenizer.json", model=content["model"] | changes)


def slow_bpe(folder: Path) -> None:
    """``vocab.json`` and ``merges.txt``, with the rest as added tokens."""
    content = json.loads((folder / "tokenizer.json").read_text())
    merges = [
        pair if isinstance(pair, str) else " ".join(pair) for pair in content["model"]["merges"]
    ]
    (folder / "vocab.json").write_text(json.dumps(content["model"]["vocab"]))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    keep_added(folder)


def slow_wordpiece(folder: Path) -> None:
    """``vocab.txt``: a token's line is its id."""
    table = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    plain = sorted(table, key=lambda token: table[token])
    (folder / "vocab.txt").write_text("\n".join(plain) + "\n")
    keep_added(folder)


def slow_pieces(folder: Path) -> None:
    """``tokenizer.model``, as sentencepiece writes it."""
    table = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    (folder / "tokenizer.model").write_bytes(model_of([piece for piece, _ in table]))
    keep_added(folder)


def keep_added(folder: Path) -> None:
    """The added tokens as slow tokenizers note them, and no tokenizer.json."""
    content = json.loads((folder / "tokenizer.json").read_text())
    table = {str(token["id"]): {"content": token["content"]} for token in content["added_tokens"]}
    edit_json(folder / "tokenizer_config.json", added_tokens_decoder=table)
    (folder / "tokenizer.json").unlink()


@pytest.mark.parametrize(
    ("kind", "slowly"),
    [("bpe", slow_bpe), ("wordpiece", slow_wordpiece), ("unigram", slow_pieces)],
)
@pytest.mark.parametrize("which", [("base", "safety", "sw"), ("safety",), ("sw",)])
def test_slow_tokenizers(tmp_path: Path, kind: str, slowly: Any, which: tuple[str, ...]) -> None:
    """The same rows as with tokenizer.json, whoever has only the files of a slow one."""
    tokenizer = KINDS[kind]()
    base = member(tmp_path / "base", tokenizer)
    trio = {
        "base": base,
        "safety": member(tmp_path / "safety", moved(tokenizer, 2), base, seed=1),
        "sw": member(tmp_path / "sw", grown(tokenizer, 9), base, seed=2),
    }
    plan = merge(trio, tmp_path / "fast", alpha=0.25)
    wanted = expected(trio, plan)
    check(tmp_path / "fast", wanted)
    for role in which:
        slowly(trio[role])
    merge(trio, tmp_path / "slow", alpha=0.25)
    check(tmp_path / "slow", wanted)


def test_a_bias_per_token_goes_with_its_rows(tmp_path: Path) -> None:
    """Phi's ``lm_head.bias``, in a checkpoint that transformers wrote and loads."""
    from transformers import PhiConfig, PhiForCausalLM

    tokenizer = bpe()
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    trio = {}
    ways = {"base": tokenizer, "safety": moved(tokenizer, 2), "sw": grown(tokenizer, 7)}
    for seed, (role, own) in enumerate(ways.items()):
        folder = member(tmp_path / role, own, seed=seed)
        tokens = own.get_vocab()
        config = PhiConfig(vocab_size=len(tokens), num_attention_heads=4, **sizes)
        model: Any = PhiForCausalLM(config)
        if trio:
            inside = {n: w for n, w in state_of(trio["base"]).items() if "layer" in n}
            model.load_state_dict(steps(inside, seed), strict=False)
        chance = torch.Generator().manual_seed(9)
        row_of = {t: torch.randn(16, generator=chance) for t in sorted(ways["sw"].get_vocab())}
        with torch.no_grad():
            for token, row in tokens.items():
                for table in (model.model.embed_tokens.weight, model.lm_head.weight):
                    table[row] = row_of[token] + 0.01 * seed
                model.lm_head.bias[row] = row_of[token].sum() + 0.01 * seed
        model.save_pretrained(folder)
        trio[role] = folder
    plan = merge(trio, tmp_path / "out", alpha=0.25)
    found = state_of(tmp_path / "out")
    weights = plan.units["lm_head"].weights
    wanted = merged_rows(trio, "lm_head.bias", weights, "sw")
    assert torch.allclose(found["lm_head.bias"].double(), wanted, atol=1e-6)
    assert wanted.shape == (len(tokens_of(trio["sw"])),)
    loaded(tmp_path / "out")


def test_formats_that_differ(tmp_path: Path) -> None:
    """bfloat16 members under a float32 donor, and the donor's rows are its own to the last bit."""
    tokenizer = bpe()
    base = member(tmp_path / "base", tokenizer, dtype=torch.bfloat16)
    trio = {
        "base": base,
        "safety": member(tmp_path / "safety", moved(tokenizer), base, seed=1, dtype=torch.bfloat16),
        "sw": member(tmp_path / "sw", grown(tokenizer, 9), base, seed=2),
    }
    plan = merge(trio, tmp_path / "out", alpha=0.3)
    found = check(tmp_path / "out", expected(trio, plan))
    assert torch.equal(found[EMBED][-9:], state_of(trio["sw"])[EMBED][-9:])
    merge(trio, tmp_path / "wide", alpha=0.3, dtype="float64", outside="safety")
    wide = state_of(tmp_path / "wide")
    assert torch.equal(wide[EMBED][-9:], state_of(trio["sw"])[EMBED][-9:].double())
    assert api.verify_merge(tmp_path / "wide").from_inputs


def test_a_dry_run_says_what_becomes_of_the_rows(tmp_path: Path) -> None:
    tokenizer = bpe()
    base = member(tmp_path / "base", tokenizer)
    safety = member(tmp_path / "safety", grown(tokenizer, 2, "<|salama"), base, seed=1)
    sw = member(tmp_path / "sw", grown(tokenizer, 300), base, seed=2, height=704)
    arguments = ["merge", str(base), "--safety", str(safety), "--language", f"sw={sw}"]
    done = CliRunner().invoke(main, [*arguments, "-o", str(tmp_path / "out"), "--dry-run"])
    assert done.exit_code == 0, done.output
    assert (
        "sw: rows by token in lm_head.weight, model.embed_tokens.weight: 360 merged, 300 from sw"
        in done.output
    )
    assert "44 padding as in sw" in done.output
    assert "sw: 2 tokens of safety have no id in sw's tokenizer" in done.output
    assert "rows are matched by token" in done.output
    assert not (tmp_path / "out").exists()
    done = CliRunner().invoke(main, [*arguments, "-o", str(tmp_path / "out"), "--no-figure"])
    assert done.exit_code == 0, done.output
    assert "360 merged, 300 from sw" in done.output


def test_in_steps_with_a_donor_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A profile is the same whoever is the donor; a plan's file names it."""
    tokenizer = bpe()
    base = member(tmp_path / "base", tokenizer)
    trio = {
        "base": base,
        "safety": member(tmp_path / "safety", moved(tokenizer), base, seed=1),
        "sw": member(tmp_path / "sw", grown(tokenizer, 9), base, seed=2),
    }
    profile = api.make_profile(base, safety=trio["safety"], languages={"sw": trio["sw"]})
    plan = api.make_plan(profile, donor="safety", alpha=0.25)
    plan.save(tmp_path / "plan.yaml")
    plan = Plan.load(tmp_path / "plan.yaml")
    (merged,) = api.merge_plans([plan], tmp_path / "out", profile=profile, figure=False)
    check(tmp_path / "out", expected(trio, plan, "safety"))
    assert "9 tokens of sw have no id" in (merged.folder / "README.md").read_text()
    assert api.verify_merge(merged.folder).from_inputs
    # another tokenizer, while not a weight changed: the profile is measured anew
    monkeypatch.setattr("safeswap.merge.run.measure_family", lambda *a, **b: pytest.fail("read"))
    api.merge_plans([plan], tmp_path / "again", profile=profile, figure=False)
    moved(tokenizer, 7).save(str(trio["safety"] / "tokenizer.json"))
    with pytest.raises(pytest.fail.Exception, match="read"):
        api.merge_plans([plan], tmp_path / "other", profile=profile, figure=False, force=True)
    refused(lambda: api.to_mergekit(plan), "by token, mergekit by number")


def test_gemma_whose_config_says_nothing_of_tying(tmp_path: Path) -> None:
    """Tied by its family's default; the embeddings alone are stored, and grow."""
    from transformers import GemmaConfig, GemmaForCausalLM

    tokenizer, trio = bpe(), {}
    ways = {"base": tokenizer, "safety": tokenizer, "sw": grown(tokenizer, 24)}
    row_of = torch.randn(384, 16, generator=torch.Generator().manual_seed(5))
    for seed, (role, own) in enumerate(ways.items()):
        folder = member(tmp_path / role, own, tied=True)
        torch.manual_seed(1)
        sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
        config = GemmaConfig(
            vocab_size=own.get_vocab_size(),
            num_attention_heads=4,
            num_key_value_heads=1,
            head_dim=4,
            eos_token_id=2,
            **sizes,
        )
        model: Any = GemmaForCausalLM(config)
        if trio:
            inside = {n: w for n, w in state_of(trio["base"]).items() if n != EMBED}
            model.load_state_dict(steps(inside, seed), strict=False)
        with torch.no_grad():
            height = own.get_vocab_size()
            model.model.embed_tokens.weight.copy_(row_of[:height] + 0.01 * seed)
        model.save_pretrained(folder)
        said = json.loads((folder / "config.json").read_text())
        said.pop("tie_word_embeddings", None)
        (folder / "config.json").write_text(json.dumps(said))
        trio[role] = folder
    plan = merge(trio, tmp_path / "out", alpha=0.25)
    found = state_of(tmp_path / "out")
    assert HEAD not in found and len(found[EMBED]) == 384
    wanted = merged_rows(trio, EMBED, plan.units["embeddings"].weights, "sw")
    assert torch.allclose(found[EMBED].double(), wanted, atol=1e-6)
    model = loaded(tmp_path / "out")
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert api.verify_merge(tmp_path / "out").from_inputs


def test_gram_matrices_of_members_with_their_own_tokenizers(tmp_path: Path) -> None:
    """Each expert reads the texts with its own tokenizer; regmean joins the layers."""
    tokenizer = bpe()
    base = member(tmp_path / "base", tokenizer)
    trio = {
        "base": base,
        "safety": member(tmp_path / "safety", moved(tokenizer), base, seed=1),
        "sw": member(tmp_path / "sw", grown(tokenizer, 9), base, seed=2),
    }
    texts = tmp_path / "texts.txt"
    texts.write_text("the miller grinds the grain\nrain on the roof\n")
    experts: dict[str, Any] = {"safety": trio["safety"], "languages": {"sw": trio["sw"]}}
    calibrate: Any = api.calibrate
    calibrate(base, **experts, texts={"safety": texts, "sw": texts}, out=tmp_path / "grams")
    grams = {"name": "regmean", "grams": str(tmp_path / "grams")}
    merge(trio, tmp_path / "out", operator=grams, method="uniform")
    assert api.verify_merge(tmp_path / "out").from_inputs


def test_a_sample_counts_shared_tokens_only(tmp_path: Path) -> None:
    """All rows asked for: the sample is the profile."""
    tokenizer = bpe()
    base = member(tmp_path / "base", tokenizer, height=384)
    experts: dict[str, Any] = {
        "safety": member(tmp_path / "safety", moved(tokenizer), base, seed=1),
        "languages": {"sw": member(tmp_path / "sw", grown(tokenizer, 30), base, seed=2)},
    }
    exact, sampled = (
        {t.name: t for t in api.make_profile(base, **experts, **asked).tensors}
        for asked in ({}, {"sample": Wish(budget=1.0)})
    )
    for name in (EMBED, HEAD):
        for role in ("safety", "sw"):
            wanted = exact[name].update_norm[role]
            assert sampled[name].update_norm[role] == pytest.approx(wanted, rel=1e-6)
