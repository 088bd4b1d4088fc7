"""The verb ``calibrate``: every expert over its texts, into a folder of Gram matrices."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3

from safeswap.calibration.collect import (
    InputGroup,
    batches_of,
    group_layers,
    parts_within,
    sum_inputs,
)
from safeswap.calibration.layers import LinearLayer, find_layers
from safeswap.calibration.texts import Texts, read_texts
from safeswap.checkpoint.digests import of_small_file
from safeswap.checkpoint.dtypes import DTYPES
from safeswap.checkpoint.family import Family, open_family
from safeswap.checkpoint.header import build_header
from safeswap.checkpoint.inside import files_below, why_not_read
from safeswap.checkpoint.model import Checkpoint
from safeswap.errors import CalibrationError, OutputError, listed
from safeswap.evaluation.backends import BackendOptions, Chat, open_backend
from safeswap.evaluation.backends.encoding import encode_chat
from safeswap.evaluation.backends.runnable import refuse_gguf
from safeswap.io.files import fsync, write_at
from safeswap.io.locks import HeldError, take_lock
from safeswap.io.progress import bytes_bar, items_bar
from safeswap.operators.gram_store import (
    MANIFEST,
    ExpertGrams,
    GramRecord,
    file_of,
    open_grams,
    write_manifest,
)
from safeswap.profile import check_descent, measure_family, refuse_strangers
from safeswap.version import __version__

_log = logging.getLogger("safeswap.calibration")
_LOCK = ".lock"
_FLOAT32 = DTYPES["F32"]


@dataclass(frozen=True, slots=True)
class Calibrated:
    """One expert's matrices: where, how many, and whether they were there before."""

    role: str
    path: Path
    entry: ExpertGrams
    kept: bool

    @property
    def matrices(self) -> int:
        """How many are stored; several tensors may share one."""
        return len({record.gram for record in self.entry.tensors.values()})


def calibrate(
    base: str | Path,
    *,
    safety: str | Path,
    languages: Mapping[str, str | Path],
    texts: Mapping[str, Path],
    out: Path,
    options: BackendOptions | None = None,
    memory: int = 8 * 10**9,
    max_tokens: int = 512,
    workers: int | None = None,
    force: bool = False,
    overwrite: bool = False,
) -> list[Calibrated]:
    r"""Sum the Gram matrices of every expert's layer inputs on its texts.

    Experts that ``out`` holds already, of the same weights, texts and settings, are kept; what a
    killed run had not finished is made again.

    Args:
        texts: role → file, see :func:`safeswap.calibration.texts.read_texts`.
        options: device, dtype, tokens per batch, chat template (off by default: texts as they are).
        memory: bytes of the sums that are held at once, on the model's device; more layers than fit
            need more passes over the texts. The model, a batch and one product come on top.
        max_tokens: longer texts are cut.
        workers: threads that digest the checkpoints.
        force: take experts too whose configuration or weights say that they are no fine-tunes of
            the base.
        overwrite: matrices from other weights, texts or settings are made anew.

    Raises:
        CalibrationError: texts, settings or a folder that is not valid; says which.
        CheckpointError, FamilyError, EvaluationError, OutputError: as the steps do.

    >>> from safeswap.demo import models_folder
    >>> world, texts = models_folder(), Path("texts.txt")
    >>> _ = texts.write_text("qa qi\nqo qu\n")
    >>> experts = {"safety": world / "safety", "languages": {"qab": world / "qab"}}
    >>> of_each = {"safety": texts, "qab": texts}
    >>> found = calibrate(world / "base", **experts, texts=of_each, out=Path("grams"))
    >>> [one.role for one in found]
    ['safety', 'qab']
    """
    options = options or BackendOptions(use_template=False)
    read = {role: read_texts(path, role) for role, path in texts.items()}
    family = open_family(base, safety, languages, force=force)
    if not force:
        refuse_strangers(family)
    settings = _settings(options, max_tokens)
    with _taken(out):
        before = dict(open_grams(out).experts) if (out / MANIFEST).exists() else {}
        total = sum(m.tensors[n].nbytes for m in family.members.values() for n in family.names)
        with bytes_bar("digest", total) as advance:
            profile = measure_family(family, workers=workers, advance=advance)
        check_descent(profile, force=force)
        weights = {role: profile.inputs[role].digest for role in family.experts}
        for role in family.experts:
            other = _other(before.get(role), weights[role], read[role], settings)
            if other and overwrite:
                del before[role]  # its file is replaced when the new one is whole
            elif other:
                raise CalibrationError(
                    f"{out}: holds Gram matrices of {role} from other {' and '.join(other)}. "
                    "Choose another -o, or make them anew with --overwrite."
                )
            elif role in before:
                open_grams(out).check_file(role)
        found = []
        for role in family.experts:
            kept = role in before
            if not kept:
                run = _Run(family, role, read[role], options, settings, memory, out)
                before[role] = run.entry(weights[role])
                write_manifest(out, before, __version__)
            found.append(Calibrated(role, file_of(out, role), before[role], kept))
            _report(found[-1])
    return found


def _report(done: Calibrated) -> None:
    """What was collected, and which tensors are left out for which reason."""
    seen, entry = done.entry.texts, done.entry
    _log.info(
        f"{done.path}: {len(entry.tensors)} tensors in {done.matrices} matrices, from "
        f"{seen['texts']} texts ({seen['tokens']} tokens, {seen['cut']} texts cut)"
        + ("; kept from before" if done.kept else "")
    )
    reasons: dict[str, list[str]] = {}
    for name, reason in entry.left_out.items():
        reasons.setdefault(reason, []).append(name)
    never = [name for name, record in entry.tensors.items() if not record.rows]
    reasons |= {"the layer never ran on these texts": never} if never else {}
    for reason, names in reasons.items():
        _log.warning(f"{done.role}: regmean will average {listed(names)}: {reason}")


def _settings(options: BackendOptions, max_tokens: int) -> dict[str, Any]:
    template: Any = options.use_template
    if options.chat_template is not None:
        template = of_small_file(options.chat_template)
    return {"dtype": options.dtype, "chat_template": template, "max_tokens": max_tokens}


def _other(
    earlier: ExpertGrams | None, weights: str, texts: Texts, settings: Mapping[str, Any]
) -> list[str]:
    """What an expert's matrices that are there were made from otherwise."""
    if earlier is None:
        return []
    differs = {
        "weights": earlier.weights != weights,
        "texts": earlier.texts.get("digest") != texts.digest,
        "settings": dict(earlier.settings) != settings,
    }
    return [name for name, different in differs.items() if different]


@contextmanager
def _taken(out: Path) -> Iterator[None]:
    """The folder, ours alone until the end."""
    try:
        if out.exists() and any(out.iterdir()) and not (out / MANIFEST).exists():
            known = {
                _LOCK,
                *(p.name for p in out.glob(".*.partial")),
                f".{MANIFEST}.new",
                f".{MANIFEST}.part",
            }
            if {path.name for path in out.iterdir()} - known:
                raise OutputError(f"{out}: exists and holds no {MANIFEST}. Choose another -o.")
        for name in files_below(out):  # what lies there is read and written to
            if (reason := why_not_read(out, out / name)) is not None:
                raise OutputError(f"{out / name}: is {reason}. Remove it, or choose another -o.")
        out.mkdir(parents=True, exist_ok=True)
        lock = os.open(out / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise OutputError(
            f"{out}: cannot be written ({error.strerror}). Choose another -o, or fix the folder's "
            "permissions."
        ) from error
    try:
        try:
            take_lock(lock, out / _LOCK, OutputError, wait=False)
        except HeldError:
            raise OutputError(
                f"{out}: another safeswap is writing it. Wait for it, or choose another -o."
            ) from None
        yield
    finally:
        os.close(lock)


@dataclass(frozen=True, slots=True)
class _Run:
    """One expert's run."""

    family: Family
    role: str
    texts: Texts
    options: BackendOptions
    settings: Mapping[str, Any]
    memory: int
    out: Path

    def entry(self, weights: str) -> ExpertGrams:
        """Run the expert and write its file; what belongs into the manifest."""
        member = self.family.members[self.role]
        refuse_gguf(member.source, gguf=member.facts is not None)
        loaded: Any = self._opened(member)
        try:
            encoded, cut = self._encoded(loaded.tokenizer, loaded.model)
            layers, left_out = self._layers(loaded.model)
            groups = group_layers(loaded.model, layers, min(encoded, key=len))
            tensors = self._write(loaded, groups, encoded)
        finally:
            loaded.close()
        return ExpertGrams(
            source=member.text,
            weights=weights,
            texts={
                "file": self.texts.name,
                "digest": self.texts.digest,
                "texts": len(encoded),
                "tokens": sum(map(len, encoded)),
                "cut": cut,
            },
            settings=self.settings,
            backend=loaded.description,
            tensors=tensors,
            left_out=left_out,
        )

    def _opened(self, member: Checkpoint) -> Any:
        if member.adapter is None:
            return open_backend(str(member.folder), "hf", self.options)
        from safeswap.evaluation.backends.hf import HFBackend

        return HFBackend(str(member.folder), self.options, member)

    def _encoded(self, tokenizer: Any, model: Any) -> tuple[list[list[int]], int]:
        limit = int(self.settings["max_tokens"])
        holds = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        limit = min(limit, holds) if isinstance(holds, int) and holds > 0 else limit
        found, cut = [], 0
        for number, text in enumerate(self.texts.texts, 1):
            chat = Chat(({"role": "user", "content": text},), 0)
            ids = encode_chat(tokenizer, chat, self.options.use_template)
            if not ids:
                raise CalibrationError(
                    f"{self.texts.name}: text {number} has no tokens for the {self.role} expert's "
                    "tokenizer. Remove it."
                )
            cut += len(ids) > limit
            found.append(ids[:limit])
        return found, cut

    def _layers(self, model: Any) -> tuple[list[LinearLayer], dict[str, str]]:
        """The layers of the weight matrices of attention and MLP."""
        places, stored = self.family.anatomy.placements, self.family.members[self.role].tensors
        inside = [n for n in self.family.names if places[n].role == "projection"]
        matrices = {n: stored[n] for n in inside if len(stored[n].shape) == 2}
        layers, left_out = find_layers(model, matrices)
        for name in inside:
            if len(stored[name].shape) > 2:
                left_out[name] = "has more than two dimensions: not the weight of one linear layer"
        if not layers:
            raise CalibrationError(
                f"{self.role}: no weight matrix of its checkpoint belongs to a linear layer of the "
                "loaded model. Use another operator for this model."
            )
        return layers, left_out

    def _write(
        self, loaded: Any, groups: Sequence[InputGroup], encoded: Sequence[list[int]]
    ) -> dict[str, GramRecord]:
        path = file_of(self.out, self.role)
        partial = path.with_name(f".{path.name}.partial")
        header, begins = build_header([(g.name, _FLOAT32, (g.side, g.side)) for g in groups], {})
        parts = parts_within(groups, self.memory)
        batches = batches_of(encoded, self.options.batch_tokens)
        self._check_room(len(header) + sum(4 * g.side**2 for g in groups))
        digests = {}
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            write_at(descriptor, 0, header, partial)
            title, total = f"calibrate {self.role}", len(parts) * len(encoded)
            with items_bar(title, total) as advance:
                for part in parts:
                    sum_inputs(loaded.model, part, batches, loaded.device, advance)
                    for group in part:
                        matrix = np.ascontiguousarray(group.finish().numpy())
                        self._check_finite(group, matrix)
                        raw = matrix.reshape(-1).view(np.uint8).data
                        write_at(descriptor, begins[group.name], raw, partial)
                        digests[group.name] = blake3(raw).hexdigest()
            fsync(descriptor, partial)
        finally:
            os.close(descriptor)
        partial.replace(path)
        return {
            layer.tensor: GramRecord(group.name, layer.inputs, group.rows, digests[group.name])
            for group in groups
            for layer in group.layers
        }

    def _check_finite(self, group: InputGroup, matrix: np.ndarray[Any, Any]) -> None:
        if not np.isfinite(matrix).all():
            raise CalibrationError(
                f"{self.role}: the inputs of {group.name!r} are too large or no numbers in dtype "
                f"{self.options.dtype}. Use --dtype float32."
            )

    def _check_room(self, nbytes: int) -> None:
        free = shutil.disk_usage(self.out).free
        if free < nbytes:
            raise OutputError(
                f"{self.out}: {nbytes} bytes ({nbytes / 1e9:.2f} GB) are needed for {self.role}, "
                f"only {free} are available. Free some space or choose another -o."
            )
