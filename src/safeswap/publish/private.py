"""What must not leave this machine with an output: paths of its disks, tokens, keys.

A manifest, a plan and a card name local inputs by paths, and configurations that transformers wrote
name the folder that they were loaded from. In the copy that is published these are replaced by the
folder's own name, and the manifest's digests are made anew, so that `verify` holds there, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path, PurePath
from typing import Any

from safeswap import operators
from safeswap.errors import OutputError, listed
from safeswap.merge.card import without_paths_note
from safeswap.merge.companions import CARD, FIGURE, MANIFEST, OURS, PLAN_FILE
from safeswap.merge.manifest import digest_of_content, read_manifest
from safeswap.plan import Plan
from safeswap.selectors import paths_in

_FOLDER_KEYS = re.compile(
    r'("(?:_name_or_path|name_or_path|base_model_name_or_path|tokenizer_file|vocab_file'
    r'|special_tokens_map_file)"\s*:\s*")((?:/|[A-Za-z]:[\\/]|~/)[^"]*)(")'
)
"""Keys by which transformers and peft say where something was loaded from."""
_SECRETS = (
    (re.compile(r"\bhf_[A-Za-z0-9]{30,}\b"), "a token of the hub"),
    (re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"), "a key of a cloud"),
    (re.compile(r"\bsk-[A-Za-z0-9_-]{32,}\b"), "a key of an API"),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"), "a private key"),
)
_BINARY = (".safetensors", ".model", ".png", ".tiktoken")


@dataclass
class Published:
    """The files of an output as they are published.

    Attributes:
        folder: the output.
        paths: name → file of the folder that goes as it is.
        made: name → bytes that go in place of the file.
        said: what was changed, for people.
    """

    folder: Path
    paths: dict[str, Path] = field(default_factory=dict)
    made: dict[str, bytes] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    @property
    def sizes(self) -> dict[str, int]:
        """Name → bytes of all that is published."""
        sizes = {name: path.stat().st_size for name, path in self.paths.items()}
        return dict(sorted({**sizes, **{n: len(raw) for n, raw in self.made.items()}}.items()))

    def text(self, name: str) -> str:
        """A file as text, as it is published."""
        raw = self.made[name] if name in self.made else self.paths[name].read_bytes()
        return raw.decode("utf-8")


def published_names(manifest: Mapping[str, Any], folder: Path) -> list[str]:
    """What a merge wrote: nothing else of a folder is published."""
    names = [record["name"] for record in manifest["outputs"]]
    names += [*manifest["files"], *(name for name in OURS if (folder / name).is_file())]
    return sorted(set(names))


def published(folder: Path, *, keep_paths: bool = False) -> Published:
    """An output as it is published: without this machine's paths, refused with a secret in it.

    Args:
        keep_paths: leave paths where they are.

    Raises:
        VerificationError: the folder is no merge's.
        OutputError: a secret, or a path in a file that cannot be changed without a doubt.
    """
    manifest = read_manifest(folder)
    found = Published(folder)
    found.paths = {name: folder / name for name in published_names(manifest, folder)}
    places = _places(manifest, folder)
    if not keep_paths:
        _clean_small(found, manifest, places)
        _clean_ours(found, manifest, places)
        _refuse_left(found, places)
    _refuse_secrets(found)
    return found


def _places(manifest: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """Path of this machine → what is published in its place, the longest first."""
    found: dict[str, str] = {}
    for one in manifest["profile"]["inputs"].values():
        for record in (one, one.get("adapter") or {}):
            name = str(record.get("name", ""))
            for key in ("path", "source"):
                if _is_absolute(record.get(key)):
                    found[record[key]] = name
    plan = Plan.from_dict(manifest["plan"], str(folder / MANIFEST))
    named = [*paths_in(plan.selector).values()]
    named += [place for one in plan.operations for place in operators.paths_in(one).values()]
    found |= {place: PurePath(place).name for place in named if _is_absolute(place)}
    found.setdefault(str(folder.resolve()), folder.resolve().name)
    for own, name in ((Path.cwd(), "."), (Path.home(), "~")):
        if len(own.parts) > 1:
            found.setdefault(str(own), name)
    return dict(sorted(found.items(), key=lambda one: -len(one[0])))


def _is_absolute(text: Any) -> bool:
    return isinstance(text, str) and PurePath(text).is_absolute() and len(PurePath(text).parts) > 1


def _pattern(places: Mapping[str, str]) -> re.Pattern[str]:
    every = "|".join(re.escape(place) for place in places)
    return re.compile(rf"(?<![\w/.-])({every})(?![\w.-])")


def _without(text: str, places: Mapping[str, str]) -> str:
    return _pattern(places).sub(lambda found: places[found[1]], text)


def _all_without(value: Any, places: Mapping[str, str]) -> Any:
    """The same for every text in a plain value."""
    if isinstance(value, str):
        return _without(value, places)
    if isinstance(value, Mapping):
        return {key: _all_without(inner, places) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_all_without(inner, places) for inner in value]
    return value


def _clean_small(found: Published, manifest: dict[str, Any], places: Mapping[str, str]) -> None:
    """Configurations name the folder that they came from: its own name says as much."""
    for name in manifest["files"]:
        if not name.endswith(".json") or name.endswith(".index.json"):
            continue
        try:
            before = found.text(name)
        except UnicodeDecodeError:
            continue
        text = _FOLDER_KEYS.sub(
            lambda m: m[1] + re.split(r"[\\/]", m[2].rstrip("/\\"))[-1] + m[3], before
        )
        text = _without(text, places)
        if text != before:
            found.made[name] = text.encode()
            del found.paths[name]
            manifest["files"][name] = sha256(found.made[name]).hexdigest()
            found.said.append(f"{name}: paths of this machine are replaced by the folder's name")


def _clean_ours(found: Published, manifest: dict[str, Any], places: Mapping[str, str]) -> None:
    """Manifest, plan and card without places; digests made anew where something was changed."""
    before = json.dumps(manifest, sort_keys=True)
    plan = Plan.from_dict(manifest["plan"], str(found.folder / MANIFEST)).as_dict()
    plan.pop("profile", None)
    manifest |= {key: _all_without(value, places) for key, value in manifest.items()}
    manifest["plan"] = _all_without(plan, places)
    if CARD in found.paths:
        text = found.text(CARD)
        card = _without(without_paths_note(text), places)
        if card != text:
            found.made[CARD] = card.encode()
            del found.paths[CARD]
            if CARD in manifest["about"]:
                manifest["about"][CARD] = sha256(found.made[CARD]).hexdigest()
    changed = json.dumps(manifest, sort_keys=True) != before or bool(found.made)
    if changed:
        settle(found, manifest)
        found.said.append(
            f"{MANIFEST}, {PLAN_FILE}, {CARD}: inputs are named without their places here"
        )


def settle(found: Published, manifest: dict[str, Any]) -> None:
    """Put a changed manifest, with its new digest, and its plan among what is published."""
    if "digest" in manifest:
        manifest["digest"] = digest_of_content(manifest)
    plan = Plan.from_dict(manifest["plan"], MANIFEST)
    found.made[PLAN_FILE] = plan.text().encode()
    text = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
    found.made[MANIFEST] = text.encode()
    for name in (PLAN_FILE, MANIFEST):
        found.paths.pop(name, None)


def _texts(found: Published) -> Iterator[tuple[str, str]]:
    for name in found.sizes:
        if name.endswith(_BINARY) or name == FIGURE:
            continue
        try:
            yield name, found.text(name)
        except UnicodeDecodeError:
            continue


def _refuse_left(found: Published, places: Mapping[str, str]) -> None:
    """Code, templates and licences are not changed for anybody: they are refused."""
    pattern, wrong = _pattern(places), []
    for name, text in _texts(found):
        match = pattern.search(text)
        if match:
            wrong.append(f"{name}, line {text.count(chr(10), 0, match.start()) + 1}")
    if wrong:
        raise OutputError(
            f"{found.folder}: {listed(wrong)} name paths of this machine, and changing such a file "
            "could change what it means. Take them out of the donor's file and merge again, or add "
            "--keep-paths to publish everything as it is."
        )


def _refuse_secrets(found: Published) -> None:
    own = _own_secrets()
    for name, text in _texts(found):
        for pattern, what in _SECRETS:
            match = pattern.search(text)
            if match:
                raise _secret(found, name, text.count("\n", 0, match.start()) + 1, what)
        for secret in own:
            if secret in text:
                raise _secret(found, name, text[: text.index(secret)].count("\n") + 1, "your token")


def _own_secrets() -> Sequence[str]:
    from huggingface_hub import get_token

    token = get_token()
    return [token] if token and len(token) >= 8 else []


def _secret(found: Published, name: str, line: int, what: str) -> OutputError:
    return OutputError(
        f"{found.folder / name}: line {line} looks like {what}. Nothing was published. Take it out "
        "of the donor's file, have it replaced by a new one where it came from, and merge again."
    )
