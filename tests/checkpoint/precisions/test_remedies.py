"""What is refused says how to get 16-bit weights, and what it says runs."""

from __future__ import annotations

import ast
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from narrow import alter
from safeswap.checkpoint.model import open_checkpoint
from safeswap.checkpoint.precisions.remedies import COMMANDS
from safeswap.errors import CheckpointError
from tiny import edit_json, make_trio, refused

LINEAR = "model.layers.0.mlp.up_proj"
PACKED: dict[str, dict[str, Any]] = {
    "bitsandbytes": {f"{LINEAR}.weight": np.zeros((8, 1), np.uint8), f"{LINEAR}.SCB": np.ones(8)},
    "gptq": {f"{LINEAR}.qweight": np.zeros((8, 8), np.int32), f"{LINEAR}.scales": np.ones(8)},
    "awq": {f"{LINEAR}.qzeros": np.zeros((8, 8), np.int32)},
    "compressed-tensors": {f"{LINEAR}.weight_packed": np.zeros((8, 8), np.int32)},
    "hqq": {f"{LINEAR}.W_q": np.zeros((8, 8), np.uint8), f"{LINEAR}.weight_scale": np.ones(8)},
    "eetq": {f"{LINEAR}.weight": np.zeros((8, 8), np.int8)},
    "quanto": {f"{LINEAR}.weight": np.zeros((8, 8), np.int8)},
    "torchao": {f"{LINEAR}.weight": np.zeros((8, 8), np.int8)},
    "aqlm": {f"{LINEAR}.codes": np.zeros((8, 8), np.int8), f"{LINEAR}.scales": np.ones(8)},
}


@pytest.mark.parametrize("method", PACKED)
def test_a_method_that_is_not_read_is_refused_with_its_command(tmp_path: Path, method: str) -> None:
    folder = make_trio(tmp_path)["sw"]
    edit_json(folder / "config.json", quantization_config={"quant_method": method})
    alter(folder, lambda weights: weights.update(PACKED[method]))
    message = refused(lambda: open_checkpoint(folder), method, LINEAR)
    assert COMMANDS[method] in message


@pytest.mark.parametrize("method", ["bitsandbytes", "gptq", "compressed-tensors", "aqlm"])
def test_names_tell_where_no_configuration_does(tmp_path: Path, method: str) -> None:
    folder = make_trio(tmp_path)["sw"]
    alter(folder, lambda weights: weights.update(PACKED[method]))
    assert COMMANDS[method] in refused(lambda: open_checkpoint(folder), LINEAR)


def code_of(command: str) -> str:
    return command.split('python -c "', 1)[-1].removesuffix('"') if "pip" in command else command


@pytest.mark.parametrize("method", COMMANDS)
def test_what_they_import_is_there(method: str) -> None:
    transformers = pytest.importorskip("transformers")
    for node in ast.walk(ast.parse(code_of(COMMANDS[method]))):
        if isinstance(node, ast.ImportFrom) and node.module == "transformers":
            assert all(hasattr(transformers, alias.name) for alias in node.names)


@pytest.mark.parametrize(
    ("method", "there"),
    [("bnb_4bit", True), ("bnb_8bit", True), ("higgs", True), ("gptq", False), ("eetq", False)],
)
def test_which_methods_transformers_turns_back(method: str, there: bool) -> None:
    module = pytest.importorskip(f"transformers.quantizers.quantizer_{method}")
    names = [n for n in vars(module) if n.endswith("HfQuantizer") and n != "HfQuantizer"]
    (name,) = [n for n in names if getattr(module, n).__module__ == module.__name__]
    assert ("_dequantize" in vars(getattr(module, name))) is there


class Loads:
    """transformers' classes, with a quantized model where one is loaded."""

    def __init__(self, model: Any, config: Any, plain: Any) -> None:
        self.model, self.config, self.plain = model, config, plain

    def module(self) -> ModuleType:
        made = ModuleType("transformers")
        loads = self

        class Config:
            from_pretrained = staticmethod(lambda folder: loads.config)

        class Model:
            from_pretrained = staticmethod(lambda folder, **options: loads.model)
            from_config = staticmethod(lambda config, **options: loads.plain)

        made.AutoConfig, made.AutoModelForCausalLM = Config, Model  # type: ignore[attr-defined]
        return made


@pytest.mark.parametrize("method", ["torchao", "hqq"])
def test_lines_of_python_give_the_weights_back(
    tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")

    class Packed(torch.nn.Module):
        """A layer that holds no weight of 16 bits, and multiplies by one."""

        def __init__(self, linear: Any) -> None:
            super().__init__()
            self.hidden, self.bias = linear.weight.detach().clone(), linear.bias

        def forward(self, x: Any) -> Any:
            return torch.nn.functional.linear(x, self.hidden, self.bias)

    class Tiny(torch.nn.Sequential):
        device = torch.device("cpu")

        def save_pretrained(self, folder: str) -> None:
            torch.save(self.state_dict(), folder)

    def tiny(seed: int) -> Any:
        torch.manual_seed(seed)
        layers = (torch.nn.Linear(5, 7), torch.nn.LayerNorm(7), torch.nn.Linear(7, 3, bias=False))
        return Tiny(*layers).to(torch.float16)

    original, model, plain = tiny(1), tiny(1), tiny(2)
    if method == "hqq":
        model[0], model[2] = Packed(model[0]), Packed(model[2])
    config = type("C", (), {"quantization_config": 1})()
    config.quantization_config = 1
    monkeypatch.setitem(
        __import__("sys").modules, "transformers", Loads(model, config, plain).module()
    )
    code = COMMANDS[method].replace('"OUT"', repr(str(tmp_path / "out")))
    exec(compile(code, method, "exec"), {})
    for name, value in torch.load(tmp_path / "out").items():
        assert torch.equal(value, original.state_dict()[name]), name
    assert not hasattr(config, "quantization_config") or "quantization_config" not in vars(config)


@pytest.mark.parametrize("bits", [4, 8])
def test_bitsandbytes_gives_weights_that_are_read(tmp_path: Path, bits: int) -> None:
    pytest.importorskip("bitsandbytes")
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "vocab_size": 64}
    config = transformers.LlamaConfig(num_attention_heads=4, **sizes)
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(tmp_path / "plain")
    quantized = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "plain",
        quantization_config=transformers.BitsAndBytesConfig(**{f"load_in_{bits}bit": True}),
        device_map="cpu",
    )
    quantized.save_pretrained(tmp_path / "in")
    message = refused(lambda: open_checkpoint(tmp_path / "in"), "bitsandbytes")
    code = message.partition(":\n")[2].rpartition("\n")[0]  # the tokenizer apart
    code = code.replace('"IN"', repr(str(tmp_path / "in")))
    exec(code.replace('"OUT"', repr(str(tmp_path / "out"))), {})
    opened = open_checkpoint(tmp_path / "out")
    assert set(opened.tensors) == set(open_checkpoint(tmp_path / "plain").tensors)
    assert {tensor.dtype.name for tensor in opened.tensors.values()} == {"BF16"}


def test_a_method_of_tomorrow_is_refused_without_a_promise(tmp_path: Path) -> None:
    folder = make_trio(tmp_path)["sw"]
    edit_json(folder / "config.json", quantization_config={"quant_method": "q5000"})
    with pytest.raises(CheckpointError, match="q5000"):
        open_checkpoint(folder)
