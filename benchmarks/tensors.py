"""Is the time of a merge in proportion to the number of tensors? Many small ones say.

    python benchmarks/tensors.py [--counts 6000 24000 100000] [--shards 12] [--profile VERB]

Makes trios with the names of a mixture of experts, 8 elements a tensor, several shards, and prints
the processor seconds of profile, plan, merge and verify, each a process of its own, in all and per
thousand tensors. The limit: of the largest number one tensor takes at most 1.25 × what one of the
smallest takes. With ``--profile`` the verb runs once more on the largest trio under cProfile.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np

from safeswap.checkpoint.dtypes import DTYPES
from safeswap.checkpoint.header import build_header

LIMIT = 1.25
LAYERS, HIDDEN = 24, 8
BF16 = DTYPES["BF16"]
SHAPE, VOCABULARY = (1, HIDDEN), 16


def shapes(count: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """About ``count`` tensors: a decoder whose layers have as many experts as it takes."""
    yield "model.embed_tokens.weight", (VOCABULARY, HIDDEN)
    experts = max(1, (count - 3 - LAYERS * 7) // (3 * LAYERS))
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        for name in ("q", "k", "v", "o"):
            yield f"{at}self_attn.{name}_proj.weight", SHAPE
        yield f"{at}mlp.gate.weight", SHAPE
        for expert in range(experts):
            for name in ("gate", "up", "down"):
                yield f"{at}mlp.experts.{expert}.{name}_proj.weight", SHAPE
        yield f"{at}input_layernorm.weight", (HIDDEN,)
        yield f"{at}post_attention_layernorm.weight", (HIDDEN,)
    yield "model.norm.weight", (HIDDEN,)
    yield "lm_head.weight", (VOCABULARY, HIDDEN)


def make(folder: Path, count: int, shards: int) -> int:
    """Write base, safety and one language expert; how many tensors each has."""
    tensors = list(shapes(count))
    for number, role in enumerate(("base", "safety", "sw")):
        _write(folder / role, tensors, shards, number)
    return len(tensors)


def _write(
    folder: Path, tensors: list[tuple[str, tuple[int, ...]]], shards: int, number: int
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    table: dict[str, str] = {}
    chance, moved = np.random.default_rng(0), np.random.default_rng(number)
    size = -(-len(tensors) // shards)
    for index in range(shards):
        group = tensors[index * size : (index + 1) * size]
        file = f"model-{index + 1:05}-of-{shards:05}.safetensors"
        header, _ = build_header([(name, BF16, shape) for name, shape in group], {"format": "pt"})
        elements = sum(int(np.prod(shape)) for _, shape in group)
        values = chance.standard_normal(elements, np.float32)
        if number:
            values += moved.standard_normal(elements, np.float32) * np.float32(0.05)
        (folder / file).write_bytes(header + values.astype(ml_dtypes.bfloat16).tobytes())
        table |= dict.fromkeys((name for name, _ in group), file)
    index_text = json.dumps({"metadata": {}, "weight_map": table})
    (folder / "model.safetensors.index.json").write_text(index_text)
    config = {
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "vocab_size": VOCABULARY,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }
    (folder / "config.json").write_text(json.dumps(config))


def verbs(trio: Path) -> dict[str, list[str]]:
    """Verb → the arguments of the command, in the order in which they run."""
    profile, plan, out = (str(trio / n) for n in ("profile.json", "plan.yaml", "out"))
    experts = ["--safety", str(trio / "safety"), "--language", f"sw={trio / 'sw'}"]
    return {
        "profile": ["profile", str(trio / "base"), *experts, "--out", profile],
        "plan": ["plan", profile, "--out", plan],
        "merge": ["merge", "--plan", plan, "--no-figure", "--out", out],
        "verify": ["verify", out],
    }


def cpu_seconds(arguments: list[str], program: tuple[str, ...] = ("-m", "safeswap")) -> float:
    """Processor seconds of one process and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, *program, *arguments], capture_output=True, text=True, env=os.environ
    )
    if done.returncode:
        raise SystemExit(f"{arguments[0]} failed:\n{done.stdout[-500:]}\n{done.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[6000, 24000, 100_000])
    parser.add_argument("--shards", type=int, default=12)
    parser.add_argument("--profile", metavar="VERB", help="this verb under cProfile, last")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        _run(Path(temporary), options.counts, options.shards, options.profile)


def _run(work: Path, counts: list[int], shards: int, profiled: str | None) -> None:
    seconds: dict[int, dict[str, float]] = {}
    idle = cpu_seconds(["--version"])
    print(f"a process that does nothing: {idle:.2f} s of CPU")
    for count in counts:
        trio = work / str(count)
        tensors = make(trio, count, shards)
        seconds[count] = {verb: cpu_seconds(line) for verb, line in verbs(trio).items()}
        for verb, taken in seconds[count].items():
            each = 1000 * taken / tensors
            print(f"{tensors:7} tensors  {verb:8} {taken:7.2f} s  {each:6.3f} ms each", flush=True)
    small, large = min(counts), max(counts)
    for verb, taken in seconds[large].items():
        ratio = taken / seconds[small][verb] * small / large
        verdict = "within" if ratio <= LIMIT else "ABOVE"
        print(f"{verb}: a tensor of {large} / of {small}: {ratio:.2f} ({verdict} {LIMIT:g})")
    if profiled:
        arguments = verbs(work / str(counts[-1]))[profiled]
        if profiled == "merge":
            arguments = [*arguments[:-1], str(work / "again")]
        subprocess.run(
            [sys.executable, "-m", "cProfile", "-s", "cumtime", "-m", "safeswap", *arguments]
        )


if __name__ == "__main__":
    main()
