"""Real architectures of transformers, as their own configurations make them: no tensor unplaced.

Models are made on the meta device with four layers a stack: names and shapes without weights. What
the installed transformers does not know is skipped.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from transformers.models.auto import modeling_auto  # noqa: E402
from transformers.models.auto.configuration_auto import CONFIG_MAPPING  # noqa: E402

from safeswap.anatomy import anatomy_of, kind_of  # noqa: E402
from safeswap.anatomy.units import DONATED  # noqa: E402

LAYERS, EXPERTS = 4, 8
_LAYER_KEYS = (
    *("num_hidden_layers", "n_layer", "n_layers", "num_layers", "depth"),
    *("encoder_layers", "decoder_layers", "num_decoder_layers"),
)
_TYPE_KEYS = ("layer_types", "mlp_layer_types", "layers_block_type")
_EXPERT_KEYS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")

DECODERS = [
    "afmoe",
    "apertus",
    "arcee",
    "aria_text",
    "axk1",
    "bailing_hybrid",
    "bamba",
    "bart",
    "beam",
    "bigbird_pegasus",
    "biogpt",
    "bitnet",
    "blenderbot",
    "blenderbot-small",
    "bloom",
    "codegen",
    "cohere",
    "cohere2",
    "cohere2_moe",
    "cwm",
    "deepseek_v2",
    "deepseek_v3",
    "deepseek_v32",
    "diffllama",
    "doge",
    "ernie4_5",
    "ernie4_5_moe",
    "exaone4",
    "exaone_moe",
    "falcon",
    "falcon_h1",
    "falcon_mamba",
    "flex_olmo",
    "flint",
    "fuyu",
    "gemma",
    "gemma2",
    "gemma3",
    "gemma3_text",
    "gemma4",
    "gemma4_text",
    "gemma4_unified",
    "gemma4_unified_text",
    "glm",
    "glm4",
    "glm4_moe",
    "glm4_moe_lite",
    "glm_moe_dsa",
    "got_ocr2",
    "gpt-sw3",
    "gpt_bigcode",
    "gpt_neo",
    "gpt_neox",
    "gpt_neox_japanese",
    "gpt_oss",
    "gptj",
    "granite",
    "granite_swa",
    "granitemoe",
    "granitemoe_swa",
    "granitemoehybrid",
    "granitemoeshared",
    "helium",
    "hy_v3",
    "hyperclovax",
    "inkling_text",
    "internlm3",
    "jais2",
    "jamba",
    "jetmoe",
    "kimi_linear",
    "kolibri1",
    "laguna",
    "lfm2",
    "lfm3",
    "longcat_flash",
    "mamba",
    "mamba2",
    "marian",
    "mbart",
    "mellum",
    "mimo_v2_flash",
    "minicpm3",
    "minimax",
    "minimax_m2",
    "minimax_m3_vl_text",
    "ministral3",
    "mistral",
    "mixtral",
    "mllama",
    "moshi",
    "moss_transcribe_diarize",
    "mpt",
    "mvp",
    "nanochat",
    "nemotron_h",
    "olmo",
    "olmo2",
    "olmo3",
    "olmo_hybrid",
    "olmoe",
    "openai-gpt",
    "opt",
    "pegasus",
    "persimmon",
    "phi",
    "phi3",
    "phi4_multimodal",
    "phimoe",
    "plbart",
    "prophetnet",
    "qwen2",
    "qwen2_moe",
    "qwen3",
    "qwen3_moe",
    "qwen3_next",
    "recurrent_gemma",
    "rwkv",
    "seed_oss",
    "smollm3",
    "solar_open",
    "stablelm",
    "starcoder2",
    "trocr",
    "vaultgemma",
    "whisper",
    "xglm",
    "xlnet",
    "xlstm",
    "youtu",
    "zamba2",
]
PAIRS = [
    "audioflamingo3",
    "bart",
    "bigbird_pegasus",
    "blenderbot",
    "blenderbot-small",
    "fsmt",
    "glmasr",
    "granite_speech",
    "granite_speech_plus",
    "led",
    "longt5",
    "m2m_100",
    "marian",
    "mbart",
    "mt5",
    "musicflamingo",
    "mvp",
    "nllb-moe",
    "pegasus",
    "pegasus_x",
    "plbart",
    "prophetnet",
    "qwen2_audio",
    "qwen3_asr",
    "switch_transformers",
    "t5",
    "t5gemma",
    "t5gemma2",
    "umt5",
    "vibevoice_asr",
    "voxtral",
]
WITH_IMAGES = [
    "aria",
    "blip-2",
    "cohere2_vision",
    "cosmos3_edge",
    "cosmos3_omni",
    "deepseek_vl",
    "deepseek_vl_hybrid",
    "ernie4_5_vl_moe",
    "exaone4_5",
    "florence2",
    "glm46v",
    "glm4v",
    "glm4v_moe",
    "glm5_next",
    "glm_ocr",
    "granite_docling",
    "hyperclovax_vision_v2",
    "idefics2",
    "idefics3",
    "inkling_mm_model",
    "instructblip",
    "instructblipvideo",
    "internvl",
    "kimi_k25",
    "kosmos-2",
    "kosmos-2.5",
    "lfm2_vl",
    "lfm3_vl",
    "lighton_ocr",
    "llama4",
    "llava",
    "llava_next",
    "llava_next_video",
    "llava_onevision",
    "minimax_m3_vl",
    "mistral3",
    "mistral4",
    "mistral_large4",
    "mllama",
    "molmo2",
    "muse_glimmer",
    "muse_spark",
    "nemotron_h_omni",
    "ovis2",
    "paddleocr_vl",
    "paligemma",
    "pix2struct",
    "qianfan_ocr",
    "qwen2_5_omni_thinker",
    "qwen2_5_vl",
    "qwen2_vl",
    "qwen3_5",
    "qwen3_5_moe",
    "qwen3_omni_moe_thinker",
    "qwen3_vl",
    "qwen3_vl_moe",
    "smolvlm",
    "step3p7",
    "video_llama_3",
    "video_llava",
    "vipllava",
]
HYBRIDS = {"jamba", "falcon_h1", "qwen3_next", "granitemoehybrid", "bamba", "mamba2"}
"""Some whose layers hold something else than attention."""


def classes(kind: str) -> dict[str, str]:
    found = {
        "decoder": modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        "pair": modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
        "images": modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    }[kind]
    return dict(found)


def shapes_of(kind: str, name: str) -> dict[str, tuple[int, ...]]:
    class_name: Any = classes(kind).get(name)
    if class_name is None or name not in CONFIG_MAPPING:
        pytest.skip(f"this transformers has no {name}")
    class_name = class_name[0] if isinstance(class_name, tuple) else class_name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = CONFIG_MAPPING[name]()
        for part in parts_of(config):
            cut(part)
        with torch.device("meta"):
            model = getattr(transformers, class_name)._from_config(config)
    return {n: tuple(tensor.shape) for n, tensor in model.state_dict().items()}


def parts_of(config: Any) -> Iterator[Any]:
    yield config
    for key in ("text_config", "vision_config", "audio_config"):
        part = getattr(config, key, None)
        if part is not None and not isinstance(part, dict):
            yield part


def cut(config: Any) -> None:
    """Four layers, eight experts: enough for the names."""
    for keys, most in ((_LAYER_KEYS, LAYERS), (_EXPERT_KEYS, EXPERTS)):
        for key in keys:
            value = getattr(config, key, None)
            if isinstance(value, int) and value > most:
                set_softly(config, key, most)
    for key in _TYPE_KEYS:
        value = getattr(config, key, None)
        if isinstance(value, list) and len(value) > LAYERS:
            set_softly(config, key, value[:LAYERS])


def set_softly(config: Any, key: str, value: Any) -> None:
    try:
        setattr(config, key, value)
    except Exception:  # derived from another key, or checked against one: as it is, then
        return


EVERY = [
    *(("decoder", name) for name in DECODERS),
    *(("pair", name) for name in PAIRS),
    *(("images", name) for name in WITH_IMAGES),
]


@pytest.mark.parametrize(("kind", "name"), EVERY, ids=[f"{k}-{n}" for k, n in EVERY])
def test_no_tensor_of_a_real_architecture_is_unplaced(kind: str, name: str) -> None:
    shapes = shapes_of(kind, name)
    anatomy = anatomy_of(shapes)
    assert set(anatomy.placements) == set(shapes)
    kinds = {kind_of(unit) for unit in anatomy.units}
    assert anatomy.layers > 0 and kinds & {"attention", "mixer", "mlp"}
    if any("encoder_attn" in n or "EncDecAttention" in n for n in shapes):
        assert "cross_attention" in kinds
        if kind == "pair":  # a decoder alone may have it too
            assert {unit.split(".")[0] for unit in anatomy.units} >= {"encoder", "decoder"}
    if kind == "images":
        words = ("vision_tower.", "vision_model.", ".visual.")
        towers = [n for n in shapes if any(word in n for word in words)]
        assert all(anatomy.placements[n].unit in (*DONATED, "embeddings") for n in towers)
    if name in HYBRIDS:
        assert "mixer" in kinds


def test_there_are_as_many_as_the_docs_say() -> None:
    assert len({name for _, name in EVERY}) >= 90
