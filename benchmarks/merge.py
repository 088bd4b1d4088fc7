"""How fast, how small: safeswap end to end against plain reads and writes and against mergekit.

    python benchmarks/merge.py [--work FOLDER] [--mergekit PYTHON] [--runs 3] [--sizes]

Makes a synthetic trio in the shape of Llama-3.2-1B (about 10 GB with outputs) and measures, in one
run with warm caches, wall time, CPU time and peak memory of whole processes:
- the floor: read all three inputs and write one output with plain reads and writes;
- safeswap merge as a command, figure and all;
- mergekit 0.1.5 ``linear``, if ``--mergekit`` names a Python that has it.
``--sizes`` adds a trio of 3 × the layers' size and a run with three languages.
Memory: peak of anonymous memory (``smaps_rollup``, sampled) and the highest RSS, over the process
and its children. On a machine that others use too, look at the CPU time: floor and safeswap both
keep two cores busy, and their wall times are only comparable while nobody else does.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from synthetic import make

LIMIT_FLOOR, LIMIT_MERGEKIT, LIMIT_RSS_MB, LIMIT_LANGUAGES = 2.2, 5.0, 700, 2.5
FLOOR = """
import os, sys
from concurrent.futures import ThreadPoolExecutor
base, safety, language, out = sys.argv[1:]
buffer_size = 8 << 20
def read(path):
    buffer = bytearray(buffer_size)
    with open(path, "rb", buffering=0) as stream:
        while stream.readinto(buffer):
            pass
def copy(source, target):
    buffer = memoryview(bytearray(buffer_size))
    with open(source, "rb", buffering=0) as stream, open(target, "wb", buffering=0) as sink:
        while count := stream.readinto(buffer):
            sink.write(buffer[:count])
os.makedirs(out)
shards = [name for name in sorted(os.listdir(base)) if name.endswith(".safetensors")]
with ThreadPoolExecutor(2) as pool:
    jobs = [pool.submit(read, f"{folder}/{n}") for n in shards for folder in (base, safety)]
    jobs += [pool.submit(copy, f"{language}/{n}", f"{out}/{n}") for n in shards]
    for job in jobs:
        job.result()
"""


@dataclass(frozen=True)
class Run:
    """Seconds of wall and CPU time, and peaks in MB, of one command with its children."""

    wall: float
    cpu: float
    anonymous: float
    resident: float


def measured(command: list[str], out: Path) -> Run:
    """Run a command that writes ``out``."""
    shutil.rmtree(out, ignore_errors=True)
    os.sync()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    peak = [0.0, 0.0]
    done = threading.Event()

    def sample() -> None:
        while not done.wait(0.02):
            anonymous, resident = _memory(process.pid)
            peak[0], peak[1] = max(peak[0], anonymous), max(peak[1], resident)

    sampler = threading.Thread(target=sample)
    sampler.start()
    errors = process.communicate()[1]
    wall = time.perf_counter() - begin
    done.set()
    sampler.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(command[:4])} … failed:\n{errors[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(wall, cpu, peak[0], peak[1])


def _memory(pid: int) -> tuple[float, float]:
    anonymous = resident = 0.0
    children = Path(f"/proc/{pid}/task/{pid}/children")
    try:
        pids = [pid, *map(int, children.read_text().split())]
        for one in pids:
            for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines():
                if line.startswith("Anonymous:"):
                    anonymous += int(line.split()[1]) / 1024
                elif line.startswith("Rss:"):
                    resident += int(line.split()[1]) / 1024
    except OSError:
        pass
    return anonymous, resident


def in_turns(commands: dict[str, list[str]], out: Path, runs: int) -> list[Run]:
    """Medians of time and highest memory of ``runs`` runs of each command, printed.

    The commands take turns, so that a slow minute of the machine meets them all.
    """
    results: dict[str, list[Run]] = {name: [] for name in commands}
    for _ in range(runs):
        for name, command in commands.items():
            results[name].append(measured(command, out))
    return [_summary(name, several) for name, several in results.items()]


def _summary(name: str, several: list[Run]) -> Run:
    walls, cpus = [run.wall for run in several], [run.cpu for run in several]
    found = Run(
        statistics.median(walls),
        statistics.median(cpus),
        max(run.anonymous for run in several),
        max(run.resident for run in several),
    )
    print(
        f"{name:28} {found.wall:6.2f} s ({min(walls):.2f} to {max(walls):.2f})  "
        f"CPU {found.cpu:6.2f} s ({min(cpus):.2f} to {max(cpus):.2f})  "
        f"anonymous {found.anonymous:4.0f} MB  RSS {found.resident:4.0f} MB",
        flush=True,
    )
    return found


def swap_command(trio: Path, languages: int, out: Path) -> list[str]:
    """The command as a user types it."""
    command = [sys.executable, "-m", "safeswap", "merge", str(trio / "base")]
    command += ["--safety", str(trio / "safety"), "--out", str(out)]
    for number in range(languages):
        command += ["--language", f"l{number}={trio / f'l{number}'}"]
    return command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, help="folder for the trio (kept); default: temporary")
    parser.add_argument("--mergekit", help="a Python with mergekit 0.1.5")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--sizes", action="store_true", help="also 3 × the size and 3 languages")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        run(work, options.mergekit, options.runs, options.sizes)


def run(work: Path, mergekit: str | None, runs: int, sizes: bool) -> None:
    trio, out = work / "trio", work / "out"
    make(trio, 16, 3 if sizes else 1)
    floor_command = [sys.executable, "-c", FLOOR]
    floor_command += [*(str(trio / role) for role in ("base", "safety", "l0")), str(out)]
    measured(floor_command, out)  # warms the page cache
    commands = {"floor: read three, write one": floor_command}
    commands["safeswap merge"] = swap_command(trio, 1, out)
    floor, swap = in_turns(commands, out, runs)
    report("safeswap / floor, wall time", swap.wall / floor.wall, LIMIT_FLOOR)
    report("safeswap / floor, CPU time", swap.cpu / floor.cpu, LIMIT_FLOOR)
    report("peak RSS [MB]", swap.resident, LIMIT_RSS_MB)
    if mergekit:
        config = work / "linear.yaml"
        config.write_text(_mergekit_config(trio))
        command = [str(Path(mergekit).parent / "mergekit-yaml"), str(config), str(out)]
        (peer,) = in_turns({"mergekit 0.1.5 linear": command}, out, 1)
        print(f"mergekit / safeswap: {peer.wall / swap.wall:.2f} (at least {LIMIT_MERGEKIT})")
    if sizes:
        commands = {f"safeswap, {n} languages": swap_command(trio, n, out) for n in (1, 3)}
        one, three = in_turns(commands, out, runs)
        report("3 languages / 1, wall time", three.wall / one.wall, LIMIT_LANGUAGES)
        report("3 languages / 1, CPU time", three.cpu / one.cpu, LIMIT_LANGUAGES)
        report("peak RSS [MB] of 3 languages", three.resident, LIMIT_RSS_MB)
        big = work / "trio3"
        shutil.rmtree(out, ignore_errors=True)
        make(big, 57, 1)
        (large,) = in_turns({"safeswap, 3 × the size": swap_command(big, 1, out)}, out, 1)
        report("peak RSS [MB] at 3 × the size", large.resident, LIMIT_RSS_MB)
    shutil.rmtree(out, ignore_errors=True)


def _mergekit_config(trio: Path) -> str:
    models = "".join(
        f"  - model: {trio / role}\n    parameters:\n      weight: {weight}\n"
        for role, weight in (("safety", 0.5), ("l0", 0.5))
    )
    return f"merge_method: linear\nmodels:\n{models}dtype: bfloat16\n"


def report(name: str, value: float, limit: float) -> None:
    verdict = "within" if value <= limit else "ABOVE"
    print(f"{name}: {value:.2f} ({verdict} the limit {limit:g})", flush=True)


if __name__ == "__main__":
    main()
