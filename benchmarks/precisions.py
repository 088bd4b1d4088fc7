"""What reading and writing fp8 costs beside 16 bits: time and memory of whole merges, in turns.

    python benchmarks/precisions.py [--work FOLDER] [--layers 4] [--runs 3]

Makes a synthetic trio in the shape of Llama-3.2-1B with fewer layers, and the same in DeepSeek's
fp8 (blocks of 128 × 128, embeddings in BF16); blends all of it, so that nothing is copied:
- plain: BF16 in, BF16 out;
- decoded: fp8 in, BF16 out;
- again: fp8 in, fp8 out (``--save-dtype same``).
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file
from synthetic import make

from merge import in_turns
from safeswap.checkpoint.model import open_checkpoint

LIMIT_DECODED, LIMIT_AGAIN, LIMIT_ANONYMOUS_MB = 2.0, 3.5, 200
"""CPU time as multiples of the plain merge's; peak of anonymous memory."""
BLOCK = 128


def quantize(source: Path, target: Path) -> None:
    """Write a checkpoint with its projections in fp8."""
    target.mkdir(parents=True, exist_ok=True)
    weights = {}
    for name, tensor in open_checkpoint(source).tensors.items():
        values = np.empty(tensor.elements, np.float32)
        with tensor.reader() as reader:
            reader.read_numbers(0, tensor.elements, values)
        if not name.endswith("_proj.weight"):
            weights[name] = values.astype(ml_dtypes.bfloat16).reshape(tensor.shape)
            continue
        rows, columns = (side // BLOCK for side in tensor.shape)
        blocks = values.reshape(rows, BLOCK, columns, BLOCK)
        scale = np.abs(blocks).max(axis=(1, 3)) / np.float32(448)
        codes = (blocks / scale[:, None, :, None]).astype(ml_dtypes.float8_e4m3fn)
        weights[name] = codes.reshape(tensor.shape)
        weights[f"{name}_scale_inv"] = scale
    save_file(weights, target / "model.safetensors")
    said = {"quant_method": "fp8", "weight_block_size": [BLOCK, BLOCK]}
    config = json.loads((source / "config.json").read_text()) | {"quantization_config": said}
    (target / "config.json").write_text(json.dumps(config))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    work = given.work or Path(tempfile.mkdtemp(prefix="precisions-"))
    make(work / "plain", given.layers, 1)
    for role in ("base", "safety", "l0"):
        if not (work / "fp8" / role / "config.json").exists():
            quantize(work / "plain" / role, work / "fp8" / role)
    out = work / "out"

    def command(kind: str, *more: str) -> list[str]:
        base, safety, language = (str(work / kind / role) for role in ("base", "safety", "l0"))
        run = [sys.executable, "-m", "safeswap", "merge", base, "--safety", safety]
        run += ["--language", f"l0={language}", "--method", "uniform", "--out", str(out)]
        return [*run, "--no-figure", "--quiet", *more]

    plain, decoded, again = in_turns(
        {
            "plain": command("plain"),
            "decoded": command("fp8"),
            "again": command("fp8", "--save-dtype", "same"),
        },
        out,
        given.runs,
    )
    for name, run, limit in (
        ("decoded", decoded, LIMIT_DECODED),
        ("again", again, LIMIT_AGAIN),
    ):
        ratio = run.cpu / plain.cpu
        print(f"{name}: {ratio:.2f} × the CPU time of plain (limit {limit})")
        print(f"{name}: {run.anonymous:.0f} MB of anonymous memory (limit {LIMIT_ANONYMOUS_MB})")
        if ratio > limit or run.anonymous > LIMIT_ANONYMOUS_MB:
            raise SystemExit(f"{name}: over its limit")
    if not given.work:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
