"""Where a checkpoint comes from: a local folder, a hub id (``org/name@revision``) or its URL, or a
folder at an address (``https://``, ``s3://``, ``gs://``, ``hf://``) that is read by ranges.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from safeswap.checkpoint.inside import files_below, refuse_leaving
from safeswap.checkpoint.loaded_names import TEMPLATES, is_loaded
from safeswap.checkpoint.remote import Address, parse_address
from safeswap.checkpoint.remote.asked import is_whole_asked
from safeswap.display import without_password
from safeswap.errors import CheckpointError, ConfigError
from safeswap.io.address import split_login
from safeswap.io.files import reading_remedy, refuse_pointer
from safeswap.io.jsonfile import LARGE, load_json
from safeswap.io.regular import is_file

if TYPE_CHECKING:
    from safeswap.checkpoint.remote.ranges import RemoteFile

_SMALL_FILES = (
    "*.json",
    "*.txt",
    "*.model",
    "*.jinja",
    "*.py",
    "LICENSE*",
    "NOTICE*",
    "*.tiktoken",
)
# best first, as transformers looks for them: a single file goes before an index beside it
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
GGUF = ".gguf"
ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin")
"""The weights of an adapter, best first, as peft looks for them."""
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Source:
    """A resolved checkpoint.

    Attributes:
        text: what the user typed.
        folder: the local folder that now holds its files; of an address, the small ones.
        hub_id: ``org/name`` when it came from a hub, else None.
        revision: the commit on the hub; of another address, what its files were; else None.
        file: the one file that was named (GGUF), else None.
        address: the web folder or bucket that it lies in, without secrets; else None.
        remote: name → weights that are read by ranges and do not lie in the folder.
    """

    text: str
    folder: Path
    hub_id: str | None = None
    revision: str | None = None
    file: Path | None = None
    address: str | None = None
    remote: Mapping[str, RemoteFile] = field(default_factory=dict, compare=False)

    @property
    def said(self) -> str:
        """What opens it again wherever the command runs: an address, else the absolute place."""
        return self.address or str(self.place)

    def has(self, name: str) -> bool:
        """Whether it has a file of this name, here or at its address."""
        return name in self.remote or (self.folder / name).exists()

    @property
    def place(self) -> Path:
        """What opens it again: the file, where one was named, else the folder."""
        return self.file or self.folder

    @property
    def name(self) -> str:
        """A short public name: the hub id, or the place's own name (never a machine's path)."""
        return self.hub_id or self.place.name


def resolve(text: str | Path, *, named_in: str | Path = "", ranges: bool = False) -> Source:
    """Find a checkpoint; from a hub, fetch only the files that are needed (none when cached).

    The hub's token goes to the configured hub and to no other host.

    Args:
        text: a local folder, ``org/name``, ``org/name@revision`` or ``https://hub/org/name``; or
            a local file of GGUF; or ``https://host/folder/`` (with the slash, or deeper than a
            hub's model), ``s3://…``, ``gs://…``, ``hf://org/name@revision``.
        ranges: the caller reads weights through `Source.remote`; else they must be here, and what
            lies at an address is fetched whole where the user asked for that.
        named_in: the file that names it, where it was not the user who did: a file may name
            folders and what is on the configured hub, and sends nobody to another host.

    Raises:
        CheckpointError: there is no such folder, hub id or revision, or the hub cannot be reached
            and nothing is cached; a file names another host; a file of the checkpoint is a link
            that leads out of its folder, or no plain file.
    """
    folder = Path(text).expanduser()
    if folder.is_dir():
        folder = folder.resolve()
        _refuse_leaving(folder)
        return Source(str(text), folder)
    if folder.suffix == GGUF and is_file(folder):
        home = folder.parent.resolve()
        refuse_leaving(home, home / folder.name)
        return Source(str(text), home, file=home / folder.name)
    if folder.exists():
        raise CheckpointError(
            f"{text}: is a file. Give the folder that holds config.json and the weights (of GGUF, "
            "the file itself is taken too)."
        )
    given = str(text)
    text = without_password(given)  # what is shown and kept
    address = folder_address(given)
    if named_in and (address or "://" in given):
        refuse_foreign(given, named_in)
    if address is not None:
        return _from_address(address, ranges)
    endpoint, hub_id, revision = _split(given)
    if hub_id is None:
        raise CheckpointError(
            f"{text}: there is no such folder, and it is not a hub id (org/name or "
            "org/name@revision). Check the path."
        )
    by_ranges = ranges and given.lower().startswith("hf://") and not is_whole_asked()
    source = _from_hub(text, hub_id, revision, endpoint, by_ranges)
    _refuse_leaving(source.folder)
    return source


def folder_address(text: str) -> Address | None:
    """The web folder or bucket that a text names; None where it is a path or of a hub.

    ``https://host/org/name`` is a model on a hub; a folder has a slash at its end, or another
    depth.

    Raises:
        CheckpointError: an address that no checkpoint can have.
    """
    if "://" not in text:
        return None
    address = parse_address(text)
    if address is None or address.kind == "hub":
        return None
    endpoint, hub_id, revision = _split(text)
    bare = urlsplit(text).path.count("/") == 2 and not text.partition("?")[0].endswith("/")
    ours = endpoint is not None and _is_configured(endpoint)
    if address.kind == "web" and hub_id is not None and (bare or revision or ours):
        return None
    return address


def _from_address(address: Address, ranges: bool) -> Source:
    """A folder at an address: by ranges, or whole where that was asked for."""
    whole = is_whole_asked()
    if not ranges and not whole:
        raise CheckpointError(
            f"{address.text}: only profile, merge and verify read an address by ranges; here the "
            "files must lie on this machine. Fetch them and give their folder; SAFESWAP_DOWNLOAD=1 "
            "does that, into the cache."
        )
    try:
        from safeswap.checkpoint.remote.stores import open_folder
    except ImportError as error:
        raise CheckpointError(
            f"{address.text}: reading from addresses needs {error.name}. Install safeswap[remote]."
        ) from error
    mirror = open_folder(address, download=whole)
    return Source(
        address.text,
        mirror.folder,
        revision=mirror.revision,
        address=address.text,
        remote=mirror.files,
    )


def _refuse_leaving(folder: Path) -> None:
    """Of all that a loader may open, nothing leads out of the folder."""
    try:
        names = [entry.name for entry in folder.iterdir()]
        names += [f"{inner}/{n}" for inner in TEMPLATES for n in files_below(folder / inner)]
    except OSError:
        return  # whoever opens it says why it cannot be listed
    for name in names:
        if is_loaded(name):
            refuse_leaving(folder, folder / name)


def refuse_foreign(text: str | Path, named_in: str | Path) -> None:
    """Refuse an address on another host than the configured hub, which only a file names.

    Raises:
        CheckpointError: names the host and the file.
    """
    text = str(text)
    endpoint, hub_id, _ = _split(text)
    if endpoint is None and hub_id is None and "://" in text:
        endpoint = text
    if endpoint is not None and not _is_configured(endpoint):
        raise CheckpointError(
            f"{named_in}: names {without_password(text)}, which is not on the configured hub. What "
            "only a file names is not asked. If you trust that host, give the address on the "
            "command line (--base, --safety, --language; merge --plan and verify: --allow-remote), "
            "or fetch the checkpoint and name its folder."
        )


def _is_configured(endpoint: str) -> bool:
    """Whether it is the hub of HF_ENDPOINT, or the public one where that is not set."""
    from huggingface_hub import constants

    asked, ours = split_login(endpoint)[0], split_login(constants.ENDPOINT)[0]
    return asked.lower().rstrip("/") == ours.lower().rstrip("/")


def pinned(text: str, hub_id: str, revision: str) -> str:
    """What opens a hub's checkpoint again at this very commit: ``org/name@commit``, or the URL of
    the hub that ``text`` (what the user typed) names.
    """
    if folder_address(text) is not None:
        return text
    endpoint = _split(text)[0]
    if endpoint is None:
        scheme = "hf://" if text.lower().startswith("hf://") else ""
        return f"{scheme}{hub_id}@{revision}"
    return f"{split_login(endpoint)[0]}/{hub_id}/tree/{quote(revision, safe='')}"


def _split(text: str) -> tuple[str | None, str | None, str | None]:
    """The hub's endpoint where one is named, ``org/name`` and the revision; None for what is not
    there.
    """
    if text.lower().startswith("hf://"):
        address = parse_address(text)
        assert address is not None
        return None, address.root, address.revision
    if "://" in text:
        try:
            url = urlsplit(text)
        except ValueError:  # half an IPv6 address, for instance
            return None, None, None
        parts = [part for part in url.path.split("/") if part]
        pinned = len(parts) > 3 and parts[2] in ("tree", "resolve")
        revision = unquote(parts[3]) if pinned else None
        if len(parts) < 2:
            return None, None, None
        return f"{url.scheme}://{url.netloc}", "/".join(parts[:2]), revision
    name, _, revision = text.partition("@")
    hub_id = name if _HUB_ID.fullmatch(name) and not name.startswith(("./", "../")) else None
    return None, hub_id, revision or None


def _from_hub(
    text: str, hub_id: str, revision: str | None, endpoint: str | None, ranges: bool = False
) -> Source:
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

    # False: no token, where None would take the user's own
    foreign = endpoint is not None and not _is_configured(endpoint)
    address, login = split_login(endpoint or constants.ENDPOINT)
    headers = {"authorization": login} if login else None
    api = HfApi(endpoint=address, token=False if foreign or login else None, headers=headers)

    def fetch(patterns: Iterable[str]) -> Path:
        path = api.snapshot_download(hub_id, revision=revision, allow_patterns=list(patterns))
        return Path(path)

    remote: Mapping[str, RemoteFile] = {}
    try:
        folder = fetch(_SMALL_FILES)
        revision = folder.name  # the commit: what follows is of one version, and asks no more
        if ranges and not _has_weights(folder):
            remote = _hub_ranges(api, hub_id, folder, text)
        for weights in _weight_patterns(folder) if not ranges else ():
            fetch((*_SMALL_FILES, *weights))
            if any((folder / name).exists() for name in weights):
                break
    except CheckpointError:
        raise
    except LocalEntryNotFoundError as error:
        raise CheckpointError(
            f"{text}: no such folder here, not in the local hub cache, and the hub cannot be "
            "reached. Check the path, or download it first while online."
        ) from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(
            f"{text}: there is no such folder here and no such model on the hub. Check the path or "
            "the id; private and gated models need `hf auth login` and an accepted licence."
        ) from error
    except Exception as error:  # the hub's client raises its transport's errors, whichever it is
        said = without_password(str(error).strip() or repr(error))
        first_line = said.splitlines()[0]
        raise CheckpointError(
            f"{text}: the hub did not give it ({first_line}). Check the id, the revision and the "
            "connection, and run it again; gated models need `hf auth login` and an accepted "
            "licence."
        ) from error
    return Source(text, folder, hub_id, folder.name, remote=remote)


def _has_weights(folder: Path) -> bool:
    """Whether the hub's cache has all files of weights of a snapshot."""
    return any(
        names and all((folder / name).exists() for name in names)
        for names in _weight_patterns(folder)
    )


def _hub_ranges(api: Any, hub_id: str, folder: Path, text: str) -> Mapping[str, RemoteFile]:
    """The weights of a snapshot that the hub's cache lacks, to be read by ranges."""
    from huggingface_hub import get_token

    try:
        from safeswap.checkpoint.remote.hub_folder import HubFolder
        from safeswap.checkpoint.remote.opening import open_weights
    except ImportError as error:
        raise CheckpointError(
            f"{text}: reading hf:// by ranges needs {error.name}. Install safeswap[remote], or "
            f"give {hub_id} without hf://, which fetches the whole files."
        ) from error
    token = get_token() if api.token is None else None
    login = (api.headers or {}).get("authorization")
    authorization = f"Bearer {token}" if token and not login else login
    store = HubFolder(api, hub_id, folder.name, authorization)
    names = {entry.name for entry in folder.iterdir()}
    found = open_weights(text, names, store)
    return {name: one for name, one in found.items() if not (folder / name).exists()}


def _weight_patterns(folder: Path) -> Iterator[list[str]]:
    """The weight files to fetch, best first, by exact name: a repository often holds a second copy
    in another format or layout. What is no weight file here is refused when it is opened.
    """
    if (folder / "adapter_config.json").exists():
        yield from ([name] for name in ADAPTER_FILES)
    for name in WEIGHT_FILES:
        if not name.endswith(".index.json"):
            yield [name]
        elif (folder / name).exists():
            table = read_json(folder / name).get("weight_map")
            yield sorted({str(file) for file in table.values()} if isinstance(table, dict) else ())


def known_sha256(path: Path) -> str | None:
    """The sha256 of a file of the hub's cache, which names large files by it; None elsewhere."""
    target = path.resolve().name if path.is_symlink() else ""
    return target if _SHA256.fullmatch(target) else None


def read_json(path: Path) -> dict[str, object]:
    """A JSON object from a checkpoint's folder.

    Raises:
        CheckpointError: missing, unreadable, not an object, or a link that leaves the folder.
    """
    refuse_leaving(path.parent, path)
    refuse_pointer(path)
    try:
        # vocabularies hold any character; configurations of some models hold Infinity
        names = not path.name.startswith(("tokenizer", "vocab"))
        content = load_json(path, LARGE, constants=True, names=names)
    except FileNotFoundError:
        raise CheckpointError(
            f"{path.parent}: has no {path.name}. Give the folder of a transformers checkpoint."
        ) from None
    except OSError as error:
        todo = reading_remedy(error, "Fix its permissions, or fetch it again.")
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}). {todo}") from error
    except ConfigError as error:
        raise CheckpointError(f"{error} Fetch the file again.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: is not a JSON object. Fetch the file again.")
    return content
