"""Merges of a mixture of experts by expert against by module: time and memory.

    python benchmarks/mixtures.py [--work FOLDER] [--runs 3] [--layers 48] [--experts 128]

Makes a synthetic trio in the shape of Qwen3-MoE (hidden 512, experts 64 wide, bf16; 0.69 B
parameters, 6,144 experts), once with its experts stored apart and once with all of a layer in one
tensor, and measures whole processes, in turns, with warm caches: ``merge`` (profile, plan, merge)
``--by module`` and ``--by expert``. By expert at most 1.5 × the time of by module.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import ml_dtypes
import numpy as np
from synthetic import BF16

from merge import in_turns, measured, report
from safeswap.checkpoint.header import build_header

LIMIT_TIME = 1.5
HIDDEN, WIDE, WORDS = 512, 64, 32768
ROLES = ("base", "safety", "l0")


def shapes(layers: int, experts: int, fused: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the model."""
    yield "model.embed_tokens.weight", (WORDS, HIDDEN)
    for layer in range(layers):
        at = f"model.layers.{layer}."
        for name in "qkvo":
            yield f"{at}self_attn.{name}_proj.weight", (HIDDEN, HIDDEN)
        yield f"{at}mlp.gate.weight", (experts, HIDDEN)
        if fused:
            yield f"{at}mlp.experts.gate_up_proj", (experts, 2 * WIDE, HIDDEN)
            yield f"{at}mlp.experts.down_proj", (experts, HIDDEN, WIDE)
        for expert in range(0 if fused else experts):
            for name, shape in (
                ("gate_proj", (WIDE, HIDDEN)),
                ("up_proj", (WIDE, HIDDEN)),
                ("down_proj", (HIDDEN, WIDE)),
            ):
                yield f"{at}mlp.experts.{expert}.{name}.weight", shape
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield f"{at}{name}.weight", (HIDDEN,)
    yield "model.norm.weight", (HIDDEN,)
    yield "lm_head.weight", (WORDS, HIDDEN)


NOISE = np.random.default_rng(0).standard_normal(1 << 22, np.float32)


def weights(name: str, shape: tuple[int, ...], number: int) -> bytes:
    """Base weights by the tensor's name; an expert adds an update of 1 to 3 % to them, of another
    size for every matrix.
    """
    matrices, size = (
        (shape[0], shape[1] * shape[2]) if len(shape) == 3 else (1, int(np.prod(shape)))
    )
    parts = []
    for matrix in range(matrices):
        chance = np.random.default_rng(crc32(f"{name} {matrix}".encode()))
        first, second = (chance.integers(0, len(NOISE) // 2, 2)).tolist()
        values = np.float32(0.02) * np.resize(NOISE[first:], size)
        if number:
            scale = np.float32(0.02 * np.random.default_rng([second, number]).uniform(0.01, 0.03))
            values = values + scale * np.resize(NOISE[second + number :], size)
        parts.append(values.astype(ml_dtypes.bfloat16).tobytes())
    return b"".join(parts)


def write(folder: Path, layers: int, experts: int, fused: bool, number: int) -> None:
    """One checkpoint, unless it is there."""
    if (folder / "config.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    entries = [(name, BF16, shape) for name, shape in shapes(layers, experts, fused)]
    header, _ = build_header(entries, {"format": "pt"})
    with (folder / "model.safetensors").open("wb") as stream:
        stream.write(header)
        for name, _, shape in entries:
            stream.write(weights(name, shape, number))
    config = {"model_type": "qwen3_moe", "num_hidden_layers": layers, "num_experts": experts}
    config |= {"hidden_size": HIDDEN, "moe_intermediate_size": WIDE, "vocab_size": WORDS}
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))


def command(trio: Path, out: Path, by: str) -> list[str]:
    """The command as a user types it."""
    words = [sys.executable, "-m", "safeswap", "merge", str(trio / "base"), "--quiet"]
    words += ["--safety", str(trio / "safety"), "--language", f"l0={trio / 'l0'}"]
    return [*words, "--out", str(out), "--no-figure", "--by", by]


def run(work: Path, layers: int, experts: int, runs: int) -> None:
    """Make the trios, and measure."""
    out, commands = work / "out", {}
    for stored in ("apart", "fused"):
        for number, role in enumerate(ROLES):
            write(work / stored / role, layers, experts, stored == "fused", number)
        for by in ("module", "expert"):
            commands[f"{stored}, by {by}"] = command(work / stored, out, by)
        measured(commands[f"{stored}, by module"], out)  # warms the page cache
    found = dict(zip(commands, in_turns(commands, out, runs), strict=True))
    for stored in ("apart", "fused"):
        one, two = (found[f"{stored}, by {by}"] for by in ("expert", "module"))
        report(f"{stored}: by expert / by module, wall time", one.wall / two.wall, LIMIT_TIME)
        report(f"{stored}: by expert / by module, CPU time", one.cpu / two.cpu, LIMIT_TIME)
    size = (out / "safeswap-plan.yaml").stat().st_size / 1e6
    print(f"plan of {layers * experts} experts: {size:.2f} MB", flush=True)
    shutil.rmtree(out, ignore_errors=True)


def main() -> None:
    """Read the options, and run in a folder that is kept or not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, help="keep the inputs here")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--layers", type=int, default=48)
    parser.add_argument("--experts", type=int, default=128)
    given = parser.parse_args()
    sizes = (given.layers, given.experts, given.runs)
    if given.work:
        given.work.mkdir(parents=True, exist_ok=True)
        run(given.work, *sizes)
        return
    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder), *sizes)


if __name__ == "__main__":
    main()
