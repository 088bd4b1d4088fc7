"""The readers of files that others hand over, fuzzed by coverage: atheris seeks new branches.

``python -m fuzz.guided --seconds 3600`` in ``tests`` (``make atheris``) gives each reader its share
of the time in a process of its own, and says per reader how many cases there were and what came out
that should not have. What is found is kept, with its input, in the folder of ``--keep``; a later
run begins with all inputs there that led to something new.

Half of the changes are libFuzzer's own, which knows the constants that the code compares with; the
other half are those of `fuzz.mutate`, which know the format: blind changes alone seldom leave JSON
that can be read. atheris is no part of the suite: it has wheels for few versions of Python.
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from pathlib import Path

GUIDED = (
    *("safetensors header", "index", "adapter's config", "adapter", "GGUF header", "GGUF"),
    *("plan", "profile", "manifest", "tokenizer.model", "tokenizer.json", "tekken.json"),
    *("qwen.tiktoken", "sentencepiece.bpe.model"),
)
"""Names of `fuzz.readers`: what is opened before anything is known of it."""
LONGEST = 1 << 16
"""Bytes of a changed file; the valid ones have up to some kB."""


def fuzz(name: str, seconds: int, keep: Path) -> None:
    """One reader in this process, which libFuzzer ends."""
    import atheris  # type: ignore[import-not-found]

    with atheris.instrument_imports(include=["safeswap"]):
        from fuzz.readers import BY_NAME
        from fuzz.run import Bench, bounded, origin
        from safeswap.errors import SafeswapError

    warnings.simplefilter("ignore")
    reader = BY_NAME[name]
    bench = Bench(Path(tempfile.mkdtemp(prefix="guided-", dir=_memory())))
    bench.check(reader)
    place, valid = bench.place(reader)
    corpus, found = keep / "corpus", keep / "found"
    for folder in (corpus, found):
        folder.mkdir(parents=True, exist_ok=True)
    (corpus / "valid").write_bytes(valid)
    seen: Counter[str] = Counter()

    def one(data: bytes) -> None:
        (place / reader.file).write_bytes(data)
        try:
            with bounded():
                reader.read(place)
        except SafeswapError as error:
            if str(error).strip():
                return
            wrong: BaseException = error
        except BaseException as error:
            wrong = error
        else:
            return
        what = origin(wrong)
        seen[what] += 1
        if seen[what] == 1:  # the first of its kind; the others are the same place again
            number = len(list(found.glob("*.input")))
            (found / f"{number}.input").write_bytes(data)
            lines = traceback.format_exception(wrong, limit=-8)
            (found / f"{number}.txt").write_text(f"{what}\n\n{''.join(lines)}", errors="replace")

    def change(data: bytes, longest: int, seed: int) -> bytes:
        dice = random.Random(seed)
        if dice.random() < 0.5:
            try:
                return bytes(reader.change(dice, data))[:longest]
            except Exception:  # an input that its format's own changes cannot take apart
                pass
        return bytes(atheris.Mutate(data, longest))

    options = (f"-max_total_time={seconds}", f"-max_len={LONGEST}", "-print_final_stats=1")
    limits = ("-timeout=0", "-rss_limit_mb=0", "-verbosity=1", "-detect_leaks=0")
    crashes = f"-artifact_prefix={found}/"
    arguments = [sys.argv[0], *options, *limits, crashes, str(corpus)]
    atheris.Setup(arguments, one, custom_mutator=change)
    atheris.Fuzz()


def _memory() -> str | None:
    """Where a file costs no disk."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def run(name: str, seconds: int, keep: Path) -> int:
    """One reader in a process of its own; how many kinds of unexpected outcomes it found."""
    folder = keep / re.sub(r"\W+", "-", name)
    command = [sys.executable, "-m", "fuzz.guided", "--one", name]
    command += ["--seconds", str(seconds), "--keep", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    cases = re.search(r"number_of_executed_units:\s*(\d+)", done.stderr)
    reached = re.findall(r"cov: (\d+) ft: (\d+)", done.stderr)
    found = sorted((folder / "found").glob("*.txt")) if folder.is_dir() else []
    branches = f"{reached[0][0]} → {reached[-1][0]} branches" if reached else "no branches"
    print(
        f"{name:<22}{cases[1] if cases else 'no':>9} cases, {branches}, {len(found)} kinds", end=""
    )
    print(f", ended with {done.returncode}" if done.returncode else "", flush=True)
    for one in found:
        print(f"    {one}: {one.read_text().splitlines()[0]}", flush=True)
    if cases is None:
        print(done.stderr[-2000:], flush=True)
    return len(found) + (done.returncode != 0)


def main() -> int:
    """Run all readers in turn; 1 where something came out that should not have."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=3600, help="in all")
    parser.add_argument("--reader", action="append", help="only this one; repeat it")
    parser.add_argument("--keep", type=Path, default=Path("../.atheris/kept"))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        fuzz(given.one, given.seconds, given.keep)
        return 0
    names = given.reader or GUIDED
    try:
        wrong = [run(name, max(1, given.seconds // len(names)), given.keep) for name in names]
    finally:
        for left in Path(_memory() or tempfile.gettempdir()).glob("guided-*"):
            shutil.rmtree(left, ignore_errors=True)
    print(f"{sum(wrong)} unexpected")
    return 1 if sum(wrong) else 0


if __name__ == "__main__":
    sys.exit(main())
