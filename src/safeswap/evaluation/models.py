"""The models under comparison, each with a name, a role and a digest of its content.

An answer belongs to the weights that gave it, not to a path: what is stored under one digest is
never taken for another model's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from blake3 import blake3

from safeswap.checkpoint.inside import why_not_read
from safeswap.checkpoint.source import resolve
from safeswap.display import without_password
from safeswap.errors import EvaluationError, SafeswapError
from safeswap.evaluation.backends import find_backend
from safeswap.evaluation.backends.adapted import adapter_at
from safeswap.evaluation.backends.runnable import refuse_gguf
from safeswap.evaluation.records import Alias, CandidateRecord
from safeswap.evaluation.results.rows import ModelRecord, Role
from safeswap.io.regular import is_there
from safeswap.plan.chosen import ChosenOn

ROLE_TITLES: Mapping[str, str] = {
    "base": "base",
    "safety": "safety expert",
    "language": "language expert",
}
"""What the models that merges are made from are called in tables."""

# What decides a model's answers, besides the weights.
_CONTENT = ("safetensors", "bin", "json", "jinja", "model", "txt", "tiktoken", "py")
_MANIFEST = "safeswap.json"  # holds paths, and nothing that the model reads


@dataclass(frozen=True, slots=True)
class EvaluatedModel:
    """One model under comparison.

    Attributes:
        name: in tables and as folder of its results.
        source: as given: local folder, hub id, or a server's name for it.
        location: the local folder it was resolved to; equal to the source for a server.
        digest: BLAKE3 of weights, configuration and tokenizer; for a server, of address and name,
            since nothing else can be known.
        role: where it came from, if known.
        reference: for a merge, the name of its language expert among the models, if there.
        language: of a language expert and of a merge with one, as the merge's manifest names it.
        chosen: for a merge that was picked by its figures, on which questions (``Plan.chosen``).
        candidate: for one that lives in memory only, how it was made.
        aliases: for such a one, other cells of its grid that came to the very same table.
        made: for a merge, how its table was made, as its manifest says.
    """

    name: str
    source: str
    location: str
    digest: str
    role: Role = "other"
    reference: str = ""
    language: str = ""
    chosen: ChosenOn | None = None
    candidate: CandidateRecord | None = None
    aliases: tuple[Alias, ...] = ()
    made: CandidateRecord | None = None

    def as_dict(self) -> ModelRecord:
        """Plain data for model.json."""
        plain: ModelRecord = {
            "name": self.name,
            "source": self.source,
            "location": self.location,
            "digest": self.digest,
            "role": self.role,
            "reference": self.reference,
        }
        if self.language:
            plain["language"] = self.language
        if self.chosen is not None:
            plain["chosen"] = self.chosen.as_dict()
        if self.made is not None:
            plain["made"] = self.made.as_dict()
        if self.candidate is not None:
            aliases = [alias.as_dict() for alias in self.aliases]
            plain["candidate"] = {**self.candidate.as_dict(), "aliases": aliases}
        return plain


def name_models(
    specs: Sequence[str], backend: str = "hf", base_url: str = ""
) -> list[EvaluatedModel]:
    """Name, resolve and digest models given as ``SOURCE`` or ``NAME=SOURCE``.

    Roles come from the manifests of merges among them: a merge knows the folders and hub commits of
    its inputs.

    Raises:
        EvaluationError: no model, two of one name.
        CheckpointError: a source that cannot be found.
    """
    if not specs:
        raise EvaluationError("no model is given: name at least one checkpoint folder or hub id.")
    models: list[EvaluatedModel] = []
    for spec in specs:
        name, source = _split(spec)
        if any(model.name == name for model in models):
            raise EvaluationError(
                f"two models are called {name!r}. Give one another name: NAME={source}."
            )
        if find_backend(backend).remote:
            server = without_password(base_url)
            digest = blake3(f"{server}\n{source}".encode()).hexdigest(length=16)
            models.append(EvaluatedModel(name, source, source, digest))
        else:
            found = resolve(source)
            refuse_gguf(found, gguf=found.file is not None)
            digest = digest_of_model(found.folder)
            models.append(EvaluatedModel(name, found.text, str(found.folder), digest))
    return _with_roles(models)


def digest_of_model(folder: Path) -> str:
    """The digest of a checkpoint's folder; of an adapter's, with that of its base's."""
    whole = adapter_at(folder)
    own = digest_of_folder(folder)
    if whole is None:
        return own
    return blake3(f"{own}\n{digest_of_folder(whole.folder)}".encode()).hexdigest(length=16)


def digest_of_folder(folder: Path) -> str:
    """BLAKE3 over names and contents of the files that decide a model's answers (32 hex digits)."""
    files = sorted({path for suffix in _CONTENT for path in folder.glob(f"*.{suffix}")})
    whole = blake3()
    for path in files:
        if path.name == _MANIFEST or why_not_read(folder, path) is not None:
            continue  # a stranger's link or device: what a loader opens was refused before
        content = blake3(max_threads=blake3.AUTO).update_mmap(path).digest()
        whole.update(path.name.encode() + b"\0" + content)
    return whole.hexdigest(length=16)


def _split(spec: str) -> tuple[str, str]:
    name, found, source = spec.partition("=")
    whole = bool(found) and is_there(Path(spec))  # a folder's own name may hold "="
    if whole and name and "/" not in name and is_there(Path(source)):
        raise EvaluationError(
            f"{spec!r}: is a folder, and so is {source!r}. Give ./{spec} for the former, "
            f"{name}=./{source} for the latter."
        )
    if not found or whole or "/" in name or "\\" in name:
        source, name = spec, ""
    if not source.strip():
        raise EvaluationError(f"{spec!r}: a model is given as SOURCE or NAME=SOURCE.")
    chosen = name or re.split(r"[/\\]", source.rstrip("/\\"))[-1].partition("@")[0]
    chosen = chosen.replace("=", "-") if whole else chosen
    if not re.fullmatch(r"\w[\w.+-]*", chosen):
        raise EvaluationError(
            f"{chosen!r} cannot be a model's name (letters, digits, . _ + -): give "
            f"NAME={without_password(source)}."
        )
    return chosen, source


def _with_roles(models: list[EvaluatedModel]) -> list[EvaluatedModel]:
    """Read the manifests of merges: the roles of their inputs, and each merge's language expert."""
    roles: dict[str, Role] = {}
    references: dict[str, str] = {}
    languages: dict[str, str] = {}
    chosen: dict[str, ChosenOn | None] = {}
    made: dict[str, CandidateRecord | None] = {}
    for merge in models:
        inputs, chosen[merge.name], made[merge.name] = _manifest_of(Path(merge.location))
        if inputs:
            roles[merge.name] = "merged"
            spoken = [role for role in inputs if role not in ("base", "safety")]
            languages[merge.name] = spoken[0] if len(spoken) == 1 else ""
        for model in models:
            for role, (path, revision) in inputs.items():
                if not _is_input(model, path, revision):
                    continue
                known: Role = "language"
                if role in ("base", "safety"):
                    known = "base" if role == "base" else "safety"
                else:
                    references[merge.name] = model.name
                    languages.setdefault(model.name, role)
                roles.setdefault(model.name, known)
    return [
        replace(
            model,
            role=roles.get(model.name, "other"),
            reference=references.get(model.name, ""),
            language=languages.get(model.name, ""),
            chosen=chosen[model.name],
            made=made[model.name],
        )
        for model in models
    ]


def _is_input(model: EvaluatedModel, path: str, revision: str | None) -> bool:
    """Whether a model is the input that a manifest names: the same folder, or commit on a hub."""
    return model.location == path or (
        revision is not None and Path(model.location).name == revision
    )


def _manifest_of(
    folder: Path,
) -> tuple[dict[str, tuple[str, str | None]], ChosenOn | None, CandidateRecord | None]:
    """Role to (folder, commit) of a merge's inputs, on what it was chosen, and how its table was
    made, by its manifest; nothing for other folders.
    """
    if not (folder / _MANIFEST).is_file():
        return {}, None, None
    from safeswap.merge.manifest import read_manifest
    from safeswap.profile import Profile

    try:
        manifest = read_manifest(folder)
        measured = Profile.from_dict(manifest["profile"], str(folder / _MANIFEST)).inputs
    except SafeswapError:  # of another version, or edited: it can still be evaluated
        return {}, None, None
    # What was measured may be more than what was merged: several languages share a profile.
    used = [role for role in manifest["plan"].get("inputs", {}) if role in measured]
    of = {role: measured[role].adapter or measured[role] for role in used}
    inputs = {role: (one.path, one.revision) for role, one in of.items()}
    where = f"{folder / _MANIFEST}: plan: chosen"
    chosen = ChosenOn.from_dict(manifest["plan"].get("chosen", {}), where)
    return inputs, chosen, _made(manifest["plan"], f"{folder / _MANIFEST}: plan")


def _made(plan: Mapping[str, Any], where: str) -> CandidateRecord | None:
    """How a plan's table was filled; None where it does not say, or was written by hand."""
    selector = plan.get("selector")
    if not isinstance(selector, Mapping) or not isinstance(selector.get("name"), str):
        return None
    settings = {key: value for key, value in selector.items() if key != "name"}
    operator = plan.get("operator", "linear")
    if isinstance(operator, Mapping):
        own = {key: value for key, value in operator.items() if key != "name"}
        operator = {"name": operator.get("name"), "settings": own}
    about = {"method": selector["name"], "settings": settings, "operator": operator}
    try:
        return CandidateRecord.from_dict(about, where)
    except EvaluationError:  # edited: it can still be evaluated
        return None
