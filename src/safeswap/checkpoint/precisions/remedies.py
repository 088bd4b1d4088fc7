"""How to get 16-bit weights from what safeswap does not read: a command or lines of Python each.

They are true for transformers 5: `model.dequantize()` is there for bitsandbytes and HIGGS alone;
GPTQ and AWQ are loaded by gptqmodel, which turns their files back; compressed-tensors and Metal are
turned back while they are loaded. (Saving in the original format would quantize again what
bitsandbytes turned back, and raises.)
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

_LOADED: Final = (
    "from transformers import AutoModelForCausalLM, AutoTokenizer{more}\n"
    'm = AutoModelForCausalLM.from_pretrained("IN", device_map="auto"{options})\n'
    '{turned}m.save_pretrained("OUT"{saving})\n'
    'AutoTokenizer.from_pretrained("IN").save_pretrained("OUT")'
)
_METHOD: Final = _LOADED.format(
    more="", options="", turned="m = m.dequantize(); ", saving=", save_original_format=False"
)
_PACKED: Final = (
    "pip install gptqmodel\n"
    'python -c "from gptqmodel.utils.model_dequant import dequantize_model as d; '
    "d('IN', 'OUT')\""
)
_WHILE_LOADED: Final = {
    method: _LOADED.format(
        more=f", {name}",
        options=f", quantization_config={name}(dequantize=True)",
        turned="",
        saving="",
    )
    for method, name in (
        ("compressed-tensors", "CompressedTensorsConfig"),
        ("metal", "MetalConfig"),
    )
}
_TENSORS: Final = """import torch; from transformers import AutoConfig, AutoModelForCausalLM as M
q = M.from_pretrained("IN", device_map="cpu"); c = AutoConfig.from_pretrained("IN")
del c.quantization_config; m = M.from_config(c, dtype=torch.bfloat16)
w = {n: p.dequantize() if hasattr(p, "dequantize") else p for n, p in q.state_dict().items()}
m.load_state_dict({n: w[n] for n in m.state_dict()}); m.save_pretrained("OUT")"""
_LAYERS: Final = """import torch; from transformers import AutoConfig, AutoModelForCausalLM as M
q = M.from_pretrained("IN", dtype=torch.float16, device_map="auto")
c = AutoConfig.from_pretrained("IN"); del c.quantization_config
m = M.from_config(c, dtype=torch.float16); w = q.state_dict()
for n, l in m.named_modules():
    k = q.get_submodule(n)
    if isinstance(l, torch.nn.Linear) and type(k) is not torch.nn.Linear:
        k.bias = None
        w[n + ".weight"] = k(torch.eye(l.in_features, dtype=torch.float16, device=q.device)).T
m.load_state_dict({n: w[n] for n in m.state_dict()}); m.save_pretrained("OUT")"""

COMMANDS: Final = {
    **dict.fromkeys(("bitsandbytes", "bitsandbytes_4bit", "bitsandbytes_8bit", "higgs"), _METHOD),
    **dict.fromkeys(("gptq", "awq", "auto-round"), _PACKED),
    **_WHILE_LOADED,
    **dict.fromkeys(("torchao", "quanto"), _TENSORS),
    **dict.fromkeys(("hqq", "eetq", "aqlm", "vptq", "spqr", "quark", "fp_quant", "sinq"), _LAYERS),
}
"""``quant_method`` → what gives 16-bit weights in OUT, from the checkpoint IN. What these layers do
is a product with a matrix, so that a layer says its own weights when it is asked with the identity.
"""

_BY_NAMES: Final = (
    (("absmax", "SCB", "quant_map", "quant_state", "weight_format"), "bitsandbytes"),
    (("qweight", "qzeros", "g_idx"), "gptq"),
    (("weight_packed", "weight_zero_point"), "compressed-tensors"),
    (("codes", "codebooks"), "aqlm"),
)


def remedy(method: str, names: Iterable[str] = ()) -> str:
    """What to do about a quantized checkpoint, as a sentence or as one with lines of code.

    Args:
        method: its ``quant_method``; empty where config.json says none.
        names: of its tensors, which tell where config.json does not.
    """
    found = method or _method_by(names)
    code = COMMANDS.get(found)
    if code is None:
        return "Use the 16-bit original."
    return f"Use the 16-bit original, or make 16-bit weights of it ({found}):\n{code}"


def _method_by(names: Iterable[str]) -> str:
    parts = {part for name in names for part in name.split(".")}
    return next((method for marks, method in _BY_NAMES if parts.intersection(marks)), "")
