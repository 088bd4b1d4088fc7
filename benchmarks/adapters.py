"""Merges of adapters against merges of full experts: time, memory, and an adapter as output.

    python benchmarks/adapters.py [--work FOLDER] [--runs 3] [--rank 64]

Makes a synthetic trio in the shape of Llama-3.2-1B and two adapters of rank 64 on all projections
of its base, and measures whole processes, in turns, with warm caches:
- ``merge`` of the two full experts (the paper's rule), against that of the two adapters: at most
  1.15 × the time, and less than 300 MB;
- ``merge --as adapter``, with and without ``--rank``: under 5 s.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from synthetic import BF16, make, shapes

from merge import in_turns, measured, report
from safeswap.checkpoint.header import build_header

LIMIT_TIME, LIMIT_MB, LIMIT_OUT_S = 1.15, 300, 5.0


def write_adapter(folder: Path, base: Path, rank: int, seed: int) -> None:
    """A LoRA on all projections, bf16, with updates as large as those of the full experts."""
    if (folder / "adapter_config.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for name, shape in shapes(16):
        if "_proj" in name:
            module = f"base_model.model.{name.removesuffix('.weight')}"
            entries.append((f"{module}.lora_A.weight", BF16, (rank, shape[1])))
            entries.append((f"{module}.lora_B.weight", BF16, (shape[0], rank)))
    header, _ = build_header(entries, {"format": "pt"})
    chance = np.random.default_rng(seed)
    with (folder / "adapter_model.safetensors").open("wb") as stream:
        stream.write(header)
        for _, dtype, shape in entries:
            size = 0.012 * float(chance.uniform(0.5, 1.5))
            values = size * chance.standard_normal(shape, dtype=np.float32)
            stream.write(values.astype(dtype.numpy).tobytes())
    config = {"peft_type": "LORA", "base_model_name_or_path": str(base), "r": rank}
    config |= {"lora_alpha": rank, "target_modules": "all-linear"}
    (folder / "adapter_config.json").write_text(json.dumps(config))


def command(trio: Path, safety: Path, language: Path, out: Path, *more: str) -> list[str]:
    """The command as a user types it."""
    words = [sys.executable, "-m", "safeswap", "merge", str(trio / "base"), "--quiet"]
    words += ["--safety", str(safety), "--language", f"l0={language}", "--out", str(out)]
    return [*words, "--no-figure", *more]


def run(work: Path, rank: int, runs: int) -> None:
    trio, out = work / "trio", work / "out"
    make(trio, 16, 1)
    adapters = [work / f"adapter-{rank}-{n}" for n in range(2)]
    for seed, folder in enumerate(adapters):
        write_adapter(folder, trio / "base", rank, seed)
    full = command(trio, trio / "safety", trio / "l0", out)
    measured(full, out)  # warms the page cache
    low = command(trio, *adapters, out)
    as_adapter = command(trio, *adapters, out, "--as", "adapter")
    commands = {"two full experts": full, f"two adapters of rank {rank}": low}
    commands["  as adapter"] = as_adapter
    commands["  as adapter, --rank 32"] = [*as_adapter, "--rank", "32"]
    whole, small, written, cut = in_turns(commands, out, runs)
    report("adapters / full experts, wall time", small.wall / whole.wall, LIMIT_TIME)
    report("adapters / full experts, CPU time", small.cpu / whole.cpu, LIMIT_TIME)
    report("peak RSS of adapters [MB]", small.resident, LIMIT_MB)
    report("as adapter [s]", written.wall, LIMIT_OUT_S)
    report("as adapter, --rank 32 [s]", cut.wall, LIMIT_OUT_S)
    shutil.rmtree(out, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, help="folder for the trio (kept); default: temporary")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--rank", type=int, default=64)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        run(options.work or Path(temporary), options.rank, options.runs)


if __name__ == "__main__":
    main()
