"""The header of a card as the hub reads it: complete, valid, and true of what is known."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from safeswap.checkpoint.source import read_json
from safeswap.errors import ConfigError, OutputError, SafeswapError
from safeswap.merge.companions import CARD, MANIFEST
from safeswap.publish.private import Published, settle
from safeswap.roles import BASE

_log = logging.getLogger("safeswap.publish")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_TAGS = ("merge", "safeswap")
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")


def hub_inputs(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Hub id → its commit, of all inputs that came from a hub, adapters too."""
    found: dict[str, str] = {}
    for record in filter(_is_of_hub, _records(manifest)):
        found.setdefault(str(record["name"]), str(record["revision"]))
    return found


def other_licenses(manifest: Mapping[str, Any]) -> dict[str, str | None]:
    """Name → licence of each input that came from no hub, as the card in its folder says; None
    where none does.
    """
    found: dict[str, str | None] = {}
    for record in _records(manifest):
        name = str(record.get("name"))
        if not _is_of_hub(record):
            found[name] = _license_in(Path(str(record.get("path"))) / CARD)
    return found


def _records(manifest: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What the manifest says of each input, and of each adapter."""
    inputs = manifest["profile"]["inputs"].values()
    return [record for one in inputs for record in (one, one.get("adapter")) if record]


def _is_of_hub(record: Mapping[str, Any]) -> bool:
    return bool(record.get("revision")) and _HUB_ID.fullmatch(str(record.get("name"))) is not None


def _license_in(card: Path) -> str | None:
    from huggingface_hub import ModelCard

    try:
        if not card.is_file() or card.stat().st_size > 1 << 22:
            return None
        data: Any = ModelCard(card.read_text(encoding="utf-8"), ignore_metadata_errors=True).data
        said = data.license
    except Exception:  # a card of somebody else: whatever is wrong with it, it says nothing
        return None
    return said if isinstance(said, str) and _LICENSE.fullmatch(said) else None


def choose_license(known: Mapping[str, str | None], given: str | None) -> tuple[str | None, str]:
    """The licence to name, and what is to be said of it.

    Inputs of one licence have it; where they differ nobody but the user can say what holds.

    Raises:
        ConfigError: ``given`` is no identifier of one.
    """
    if given is not None:
        if not _LICENSE.fullmatch(given):
            raise ConfigError(
                f"--license {given!r}: is no identifier. Give one as the hub lists them: "
                "apache-2.0, llama3.1, gemma, …"
            )
        return given, ""
    told = {name: license for name, license in known.items() if license}
    each = ", ".join(f"{name}: {license or 'unknown'}" for name, license in known.items())
    if not told:
        return None, "licence: none of the inputs names one; say it with --license ID"
    if len(set(told.values())) > 1:
        return None, f"licence: the inputs have different ones ({each}); choose with --license ID"
    (license,) = set(told.values())
    some = "" if len(told) == len(known) else f" (not known of all: {each})"
    return license, f"licence: {license}, as the inputs have it{some}"


def complete_card(found: Published, license: str | None) -> list[str]:
    """Write the card that is published, with a header as the hub wants it; says what was left out.

    What a user wrote into the header stays. ``base_model`` keeps what is on a hub: a local folder's
    name would be taken for somebody else's repository.

    Raises:
        OutputError: the header is no YAML.
    """
    from huggingface_hub import ModelCard

    manifest = json.loads(found.text(MANIFEST))
    before = found.text(CARD) if CARD in found.sizes else "---\n---\n"
    try:
        card = ModelCard(before)
    except Exception as error:
        raise OutputError(
            f"{found.folder / CARD}: its header (between the lines ---) is no YAML that the hub "
            f"takes ({str(error).splitlines()[0]}). Correct it, or merge again."
        ) from None
    data: Any = card.data
    said: list[str] = []
    data.license = data.license or license
    said += _base_models(data, manifest)
    tags = list(dict.fromkeys([*(data.tags or ()), *_TAGS]))
    data.tags = tags
    adapter = "adapter" in manifest
    data.library_name = data.library_name or ("peft" if adapter else "transformers")
    if data.pipeline_tag is None and not adapter and _generates_text(found):
        data.pipeline_tag = "text-generation"
    text = f"---\n{data.to_yaml()}\n---\n{_body(before)}"
    if text != before:
        found.made[CARD] = text.encode()
        found.paths.pop(CARD, None)
        if CARD in manifest["about"]:
            manifest["about"][CARD] = sha256(found.made[CARD]).hexdigest()
            settle(found, manifest)
    return said


def _base_models(data: Any, manifest: Mapping[str, Any]) -> list[str]:
    """Keep of ``base_model`` what is on a hub; says what is not."""
    given = data.base_model if isinstance(data.base_model, list) else [data.base_model]
    ours = {str(record.get("name")): _is_of_hub(record) for record in _records(manifest)}
    kept = [n for n in given if n and (ours.get(n) or (n not in ours and _HUB_ID.fullmatch(n)))]
    lost = [n for n in given if n and n not in kept]
    one = "adapter" in manifest
    data.base_model = (kept[0] if one else kept) if kept else None
    if not kept:
        data.base_model_relation = None
    if not lost:
        return []
    base = manifest["profile"]["inputs"][BASE]["name"]
    why = ", of which the base is one" if base in lost else ""
    return [
        f"base_model: {', '.join(lost)} came from no hub{why}, and are left out of the "
        "card's header. Push them first and merge from the hub's ids, or edit the card"
    ]


def _generates_text(found: Published) -> bool:
    try:
        names = read_json(found.folder / "config.json").get("architectures")
    except SafeswapError:
        return False
    return isinstance(names, list) and any(str(n).endswith("ForCausalLM") for n in names)


def _body(text: str) -> str:
    """A card without its header."""
    match = re.match(r"\s*---[ \t]*\r?\n(.*?)\r?\n?---[ \t]*(?:\r?\n|\Z)", text, re.DOTALL)
    return text[match.end() :] if match else text
