"""A folder of Gram matrices: what the linear layers of each expert saw on calibration texts.

::

    GRAMS/
      grams.json             which weights and texts, and for every tensor where its matrix lies
      ENTRY.safetensors      one expert's matrices, F32 [n, n], n the inputs of the layer

A matrix is ``G = XᵀX / rows`` with X the layer's inputs, one row per token. Tensors that see the
same inputs (query, key and value) share one matrix, stored under the first one's name. Entries over
pairs of prompts (``sparse_edit``) hold also a matrix of two inputs, and a table of the outputs.
Files are read in blocks of rows, so that no matrix has to fit in memory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from safeswap.checkpoint.header import read_header
from safeswap.checkpoint.stored import StoredTensor
from safeswap.errors import CalibrationError, CheckpointError, listed, nearest
from safeswap.io.files import write_atomically
from safeswap.io.jsonfile import LARGE, load_json
from safeswap.io.keys import check_keys

FORMAT = "safeswap-grams/1"
MANIFEST = "grams.json"
INPUTS = ("columns", "rows")
BLOCK_BYTES = 1 << 24
"""How much of a matrix is read at once."""

_KEYS = ("format", "safeswap", "experts")
_EXPERT_KEYS = ("source", "weights", "texts", "settings", "backend", "tensors", "left_out")
_TENSOR_KEYS = ("gram", "inputs", "rows", "digest")


@dataclass(frozen=True, slots=True)
class GramRecord:
    """Where the matrix of one weight tensor lies.

    Attributes:
        gram: the name it is stored under.
        inputs: which side of the weight meets the inputs: ``columns`` (weights [out, in], as
            torch.nn.Linear has them) or ``rows`` ([in, out], as GPT-2's Conv1D).
        rows: how many tokens it was summed over; 0 where the layer never ran.
        digest: BLAKE3 (hex) of the stored bytes.
    """

    gram: str
    inputs: str
    rows: int
    digest: str


@dataclass(frozen=True)
class ExpertGrams:
    """One expert's entry in the manifest.

    Attributes:
        source: the checkpoint as it was given, for the reader.
        weights: digest of its weights, as profiles and plans record it.
        texts: what it was run on: name, digest, how many texts and tokens.
        settings: how: formats, lengths, template. Entries with other texts or settings differ.
        backend: versions, for the reader.
        tensors: weight tensor → its matrix.
        left_out: weight tensor → why it has none; it is averaged instead.
    """

    source: str
    weights: str
    texts: Mapping[str, Any]
    settings: Mapping[str, Any]
    backend: Mapping[str, Any]
    tensors: Mapping[str, GramRecord]
    left_out: Mapping[str, str]

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as it stands in the manifest."""
        plain: dict[str, Any] = {key: getattr(self, key) for key in _EXPERT_KEYS}
        plain["tensors"] = {
            name: {key: getattr(record, key) for key in _TENSOR_KEYS}
            for name, record in self.tensors.items()
        }
        return plain


@dataclass(frozen=True)
class Grams:
    """A folder of Gram matrices; see :func:`open_grams`."""

    folder: Path
    experts: Mapping[str, ExpertGrams]
    _stored: dict[str, tuple[object, Mapping[str, StoredTensor]]] = field(
        default_factory=dict, compare=False
    )

    def expert(self, role: str) -> ExpertGrams:
        """An expert's entry.

        Raises:
            CalibrationError: it has none; names those there are.
        """
        if role not in self.experts:
            raise CalibrationError(
                f"{self.folder}: has no Gram matrices of the expert {role!r}"
                f"{nearest(role, self.experts)}. Run safeswap calibrate with it and the same -o."
            )
        return self.experts[role]

    def digest(self, roles: Sequence[str]) -> str:
        """What identifies the matrices of these experts (SHA-256, hex); paths do not count."""
        content = {}
        for role in sorted(roles):
            plain = self.expert(role).as_dict()
            content[role] = {key: plain[key] for key in ("weights", "tensors", "left_out")}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def record(
        self, role: str, tensor: str, shape: tuple[int, ...], per_output: int = 0
    ) -> GramRecord | None:
        """Where a weight tensor's matrix lies, None where it was left out; its header is checked.

        Args:
            shape: of the weight tensor.
            per_output: the matrix is [per_output, outputs]; 0: it is [inputs, inputs].

        Raises:
            CalibrationError: neither a matrix nor a reason why not, another shape, a file with
                tensors that the manifest does not name, or without some that it does.
        """
        entry = self.expert(role)
        if tensor in entry.left_out:
            return None
        if tensor not in entry.tensors:
            raise CalibrationError(
                f"{self.folder}: {role} has no Gram matrix for tensor {tensor!r}"
                f"{nearest(tensor, entry.tensors)}. Run safeswap calibrate on the checkpoints of "
                "this plan."
            )
        found = entry.tensors[tensor]
        stored = self._tensors(role)[found.gram]
        outputs, inputs = shape if found.inputs == "columns" else shape[::-1]
        wanted = (per_output, outputs) if per_output else (inputs, inputs)
        if stored.shape != wanted or stored.dtype.name != "F32":
            raise CalibrationError(
                f"{stored.where}: the Gram matrix {found.gram!r} is {stored.dtype} "
                f"{list(stored.shape)}, tensor {tensor!r} needs F32 {list(wanted)}. Run safeswap "
                "calibrate on the checkpoints of this plan."
            )
        return found

    def check_file(self, role: str) -> None:
        """An expert's file is there with the matrices that the manifest names; reads its header.

        Raises:
            CalibrationError: missing, cut off, or with other matrices.
        """
        self._tensors(role)

    def blocks(self, role: str, record: GramRecord) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """The matrix in blocks of rows: (first row, float32 [rows, columns]).

        Raises:
            CalibrationError: at the end, when the bytes are not those that calibrate wrote.
            CheckpointError: the file cannot be read.
        """
        stored = self._tensors(role)[record.gram]
        (height, width), hashing = stored.shape, blake3()
        rows = max(1, BLOCK_BYTES // max(4 * width, 1))
        with stored.reader() as reader:
            for begin in range(0, height, rows):
                count = min(rows, height - begin)
                raw = np.empty(count * width * 4, np.uint8)
                reader.read_raw(begin * width, (begin + count) * width, raw)
                hashing.update(raw.data)
                yield begin, raw.view(np.float32).reshape(count, width)
        if hashing.hexdigest() != record.digest:
            raise CalibrationError(
                f"{stored.where}: the Gram matrix {record.gram!r} was changed after it was made. "
                "Remove the folder and run safeswap calibrate again."
            )

    def _tensors(self, role: str) -> Mapping[str, StoredTensor]:
        """What an expert's file holds; read again when the file is another one."""
        path = file_of(self.folder, role)
        try:
            status = path.stat()
            stamp = (status.st_mtime_ns, status.st_size)
            if role not in self._stored or self._stored[role][0] != stamp:
                found = {tensor.name: tensor for tensor in read_header(path).tensors}
                self._require_named(role, path, found)
                self._stored[role] = stamp, found
        except (OSError, CheckpointError) as error:
            what: object = error
            if isinstance(error, OSError):
                what = f"{path}: cannot be read ({error.strerror})."
            raise CalibrationError(
                f"{what} Remove the folder and run safeswap calibrate again."
            ) from error
        return self._stored[role][1]

    def _require_named(self, role: str, path: Path, found: Mapping[str, StoredTensor]) -> None:
        wanted = {record.gram for record in self.expert(role).tensors.values()}
        if strange := sorted(found.keys() ^ wanted):
            raise CalibrationError(
                f"{path}: holds other matrices than {MANIFEST} says ({listed(strange)}). Remove "
                "the folder and run safeswap calibrate again."
            )


def file_of(folder: Path, role: str) -> Path:
    """Where an expert's matrices lie."""
    return folder / f"{role}.safetensors"


def open_grams(folder: Path) -> Grams:
    """Read a folder's manifest; no matrix is read. The same file is not read twice.

    Raises:
        CalibrationError: no manifest, not of this format, unknown or missing keys.
    """
    path = Path(folder) / MANIFEST
    try:
        status = path.stat()
    except OSError as error:
        raise CalibrationError(
            f"{folder}: has no {MANIFEST} ({error.strerror}). Give the folder that safeswap "
            "calibrate -o wrote."
        ) from error
    return _opened(Path(folder), status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=16)
def _opened(folder: Path, mtime_ns: int, size: int) -> Grams:
    path = folder / MANIFEST
    try:
        content = load_json(path, LARGE)
    except (OSError, ValueError) as error:
        raise CalibrationError(
            f"{path}: cannot be read ({error}). Run safeswap calibrate again into another folder."
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CalibrationError(f"{path}: is not a {FORMAT} file. Run safeswap calibrate.")
    _keys(content, _KEYS, f"{path}:")
    if not isinstance(content["experts"], dict):
        raise CalibrationError(f"{path}: experts is not a table. Run safeswap calibrate again.")
    experts = {role: _entry(row, f"{path}: {role}:") for role, row in content["experts"].items()}
    return Grams(folder, experts)


def _entry(row: Any, where: str) -> ExpertGrams:
    _keys(row, _EXPERT_KEYS, where)
    for key in _EXPERT_KEYS:
        kind = str if key in ("source", "weights") else dict
        if not isinstance(row[key], kind):
            raise CalibrationError(f"{where} {key} is damaged. Run safeswap calibrate again.")
    tensors = {n: _record(r, f"{where} tensor {n!r}:") for n, r in row["tensors"].items()}
    return ExpertGrams(**{**row, "tensors": tensors})


def _record(row: Any, where: str) -> GramRecord:
    _keys(row, _TENSOR_KEYS, where)
    rows = row["rows"]
    right = row["inputs"] in INPUTS and isinstance(rows, int) and rows >= 0
    if not right or not isinstance(row["gram"], str) or not isinstance(row["digest"], str):
        raise CalibrationError(f"{where} is damaged. Run safeswap calibrate again.")
    return GramRecord(**row)


def _keys(content: Any, known: Sequence[str], where: str) -> None:
    if not isinstance(content, dict):
        raise CalibrationError(f"{where} is not a table. Run safeswap calibrate again.")
    check_keys(content, known, where.rstrip(":"), CalibrationError, "Run safeswap calibrate again.")
    if missing := [key for key in known if key not in content]:
        raise CalibrationError(f"{where} lacks {listed(missing)}. Run safeswap calibrate again.")


def write_manifest(folder: Path, experts: Mapping[str, ExpertGrams], version: str) -> None:
    """Write ``grams.json`` in one step: a reader sees the old one or the new one.

    Raises:
        OSError: the disk is full or may not be written.
    """
    table = {role: expert.as_dict() for role, expert in experts.items()}
    content = {"format": FORMAT, "safeswap": version, "experts": table}
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    write_atomically(folder / MANIFEST, text.encode())
