"""What a merge and a sampled profile cost from a web server, against the same from local folders.

    python benchmarks/remote.py [--out FOLDER] [--layers 4] [--latency 0.03] [--rate 200] [--runs 1]

A trio in the shape of Llama-3.2-1B (`synthetic.py`; 4 of its 16 layers), served by another process
of this machine that waits ``latency`` seconds before each answer and sends ``rate`` MB a second
over all connections together (0: as fast as it goes). Whole processes, without a figure; prints
wall time, peak memory, and how many bytes were sent, as a multiple of the inputs':

- local: merge of folders;
- cold: merge by ranges, an empty cache; the floor is the inputs' bytes at the rate;
- warm: the same again, from the cache;
- full: a cache without room, so that what is needed twice is fetched twice;
- sample: ``profile --until-certain 99%``, from folders and by ranges with an empty cache.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import synthetic

ROLES = ("base", "safety", "l0")
BLOCK = 1 << 18


class Paced:
    """Bytes of all connections together, so many a second."""

    def __init__(self, rate: float) -> None:
        self.rate, self.lock, self.free = rate, threading.Lock(), time.perf_counter()
        self.sent = 0

    def take(self, nbytes: int) -> None:
        with self.lock:
            self.sent += nbytes
            now = time.perf_counter()
            self.free = max(now, self.free) + (nbytes / self.rate if self.rate else 0.0)
            wait = self.free - now
        if wait > 0.001:
            time.sleep(wait)


def serve(root: Path, latency: float, rate: float) -> None:
    """Serve a folder by ranges until the process is ended; prints the port first."""
    paced = Paced(rate * 1e6)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        timeout = 60

        def log_message(self, *arguments: Any) -> None:
            pass

        def do_GET(self) -> None:
            if self.path == "/sent":
                return self.answer(200, str(paced.sent).encode())
            time.sleep(latency)
            file = root / self.path.lstrip("/")
            if not file.is_file():
                return self.answer(404, b"")
            size = file.stat().st_size
            match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            begin, end = (int(match[1]), min(int(match[2]) + 1, size)) if match else (0, size)
            self.send_response(206 if match else 200)
            self.send_header("ETag", f'"{file.stat().st_mtime_ns}"')
            self.send_header("Content-Length", str(end - begin))
            if match:
                self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{size}")
            self.end_headers()
            with file.open("rb") as stream:
                stream.seek(begin)
                for at in range(begin, end, BLOCK):
                    count = min(BLOCK, end - at)
                    paced.take(count)
                    self.connection.sendall(stream.read(count))

        def answer(self, status: int, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *arguments: Any) -> None:
            pass  # a client that goes away is no news

    server = Server(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()


RUN = """
import re, sys, time
from pathlib import Path
from safeswap.cli import main
begin = time.perf_counter()
try:
    main(sys.argv[1:], standalone_mode=False)
finally:
    peak = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
    print(f"took {time.perf_counter() - begin:.3f} {peak:.0f}")
"""


def run(cache: Path, arguments: list[str], **more: str) -> tuple[float, float]:
    """Seconds and peak MiB of one command, in a process of its own."""
    environment = {**os.environ, "SAFESWAP_CACHE": str(cache), **more}
    done = subprocess.run(
        [sys.executable, "-c", RUN, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    match = re.search(r"took (\S+) (\S+)", done.stdout)
    assert match is not None
    return float(match[1]), float(match[2])


def main() -> None:
    """Make the trio, serve it, run all kinds in turns, print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "safeswap-remote")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--latency", type=float, default=0.03)
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        return serve(given.out, given.latency, given.rate)
    synthetic.make(given.out, given.layers, 1)
    options = ["--latency", str(given.latency), "--rate", str(given.rate)]
    server = subprocess.Popen(
        [sys.executable, __file__, "--serve", "--out", str(given.out), *options],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        measure(given.out, f"http://127.0.0.1:{server.stdout.readline().strip()}/", given)
    finally:
        server.kill()
        server.wait()


def measure(folder: Path, url: str, given: argparse.Namespace) -> None:
    """Run all kinds in turns and print the medians."""
    inputs = sum(f.stat().st_size for r in ROLES for f in (folder / r).glob("*.safetensors"))
    cache, out = folder / "cache", folder / "out"
    merge = ["--out", str(out), "--no-figure", "--quiet"]
    profile = ["-o", str(folder / "profile.json"), "--until-certain", "99%", "--quiet"]

    def command(verb: str, place: str, options: list[str]) -> list[str]:
        experts = ["--safety", f"{place}safety/", "--language", f"sw={place}l0/"]
        return [verb, f"{place}base/", *experts, *options]

    local = f"{folder}/"
    kinds: dict[str, tuple[list[str], bool, dict[str, str]]] = {
        "local": (command("merge", local, merge), False, {}),
        "cold": (command("merge", url, merge), True, {}),
        "warm": (command("merge", url, merge), False, {}),
        "full": (command("merge", url, merge), True, {"SAFESWAP_CACHE_SIZE": "0"}),
        "sample, local": (command("profile", local, profile), False, {}),
        "sample, by ranges": (command("profile", url, profile), True, {}),
    }
    found: dict[str, list[tuple[float, float, float]]] = {kind: [] for kind in kinds}
    for _ in range(given.runs):
        for kind, (arguments, empty, more) in kinds.items():
            shutil.rmtree(out, ignore_errors=True)
            if empty:
                shutil.rmtree(cache, ignore_errors=True)
            before = int(urlopen(f"{url}sent", timeout=10).read())
            seconds, peak = run(cache, arguments, **more)
            sent = int(urlopen(f"{url}sent", timeout=10).read()) - before
            found[kind].append((seconds, peak, sent))
    rate = f"{given.rate:g} MB/s" if given.rate else "no limit"
    print(f"inputs {inputs / 1e6:.0f} MB; {given.latency * 1000:g} ms a request, {rate}")
    if given.rate:
        print(f"floor of cold: {inputs / given.rate / 1e6:.1f} s")
    for kind, rows in found.items():
        seconds, peak, sent = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"{kind}: {seconds:.1f} s, {peak:.0f} MiB, sent {sent / inputs:.3f} of the inputs")
    shutil.rmtree(cache, ignore_errors=True)


if __name__ == "__main__":
    main()
