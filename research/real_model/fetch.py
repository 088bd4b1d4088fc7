"""Fetch the study's public files from where their authors publish them.

    python -m real_model.fetch --data DATA

Each is compared with its digest in ``sources.yaml`` before it is kept. Files that are there already
with the right digest are not asked for.
"""

from __future__ import annotations

import argparse
import shutil
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from safeswap.evaluation.benchmarks.fetching import fetched
from safeswap.evaluation.benchmarks.origins import OriginFile, github

SOURCES = Path(__file__).with_name("sources.yaml")


def sources() -> list[dict[str, Any]]:
    """The rows of ``sources.yaml``."""
    found: list[dict[str, Any]] = yaml.safe_load(SOURCES.read_text("utf-8"))
    return found


def missing(data: Path) -> list[dict[str, Any]]:
    """The rows whose file is not below ``data`` with its digest."""
    return [row for row in sources() if not _right(data / row["file"], row["sha256"])]


def _right(path: Path, digest: str) -> bool:
    return path.is_file() and sha256(path.read_bytes()).hexdigest() == digest


def fetch(data: Path) -> int:
    """Fetch what is missing; how many files."""
    todo = missing(data)
    for row in todo:
        url = github(row["repository"], row["commit"], row["path"])
        file = OriginFile(url, row["sha256"], row["size"], ())
        found = fetched(file, row["file"], f"(as --data FOLDER with {row['file']} in it)")
        (data / row["file"]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(found, data / row["file"])
    return len(todo)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    args = parser.parse_args()
    todo = missing(args.data)
    size = sum(row["size"] for row in todo)
    hosts = sorted({row["repository"] for row in todo})
    print(
        f"{len(todo)} files, {size / 1e6:.1f} MB, from {', '.join(hosts) or 'nowhere'}", flush=True
    )
    fetch(args.data)


if __name__ == "__main__":
    main()
