"""A checkpoint at an address, opened: its small files in a folder here, its weights by ranges.

Configuration, tokenizer and index are fetched whole, into a folder that is named after what they
and the weights were when they were looked at, and never changed afterwards. Of the weights nothing
is fetched but what is asked for later; with ``--download`` all of them are, into that folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Protocol

from safeswap.checkpoint.inside import is_plain_name
from safeswap.checkpoint.loaded_names import LARGEST
from safeswap.checkpoint.remote.address import Address
from safeswap.checkpoint.remote.cache import Room, cache_folder, cache_room
from safeswap.checkpoint.remote.fetch import (
    CONNECTIONS,
    WAY_OUT,
    Origin,
    TransientError,
    fetch_range,
    small_file,
    tried,
)
from safeswap.checkpoint.remote.ranges import RemoteFile
from safeswap.errors import CheckpointError, listed

_KINDS = (
    *("model.safetensors", "model.safetensors.index.json"),
    *("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
"""Best first, as transformers looks for them."""
_MOST_SHARDS = 2000


class Store(Protocol):
    """Where folders of files lie."""

    def look(self, names: Iterable[str]) -> Mapping[str, Origin]:
        """Which of these names are there.

        Raises:
            CheckpointError: the store cannot be asked.
        """
        ...

    def companions(self) -> Mapping[str, bytes]:
        """The small files of the folder that a reader of a model needs, whole.

        Raises:
            CheckpointError: as `look`.
        """
        ...


@dataclass(frozen=True)
class Mirror:
    """What an address holds, as this machine has it.

    Attributes:
        folder: the small files.
        files: name → weights that are read by ranges; none that lie in the folder.
        revision: what the whole was when it was opened.
    """

    folder: Path
    files: Mapping[str, RemoteFile]
    revision: str


def open_mirror(address: Address, store: Store, *, download: bool) -> Mirror:
    """Open a folder at an address.

    Args:
        download: fetch the weights whole.

    Raises:
        CheckpointError: there is no checkpoint, it may not be read, its index lies, or its server
            gives no ranges.
    """
    content = dict(store.companions())
    if "config.json" not in content and "adapter_config.json" not in content:
        raise CheckpointError(
            f"{address.text}: has no config.json and no adapter_config.json. Give the folder of a "
            "transformers checkpoint, or of an adapter."
        )
    index, names = weight_names(address.text, content, store)
    content |= index
    origins = store.look(names)
    check_found(address.text, names, origins)
    if not download:
        refuse_unranged(address.text, origins)
    revision = _revision(content, origins)
    folder = _placed(address, content, revision)
    if download:
        download_whole(folder, origins)
        return Mirror(folder, {}, revision)
    return Mirror(folder, ranged_files(origins), revision)


def open_weights(text: str, known: Collection[str], store: Store) -> dict[str, RemoteFile]:
    """Readers of the weights of a folder whose small files are here already.

    Args:
        text: its address, for messages.
        known: the names of the small files.

    Raises:
        CheckpointError: as `open_mirror`.
    """
    _, names = weight_names(text, known, store)
    origins = store.look(names)
    check_found(text, names, origins)
    refuse_unranged(text, origins)
    return ranged_files(origins)


def ranged_files(origins: Mapping[str, Origin]) -> dict[str, RemoteFile]:
    """Readers of weights by ranges."""
    cache = cache_folder()
    return {
        name: RemoteFile(origin, cache / "pieces", _room(cache)) for name, origin in origins.items()
    }


def refuse_unranged(text: str, origins: Mapping[str, Origin]) -> None:
    """Refuse weights that cannot be read by ranges.

    Raises:
        CheckpointError: names the first, and the way out.
    """
    for name, origin in origins.items():
        if not getattr(origin, "ranged", True):
            raise CheckpointError(
                f"{origin.where}: the server gives no ranges of a file, only all of it. {WAY_OUT}"
            )
        if not name.endswith(".safetensors"):
            raise CheckpointError(
                f"{origin.where}: only safetensors are read by ranges. --download fetches "
                f"{text} whole; or convert it to safetensors there."
            )


def weight_names(
    text: str, known: Collection[str], store: Store
) -> tuple[dict[str, bytes], list[str]]:
    """The index, where there is one (name → bytes), and the names of the files of weights: those
    that loaders would choose.

    Args:
        known: the names of the small files.

    Raises:
        CheckpointError: there are none, or the index lies.
    """
    adapter = "adapter_config.json" in known and "config.json" not in known
    kinds = ("adapter_model.safetensors", "adapter_model.bin") if adapter else _KINDS
    found = store.look(kinds)
    for name in kinds:
        if name in found and not name.endswith(".json"):
            return {}, [name]
        if name in found:
            content = small_file(found[name], LARGEST)
            return {name: content}, _shards(text, content, name)
    raise CheckpointError(
        f"{text}: has no {kinds[0]}{'' if adapter else ' or ' + kinds[1]}. Give the folder "
        "with the weights."
    )


def _shards(text: str, index: bytes, name: str) -> list[str]:
    """The files that an index names.

    Raises:
        CheckpointError: it is no index, or names what is outside the folder.
    """
    try:
        table = json.loads(index).get("weight_map")
        names = sorted(set(table.values()))
    except (ValueError, AttributeError, TypeError, RecursionError):
        raise CheckpointError(
            f"{text}/{name}: has no weight_map of tensor names to files."
        ) from None
    for file in names:
        sound = is_plain_name(file) and "/" not in file and not file.startswith(".")
        if not sound or not file.endswith((".safetensors", ".bin")):
            raise CheckpointError(
                f"{text}: its {name} names the file {file[:80]!r}, which is no file of "
                "weights in its own folder. Check the address, and do not trust what lies there."
            )
    if not 0 < len(names) <= _MOST_SHARDS:
        raise CheckpointError(f"{text}: its {name} names {len(names)} files.")
    return names


def check_found(text: str, wanted: Iterable[str], found: Iterable[str]) -> None:
    """Refuse an index that names shards which are not there.

    Raises:
        CheckpointError: names them.
    """
    missing = [name for name in wanted if name not in set(found)]
    if missing:
        raise CheckpointError(
            f"{text}: its index names {listed(missing)}, which is not there. Check the address, or "
            "put that file there too."
        )


def _revision(content: Mapping[str, bytes], weights: Mapping[str, Origin]) -> str:
    """What tells this state of the folder from any other: of small files the bytes, of weights the
    size and what the store says of their content.
    """
    said = [[name, hashlib.sha256(content[name]).hexdigest()] for name in sorted(content)]
    rows = [*said, *([n, one.size, one.version] for n, one in sorted(weights.items()))]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:40]


def _placed(address: Address, content: Mapping[str, bytes], revision: str) -> Path:
    """The folder with the small files: made whole or not at all, and then left alone."""
    called = re.sub(r"[^\w.-]", "_", address.name).strip(".") or "checkpoint"
    key = hashlib.sha256(f"{address.text}\n{revision}".encode()).hexdigest()[:16]
    home = cache_folder() / "folders" / key
    folder = home / called
    if folder.is_dir():
        return folder
    home.mkdir(parents=True, exist_ok=True)
    made = Path(mkdtemp(dir=home, prefix="."))
    try:
        for name, data in content.items():
            (made / name).parent.mkdir(exist_ok=True)
            (made / name).write_bytes(data)
        made.replace(folder)
    except OSError as error:
        shutil.rmtree(made, ignore_errors=True)
        if not folder.is_dir():  # another process may have been first
            raise CheckpointError(
                f"{home}: cannot be written ({error.strerror}). SAFESWAP_CACHE names another "
                "folder."
            ) from error
    return folder


def download_whole(folder: Path, origins: Mapping[str, Origin]) -> None:
    """Fetch files whole into a folder; what is there stays, and what was begun goes on.

    Raises:
        CheckpointError: one cannot be fetched, or is not what its store says (SHA-256).
    """
    todo = {n: one for n, one in origins.items() if not (folder / n).exists()}
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        for done in [pool.submit(_download, folder / n, one) for n, one in todo.items()]:
            done.result()


def _download(path: Path, origin: Origin) -> None:
    version = hashlib.sha256(f"{origin.version}\n{origin.size}".encode()).hexdigest()[:16]
    part = path.with_name(f".{path.name}.{version}.part")
    ranges = getattr(origin, "ranged", True)
    try:
        begun = part.stat().st_size if part.exists() and ranges and origin.version else 0
        if not begun:
            part.write_bytes(b"")
        with part.open("r+b") as stream:
            begun = min(begun, origin.size)
            stream.truncate(begun)
            stream.seek(begun)
            _fetch_all(origin, begun, stream.write, lambda: _again(stream))
            stream.flush()
            os.fsync(stream.fileno())
        if origin.sha256:
            with part.open("rb") as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
            if found != origin.sha256:
                part.unlink()
                raise CheckpointError(
                    f"{origin.where}: what came is not what its store says (SHA-256). Run the "
                    "command again."
                )
        origin.refuse_changed()
        part.replace(path)
    except OSError as error:
        raise CheckpointError(
            f"{path.parent}: cannot be written ({error.strerror}). Free some space, or name "
            "another folder by SAFESWAP_CACHE."
        ) from error


def _fetch_all(
    origin: Origin,
    begun: int,
    take: Callable[[memoryview], object],
    anew: Callable[[], None],
) -> None:
    """The rest of a file. A server without ranges begins at byte 0 each time it breaks off."""
    if getattr(origin, "ranged", True):
        fetch_range(origin, begun, origin.size, take)
        return

    def whole() -> None:
        anew()
        came = 0
        for block in origin.stream(0, origin.size):
            part = memoryview(block)[: origin.size - came]
            take(part)
            came += len(part)
            if came == origin.size:
                return
        if came < origin.size:
            raise TransientError(f"the answer ended {origin.size - came} bytes early")

    tried(origin.where, whole)


def _again(stream: object) -> None:
    stream.seek(0)  # type: ignore[attr-defined]
    stream.truncate()  # type: ignore[attr-defined]


_rooms: dict[Path, Room] = {}
_lock = threading.Lock()


def _room(cache: Path) -> Room:
    """The room that all files of this process share."""
    with _lock:
        if cache not in _rooms:
            (cache / "pieces").mkdir(exist_ok=True)
            _rooms[cache] = Room(cache / "pieces", cache_room(cache))
        return _rooms[cache]
