"""Anatomy: every family against an oracle that knows nothing of names, and every refusal.

The oracle looks at the live model instead: which class owns a parameter, which layer it hangs
under, and, outside the layers, whether it runs before or after them.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch import nn

from families import FAMILIES, SINGLE, WEIGHTLESS, save_tiny, tiny_model
from safeswap.anatomy import (
    Anatomy,
    Placement,
    anatomy_of,
    kind_of,
    label_of,
    layer_of,
)
from safeswap.errors import AnatomyError, SafeswapError

Shapes = dict[str, tuple[int, ...]]

# ── checkpoints ──────────────────────────────────────────────────────────────────────────────────


def stored(folder: Path) -> tuple[Shapes, dict[str, str]]:
    """Shapes and dtypes of what is in a folder's safetensors files."""
    shapes: Shapes = {}
    dtypes: dict[str, str] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - no mapping, only keys()
                view = tensors.get_slice(name)
                shapes[name] = tuple(view.get_shape())
                dtypes[name] = view.get_dtype()
    return shapes, dtypes


@pytest.fixture(scope="session")
def checkpoint(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], tuple[Shapes, dict[str, str]]]:
    """The names, shapes and dtypes of a family as transformers saves it."""

    @cache
    def make(family: str) -> tuple[Shapes, dict[str, str]]:
        return stored(save_tiny(family, tmp_path_factory.mktemp("family")))

    return make


def llama(layers: int = 2, stack: str = "model.layers.", outer: str = "model.") -> Shapes:
    """Names and shapes as Llama has them, under any stack."""
    shapes: Shapes = {f"{outer}embed_tokens.weight": (64, 32)}
    for layer in range(layers):
        at = f"{stack}{layer}."
        shapes |= {f"{at}self_attn.{p}_proj.weight": (32, 32) for p in "qkvo"}
        shapes |= {f"{at}mlp.{p}_proj.weight": (48, 32) for p in ("gate", "up")}
        shapes[f"{at}mlp.down_proj.weight"] = (32, 48)
        shapes[f"{at}input_layernorm.weight"] = (32,)
        shapes[f"{at}post_attention_layernorm.weight"] = (32,)
    return shapes | {f"{outer}norm.weight": (32,), "lm_head.weight": (64, 32)}


# ── the oracle ───────────────────────────────────────────────────────────────────────────────────

NORM_CLASS = re.compile("LayerNorm|RMSNorm")
ATTENTION_CLASS = re.compile("Attention")
MIXER_CLASS = re.compile("DeltaNet|Mixer|ShortConv|Mamba(?!DecoderLayer)|RecurrentBlock")
MLP_CLASS = re.compile("MLP|Moe|MoE|Experts|FFN")


def oracle(model: nn.Module) -> dict[str, Placement]:
    """Unit and role of every stored tensor of a live model, from classes and order of execution."""
    stack, layers = layer_list(model)
    late = modules_run_after(model, layers[0])
    parameters = dict(model.named_parameters())  # a tied weight appears once
    tied = {name for name, _ in model.named_parameters(remove_duplicate=False)} - set(parameters)
    return {
        name: place_live(name, model, stack, late)
        for name in model.state_dict()
        if name not in tied
    }


def layer_list(model: nn.Module) -> tuple[str, nn.ModuleList]:
    depth = model.config.num_hidden_layers  # type: ignore[union-attr]
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return f"{name}.", module
    raise AssertionError("no list of layers")


def modules_run_after(model: nn.Module, first_layer: nn.Module) -> set[nn.Module]:
    """The modules that start to run only after the first layer has run."""
    early: set[nn.Module] = set()
    late: set[nn.Module] = set()
    done = False

    def start(module: nn.Module, _: object) -> None:
        if module not in early:
            (late if done else early).add(module)

    def finish(*_: object) -> None:
        nonlocal done
        done = True

    hooks = [module.register_forward_pre_hook(start) for module in model.modules()]
    hooks.append(first_layer.register_forward_hook(finish))
    with torch.no_grad():
        model(torch.tensor([[1, 3, 5, 7]]))
    for hook in hooks:
        hook.remove()
    return late


def place_live(name: str, model: nn.Module, stack: str, late: set[nn.Module]) -> Placement:
    path = name.split(".")[:-1]
    owners = [model.get_submodule(".".join(path[: i + 1])) for i in range(len(path))]
    if name.startswith(stack):
        depth = stack.count(".")
        return place_live_inside(int(path[depth]), owners[depth + 1 :])
    owner = owners[-1]
    if isinstance(owner, nn.Embedding) or owner not in late:
        return Placement("embeddings", "outside")
    norm = NORM_CLASS.search(type(owner).__name__)
    return Placement("final_norm" if norm else "lm_head", "outside")


def place_live_inside(layer: int, owners: list[nn.Module]) -> Placement:
    classes = [type(owner).__name__ for owner in owners]
    if not owners or any(NORM_CLASS.search(c) for c in classes):
        return Placement(f"{layer}.norms", "norm")  # no owner: a gain of the layer itself
    if any(MIXER_CLASS.search(c) for c in classes):
        return Placement(f"{layer}.mixer", "projection")
    if any(ATTENTION_CLASS.search(c) for c in classes):
        return Placement(f"{layer}.attention", "projection")
    if any(MLP_CLASS.search(c) for c in classes) or classes == ["Linear"]:
        return Placement(f"{layer}.mlp", "projection")
    raise AssertionError(f"the oracle does not know {classes}")


# ── families ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("family", FAMILIES)
def test_family_is_placed_as_the_live_model_says(
    family: str, checkpoint: Callable[[str], tuple[Shapes, dict[str, str]]]
) -> None:
    shapes, dtypes = checkpoint(family)
    anatomy = anatomy_of(shapes, dtypes=dtypes)
    model = tiny_model(family)
    expected = oracle(model)

    assert list(anatomy.placements) == list(shapes)
    same_name = expected.keys() & shapes.keys()
    coarse = {n: Placement(p.unit, p.role) for n, p in anatomy.placements.items()}
    assert {n: coarse[n] for n in same_name} == {n: expected[n] for n in same_name}
    # Experts are stored one by one and live fused: their names differ, their numbers do not.
    sizes = {name: tensor.numel() for name, tensor in model.state_dict().items()}
    assert weigh(coarse, {n: math.prod(s) for n, s in shapes.items()}) == weigh(expected, sizes)


def weigh(placements: Mapping[str, Placement], sizes: Mapping[str, int]) -> Counter[Placement]:
    total: Counter[Placement] = Counter()
    for name, placement in placements.items():
        total[placement] += sizes[name]
    return total


@pytest.mark.parametrize("family", FAMILIES)
def test_family_has_whole_layers_and_each_tensor_once(
    family: str, checkpoint: Callable[[str], tuple[Shapes, dict[str, str]]]
) -> None:
    shapes, _ = checkpoint(family)
    anatomy = anatomy_of(shapes)  # without dtypes: names and shapes are enough
    assert anatomy.layers == FAMILIES[family]().num_hidden_layers
    for layer in range(anatomy.layers):
        kinds = {unit.rpartition(".")[2] for unit in anatomy.units if layer_of(unit) == layer}
        assert kinds & {"attention", "mixer"} and kinds >= {"mlp", "norms"}
    everything = [name for unit in anatomy.units for name in anatomy.tensors(unit)]
    assert sorted(everything) == sorted(shapes)


@pytest.mark.parametrize("family", ["llama", "gemma2", "qwen2"])
def test_tying_changes_only_the_head(family: str) -> None:
    anatomies = []
    for tie in (False, True):
        shapes = {
            name: tuple(parameter.shape)
            for name, parameter in tiny_model(family, tie=tie).named_parameters()
        }
        anatomies.append(anatomy_of(shapes))
    untied, tied = anatomies
    assert untied.units == (*tied.units, "lm_head")


# ── the face of the module ───────────────────────────────────────────────────────────────────────


def test_units_come_in_the_order_of_the_model() -> None:
    shapes = llama(11)
    anatomy = anatomy_of(dict(sorted(shapes.items(), reverse=True)))
    inside = [f"{n}.{kind}" for n in range(11) for kind in ("attention", "mlp", "norms")]
    assert anatomy.units == ("embeddings", *inside, "final_norm", "lm_head")
    assert anatomy.tensors("10.norms") == (
        "model.layers.10.input_layernorm.weight",
        "model.layers.10.post_attention_layernorm.weight",
    )
    with pytest.raises(KeyError):
        anatomy.tensors("11.mlp")


def test_units_are_read_back() -> None:
    assert [kind_of(u) for u in ("12.attention", "0.norms")] == ["attention", "norms"]
    assert [layer_of(u) for u in ("12.mlp", "0.norms", "embeddings")] == [12, 0, None]
    assert kind_of("lm_head") == "lm_head"
    for wrong in ("12", "12.embeddings", "mlp", "01.mlp", "-1.mlp", "", "1.mlp.x"):
        with pytest.raises(ValueError, match="is not a unit; units are"):
            kind_of(wrong)
        with pytest.raises(ValueError, match="is not a unit"):
            layer_of(wrong)


def test_an_anatomy_is_frozen_and_an_error_is_ours() -> None:
    anatomy = anatomy_of(llama())
    with pytest.raises(AttributeError):
        anatomy.layers = 3  # type: ignore[misc]
    assert issubclass(AnatomyError, SafeswapError)
    assert issubclass(AnatomyError, ValueError)


# ── single rules ─────────────────────────────────────────────────────────────────────────────────


def placed(extra: Shapes, dtypes: dict[str, str] | None = None) -> Anatomy:
    return anatomy_of(llama() | extra, dtypes=dtypes)


@pytest.mark.parametrize(
    ("inside", "shape", "kind", "role"),
    [
        ("self_attn.bias", (1, 1, 64, 64), "attention", "buffer"),
        ("self_attn.bias", (32,), "attention", "projection"),
        ("self_attn.c_attn.bias", (96,), "attention", "projection"),
        ("self_attn.masked_bias", (), "attention", "buffer"),
        ("self_attn.alibi_slopes", (4,), "attention", "buffer"),
        ("self_attn.rotary_emb.inv_freq", (4,), "attention", "buffer"),
        ("rotary_emb.inv_freq", (4,), "attention", "buffer"),
        ("self_attn.sinks", (4,), "attention", "projection"),
        ("linear_attn.A_log", (4,), "mixer", "projection"),
        ("linear_attn.conv1d.weight", (64, 1, 4), "mixer", "projection"),
        ("linear_attn.norm.weight", (8,), "norms", "norm"),
        ("SelfAttention.q.weight", (32, 32), "attention", "projection"),
        ("norm_attn_norm.attn.Wqkv.weight", (96, 32), "attention", "projection"),
        ("norm_attn_norm.norm_1.weight", (32,), "norms", "norm"),
        ("self_attn.q_norm.weight", (8,), "norms", "norm"),
        ("self_attn.q_norm.weight", (4, 8), "norms", "norm"),
        ("self_attn.q_norm", (8,), "norms", "norm"),
        ("self_attn.k_layernorm.norms.3.weight", (8,), "norms", "norm"),
        ("self_attn.mystery.weight", (8,), "norms", "norm"),
        ("self_attn.qkv.weight", (96, 32), "attention", "projection"),
        ("LayerNorm.gamma", (32,), "norms", "norm"),
        ("mystery.weight", (32,), "norms", "norm"),
        ("mystery.bias", (32,), "norms", "norm"),
        ("layer_scalar", (1,), "norms", "norm"),
        ("post_attention_residual", (32,), "norms", "norm"),
        ("fc1.weight", (48, 32), "mlp", "projection"),
        ("fc1.bias", (48,), "mlp", "projection"),
        ("feed_forward.w1.weight", (48, 32), "mlp", "projection"),
        ("block_sparse_moe.experts.7.w1.weight", (48, 32), "mlp", "projection"),
        ("mlp.experts.gate_up_proj", (4, 32, 96), "mlp", "projection"),
        ("mlp.gate.e_score_correction_bias", (4,), "mlp", "projection"),
        ("router.weight", (4, 32), "mlp", "projection"),
        ("mlp.act_fn.beta", (), "mlp", "projection"),
    ],
)
def test_a_tensor_in_a_layer(inside: str, shape: tuple[int, ...], kind: str, role: str) -> None:
    name = f"model.layers.1.{inside}"
    extra: Shapes = {name: shape}
    if inside == "mystery.bias":  # a bias follows the weight beside it
        extra["model.layers.1.mystery.weight"] = (32,)
    found = placed(extra).placements[name]
    assert (found.unit, found.role) == (f"1.{kind}", role)


@pytest.mark.parametrize(
    ("name", "shape", "unit", "role"),
    [
        ("model.wpe.weight", (64, 32), "embeddings", "outside"),
        ("model.word_embeddings_layernorm.weight", (32,), "embeddings", "outside"),
        ("model.embeddings.LayerNorm.bias", (32,), "embeddings", "outside"),
        ("wte.weight", (64, 32), "embeddings", "outside"),
        ("model.project_in.weight", (32, 16), "embeddings", "outside"),
        ("model.rotary_emb.inv_freq", (4,), "embeddings", "buffer"),
        ("model.embeddings.position_ids", (1, 64), "embeddings", "buffer"),
        ("model.ln_f.bias", (32,), "final_norm", "outside"),
        ("model.final_layernorm.weight", (32,), "final_norm", "outside"),
        ("embed_out.weight", (64, 32), "lm_head", "outside"),
        ("lm_head.bias", (64,), "lm_head", "outside"),
        ("output.weight", (64, 32), "lm_head", "outside"),
    ],
)
def test_a_tensor_outside(name: str, shape: tuple[int, ...], unit: str, role: str) -> None:
    assert placed({name: shape}).placements[name] == Placement(unit, role)  # type: ignore[arg-type]


def test_dtypes_tell_masks_and_indices_from_weights() -> None:
    mask, table = "model.layers.0.self_attn.bias", "model.layers.0.mlp.gate.tid2eid"
    anatomy = placed({mask: (64, 64), table: (64, 2)}, {mask: "BOOL", table: "I64"})
    assert anatomy.placements[mask] == Placement("0.attention", "buffer")
    assert anatomy.placements[table] == Placement("0.mlp", "buffer")


def test_gpt2_with_the_masks_of_old_checkpoints(
    checkpoint: Callable[[str], tuple[Shapes, dict[str, str]]],
) -> None:
    """The checkpoint on the hub: no `transformer.` before the names, a mask in every attention."""
    shapes, _ = checkpoint("gpt2")
    old = {name.removeprefix("transformer."): shape for name, shape in shapes.items()}
    for layer in range(2):
        old[f"h.{layer}.attn.bias"] = (1, 1, 64, 64)
        old[f"h.{layer}.attn.masked_bias"] = ()
    anatomy = anatomy_of(old)
    buffers = {name for name, p in anatomy.placements.items() if p.role == "buffer"}
    assert buffers == {f"h.{n}.attn.{b}" for n in range(2) for b in ("bias", "masked_bias")}
    assert anatomy.placements["h.1.attn.c_attn.bias"] == Placement("1.attention", "projection")
    assert anatomy.placements["wpe.weight"].unit == "embeddings"


def test_the_text_part_of_a_wrapper_is_a_model() -> None:
    anatomy = anatomy_of(llama(3, "model.language_model.layers.", "model.language_model."))
    assert anatomy.layers == 3
    assert anatomy.placements["model.language_model.norm.weight"].unit == "final_norm"


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────


def refusal(shapes: Shapes, dtypes: dict[str, str] | None = None) -> AnatomyError:
    with pytest.raises(AnatomyError) as caught:
        anatomy_of(shapes, dtypes=dtypes)
    return caught.value


def test_no_tensors() -> None:
    assert "holds no tensors" in str(refusal({}))


@pytest.mark.parametrize(
    "leftover",
    ["self_attn.q_proj.lora_A.default.weight", "self_attn.q_proj.base_layer.weight"],
)
def test_adapters_are_refused(leftover: str) -> None:
    name = f"model.layers.0.{leftover}"
    error = refusal(llama() | {name: (8, 32)})
    assert name in str(error)
    assert "merge_and_unload" in str(error)
    assert error.tensors == (name,)


@pytest.mark.parametrize(
    ("leftover", "dtype"),
    [
        ("mlp.up_proj.qweight", "I32"),
        ("mlp.up_proj.scales", "F16"),
        ("mlp.up_proj.weight.absmax", "F32"),
        ("mlp.up_proj.weight.quant_state.bitsandbytes__nf4", "U8"),
        ("mlp.up_proj.SCB", "F32"),
        ("mlp.up_proj.weight_scale_inv", "F32"),
        ("mlp.experts.down_proj_blocks", "U8"),
        ("mlp.up_proj.weight", "I8"),
        ("mlp.up_proj.weight", "U8"),
        ("mlp.up_proj.weight", "F8_E4M3"),
    ],
)
def test_quantized_checkpoints_are_refused(leftover: str, dtype: str) -> None:
    name = f"model.layers.0.{leftover}"
    error = refusal(llama() | {name: (48, 32)}, {name: dtype})
    assert "is quantized" in str(error)
    assert name in str(error)
    assert error.tensors == (name,)


def test_no_layers() -> None:
    error = refusal({"encoder.weight": (3, 3), "blocks.0.thing.weight": (3, 3)})
    assert "no layers found" in str(error)
    assert "blocks.0.thing.weight" in str(error)


def test_towers_and_projectors_are_a_unit_of_their_own() -> None:
    text = llama(3, "model.language_model.layers.", "model.language_model.")
    vision = llama(2, "model.vision_tower.encoder.layers.", "model.vision_tower.")
    del vision["lm_head.weight"]
    joined = {"model.multi_modal_projector.linear_1.weight": (32, 32), "image_newline": (32,)}
    anatomy = anatomy_of(text | vision | joined)
    assert anatomy.layers == 3
    assert set(anatomy.tensors("towers")) == {*vision, *joined}
    assert all(anatomy.placements[n].unit != "towers" for n in text)
    assert {anatomy.placements[n].role for n in vision} == {"outside"}


def test_encoder_and_decoder_are_layers_of_two_stacks() -> None:
    both = llama(2, "model.encoder.layers.") | llama(3, "model.decoder.layers.")
    cross = "model.decoder.layers.2.encoder_attn.q_proj.weight"
    anatomy = anatomy_of(both | {cross: (32, 32)})
    assert anatomy.layers == 5
    assert anatomy.placements[cross].unit == "decoder.2.cross_attention"
    inside = [u for u in anatomy.units if layer_of(u) is not None]
    assert inside[:4] == [
        "encoder.0.attention",
        "encoder.0.mlp",
        "encoder.0.norms",
        "encoder.1.attention",
    ]
    assert [label_of(u) for u in inside[-4:]] == ["decoder.2"] * 4


def test_layers_that_predict_further_tokens_are_a_unit_of_their_own() -> None:
    mtp = llama(1, "mtp.layers.", "mtp.")
    del mtp["lm_head.weight"]
    anatomy = anatomy_of(llama(3) | mtp)
    assert anatomy.layers == 3
    assert set(anatomy.tensors("prediction")) == set(mtp)
    numbered_on = {n.replace("layers.3.", "layers.3."): s for n, s in llama(4).items()}
    numbered_on["model.layers.3.eh_proj.weight"] = (32, 64)
    anatomy = anatomy_of(numbered_on)
    assert anatomy.layers == 3
    assert all(n.startswith("model.layers.3.") for n in anatomy.tensors("prediction"))
    assert len(anatomy.tensors("prediction")) == 10


def test_two_stacks_of_which_none_is_plainly_the_text_are_named() -> None:
    error = refusal(llama(3, "model.high.layers.") | llama(2, "model.low.layers."))
    assert "2 stacks of layers: 'model.high.layers' (layers 0-2)" in str(error)
    assert "cannot be said which of them is the text" in str(error)
    assert all(name.startswith("model.low.layers.") for name in error.tensors)


@pytest.mark.parametrize(
    ("inside", "shape", "part", "experts"),
    [
        ("mlp.experts.3.gate_proj.weight", (48, 32), "1.experts.3", 0),
        ("mlp.experts.expert_3.wi.weight", (48, 32), "1.experts.3", 0),
        ("mlp.experts.gate_up_proj", (4, 32, 96), "1.experts", 4),
        ("mlp.experts.gate_up_proj_bias", (4, 96), "1.experts", 4),
        ("mlp.input_linear.weight", (4, 96, 32), "1.experts", 4),
        ("mlp.gate.weight", (4, 32), "1.router", 4),
        ("mlp.gate.e_score_correction_bias", (4,), "1.router", 4),
        ("mlp.shared_experts.up_proj.weight", (48, 32), "1.shared_experts", 0),
        ("mlp.shared_expert_gate.weight", (1, 32), "1.shared_experts", 0),
    ],
)
def test_a_part_of_a_mixture_of_experts(
    inside: str, shape: tuple[int, ...], part: str, experts: int
) -> None:
    apart: Shapes = {f"model.layers.1.mlp.experts.{e}.w2.weight": (32, 48) for e in range(4)}
    found = placed(apart | {f"model.layers.1.{inside}": shape})
    assert found.placements[f"model.layers.1.{inside}"].part == part
    assert found.placements[f"model.layers.1.{inside}"].experts == experts
    assert {f"1.experts.{e}" for e in range(4)} <= set(found.parts)


def test_what_cannot_be_placed_is_named_with_what_was_understood() -> None:
    strange = {f"model.layers.{n}.oracle_core.weight": (32, 32) for n in range(2)}
    error = refusal(llama() | strange | {"score.weight": (1, 32)})
    message = str(error)
    assert message.startswith("3 of 24 tensors cannot be placed in a unit:")
    assert (
        "model.layers.*.oracle_core.weight  [32, 32]  in 2 layers, "
        "first model.layers.0.oracle_core.weight" in message
    )
    assert "score.weight  [1, 32]" in message
    assert "2 layers under 'model.layers'; attention in self_attn; mlp in mlp; norms in" in message
    assert "please report these names" in message
    assert set(error.tensors) == {*strange, "score.weight"}


def test_many_kinds_of_strangers_are_counted() -> None:
    error = refusal(llama() | {f"stray{n}.weight": (3, 3) for n in range(20)})
    assert "and 8 more kinds" in str(error)
    assert len(error.tensors) == 20


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("model.layers.0.self_attn.q_norm.weight", (32, 32)),  # called a norm, shaped as a matrix
        ("model.layers.0.dense.weight", (32, 32)),  # attention or mlp?
        ("model.layers.0.dense.bias", (32,)),
        ("model.layers.0.post_attention_convolution.conv1d.weight", (32, 1, 4)),
        ("model.layers.0.input_layernorm.mlp.fc1.weight", (4, 32)),
        ("model.layers.0.attn_mlp.weight", (32, 32)),
        ("model.layers.0.mystery", (7,)),
        ("model.layers.01.self_attn.q_proj.weight", (32, 32)),
        ("model.layers.0", (32,)),
        ("transformer.wpe.weight", (64, 32)),  # not on the way to these layers
        ("model.norm.weight", (32, 32)),
    ],
)
def test_what_is_doubtful_is_not_guessed(name: str, shape: tuple[int, ...]) -> None:
    extra: Shapes = {name: shape}
    if name.endswith("dense.bias"):
        extra["model.layers.0.dense.weight"] = (32, 32)
    assert name in refusal(llama() | extra).tensors


def test_missing_layers_are_named() -> None:
    shapes = {n: s for n, s in llama(9).items() if not re.search(r"layers\.[36]\.", n)}
    message = str(refusal(shapes))
    assert "2 of the layers under 'model.layers' are missing: they go up to 8" in message
    assert "there is no layer 3, 6. Is a shard missing" in message


def test_a_wild_layer_number_is_refused_at_once() -> None:
    error = refusal(llama(2) | {"model.layers.99999999999999.mlp.up_proj.weight": (48, 32)})
    assert "there is no layer 2, 3, 4, 5, 6 …" in str(error)


@pytest.mark.parametrize(
    ("kind", "pattern"), [("attention", "self_attn"), ("mlp", "mlp"), ("norms", "layernorm")]
)
def test_a_layer_without_one_of_its_units_is_named(kind: str, pattern: str) -> None:
    lost = {n for n in llama(9) if n.startswith("model.layers.5.") and pattern in n}
    error = refusal({n: s for n, s in llama(9).items() if n not in lost})
    assert f"there is no {kind} in layer 5. Understood: 9 layers" in str(error)
    assert "Is a shard missing" in str(error)
    assert all(name.startswith("model.layers.5.") for name in error.tensors)


def test_a_layer_of_norms_alone_lacks_the_rest() -> None:
    error = refusal(llama(8) | {"model.layers.8.input_layernorm.weight": (32,)})
    assert "no attention and no mlp in layer 8" in str(error)


@pytest.mark.parametrize("family", SINGLE)
def test_layers_of_one_block_have_a_mixer_alone(family: str) -> None:
    state = tiny_model(family).state_dict()
    anatomy = anatomy_of({name: tuple(tensor.shape) for name, tensor in state.items()})
    inside = [unit for unit in anatomy.units if layer_of(unit) is not None]
    assert inside == [f"{n}.{kind}" for n in range(2) for kind in ("mixer", "norms")]


@pytest.mark.parametrize("family", WEIGHTLESS)
def test_norms_without_weights_are_no_units(family: str) -> None:
    model = tiny_model(family)
    anatomy = anatomy_of({n: tuple(tensor.shape) for n, tensor in model.state_dict().items()})
    inside = [f"{layer}.{kind}" for layer in range(2) for kind in ("attention", "mlp")]
    assert [unit for unit in anatomy.units if layer_of(unit) is not None] == inside
    assert "final_norm" not in anatomy.units
    assert anatomy.placements == oracle(model)


def test_without_any_norms_a_layer_still_needs_the_rest() -> None:
    shapes = {n: s for n, s in llama(4).items() if "norm" not in n}
    assert anatomy_of(shapes).layers == 4
    error = refusal({n: s for n, s in shapes.items() if not n.startswith("model.layers.2.mlp")})
    assert "must have attention and mlp, but there is no mlp in layer 2" in str(error)


# ── properties ───────────────────────────────────────────────────────────────────────────────────

identifiers = st.from_regex(r"[a-z_][a-z0-9_]{0,11}", fullmatch=True)
prefixes = st.lists(identifiers, max_size=4).map(lambda parts: "".join(f"{p}." for p in parts))


@given(stack=prefixes, layers=st.integers(1, 13))
@settings(max_examples=60, deadline=None)
def test_any_name_of_the_stack_will_do(stack: str, layers: int) -> None:
    shapes = {n: s for n, s in llama(layers, stack, outer="").items() if n.startswith(stack)}
    shapes = {
        n: s
        for n, s in shapes.items()
        if ".self_attn." in f".{n}" or "mlp." in n or "layernorm" in n
    }
    anatomy = anatomy_of(shapes)
    assert anatomy.layers == layers
    for name, placement in anatomy.placements.items():
        layer, _, inside = name.removeprefix(stack).partition(".")
        kind = {"self_attn": "attention", "mlp": "mlp"}.get(inside.split(".")[0], "norms")
        assert placement.unit == f"{layer}.{kind}"


@given(order=st.permutations(sorted(llama(3))))
@settings(max_examples=40, deadline=None)
def test_the_order_of_the_names_does_not_matter(order: list[str]) -> None:
    shapes = llama(3)
    shuffled = anatomy_of({name: shapes[name] for name in order})
    straight = anatomy_of(shapes)
    assert shuffled == straight
    assert all(shuffled.tensors(unit) == straight.tensors(unit) for unit in straight.units)


@given(layers=st.integers(12, 130), data=st.data())
@settings(max_examples=30, deadline=None)
def test_layers_with_like_numbers_are_not_confused(layers: int, data: st.DataObject) -> None:
    anatomy = anatomy_of(llama(layers))
    layer = data.draw(st.integers(0, layers - 1))
    for kind, count in (("attention", 4), ("mlp", 3), ("norms", 2)):
        names = anatomy.tensors(f"{layer}.{kind}")
        assert len(names) == count
        assert all(name.startswith(f"model.layers.{layer}.") for name in names)


@given(
    family=st.sampled_from(["llama", "gpt-neox", "opt", "mixtral", "qwen3"]),
    layer=st.integers(0, 1),
    kind=st.sampled_from(["attention", "mlp", "norms"]),
)
@settings(max_examples=30, deadline=None)
def test_a_dropped_unit_is_named(
    checkpoint: Callable[[str], tuple[Shapes, dict[str, str]]], family: str, layer: int, kind: str
) -> None:
    shapes, _ = checkpoint(family)
    unit = set(anatomy_of(shapes).tensors(f"{layer}.{kind}"))
    error = refusal({name: shape for name, shape in shapes.items() if name not in unit})
    assert f"no {kind} in layer {layer}" in str(error)


@given(
    position=st.integers(0, 40),
    junk=identifiers.filter(lambda word: len(word) > 9),
    rank=st.integers(2, 3),
)
@settings(max_examples=40, deadline=None)
def test_every_tensor_is_placed_or_named(position: int, junk: str, rank: int) -> None:
    names = list(llama(3))
    name = f"model.layers.{position % 3}.{junk}.kernel"
    names.insert(position % len(names), name)
    shapes = {n: llama(3).get(n, (5,) * rank) for n in names}
    # Some made-up words mean something (`attn_norm_x`): then the tensor is in the anatomy.
    placed_names, error = attempt(shapes)
    if error is None:
        assert placed_names == names
    else:
        assert error.tensors == (name,)
        assert name in str(error)


def attempt(shapes: Shapes) -> tuple[list[str], AnatomyError | None]:
    try:
        return list(anatomy_of(shapes).placements), None
    except AnatomyError as error:
        return [], error


def test_tables_of_sines_are_buffers_and_trained_positions_are_not() -> None:
    """XGLM and M2M100 keep sines in ``weights``; a table that is trained is ``weight``."""
    from safeswap.anatomy.rules import is_buffer

    assert is_buffer(["model", "embed_positions", "weights"], (32, 8), "F32")
    assert is_buffer(["model", "embed_positions", "_float_tensor"], (1,), "F32")
    assert not is_buffer(["model", "embed_positions", "weight"], (32, 8), "F32")
    assert not is_buffer(["model", "mixer", "weights"], (32, 8), "F32")
